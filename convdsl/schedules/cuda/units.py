"""The sums of a block in registers: how a step is added to them, and where each belongs.

On the plain units a thread holds a rectangle of rows and vectors of columns. On the tensor units a
warp holds pieces of 16 x 8; which rows and columns of the product those of a piece stand for is
free, and so is the order of depths: all are chosen so that a thread reads sixteen bytes with one
load, however a factor lies, and holds four neighbouring columns of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from convdsl.kernel.builder import Builder
from convdsl.kernel.group_mma import GROUP, GROUP_ROWS, GroupForm
from convdsl.kernel.mma import COLUMNS, ROWS, SUMS, TF32, WARP, MmaForm
from convdsl.kernel.nodes import (
    Buffer,
    Cast,
    Fma,
    Gather,
    Get,
    Lane,
    Registers,
    Splat,
    Value,
    ValueType,
)
from convdsl.schedules.cuda.factor import Factor
from convdsl.schedules.cuda.tile import VECTOR, Tile
from convdsl.tensor import Dim, DType, floor_div
from convdsl.tensor.records import record

_F32 = ValueType(DType.F32)
_TF32 = ValueType(DType.TF32)
_F32X4 = ValueType(DType.F32, VECTOR)
_F32X2 = ValueType(DType.F32, 2)

At = tuple[Buffer, Dim]
"""Where a piece begins in shared memory."""


@record
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

    def settle(self, left: int) -> None:
        """The products of all steps but the last `left` are complete."""
        ...

    def held(self) -> Iterator[Held]:
        """All sums, once all products are complete."""
        ...


def units(b: Builder, tile: Tile, pair: tuple[Factor, Factor], thread: Sequence[Dim]) -> Units:
    """The sums of a tile; `thread` are its warp, and its place in that (see `lanes_of`)."""
    if tile.form is None:
        acc = b.registers(tile.thread_rows * tile.thread_vectors, _F32X4)
        return _Plain(b, tile, pair, tuple(thread), acc)
    acc = b.registers(tile.sums, _F32)
    if tile.grouped:
        return _Groups(b, tile, tuple(thread), acc)
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
        for vector in range(0, self.tile.chunk, VECTOR):
            lanes = self._rows(a, vector)
            for depth in range(VECTOR):
                right = [
                    self.pair[1].across(self.b, b, self.column(j), vector + depth, VECTOR)
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
            loads = [factor.vector(self.b, a, self.row(i), first) for i in rows]
            return [[Lane(loads[i], depth) for i in rows] for depth in range(VECTOR)]
        found: list[list[Value]] = []
        for depth in range(first, first + VECTOR):
            loads = [factor.across(self.b, a, self.row(i), depth, VECTOR) for i in rows[::VECTOR]]
            found.append([Lane(loads[i // VECTOR], i % VECTOR) for i in rows])
        return found

    def settle(self, left: int) -> None:
        pass  # each is complete when it has been added

    def held(self) -> Iterator[Held]:
        for i in range(self.tile.thread_rows):
            for j in range(self.tile.thread_vectors):
                value = Get(self.acc, i * self.tile.thread_vectors + j)
                yield Held(self.row(i), self.column(j), value)


@dataclass(frozen=True)
class _Tensor:
    """Of the depths of a chunk a thread brings as many neighbours as sixteen bytes hold, number t
    of them; of the rows and columns of a piece number g. Where those lie side by side, which ones
    of the product they stand for is such that a thread brings neighbours."""

    b: Builder
    tile: Tile
    form: MmaForm
    pair: tuple[Factor, Factor]
    thread: tuple[Dim, ...]
    acc: Registers

    def begin(self) -> None:
        self.b.zero(self.acc)

    # Rows and columns of the block

    @property
    def heights(self) -> int:
        """Rows that a thread brings: two of each piece."""
        return 2 * self.tile.row_pieces

    @property
    def widths(self) -> int:
        """Columns that a thread brings, one of each piece."""
        return 2 * self.tile.column_pieces

    def together(self, count: int) -> int:
        """Neighbours that are loaded at once, of so many that a thread brings."""
        return min(self.tile.vector, count)

    def row(self, number: int) -> Dim:
        """Of the rows that a thread brings: the upper and the lower one of the first piece, and so
        on."""
        warp, g, _ = self.thread
        first = _warp(self.tile, warp)[0]
        if self.pair[0].chunked:
            return first + number * (ROWS // 2) + g
        return first + self._dealt(number, g, self.heights)

    def column(self, piece: int, place: Dim) -> Dim:
        """For which column one of a piece stands. Column c of two pieces is 4 (c // 2) + c % 2 of
        sixteen, two further in the second, so that neighbouring threads read neighbouring lines."""
        first = _warp(self.tile, self.thread[0])[1]
        if self.pair[1].chunked:
            pair, half = divmod(piece, 2)
            return first + pair * 2 * COLUMNS + 2 * half + place + floor_div(place, 2) * 2
        return first + self._dealt(piece, place, self.widths)

    def _dealt(self, number: int, place: Dim, count: int) -> Dim:
        """Neighbours dealt to eight places, `together` to each at a time."""
        each = self.together(count)
        return number // each * each * COLUMNS + place * each + number % each

    # A step

    def step(self, a: At, b: At) -> None:
        for chunk in range(self.tile.chunks):
            depth = self.thread[2] * self.tile.vector + chunk * self.tile.chunk
            self._chunk(a, b, depth)

    def _chunk(self, a: At, b: At, depth: Dim) -> None:
        _, g, _ = self.thread
        columns = [self.column(piece, g) for piece in range(self.widths)]
        rows = [self.row(number) for number in range(self.heights)]
        right = self._fragments(1, b, columns, depth)
        some = 2 if self.pair[0].chunked else self.together(self.heights)
        for first in range(0, self.heights, some):  # one after the other: fewer registers
            left = self._fragments(0, a, rows[first : first + some], depth)
            self._products(first // 2, left, right)

    def _products(self, first: int, left: list[list[Value]], right: list[list[Value]]) -> None:
        """Of pieces from the first one on, two rows of which are in `left` for each."""
        each = self.form.b_registers
        for number in range(0, len(left), 2):
            for part in range(0, len(left[0]), each):
                mine = range(part, part + each)
                a = [left[number + half][i] for i in mine for half in (0, 1)]
                for piece, fragment in enumerate(right):
                    sums = self._product(first + number // 2, piece)
                    self.b.mma(self.form, self.acc, sums, a, [fragment[i] for i in mine])

    def _fragments(self, which: int, at: At, rows: list[Dim], depth: Dim) -> list[list[Value]]:
        """For each row the registers of a thread's depths."""
        factor, deep = self.pair[which], range(self.tile.vector)
        if factor.chunked:
            loads = [factor.vector(self.b, at, row, depth) for row in rows]
            return [self._registers(factor, [Lane(x, e) for e in deep]) for x in loads]
        each = self.together(len(rows))
        found: list[list[Value]] = []
        for first in range(0, len(rows), each):
            loads = [factor.across(self.b, at, rows[first], depth + e, each) for e in deep]
            found += [self._registers(factor, [Lane(x, i) for x in loads]) for i in range(each)]
        return found

    def _registers(self, factor: Factor, lanes: list[Value]) -> list[Value]:
        """Neighbouring depths as registers of a fragment."""
        if self.form is TF32:
            if factor.dtype is not DType.F32 or (factor.pack and factor.pack.rounded):
                return lanes
            return [self.b.let(Cast(Cast(lane, _TF32), _F32), "r") for lane in lanes]
        dtype = self.form.dtype if self.tile.halves else DType.F32
        pairs: list[Value] = [
            Gather(tuple(lanes[e : e + 2]), ValueType(dtype, 2)) for e in range(0, len(lanes), 2)
        ]
        if not self.tile.halves:
            pairs = [Cast(pair, ValueType(self.form.dtype, 2)) for pair in pairs]
        return [self.b.let(pair, "r") for pair in pairs]

    def settle(self, left: int) -> None:
        pass  # likewise

    # Sums

    def _product(self, row_piece: int, piece: int) -> int:
        """The number of a piece's sums."""
        return row_piece * self.widths + piece

    def held(self) -> Iterator[Held]:
        _, _, t = self.thread
        each = 2 if self.pair[1].chunked else self.together(self.widths)  # pieces of neighbours
        for number in range(self.heights):
            for first in range(0, self.widths, each):
                # Of every piece a thread holds two neighbours, those of its own number.
                places = [(first + i, half) for half in (0, 1) for i in range(each)]
                if self.pair[1].chunked:
                    places = [(first + i, half) for i in range(each) for half in (0, 1)]
                for start in range(0, len(places), VECTOR):
                    four = places[start : start + VECTOR]
                    piece, half = four[0]
                    column = self.column(piece, 2 * t + half)
                    own = number // 2, 2 * (number % 2)
                    slots = [SUMS * self._product(own[0], p) + own[1] + h for p, h in four]
                    lanes = tuple(Get(self.acc, slot) for slot in slots)
                    yield Held(self.row(number), column, Gather(lanes, _F32X4))


@dataclass(frozen=True)
class _Groups:
    """Four warps hold 64 rows together, which lie in shared memory one after the other; columns are
    dealt to lines so that a thread holds four neighbours (`lines`)."""

    b: Builder
    tile: Tile
    thread: tuple[Dim, ...]
    acc: Registers

    @property
    def tiles(self) -> int:
        """Of 64 rows each, which a group has."""
        return self.tile.row_pieces

    @property
    def first(self) -> Dim:
        """The number of a group's first one."""
        return floor_div(self.thread[0], GROUP // WARP) * self.tiles

    def begin(self) -> None:
        self.b.zero(self.acc)

    def step(self, a: At, b: At) -> None:
        form = self.tile.group_form
        self.b.open_products()
        for depth in range(0, self.tile.depth, form.k):
            right = b[0], b[1] + form.at(0, depth)
            for number in range(self.tiles):
                left = form.at((self.first + number) * GROUP_ROWS, depth)
                self.b.group_mma(form, self.acc, number, (a[0], a[1] + left), right)
        self.b.commit_products()

    def settle(self, left: int) -> None:
        self.b.wait_products(left)

    def held(self) -> Iterator[Held]:
        warp, g, t = self.thread
        form = self.tile.group_form
        own = (warp - floor_div(warp, GROUP // WARP) * (GROUP // WARP)) * ROWS + g
        for number in range(self.tiles):
            for half in (0, 1):
                row = (self.first + number) * GROUP_ROWS + own + half * ROWS // 2
                if self.tile.across:
                    yield from self._pairs(form, number, half, row)
                    continue
                for pair in range(0, form.columns, 2 * COLUMNS):
                    start = number * form.sums + pair // 2 + 2 * half  # two of each piece
                    slots = (start, start + 1, start + SUMS, start + SUMS + 1)
                    lanes = tuple(Get(self.acc, slot) for slot in slots)
                    yield Held(row, pair + 4 * t, Gather(lanes, _F32X4))

    def _pairs(self, form: GroupForm, number: int, half: int, row: Dim) -> Iterator[Held]:
        """Columns as they lie, of which a thread holds two neighbours of each eight."""
        for first in range(0, form.columns, COLUMNS):
            start = number * form.sums + first // 2 + 2 * half
            lanes = Get(self.acc, start), Get(self.acc, start + 1)
            yield Held(row, first + 2 * self.thread[2], Gather(lanes, _F32X2))
