"""The sums of a block in registers: how a step is added to them, and where each belongs.

On the plain units a thread holds a rectangle of rows and vectors of columns. On the tensor units a
warp holds pieces of 16 x 8; which columns of the product a piece's columns stand for is free, and
so is the order of depths: both are chosen so that a thread reads four depths with one load, and
holds four neighbouring columns of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from convdsl.kernel.builder import Builder
from convdsl.kernel.mma import COLUMNS, ROWS, TF32, MmaForm
from convdsl.kernel.nodes import (
    Buffer,
    Cast,
    Fma,
    Gather,
    Get,
    Lane,
    Registers,
    Shuffle,
    Splat,
    Tf32,
    Value,
    ValueType,
    Var,
)
from convdsl.schedules.cuda.factor import Factor
from convdsl.schedules.cuda.tile import CHUNK, VECTOR, Tile
from convdsl.tensor import Dim, DType, floor_div

_F32 = ValueType(DType.F32)
_F32X4 = ValueType(DType.F32, VECTOR)

At = tuple[Buffer, Dim]
"""Where a piece begins in shared memory."""


@dataclass(frozen=True, slots=True)
class Held:
    """Neighbouring sums that a thread holds: the row and the first column, within the block."""

    row: Dim
    column: Dim
    value: Value


class Units(Protocol):
    """The sums of a thread."""

    def begin(self) -> None:
        """All sums are zero."""
        ...

    def step(self, a: At, b: At) -> None:
        """Add the products of one step's pieces."""
        ...

    def held(self) -> Iterator[Held]:
        """All sums."""
        ...


def units(b: Builder, tile: Tile, pair: tuple[Factor, Factor], thread: Sequence[Dim]) -> Units:
    """The sums of a tile; `thread` are its warp, and its place in that (see `lanes_of`)."""
    if tile.form is None:
        acc = b.registers(tile.thread_rows * tile.thread_vectors, _F32X4)
        return _Plain(b, tile, pair, tuple(thread), acc)
    acc = b.registers(tile.sums, _F32)
    return _Tensor(b, tile, tile.form, pair, tuple(thread), acc)


def lanes_of(tile: Tile) -> tuple[int, int]:
    """How a warp's threads are numbered."""
    return (4, 8) if tile.form is None else (8, 4)


def _warp(tile: Tile, warp: Dim) -> tuple[Dim, Dim]:
    """The first row and column of a warp."""
    row = floor_div(warp, tile.warps[1])
    return row * tile.warp_rows, (warp - row * tile.warps[1]) * tile.warp_columns


