"""Factors of a product on their way to shared memory: one step's piece of each.

Three ways to lie there:

    depths    [chunk][row][depth]  what lies along the depth in memory
    rows      [depth][row]         what lies along its own rows
    packed    as it was packed     a copy of one run

Warp groups read depths from lines of their own kind (`kernel.group_mma`), halves rows as well.

A thread copies the same few depths of several rows, or the same rows of several depths, so that
where these are is worked out once a step. On the tensor units each thread takes as many
neighbouring depths as sixteen bytes hold: of one row with one load, or of several rows with a load
for each depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.group_mma import LINE, PIECE
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Buffer,
    Cast,
    Const,
    Gather,
    IndexTest,
    Lane,
    Load,
    Select,
    Value,
    ValueType,
    Var,
)
from convdsl.schedules.cuda.gemm import Run, unit_axis, vector_width
from convdsl.schedules.cuda.lines import line_of, turned
from convdsl.schedules.cuda.matrix_pack import MatrixPack
from convdsl.schedules.cuda.tile import SKEW, VECTOR, Tile
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.tensor import Dim, DType, dim_max, dim_min, floor_div, substitute
from convdsl.tensor.records import record

_ALONG = 32
"""Neighbours in memory that neighbouring threads copy, where there are as many: whole lines. More
would only leave each thread with several depths to work out."""


class Form(Enum):
    """How a step's piece lies in shared memory."""

    DEPTHS = auto()
    ROWS = auto()
    PACKED = auto()


@record
class Way:
    """How a factor is copied: its form, how many neighbours together, and along which axis."""

    form: Form
    width: int
    along: Axis | None = None


def way_of(read: Read, layout: Layout | None, own: Run, depth: Run, most: int) -> Way:
    """How a factor is copied as it lies, at most so many elements together."""
    for form, run in ((Form.ROWS, own), (Form.DEPTHS, depth)):
        along = unit_axis(read, layout, run.axes)
        if along is not None:
            return Way(form, vector_width(read, layout, along, most), along)
    return Way(Form.ROWS, 1)


@record
class Copy:
    """A copy of `width` elements between places of two buffers: `valid` of them are read, none
    where a guard fails; it is only made where the thread is one of those that share the piece out
    (`shared_out`)."""

    target: Dim
    source: Dim
    width: int
    valid: Dim
    guards: tuple[IndexTest, ...]
    shared_out: tuple[IndexTest, ...]


@record
class Place:
    """Which piece a thread helps to copy: the number of the batch and of the block's tile along
    the factor's rows, the step along the depth; and the number of the thread."""

    batch: Dim
    tile: Dim
    step: Dim
    thread: Dim


