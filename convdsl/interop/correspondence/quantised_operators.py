"""Operators on numbers that are stored as small integers, as tools of quantisation write them.

Products are taken of the integers themselves, in single precision: sums are exact up to 2^24 and
rounded to 24 bits beyond, then scaled and stored. What is not a product meets the numbers that the
integers stand for. The kinds of com.microsoft are ONNX Runtime's own ("Contrib Operators").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.convolution import read_conv
from convdsl.interop.correspondence.joining import read_concat
from convdsl.interop.correspondence.kinds import MICROSOFT, read_as
from convdsl.interop.correspondence.products import read_gemm, read_matmul
from convdsl.interop.correspondence.quantisation import (
    dynamically,
    over,
    shaped,
    single,
    steps,
    stored,
    times,
)
from convdsl.interop.correspondence.row import Read, ReadRule, Row
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

# What the integers are


def _dtype(r: Reading, zero: int) -> DType:
    found = r.dtype(zero) if r.has(zero) else DType.U8
    if found not in (DType.U8, DType.I8):
        raise ReadError(f"numbers are quantised to u8 and i8, not {found}")
    return found


def _scale(r: Reading, index: int) -> Tensor:
    """One number, or one for each column, in single precision."""
    given = single(r, r[index])
    return shaped(r, given, ()) if all(size == 1 for size in shape_of(given)) else given


def _rows(r: Reading, given: Tensor | None, rank: int) -> Tensor | None:
    """One number for each row of a matrix, as its column; one for all as it is."""
    if given is None or len(shape_of(given)) != 1 or shape_of(given)[0] == 1 or rank < 2:
        return given
    return shaped(r, given, (*shape_of(given), 1))


def _of_channels(r: Reading, given: Tensor | None, rank: int) -> Tensor | None:
    """One number for each channel that a filter makes, beside the filter or what it makes."""
    if given is None or all(size == 1 for size in shape_of(given)):
        return given if given is None else shaped(r, given, ())
    return shaped(r, given, (*shape_of(given), *[1] * (rank - 1)))


def _real(r: Reading, x: int, scale: int, zero: int) -> Tensor:
    """The numbers that an input's integers stand for."""
    return times(r, steps(r, r[x], r.given(zero)), _scale(r, scale))


def _put(r: Reading, y: Tensor, scale: int, zero: int) -> Tensor:
    """Numbers stored by the scale and zero point of the output."""
    return stored(r, over(r, y, _scale(r, scale)), r.given(zero), _dtype(r, zero))


def _refuse_channels_last(r: Reading) -> None:
    if r.attribute("channels_last", 0):
        raise ReadError("channels that stand last are not supported")


# Products


def _read_conv_integer(r: Reading) -> Tensor:
    """x, w and their zero points."""
    weight = steps(r, r[1], _of_channels(r, r.given(3), r.rank(1)))
    y = read_conv(r.instead(steps(r, r[0], r.given(2)), weight))
    return r.unary("cast", y, dtype="i32")


def _read_qlinear_conv(r: Reading) -> Tensor:
    """x, its scale and zero point, w and its, the output's, and a bias in units of both scales."""
    _refuse_channels_last(r)
    rank = r.rank(3)
    weight = steps(r, r[3], _of_channels(r, r.given(5), rank))
    bias = single(r, r[8]) if r.has(8) else None
    y = read_conv(r.instead(steps(r, r[0], r.given(2)), weight, bias))
    of_weight = _of_channels(r, _scale(r, 4), rank - 1)
    assert of_weight is not None
    factor = over(r, times(r, _scale(r, 1), of_weight), _scale(r, 6))
    return stored(r, times(r, y, factor), r.given(7), _dtype(r, 7))


def _integers(r: Reading, a: int, b: int, zero_a: int, zero_b: int) -> Tensor:
    """The product of two inputs' integers; a zero point of a may be one for each row, of b one
    for each column."""
    left = steps(r, r[a], _rows(r, r.given(zero_a), r.rank(a)))
    return read_matmul(r.instead(left, steps(r, r[b], r.given(zero_b))))


def _scale_of_rows(r: Reading, index: int, rank: int) -> Tensor:
    found = _rows(r, _scale(r, index), rank)
    assert found is not None
    return found