@dataclass(frozen=True)
class _Plain:
    b: Builder
    tile: Tile
    pair: tuple[Factor, Factor]
    thread: tuple[Dim, ...]
    acc: Registers

    def begin(self) -> None:
        self.b.zero(self.acc)

    def row(self, i: int) -> Dim:
        """Of the i-th row that a thread has: four threads' rows are neighbours, or four rows of
        one are, as they lie."""
        warp, y, _ = self.thread
        first, _ = _warp(self.tile, warp)
        if self.pair[0].chunked:
            return first + y + 4 * i
        return first + y * VECTOR + i % VECTOR + 4 * VECTOR * (i // VECTOR)

    def column(self, j: int) -> Dim:
        warp, _, x = self.thread
        _, first = _warp(self.tile, warp)
        return first + x * VECTOR + 8 * VECTOR * j

    def step(self, a: At, b: At) -> None:
        for vector in range(0, CHUNK, VECTOR):
            lanes = self._rows(a, vector)
            for depth in range(VECTOR):
                right = [
                    self.pair[1].across(self.b, b, self.column(j), vector + depth)
                    for j in range(self.tile.thread_vectors)
                ]
                for i in range(self.tile.thread_rows):
                    left = Splat(lanes[depth][i], _F32X4)
                    for j, other in enumerate(right):
                        slot = i * self.tile.thread_vectors + j
                        sums = Get(self.acc, slot)
                        self.b.set(self.acc, slot, Fma(left, other, sums))

    def _rows(self, a: At, first: int) -> list[list[Value]]:
        """For four depths the elements of all rows."""
        factor, rows = self.pair[0], range(self.tile.thread_rows)
        if factor.chunked:
            loads = [factor.vector(self.b, a, self.row(i), (first,)) for i in rows]
            return [[Lane(loads[i], depth) for i in rows] for depth in range(VECTOR)]
        found: list[list[Value]] = []
        for depth in range(first, first + VECTOR):
            loads = [factor.across(self.b, a, self.row(i), depth) for i in rows[::VECTOR]]
            found.append([Lane(loads[i // VECTOR], i % VECTOR) for i in rows])
        return found

    def held(self) -> Iterator[Held]:
        for i in range(self.tile.thread_rows):
            for j in range(self.tile.thread_vectors):
                value = Get(self.acc, i * self.tile.thread_vectors + j)
                yield Held(self.row(i), self.column(j), value)


@dataclass(frozen=True)
class _Tensor:
    b: Builder
    tile: Tile
    form: MmaForm
    pair: tuple[Factor, Factor]
    thread: tuple[Dim, ...]
    acc: Registers

    def begin(self) -> None:
        self.b.zero(self.acc)

    def row(self, piece: int, half: int) -> Dim:
        """Of a thread's row in a piece."""
        warp, g, _ = self.thread
        return _warp(self.tile, warp)[0] + piece * ROWS + half * 8 + g

    def filter(self, pair: int, half: int) -> Dim:
        """The column of the product whose elements of the second factor a thread brings to a
        piece. Column c of two pieces stands for 4 (c // 2) + c % 2 of sixteen, two further in the
        second: then a thread's four sums of a row are neighbours. Where columns lie side by
        side in shared memory they stand for themselves, or banks would be met twice."""
        warp, g, _ = self.thread
        first = _warp(self.tile, warp)[1] + pair * 2 * COLUMNS
        if self.pair[1].chunked:
            return first + 2 * half + g + floor_div(g, 2) * 2
        return first + COLUMNS * half + g

    def depths(self) -> list[Dim]:
        """The four of sixteen that a thread brings: neighbours where a factor has them side by
        side. Else those that the form gives it, for the sake of banks."""
        _, _, t = self.thread
        if any(factor.chunked for factor in self.pair):
            return [t * VECTOR + e for e in range(VECTOR)]
        if self.form is TF32:
            return [t + 4 * e for e in range(VECTOR)]
        return [t * 2 + e % 2 + 8 * (e // 2) for e in range(VECTOR)]

    def step(self, a: At, b: At) -> None:
        for chunk in range(self.tile.chunks):
            self._chunk(a, b, [depth + chunk * CHUNK for depth in self.depths()])

    def _chunk(self, a: At, b: At, depths: list[Dim]) -> None:
        pieces = range(self.tile.column_pieces)
        second = [
            [
                self._registers(self.pair[1].vector(self.b, b, self.filter(p, h), depths), 1)
                for h in (0, 1)
            ]
            for p in pieces
        ]
        for piece in range(self.tile.row_pieces):
            halves = [
                self._registers(self.pair[0].vector(self.b, a, self.row(piece, h), depths), 0)
                for h in (0, 1)
            ]
            for part in range(CHUNK // self.form.k):
                two = range(part * 2, part * 2 + 2)
                left = [halves[h][i] for i in two for h in (0, 1)]
                for p in pieces:
                    for h in (0, 1):
                        right = [second[p][h][i] for i in two]
                        self.b.mma(self.form, self.acc, self._tile(piece, p, h), left, right)

    def _registers(self, vector: Var, which: int) -> list[Value]:
        """Four depths as registers of a fragment."""
        factor = self.pair[which]
        if self.form is TF32:
            lanes = [Lane(vector, e) for e in range(VECTOR)]
            if factor.pack is not None and factor.pack.rounded:
                return list(lanes)
            return [self.b.let(Tf32(lane), "r") for lane in lanes]
        narrow = ValueType(self.form.dtype, 2)
        halves = (Shuffle(vector, vector, (e, e + 1)) for e in (0, 2))
        return [self.b.let(Cast(half, narrow), "r") for half in halves]

    def _tile(self, piece: int, pair: int, half: int) -> int:
        return (piece * self.tile.column_pieces + pair) * 2 + half

    def held(self) -> Iterator[Held]:
        warp, _, t = self.thread
        first = _warp(self.tile, warp)[1]
        for piece in range(self.tile.row_pieces):
            for pair in range(self.tile.column_pieces):
                column = first + pair * 2 * COLUMNS
                for half in (0, 1):
                    tiles = [self._tile(piece, pair, h) * 4 + half * 2 for h in (0, 1)]
                    sums = [[Get(self.acc, at), Get(self.acc, at + 1)] for at in tiles]
                    row = self.row(piece, half)
                    if self.pair[1].chunked:
                        yield Held(row, column + t * VECTOR, Gather((*sums[0], *sums[1]), _F32X4))
                        continue
                    for h in (0, 1):
                        two = Gather(tuple(sums[h]), ValueType(DType.F32, 2))
                        yield Held(row, column + COLUMNS * h + t * 2, two)