@dataclass(frozen=True)
class Factor:
    """One factor of a block's product: where and how it is read, and where its pieces lie.

    own: its rows; a block takes `size` of them. `columns`: they are the product's columns.
    """

    read: Read
    buffer: Buffer
    layout: Layout
    pack: MatrixPack | None
    way: Way
    batch: Run
    own: Run
    depth: Run
    size: int
    tile: Tile
    columns: bool = False

    @property
    def chunked(self) -> bool:
        """Whether all depths of a row lie side by side in shared memory."""
        packed = self.way.form is Form.PACKED and self.tile.form is not None
        return packed or self.way.form is Form.DEPTHS

    @property
    def dtype(self) -> DType:
        """As it is stored."""
        return self.read.dtype

    @property
    def _skew(self) -> int:
        """In elements, where rows lie side by side."""
        plain = self.tile.form is None or self.tile.grouped
        return 0 if plain else SKEW // self.dtype.bytes

    @property
    def piece(self) -> int:
        """Elements of one step's piece."""
        depth = self.tile.depth
        return depth * self.size + (0 if self.chunked else depth // self.tile.vector * self._skew)

    def element(self, row: Dim, depth: Dim) -> Dim:
        """Where an element of a piece lies. On the plain units four rows are read at a time: of
        every second pair of rows neighbouring vectors change places, so that these do not meet in
        a bank. On the tensor units it is two rows, which are a line of the banks."""
        if self.tile.across:
            return self._across(row, depth)
        if self.tile.grouped:
            return self._lined(row, depth)
        if not self.chunked:
            return depth * self.size + floor_div(depth, self.tile.vector) * self._skew + row
        if self.tile.form is not None:
            wide = self.tile.chunk
            chunk = floor_div(depth, wide)
            return (chunk * self.size + row) * wide + depth - chunk * wide
        vector, pair = floor_div(depth, VECTOR), floor_div(row, 2)
        turned, odd = (x - floor_div(x, 2) * 2 for x in (pair, vector))
        moved = vector + turned - turned * odd * 2
        return row * self.tile.chunk + moved * VECTOR + (depth - vector * VECTOR)

    def _lined(self, row: Dim, depth: Dim) -> Dim:
        """In lines that a warp group reads."""
        line, piece = line_of(row) if self.columns else row, floor_div(depth, self.tile.vector)
        inside = turned(piece, line) * self.tile.vector + depth - piece * self.tile.vector
        return line * self.tile.chunk + inside

    def _across(self, row: Dim, depth: Dim) -> Dim:
        """In lines of neighbouring rows, one for each depth."""
        form, wide = self.tile.group_form, self.tile.vector
        block = floor_div(row, form.line)
        inside = row - block * form.line
        piece = floor_div(inside, wide)
        start = form.at(block * form.line, depth)
        return start + turned(piece, depth) * wide + inside - piece * wide

    # Copies

    def copies(self, place: Place) -> Iterator[Copy]:
        """What a thread copies in one step."""
        threads = self.tile.threads
        if self.way.form is Form.PACKED:
            assert self.pack is not None
            start = self.pack.start(place.batch, place.tile, place.step)
            width = self.way.width
            for number, tests in _shares(place.thread, self.pack.piece // width, threads):
                at = number * width
                yield Copy(at, start + at, width, width, (), tests)
            return
        inner, outer = self.tile.depth, self.size
        if self.way.form is Form.ROWS:
            inner, outer = outer, inner
        groups = inner // self.way.width
        along = min(groups, max(threads // outer, _ALONG // self.way.width))
        along = LINE // PIECE if self.tile.grouped else along  # a line after the other
        own = floor_div(place.thread, along)
        for group, _ in _shares(place.thread - own * along, groups, along):
            for other, tests in _shares(own, outer, threads // along):
                pair = (group * self.way.width, other)
                row, depth = pair if self.way.form is Form.ROWS else reversed(pair)
                yield self._copy(place, row, depth, tests)

    def _copy(self, place: Place, row: Dim, depth: Dim, shared_out: tuple[IndexTest, ...]) -> Copy:
        """The copy of one vector that begins at a row and a depth of the piece."""
        own, deep = place.tile * self.size + row, place.step * self.tile.depth + depth
        at = {**self.own.place(own), **self.depth.place(deep)}
        along = self.own if self.way.form is Form.ROWS else self.depth
        guards: list[IndexTest] = []
        valid: Dim = self.way.width
        for number, run in ((own, self.own), (deep, self.depth)):
            guards.append(IndexTest("lt", number, run.size))
            if run.ragged:
                last = run.axes[-1]
                left = extent_of(last) - at[last.name]
                if run is along and self.way.width > 1:
                    valid = dim_max(dim_min(valid, left), 0)
                guards.append(IndexTest("gt", left, 0))
        at = {**self.batch.place(place.batch), **at}
        index = [substitute(d, at) for d in self.read.index]
        if self.read.outside is not None:
            for d, extent in zip(self.read.index, self.read.tensor.type.sizes, strict=True):
                tests = bounds_tests(d, extent)  # none of an axis as it is
                guards += [replace(test, a=substitute(test.a, at)) for test in tests]
        kept = tuple(dict.fromkeys(test for test in guards if decide(test) is not True))
        target, source = self.element(row, depth), self.layout.offset(index)
        return Copy(target, source, self.way.width, valid, kept, shared_out)

    def fetch(self, b: Builder, copy: Copy) -> Var:
        """What a copy brings, in registers. Vectors are whole in memory (`vector_width`): what is
        filling becomes zero here."""
        one, type = ValueType(self.dtype), ValueType(self.dtype, copy.width)
        loaded = b.let(Load(self.buffer, copy.source, type, copy.guards, 0.0))
        if isinstance(copy.valid, int):
            return loaded
        lanes = (
            Select(IndexTest("gt", copy.valid, lane), Lane(loaded, lane), Const(0.0, one))
            for lane in range(copy.width)
        )
        return b.let(Gather(tuple(lanes), type))

    # Fragments

    def vector(self, b: Builder, at: tuple[Buffer, Dim], row: Dim, depth: Dim) -> Var:
        """Neighbouring depths of one row, as many as a thread takes, of a piece that begins
        somewhere in shared memory."""
        assert self.chunked
        return self._load(b, at, self.element(row, depth), self.tile.vector)

    def across(self, b: Builder, at: tuple[Buffer, Dim], row: Dim, depth: Dim, count: int) -> Var:
        """Neighbouring rows at one depth."""
        assert not self.chunked
        return self._load(b, at, self.element(row, depth), count)

    def _load(self, b: Builder, at: tuple[Buffer, Dim], element: Dim, count: int) -> Var:
        """What units multiply: f32, or halves as they are."""
        shared, start = at
        loaded: Value = Load(shared, start + element, ValueType(self.dtype, count))
        if not self.tile.halves and self.dtype is not DType.F32:
            loaded = Cast(loaded, ValueType(DType.F32, count))
        return b.let(loaded, "f")


def _shares(first: Dim, count: int, threads: int) -> Iterator[tuple[Dim, tuple[IndexTest, ...]]]:
    """What one of so many threads takes of `count` things, each with a test where not every thread
    has one."""
    threads = max(1, threads)
    for start in range(0, count, threads):
        test = IndexTest("lt", first + start, count)
        known = decide(test)
        if known is not False:
            yield first + start, () if known else (test,)
