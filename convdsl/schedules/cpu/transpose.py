"""Copies between what lies side by side along one axis and what does along another.

    y[.., c, r.., k] = x[k, c, r..]     filters packed in calls, axes exchanged
    y[w, h, e] = x[h, w, e]             e < 2, 4, 8: what moves are pairs, and so on
    blocked from plain, plain from blocked

Picking the elements of a vector one by one meets as many rows of x at each step, which lie far
apart and push each other out of the cache. So as many vectors are loaded along the rows of x as a
vector has lanes, transposed in registers, and stored along the rows of y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, Const, IndexTest, Load, Shuffle, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.schedules.task import Output, Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min, floor_div, substitute
from convdsl.tensor.records import record

_CYCLES, _TILE = 0.5, 1.5  # of one element, and what a tile takes besides for each of its lanes
_ONCE = 8.0  # of code that is long for a copy of a few elements
_LINE = 64  # bytes of a line of the cache, which is written as one
_SHARES = 8  # that a team finds, where a run is long enough
_PIECE = 32  # tiles that a thread takes at a time
_PAGE = 4096  # bytes: lines so far apart share the places that a first-level cache has for them


Blocks: TypeAlias = "Sequence[tuple[Dim, int]]"
"""Of a run: where each begins, and how many positions it has."""


@record
class Run:
    """Axes along which a tensor's elements lie side by side, the last one fastest, taken as one.
    `blocked`: by blocks of lanes, the last of which is filled up."""

    axes: tuple[Axis, ...]
    blocked: bool

    @property
    def length(self) -> int:
        return prod(extent_of(axis) for axis in self.axes)


@record
class _Way:
    """`read` moves by one unit along `source`, what is written along `target`: by the elements
    along the axes `together`, which lie side by side in both."""

    read: Read
    layout: Layout
    source: Run
    target: Run
    lanes: int
    merged: bool  # the read moves along the target's axes as along one
    rows: int  # of y whose lines stay in the first-level cache
    together: tuple[Axis, ...] = ()

    @property
    def unit(self) -> int:
        """Elements that stay together."""
        return prod(map(extent_of, self.together))

    @property
    def side(self) -> int:
        """Units of a vector, and vectors of a tile."""
        return self.lanes // self.unit

    @property
    def line(self) -> int:
        """Blocks of y that fill a line."""
        return max(1, _LINE // (self.read.dtype.bytes * self.lanes))

    @property
    def most(self) -> int:
        """Tiles of a piece: what they write a part of should stay until the rest is written; lines
        of x, too, are met whole."""
        return max(self.line, min(_PIECE, self.rows // self.side))


def plan(task: Task, target: Target) -> _Way | None:
    """None where the task is no such copy, or rows of x are shorter than a vector."""
    (stage, *more), lanes = task.stages, target.lanes(task.element)
    read = stage.body
    if more or task.ending is not None or not isinstance(read, Read) or not stage.axes:
        return None
    layout, (output,) = task.operands[0].layout, task.outputs
    if layout is None or output.at is not None or read.dtype is not stage.target.type.dtype:
        return None
    if lanes < 2 or lanes & (lanes - 1):
        return None
    places = [axis.i for axis in stage.axes]
    together = _together(task, layout, read, lanes)
    unit = prod(map(extent_of, together))
    source = _run(layout, read.index, stage.axes, lanes, unit)
    own = _run(output.layout, places, stage.axes, lanes, unit)
    if source is None or own is None:
        return None
    source = _apart(source, own.axes[-1:])
    own = _apart(own, source.axes)
    if not source.axes or not own.axes:
        return None
    if not source.blocked and source.length * unit < lanes:
        return None
    merged = _merges(layout, read, own)
    rows = _rows_that_stay(output, stage.axes, source, target)
    way = _Way(read, layout, source, own, lanes, merged, rows, together)
    return way if _stays(way) else None


def _rows_that_stay(output: Output, axes: Sequence[Axis], source: Run, target: Target) -> int:
    """Rows of y, one behind the other, of which the first-level cache holds a line each. It has as
    many places for lines that are whole pages apart as it has pages."""
    if output.layout.axis is not None or source.blocked:
        return target.caches.l1_bytes // _LINE
    step = coefficient(output.layout.offset([axis.i for axis in axes]), source.axes[-1])
    apart = (step or 1) * output.var.type.dtype.bytes
    return target.caches.l1_bytes // max(_LINE, gcd(apart, _PAGE))


def _together(task: Task, layout: Layout, read: Read, lanes: int) -> tuple[Axis, ...]:
    """The axes along which elements lie side by side in both, if several of what they are in all
    fill a vector."""
    (output,) = task.outputs
    if layout.axis is not None or output.layout.axis is not None or read.outside is not None:
        return ()
    places = layout.offset(read.index), output.layout.offset([axis.i for axis in task.axes])
    found: list[Axis] = []
    unit = 1
    for axis in reversed([axis for axis in task.axes if extent_of(axis) > 1]):
        if any(coefficient(place, axis) != unit for place in places):
            break
        found.insert(0, axis)
        unit *= extent_of(axis)
    return tuple(found) if unit < lanes and lanes % unit == 0 else ()


def _run(
    layout: Layout, index: Sequence[Dim], axes: Sequence[Axis], lanes: int, unit: int
) -> Run | None:
    """The axes along which units of so many elements lie side by side."""
    if layout.axis is not None:
        own = [a for a in axes if index[layout.axis] == a.i and extent_of(a) > 1]
        return Run(tuple(own), True) if layout.block == lanes and own else None
    offset = layout.offset(index)
    steps = {axis.name: coefficient(offset, axis) for axis in axes}
    if None in steps.values():
        return None
    run: list[Axis] = []
    wanted = unit
    while found := [a for a in axes if steps[a.name] == wanted and extent_of(a) > 1]:
        run.insert(0, found[0])
        wanted *= extent_of(found[0])
    return Run(tuple(run), False) if run else None


def _apart(run: Run, others: Sequence[Axis]) -> Run:
    """The last axes of a run, up to one that is among others."""
    common = [at for at, axis in enumerate(run.axes) if axis in others]
    return Run(run.axes[common[-1] + 1 :], run.blocked) if common else run


def _merges(layout: Layout, read: Read, run: Run) -> bool:
    """Whether a read moves along several axes as along the last of them."""
    if read.outside is not None:
        return len(run.axes) == 1
    offset = layout.offset(read.index)
    steps = [coefficient(offset, axis) for axis in run.axes]
    known = [step for step in steps if step is not None]
    pairs = zip(known, known[1:], run.axes[1:], strict=False)
    return len(known) == len(steps) and all(a == b * extent_of(axis) for a, b, axis in pairs)


def _stays(way: _Way) -> bool:
    """Whether only positions elsewhere than along the source's run decide if it is left."""
    if way.read.outside is None:
        return True
    others: dict[str, Dim] = {axis.name: 0 for axis in way.source.axes}
    for index, extent in zip(way.read.index, way.read.tensor.type.sizes, strict=True):
        if substitute(index, others) != index and bounds_tests(index, extent):
            return False
    return True


