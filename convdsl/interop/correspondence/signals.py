"""Fourier transforms, which ONNX has as nodes: products with constant matrices.

Sizes have to be known, as the matrices follow from them. They are NumPy's, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

_LARGEST = 1 << 26
"""Elements of a matrix: transforms of 4,096 numbers. What is longer wants a fast one."""


def _matrix(parts: int, extent: int, length: int, inverse: bool, onesided: bool) -> Any:
    """M[n, p, k, q]: part q of frequency k of a unit in part p of position n. Positions that a
    transform of `length` has not are not read; those that it has more are zeros."""
    frequencies = length // 2 + 1 if onesided else length
    if parts * extent * frequencies * 2 > _LARGEST:
        raise ReadError(f"a transform of {length:,} positions is too long for a matrix")
    units = np.eye(extent)[:, None] * np.array([1, 1j])[:parts, None]
    if not inverse:
        made = (np.fft.rfft if onesided else np.fft.fft)(units.real if onesided else units, length)
        return np.stack([made.real, made.imag], axis=-1)
    if onesided:
        return np.fft.irfft(units, length)[..., None]
    made = np.fft.ifft(units, length)
    return np.stack([made.real, made.imag], axis=-1)


def _read_dft(r: Reading) -> Tensor:
    """y[.., k, q] = sum over n, p of x[.., n, p] M[n, p, k, q]; the last axis of both has the real
    part and, where numbers are complex, the imaginary one."""
    shape = r.shape(0)
    axis = int(r.number(2)) if r.has(2) else r.attribute("axis", -2 if r.opset >= 20 else 1)
    axis %= len(shape)
    parts, extent = r.extent(shape[-1]), r.extent(shape[axis])
    inverse, onesided = (bool(r.attribute(name, 0)) for name in ("inverse", "onesided"))
    if parts not in (1, 2) or axis == len(shape) - 1:
        raise ReadError("the last axis holds a real part, and perhaps an imaginary one")
    if onesided and parts == 1 + (not inverse):
        wanted = "complex" if inverse else "real"
        raise ReadError(f"a onesided transform {'back ' * inverse}is of {wanted} numbers")
    length = 2 * (extent - 1) if inverse and onesided else extent
    length = int(r.number(1)) if r.has(1) else length
    m = _matrix(parts, extent, length, inverse, onesided)
    others = [i for i in range(len(shape) - 1) if i != axis]
    order = (*others, axis, len(shape) - 1)
    moved = r.unary("transpose", r[0], axes=order)
    kept = tuple(shape[i] for i in others)
    rows = r.reshape(moved, (*kept, extent * parts))
    if not kept:
        rows = r.reshape(rows, (1, extent * parts))
    y = r.binary("matmul", rows, r.like(m.reshape(extent * parts, -1), r[0]))
    y = r.reshape(y, (*kept, *m.shape[2:]))
    return r.unary("transpose", y, axes=tuple(int(i) for i in np.argsort(order)))


def _read_stft(r: Reading) -> Tensor:
    """y[n, frame, k, q] = sum over s of window[s] x[n, frame * step + s] M[s, k, q]: a convolution
    with constant kernels, in steps of its own."""
    shape = r.shape(0)
    if len(shape) == 3 and shape[2] != 1:
        raise ReadError("of complex signals")
    step, onesided = int(r.number(1)), bool(r.attribute("onesided", 1))
    window = r.array(2).astype(np.float64) if r.has(2) else None
    length = r.extent(shape[1]) if window is None else len(window)
    length = int(r.number(3)) if r.has(3) else length
    m = _matrix(1, length, length, False, onesided)[:, 0]
    if window is not None:
        m = m * window[:, None, None]
    frequencies = m.shape[1]
    kernels = m.reshape(length, 1, -1).transpose(2, 1, 0)
    signal = r.reshape(r[0], (shape[0], 1, shape[1]))
    y = r.apply(
        "conv",
        {"x": signal, "weight": r.like(kernels, r[0])},
        channels=2 * frequencies,
        kernel=(length,),
        stride=(step,),
        pad=((0, 0),),
        bias=False,
    )
    y = r.unary("transpose", y, axes=(0, 2, 1))
    return r.reshape(y, (*shape_of(y)[:2], frequencies, 2))


def _window(*terms: float) -> Callable[[Reading], Result]:
    """w[i] = terms[0] - terms[1] cos(a) + terms[2] cos(2 a), a = 2 pi i / size."""

    def rule(r: Reading) -> Tensor:
        size = int(r.number(0))
        angle = 2 * np.pi * np.arange(size) / max(size - (not r.attribute("periodic", 1)), 1)
        w: npt.NDArray[np.float64] = np.zeros(size)
        for k, term in enumerate(terms):
            w += (-1) ** k * term * np.cos(k * angle)
        dtype = FROM_ONNX.get(r.attribute("output_datatype", 1))
        if dtype is None or not dtype.is_float:
            raise ReadError("a window is of floating-point numbers")
        return Known(w.astype(dtype.numpy))

    return rule


ROWS: tuple[Row, ...] = ()

READING = {
    "DFT": Read(_read_dft, deciding=(1, 2)),
    "STFT": Read(_read_stft, deciding=(1, 2, 3)),
    "HannWindow": Read(_window(0.5, 0.5), deciding=(0,)),
    "HammingWindow": Read(_window(25 / 46, 21 / 46), deciding=(0,)),
    "BlackmanWindow": Read(_window(0.42, 0.5, 0.08), deciding=(0,)),
}
"""Nodes that are several operators of ours, or numbers."""
