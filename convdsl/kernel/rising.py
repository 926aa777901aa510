"""Indices that never fall along an axis, turned around: who reads a position is an interval.

    floor(p * 3 / 4)             p from floor(4 j / 3) on, one or two of them
    min(max(p - 2, 0), 9)        p from j on, up to 3 of them: those that were clamped are tried too

The interval is found by looking at all positions of the axis, and said in closed form: it begins
at start(j) = floor((j * a + b) / c) + d, for those a, b, c, d that need the fewest positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.expr import Axis
from convdsl.tensor import Dim, evaluate, floor_div, symbols_of
from convdsl.tensor.records import record

_OFFSETS = 8  # values of b that are tried for each a / c

Integers = npt.NDArray[np.int64]


@record
class Interval:
    """`length` positions from `start` on, among which are all that were looked for."""

    start: Dim
    length: int


def interval(index: Dim, axis: Axis, reach: int, at: Axis) -> Interval | None:
    """The positions of `axis` at which j - reach < index <= j, for j the position on `at`; None
    where the index falls somewhere, or sizes are not known."""
    if not isinstance(axis.extent, int) or not isinstance(at.extent, int):
        return None
    if {symbol.name for symbol in symbols_of(index)} != {axis.name}:
        return None
    values: Integers = np.asarray(evaluate(index, {axis.name: np.arange(axis.extent)}), np.int64)
    if np.any(np.diff(values) < 0):
        return None
    j: Integers = np.arange(at.extent, dtype=np.int64)
    first: Any = np.searchsorted(values, j - reach + 1, "left")
    past: Any = np.searchsorted(values, j, "right")
    found = past > first
    if not found.any():
        return Interval(0, 1)
    j, first, past = j[found], first[found], past[found]
    best: tuple[int, int, int, int, int] | None = None
    for a, b, c in _lines(axis.extent, at.extent):
        base = (j * a + b) // c
        d = int((first - base).min())
        length = int((past - base).max()) - d
        if best is None or length < best[0]:
            best = length, a, b, c, d
    assert best is not None
    length, a, b, c, d = best
    if length >= axis.extent:
        return Interval(0, axis.extent)
    return Interval(floor_div(at.i * a + b, c) + d, length)


def _lines(positions: int, extent: int) -> Iterator[tuple[int, int, int]]:
    """(a, b, c): the slope that takes one axis to the other, or its last position to the last."""
    for a, c in ((positions, extent), (positions - 1, extent - 1), (1, 1)):
        if c > 0:
            step = max(1, c // _OFFSETS)
            yield from ((a, b, c) for b in range(0, c, step))
