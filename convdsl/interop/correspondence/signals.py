"""Fourier transforms and windows.

Sizes have to be known, as matrices and windows follow from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.correspondence.wording import PyTorch, Wording
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.ir.shapes import known_size
from convdsl.ops.fourier import AS_GIVEN, LARGEST, matrix, used

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


def _read_dft(r: Reading) -> Tensor:
    """The axis is one of the tensor before the parts, in words of its whole rank."""
    axis = int(r.number(2)) if r.has(2) else r.attribute("axis", -2 if r.opset >= 20 else 1)
    how = {name: bool(r.attribute(name, 0)) for name in ("inverse", "onesided")}
    length = int(r.number(1)) if r.has(1) else AS_GIVEN
    return r.unary("dft", r[0], axis=axis, length=length, **how)


def _spell_dft(s: Spelling) -> str:
    """Half a spectrum on its way back is given whole, as others differ in how they cut and fill."""
    x, length = s["x"], s.call["length"]
    axis: int = s.call["axis"]
    if s.call["inverse"] and s.call["onesided"]:
        there, wanted = known_size(s.call, "x", axis), length // 2 + 1
        at = s.integers((axis,))
        if used(s.call) < there:
            x = s("Slice", x, s.integers((0,)), s.integers((used(s.call),)), at)
        if used(s.call) < wanted:
            x = s("Pad", x, s.integers((0, wanted - used(s.call))), s.constant(0.0), at)
    how = {name: int(s.call[name]) for name in ("inverse", "onesided")}
    operands = (x, s.constant(length, "i8"), s.constant(axis, "i8"))
    return s("DFT", *operands, **how)


def _say_dft(w: Wording) -> str:
    """PyTorch has complex numbers."""
    inverse, onesided, x = w.call["inverse"], w.call["onesided"], w["x"]
    complex = w.call.type("x").shape[-1] == 2
    x = f"torch.view_as_complex({x}.contiguous())" if complex else f"{x}.squeeze(-1)"
    kind = f"{'i' if inverse else ''}{'r' if onesided else ''}fft"
    y = f"torch.fft.{kind}({x}, {w.call['length']}, {w.call['axis']})"
    return (
        f"{y}.unsqueeze(-1)" if inverse and onesided else f"torch.view_as_real({y}.resolve_conj())"
    )


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
    if 4 * length**2 > LARGEST:
        raise ReadError(f"a frame of {length:,} positions is too long for a matrix")
    m = matrix(1, length, length, onesided=onesided)[:, 0]
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


ROWS: tuple[Row, ...] = (
    Row("dft", "DFT", PyTorch("fft", _say_dft), _spell_dft, Read(_read_dft, deciding=(1, 2))),
)

READING = {
    "STFT": Read(_read_stft, deciding=(1, 2, 3)),
    "HannWindow": Read(_window(0.5, 0.5), deciding=(0,)),
    "HammingWindow": Read(_window(25 / 46, 21 / 46), deciding=(0,)),
    "BlackmanWindow": Read(_window(0.42, 0.5, 0.08), deciding=(0,)),
}
"""Nodes that are several operators of ours, or numbers."""
