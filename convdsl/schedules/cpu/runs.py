"""How output positions are cut into register tiles, and which taps meet the input there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, product
from typing import TypeAlias

from convdsl.kernel.expr import Axis
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import Convolution, Space
from convdsl.schedules.emission import extent_of
from convdsl.tensor import Dim, ceil_div, dim_max, dim_min, floor_div
from convdsl.tensor.records import record

Reach: TypeAlias = "tuple[tuple[int, ...], ...]"


@record
class Columns:
    """The axis along which the tile runs: the last spatial one, or all of them as one."""

    space: Space
    merged: tuple[Axis, ...]  # the axes it stands for

    def bind(self, column: Dim) -> dict[str, Dim]:
        """Positions on the real axes of a position on this one."""
        at: dict[str, Dim] = {}
        for axis in reversed(self.merged[1:]):
            at[axis.name] = column - floor_div(column, extent_of(axis)) * extent_of(axis)
            column = floor_div(column, extent_of(axis))
        return at | {self.merged[0].name: column}


def columns_of(conv: Convolution, x: Layout | None) -> tuple[tuple[Space, ...], Columns]:
    """(outer spatial axes, the axis of the tile), where the input is read so."""
    flat = all(
        s.taps == 1 and s.stride == 1 and s.pad == 0 and s.outs == s.extent for s in conv.space
    )
    if flat and x is not None and x.axis == 1:
        merged = tuple(s.out for s in conv.space)
        total = 1
        for s in conv.space:
            total *= s.outs
        return (), Columns(Space(Axis("column", total), None, total, 1, 1, 0), merged)
    return conv.space[:-1], Columns(conv.space[-1], (conv.space[-1].out,))


@record
class Run:
    """Tiles of equal width side by side that can share their code.

    A tile is a piece of one row or, on narrow maps, some whole rows (`rows`); `start` is then
    a row.
    """

    start: int
    count: int
    width: int  # positions of a tile
    reach: Reach  # for each tap, the positions of the tile that it reaches
    interior: bool  # every tap reaches every position
    rows: int = 0

    def stretches(self, taps: int) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
        """(row of taps, first tap of a row, past the last, positions): neighbours in a row that
        reach the same positions; none that reach nothing."""
        for row in range(len(self.reach) // taps):
            own = self.reach[row * taps : (row + 1) * taps]
            start = 0
            for positions, group in groupby(own):
                stop = start + len(list(group))
                if positions:
                    yield row, start, stop, positions
                start = stop


def runs_of(space: Space, width: int) -> list[Run]:
    """The tiles of one row, neighbours with the same reach together."""
    tiles: list[tuple[int, int, Reach]] = []
    met = [_met(space, tap) for tap in range(space.taps)]
    for start in range(0, space.outs, width):
        here = min(width, space.outs - start)
        reach = tuple(
            tuple(range(max(first - start, 0), min(past - start, here))) for first, past in met
        )
        tiles.append((start, here, reach))
    return _grouped(tiles, 0)


def patches_of(row: Space, column: Space, rows: int) -> list[Run]:
    """Tiles of `rows` whole rows; the taps are those of both axes, the row's first."""
    tiles: list[tuple[int, int, Reach]] = []
    for start in range(0, row.outs, rows):
        positions = list(product(range(start, min(start + rows, row.outs)), range(column.outs)))
        reach = tuple(
            tuple(
                j
                for j, (p, q) in enumerate(positions)
                if _meets(row, p, r) and _meets(column, q, s)
            )
            for r in range(row.taps)
            for s in range(column.taps)
        )
        tiles.append((start, len(positions), reach))
    return _grouped(tiles, rows)


def _met(space: Space, tap: int) -> tuple[int, int]:
    """The first output that meets the input at a tap, and the one past the last."""
    before = space.pad - tap * space.dilation
    return -(-before // space.stride), -(-(before + space.extent) // space.stride)


def _meets(space: Space, out: int, tap: int) -> bool:
    return 0 <= out * space.stride + tap * space.dilation - space.pad < space.extent


def _grouped(tiles: list[tuple[int, int, Reach]], rows: int) -> list[Run]:
    runs: list[Run] = []
    for (here, reach), group in groupby(tiles, key=lambda t: (t[1], t[2])):
        members = list(group)
        interior = all(len(positions) == here for positions in reach)
        runs.append(Run(members[0][0], len(members), here, reach, interior, rows))
    return runs


def taps_inside(space: Space, out: Dim) -> tuple[Dim, Dim]:
    """First and past-the-last tap that meets the input at an output position."""
    if space.inside:
        return 0, space.taps
    low = space.pad - out * space.stride
    start = dim_max(ceil_div(low, space.dilation), 0)
    last = floor_div(low + space.extent - 1, space.dilation)
    return start, dim_min(last + 1, space.taps)