def _read_matmul_integer(r: Reading) -> Tensor:
    """a, b and their zero points."""
    return r.unary("cast", _integers(r, 0, 1, 2, 3), dtype="i32")


def _read_qlinear_matmul(r: Reading) -> Tensor:
    """a, its scale and zero point, b and its, the output's."""
    y = _integers(r, 0, 3, 2, 5)
    factor = over(r, times(r, _scale_of_rows(r, 1, r.rank(0)), _scale(r, 4)), _scale(r, 6))
    return stored(r, times(r, y, factor), r.given(7), _dtype(r, 7))


def _read_matmul_to_float(r: Reading) -> Tensor:
    """a, b, their scales, their zero points, a bias."""
    factor = times(r, _scale_of_rows(r, 2, r.rank(0)), _scale(r, 3))
    y = times(r, _integers(r, 0, 1, 4, 5), factor)
    return r.binary("add", y, r[6]) if r.has(6) else y


def _read_dynamic_matmul(r: Reading) -> Tensor:
    """a in numbers, quantised by its own range; b, its scale and zero point; a bias."""
    small, scale, zero = dynamically(r, r[0])
    y = read_matmul(r.instead(steps(r, small, zero), steps(r, r[1], r.given(3))))
    y = times(r, y, times(r, scale, _scale(r, 2)))
    return r.binary("add", y, r[4]) if r.has(4) else y


def _read_qgemm(r: Reading) -> Tensor:
    """a, its scale and zero point, b and its, c in units of both scales; the output's, without
    which it is numbers."""
    c = single(r, r[6]) if r.has(6) else None
    both = steps(r, r[0], r.given(2)), steps(r, r[3], r.given(5))
    y = read_gemm(r.instead(*both, c, alpha=1.0, beta=1.0))
    alpha = Known(np.asarray(r.attribute("alpha", 1.0), np.float32))
    factor = times(r, times(r, alpha, _scale(r, 1)), _scale(r, 4))
    if not r.has(7):
        return times(r, y, factor)
    return stored(r, times(r, y, over(r, factor, _scale(r, 7))), r.given(8), _dtype(r, 8))


# What is not a product


def _of_one(kind: str) -> ReadRule:
    """X, its scale and zero point, the output's."""

    def rule(r: Reading) -> Tensor:
        _refuse_channels_last(r)
        return _put(r, read_as(kind, r.instead(_real(r, 0, 1, 2))), 3, 4)

    return rule


def _of_two(kind: str) -> ReadRule:
    """A, its scale and zero point, B and its, the output's."""

    def rule(r: Reading) -> Tensor:
        both = _real(r, 0, 1, 2), _real(r, 3, 4, 5)
        return _put(r, read_as(kind, r.instead(*both)), 6, 7)

    return rule


def _read_qlinear_concat(r: Reading) -> Tensor:
    """The output's scale and zero point, then each input with its own."""
    parts = [_real(r, i, i + 1, i + 2) for i in range(2, len(r.inputs), 3)]
    return _put(r, read_concat(r.instead(*parts)), 0, 1)


def _microsoft(kinds: tuple[str, ...], way: Callable[[str], ReadRule]) -> dict[str, Read]:
    return {f"{MICROSOFT}QLinear{kind}": Read(way(kind)) for kind in kinds}


ROWS: tuple[Row, ...] = ()

READING = {
    "ConvInteger": Read(_read_conv_integer),
    "MatMulInteger": Read(_read_matmul_integer),
    "QLinearConv": Read(_read_qlinear_conv),
    "QLinearMatMul": Read(_read_qlinear_matmul),
    f"{MICROSOFT}QLinearConv": Read(_read_qlinear_conv),
    f"{MICROSOFT}QGemm": Read(_read_qgemm),
    f"{MICROSOFT}DynamicQuantizeMatMul": Read(_read_dynamic_matmul),
    f"{MICROSOFT}MatMulIntegerToFloat": Read(_read_matmul_to_float),
    f"{MICROSOFT}QLinearConcat": Read(_read_qlinear_concat),
    **_microsoft(("Sigmoid", "LeakyRelu", "Softmax", "AveragePool", "GlobalAveragePool"), _of_one),
    **_microsoft(("Add", "Mul"), _of_two),
}
"""Kinds of nodes that are several operators of ours."""
