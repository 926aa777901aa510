"""Numbers stored as small integers: ONNX's scales and zero points, written as arithmetic.

A scale or zero point is one number, one for each position of an axis, or one for each block of
positions; what is known of them while reading is computed then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import (
    Array,
    Known,
    ReadError,
    Tensor,
    dtype_of,
    known,
    shape_of,
)
from convdsl.ir.graph import Value
from convdsl.tensor import Dim, DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convdsl.interop.reading.node import Reading


# Arithmetic of what is known, and of what is not


def times(r: Reading, a: Tensor, b: Tensor) -> Tensor:
    """a b."""
    if isinstance(a, Known) and isinstance(b, Known):
        return Known(np.asarray(a.array * b.array), a.name)
    return r.binary("mul", a, b)


def over(r: Reading, a: Tensor, b: Tensor) -> Tensor:
    """a / b."""
    if isinstance(a, Known) and isinstance(b, Known):
        return Known(np.asarray(a.array / b.array))
    return r.binary("div", a, b)


def shaped(r: Reading, x: Tensor, shape: Sequence[Dim]) -> Tensor:
    """x in another shape, of which known arrays need know one size less."""
    if isinstance(x, Known):
        return Known(x.array.reshape([size if isinstance(size, int) else -1 for size in shape]))
    return x if x.type.shape == tuple(shape) else r.reshape(x, shape)


def single(r: Reading, x: Tensor) -> Tensor:
    """x in single precision."""
    if isinstance(x, Known):
        return Known(x.array.astype(np.float32), x.name)
    return x if dtype_of(x) is DType.F32 else r.unary("cast", x, dtype="f32")


# From numbers to integers and back


def steps(r: Reading, x: Tensor, zero: Tensor | None) -> Tensor:
    """x less its zero point: whole numbers in single precision."""
    if isinstance(x, Known) and not isinstance(zero, Value):
        wide = x.array.astype(np.int64) - (0 if zero is None else zero.array.astype(np.int64))
        return Known(np.asarray(wide, np.float32), x.name)
    y = single(r, x)
    if zero is None or (isinstance(zero, Known) and not np.any(zero.array)):
        return y
    return r.binary("sub", y, single(r, zero))


def stored(r: Reading, y: Tensor, zero: Tensor | None, dtype: DType) -> Tensor:
    """Steps of a scale as small integers: rounded to even, the zero point added, what is beyond
    the type at its ends."""
    y = r.unary("round", y)
    if zero is not None and not (isinstance(zero, Known) and not np.any(zero.array)):
        y = r.binary("add", y, single(r, zero))
    y = r.unary("clip", y, low=float(dtype.lowest), high=float(dtype.highest))
    return r.unary("cast", y, dtype=str(dtype))


def dynamically(r: Reading, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as u8 with the scale that its own range gives, the scale, and the zero point as a number
    of single precision (ONNX, operator DynamicQuantizeLinear). A range of nothing has the scale
    1, as in ONNX Runtime."""
    axes = tuple(range(len(shape_of(x))))
    nought = r.like(0, x)
    low = r.binary("min", r.unary("reduce_min", x, axes=axes, keepdims=False), nought)
    high = r.binary("max", r.unary("reduce_max", x, axes=axes, keepdims=False), nought)
    scale: Tensor = r.binary("div", r.binary("sub", high, low), r.like(255, x))
    is_nothing = r.binary("equal", scale, nought)
    scale = r.apply("where", {"condition": is_nothing, "a": r.like(1, x), "b": scale})
    zero = r.unary("round", r.binary("div", r.binary("sub", nought, low), scale))
    zero = r.unary("clip", zero, low=0.0, high=255.0)
    return stored(r, r.binary("div", x, scale), zero, DType.U8), scale, zero


# From ONNX


def _read_dequantise(r: Reading) -> Tensor:
    """(x - zero point) scale; of weights it is a weight."""
    x, scale = r[0], _along(r, 1)
    zero = _along(r, 2) if r.has(2) else None
    if isinstance(x, Known) and isinstance(scale, Known) and not isinstance(zero, Value):
        wide = x.array.astype(np.int64)
        shifted = wide if zero is None else wide - zero.array.astype(np.int64)
        return Known(np.asarray(shifted.astype(scale.array.dtype) * scale.array), x.name)
    if dtype_of(scale) is DType.F64:
        y: Tensor = r.unary("cast", x, dtype="f64")
        if zero is not None:
            y = r.binary("sub", y, r.unary("cast", zero, dtype="f64"))
        return r.binary("mul", y, scale)
    return r.binary("mul", steps(r, x, zero), single(r, scale))


def _read_quantise(r: Reading) -> Tensor:
    """x / scale, stored."""
    scale = _along(r, 1)
    if dtype_of(scale) is not r.dtype(0):
        scale = r.like(scale.array, r[0]) if isinstance(scale, Known) else single(r, scale)
    zero = _along(r, 2) if r.has(2) else None
    return stored(r, r.binary("div", r[0], scale), zero, _quantised(r))


def _quantised(r: Reading) -> DType:
    """The zero point's type, or the one that is asked for; u8 if there is neither."""
    asked = r.attribute("output_dtype", 0)
    found = r.dtype(2) if r.has(2) else FROM_ONNX.get(asked) if asked else DType.U8
    if found not in (DType.U8, DType.I8):
        raise ReadError(f"numbers are quantised to u8 and i8, not {found or asked}")
    return found


def _read_dynamic(r: Reading) -> Result:
    y, scale, zero = dynamically(r, r[0])
    return [y, scale, r.unary("cast", zero, dtype="u8")]


def _along(r: Reading, index: int) -> Tensor:
    """A scale or zero point in the shape in which it meets the input."""
    given, shape = r[index], shape_of(r[0])
    sizes = shape_of(given)
    if all(size == 1 for size in sizes):
        return shaped(r, given, ())
    axis: int = r.attribute("axis", 1) % len(shape)
    block: int = r.attribute("block_size", 0)
    if block:
        return _each(r, given, np.arange(r.extent(shape[axis])) // block, axis)
    return shaped(r, given, [sizes[0] if a == axis else 1 for a in range(len(shape))])


def _each(r: Reading, x: Tensor, positions: Array, axis: int) -> Tensor:
    """Positions of an axis, one of them perhaps several times."""
    if isinstance(x, Known):
        return Known(np.take(x.array, positions, axis))
    return r.apply("take", {"x": x, "positions": known(positions)}, axis=axis)


ROWS: tuple[Row, ...] = ()

READING = {
    "DequantizeLinear": Read(_read_dequantise),
    "QuantizeLinear": Read(_read_quantise),
    "DynamicQuantizeLinear": Read(_read_dynamic),
}
"""Kinds of nodes that are arithmetic of ours."""
