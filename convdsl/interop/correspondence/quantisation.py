"""Numbers stored as small integers: ONNX's scales and zero points, written as arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import Array, Known, ReadError, Tensor, shape_of
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading


def _read_dequantise(r: Reading) -> Tensor:
    """(x - zero point) scale; of weights it is a weight."""
    x, scale = r[0], _along(r, 1)
    zero = _along(r, 2) if r.has(2) else None
    if isinstance(x, Known):
        wide = x.array.astype(np.int64)
        shifted = wide if zero is None else wide - zero.astype(np.int64)
        return Known(shifted.astype(scale.dtype) * scale, x.name)
    y = r.unary("cast", x, dtype=str(DType(_float_of(scale))))
    if zero is not None and np.any(zero):
        y = r.binary("sub", y, r.like(zero, y))
    return r.binary("mul", y, r.like(scale, y))


def _read_quantise(r: Reading) -> Tensor:
    """x / scale rounded to even, the zero point added, what is beyond the type at its ends."""
    scale = _along(r, 1)
    dtype = _quantised(r)
    y = r.unary("round", r.binary("div", r[0], r.like(scale, r[0])))
    if r.has(2) and np.any(_along(r, 2)):
        y = r.binary("add", y, r.like(_along(r, 2), y))
    y = r.unary("clip", y, low=float(dtype.lowest), high=float(dtype.highest))
    return r.unary("cast", y, dtype=str(dtype))


def _quantised(r: Reading) -> DType:
    """The zero point's type, or the one that is asked for; u8 if there is neither."""
    asked = r.attribute("output_dtype", 0)
    found = r.dtype(2) if r.has(2) else FROM_ONNX.get(asked) if asked else DType.U8
    if found not in (DType.U8, DType.I8):
        raise ReadError(f"numbers are quantised to u8 and i8, not {found or asked}")
    return found


def _float_of(scale: Array) -> str:
    return "f64" if scale.dtype == np.float64 else "f32"


def _along(r: Reading, index: int) -> Array:
    """A scale or zero point: one number, one for each position of the axis, or one for each block
    of positions; in the shape in which it meets the input."""
    given, shape = r.array(index), shape_of(r[0])
    if given.size == 1:
        return given.reshape(())
    axis: int = r.attribute("axis", 1) % len(shape)
    block: int = r.attribute("block_size", 0)
    if block:
        return np.repeat(given, block, axis)[
            (slice(None),) * axis + (slice(r.extent(shape[axis])),)
        ]
    return given.reshape([given.size if a == axis else 1 for a in range(len(shape))])


ROWS: tuple[Row, ...] = ()

READING = {
    "DequantizeLinear": Read(_read_dequantise),
    "QuantizeLinear": Read(_read_quantise),
}
"""Kinds of nodes that are arithmetic of ours."""