def cost(task: Task, target: Target) -> float | None:
    """Loads, shuffles and stores of vectors: of whole tiles."""
    way = plan(task, target)
    if way is None:
        return None
    side, tiles = way.side, 1.0
    for run in (way.source, way.target):
        tiles *= -(-run.length // side) / run.length
    units = prod(extent_of(axis) for axis in task.axes) / way.unit
    return units * tiles * way.lanes * (side * _CYCLES + _TILE) + _ONCE


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Tiles of as many units as a vector has, of as many vectors. Of the two runs the one that x,
    or a plain tensor beside a blocked one, is contiguous along is walked by the innermost loop, a
    piece at a time: all of the other run meets it, so that lines of y of which a tile writes a part
    are in the cache when the next one writes the rest."""
    way = plan(task, target)
    assert way is not None
    (operand,), (output,) = task.operands, task.outputs
    b = Builder(name, task.element, way.lanes)
    x = b.buffer(operand.var.name, operand.var.type.dtype, way.layout.size)
    y = b.buffer(output.var.name, output.var.type.dtype, output.layout.size, written=True)
    _Copy(_Ends(b, x, y), way, task).all()
    return Scheduled.one(b.kernel(), [(operand.var.name, None), (output.var.name, None)])


@record
class _Copy:
    """The loops of a copy: over what is in neither run, pieces of the inner run, and shares of the
    outer one, where there is little else to share out."""

    ends: _Ends
    way: _Way
    task: Task

    @property
    def outer(self) -> Run:
        return self.way.source if self.way.source.blocked else self.way.target

    @property
    def inner(self) -> Run:
        return self.way.target if self.way.source.blocked else self.way.source

    def all(self) -> None:
        way, b, side = self.way, self.ends.b, self.way.side
        used = (*way.source.axes, *way.target.axes, *way.together)
        others = [axis for axis in self.task.axes if axis not in used]
        names = [*(axis.name for axis in others), "piece", "share"]
        extents = [extent_of(axis) for axis in others]
        whole, rest = divmod(self.outer.length, side)
        line = 1 if way.source.blocked else way.line
        lines, left = divmod(whole, line)
        ends = [((whole - left + i) * side, side) for i in range(left)]
        ends += [(whole * side, rest)] if rest else []
        inner_whole, inner_rest = divmod(self.inner.length, side)
        pieces = -(-inner_whole // piece_of(inner_whole, way.most))
        for parts, walk in ((pieces, self.column), (min(inner_rest, 1), self.ragged)):
            if not parts:
                continue
            each = max(1, -(-lines * prod(extents) * parts // _SHARES))
            shares = max(1, -(-lines // each))
            with b.parallel(names, [*extents, parts, shares]) as (*places, part, share):
                at = {axis.name: place for axis, place in zip(others, places, strict=True)}
                first = share * each
                if lines:
                    with b.serial("block", dim_min(first + each, lines), first) as number:
                        walk(at, [((number * line + i) * side, side) for i in range(line)], part)
                if ends and shares == 1:
                    walk(at, ends, part)
            if ends and shares > 1:
                with b.parallel(names[:-1], [*extents, parts]) as (*places, part):
                    at = {axis.name: place for axis, place in zip(others, places, strict=True)}
                    walk(at, ends, part)

    def column(self, at: Mapping[str, Dim], blocks: Blocks, part: Dim) -> None:
        """A piece of the inner run, whole tiles, beside blocks of the outer one."""
        whole = self.inner.length // self.way.side
        piece = piece_of(whole, self.way.most)
        first = part * piece
        with self.ends.b.serial("tile", dim_min(first + piece, whole), first) as i:
            self.tiles(at, blocks, i * self.way.side, self.way.side)

    def ragged(self, at: Mapping[str, Dim], blocks: Blocks, _: Dim) -> None:
        """The end of the inner run, beside blocks of the outer one."""
        whole, rest = divmod(self.inner.length, self.way.side)
        self.tiles(at, blocks, whole * self.way.side, rest)

    def tiles(self, at: Mapping[str, Dim], blocks: Blocks, place: Dim, rows: int) -> None:
        at = {**at, **dict.fromkeys((axis.name for axis in self.way.together), 0)}
        for block in blocks:
            ends = (block, (place, rows)) if self.way.source.blocked else ((place, rows), block)
            _tile(self.way, self.ends, self.task, at, *ends)


def piece_of(tiles: int, most: int = _PIECE) -> int:
    """Tiles that a thread takes at a time."""
    parts = max(1, -(-tiles // most))
    return max(1, -(-tiles // parts))


@record
class _Ends:
    """The kernel under construction, and where it reads and writes."""

    b: Builder
    x: Buffer
    y: Buffer


def _tile(
    way: _Way,
    ends: _Ends,
    task: Task,
    at: Mapping[str, Dim],
    source: tuple[Dim, int],
    target: tuple[Dim, int],
) -> None:
    """One tile: (first position, how many) along the source's run and the target's."""
    b, side = ends.b, way.side
    (start, columns), (first, rows) = source, target
    (output,) = task.outputs
    shift = 0
    if columns < side and not way.source.blocked:
        shift = side - columns  # vectors of x that end where the row does
    along = bind(way.source.axes, start - shift)
    zero = Const(0, ValueType(ends.x.dtype, way.lanes))
    loaded: list[Value] = []
    for row in range(side):
        if row >= rows:
            loaded.append(zero)
            continue
        here = {**at, **along, **bind(way.target.axes, first + row, merged=way.merged)}
        loaded.append(b.let(_row(way, ends.x, here)))
    vectors = transposed(b, loaded, way.unit)
    whole = rows == side or way.target.blocked
    fixed = bind(way.target.axes, first)
    for i in range(columns):
        here = {**at, **fixed, **bind(way.source.axes, start + i)}
        where = output.offset(here, task.axes)
        b.store(ends.y, where, vectors[shift + i], None if whole else rows * way.unit)


def _row(way: _Way, x: Buffer, at: Mapping[str, Dim]) -> Load:
    """A vector along a row, zeros where there is no such row."""
    index = [substitute(d, at) for d in way.read.index]
    guards: list[IndexTest] = []
    if way.read.outside is not None:
        for place, extent in zip(index, way.read.tensor.type.sizes, strict=True):
            guards += bounds_tests(place, extent)
    type = ValueType(x.dtype, way.lanes)
    return Load(x, way.layout.offset(index), type, tuple(guards), way.read.outside or 0)


def bind(axes: Sequence[Axis], position: Dim, *, merged: bool = False) -> dict[str, Dim]:
    """Where each axis stands at a position of all of them as one; `merged`: as far along the last
    one, where that comes to the same."""
    at: dict[str, Dim] = {}
    if merged:
        return {axis.name: 0 for axis in axes[:-1]} | {axes[-1].name: position}
    for axis in reversed(axes[1:]):
        above = floor_div(position, extent_of(axis))
        at[axis.name] = position - above * extent_of(axis)
        position = above
    return at | {axes[0].name: position}


def transposed(b: Builder, rows: Sequence[Value], unit: int = 1) -> list[Value]:
    """As many vectors as they have units, a power of two: vector i has unit i of each.

    In step s = 1, 2, 4 .. units whose numbers differ in that bit change places with vectors whose
    numbers do."""
    found, count, step = list(rows), len(rows), 1
    lanes = range(count * unit)
    while step < count:
        back = len(lanes) - step * unit
        low = tuple(i if not i // unit & step else back + i for i in lanes)
        high = tuple(i + step * unit if not i // unit & step else len(lanes) + i for i in lanes)
        for i in range(count):
            if not i & step:
                a, c = found[i], found[i + step]
                found[i] = b.let(Shuffle(a, c, low), "t")
                found[i + step] = b.let(Shuffle(a, c, high), "t")
        step *= 2
    return found


def transpose(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "transpose",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
