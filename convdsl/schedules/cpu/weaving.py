"""Copies that weave a few rows into one, or take them apart again.

    y[s, c] = x[c, s]        c < r, fewer than a vector has lanes: channels last, pairs, points
    y[c, s] = x[s, c]

As many positions s as a vector has lanes are r whole vectors on either side: of rows, and of what
lies side by side. Either is loaded, shuffled in registers, and stored as the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, Const, Load, Shuffle, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.cpu.transpose import bind, piece_of, transposed
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min, substitute
from convdsl.tensor.records import record

_SHUFFLE, _MOVE = 0.5, 1.0  # cycles of a shuffle, and of a vector that is loaded or stored

Place: TypeAlias = "tuple[int, int]"  # which vector, and which lane of it


@record
class Weave:
    """Rows along the axes `along`, as along one, and the axes `across` the rows, of r positions;
    `woven`: what is written lies [along, across], else what is read does."""

    read: Read
    layout: Layout
    along: tuple[Axis, ...]
    across: tuple[Axis, ...]
    woven: bool
    lanes: int

    @property
    def length(self) -> int:
        return prod(map(extent_of, self.along))

    @property
    def rows(self) -> int:
        return prod(map(extent_of, self.across))

    @property
    def by_tiles(self) -> bool:
        """Whether turning a square of vectors takes fewer shuffles than picking from each row."""
        return self.rows * (self.rows - 1) > turning(self.lanes)

    @property
    def shuffles(self) -> int:
        return min(self.rows * (self.rows - 1), turning(self.lanes))


def plan(task: Task, target: Target) -> Weave | None:
    """None where the task is no copy between the two, or rows are shorter than a vector."""
    (stage, *more), lanes = task.stages, target.lanes(task.element)
    read = stage.body
    if more or task.ending is not None or not isinstance(read, Read) or read.outside is not None:
        return None
    layout, (output,) = task.operands[0].layout, task.outputs
    if layout is None or output.at is not None or read.dtype is not stage.target.type.dtype:
        return None
    if layout.axis is not None or output.layout.axis is not None or lanes < 4:
        return None
    axes = [axis for axis in stage.axes if extent_of(axis) > 1]
    places = layout.offset(read.index), output.layout.offset([axis.i for axis in stage.axes])
    steps = [{axis: coefficient(place, axis) for axis in axes} for place in places]
    for woven, (apart, together) in ((True, steps), (False, steps[::-1])):
        rows, lying = _run(axes, apart, 1), _run(axes, together, 1)
        for count in range(1, len(lying)):
            across, width = lying[-count:], prod(map(extent_of, lying[-count:]))
            along = _common(rows, _run(axes, together, width))
            way = Weave(read, layout, along, across, woven, lanes)
            if along and width < lanes <= way.length:
                return way
    return None


def _run(axes: Sequence[Axis], steps: Mapping[Axis, int | None], first: int) -> tuple[Axis, ...]:
    """Axes along which places go on in steps of `first`, the last one fastest."""
    run: list[Axis] = []
    while found := [axis for axis in axes if steps[axis] == first]:
        run.insert(0, found[0])
        first *= extent_of(found[0])
    return tuple(run)


def _common(a: Sequence[Axis], b: Sequence[Axis]) -> tuple[Axis, ...]:
    """The last axes of both, as many as agree."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return tuple(a[len(a) - count :])


def cost(task: Task, target: Target) -> float | None:
    """Loads, shuffles and stores of whole vectors."""
    way = plan(task, target)
    if way is None:
        return None
    elements = prod(map(extent_of, task.axes))
    of_block = way.shuffles * _SHUFFLE + 2 * way.rows * _MOVE
    return elements / (way.rows * way.lanes) * of_block


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Blocks of as many positions as there are lanes, a piece of them in a row; then the rest."""
    way = plan(task, target)
    assert way is not None
    (operand,), (output,) = task.operands, task.outputs
    b = Builder(name, task.element, way.lanes)
    x = b.buffer(operand.var.name, operand.var.type.dtype, way.layout.size)
    y = b.buffer(output.var.name, output.var.type.dtype, output.layout.size, written=True)
    others = [axis for axis in task.axes if axis not in (*way.along, *way.across)]
    names, extents = [axis.name for axis in others], [extent_of(axis) for axis in others]
    blocks, rest = divmod(way.length, way.lanes)
    piece = piece_of(blocks)
    kernel = _Kernel(b, x, y, way, task)
    with b.parallel([*names, "piece"], [*extents, -(-blocks // piece)]) as (*places, part):
        at = {axis.name: place for axis, place in zip(others, places, strict=True)}
        first = part * piece
        with b.serial("block", dim_min(first + piece, blocks), first) as block:
            kernel.block(at, block * way.lanes, way.lanes)
    if rest:
        with b.parallel(names or ["rest"], extents or [1]) as places:
            at = {axis.name: place for axis, place in zip(others, places, strict=False)}
            kernel.block(at, blocks * way.lanes, rest)
    return Scheduled.one(b.kernel(), [(operand.var.name, None), (output.var.name, None)])


@record
class _Kernel:
    """The kernel under construction, where it reads and writes."""

    b: Builder
    x: Buffer
    y: Buffer
    way: Weave
    task: Task

    def block(self, at: Mapping[str, Dim], first: Dim, count: int) -> None:
        """`count` positions from the first on, of all rows."""
        way, lanes = self.way, self.way.lanes
        vectors = -(-count * way.rows // lanes)
        lying = [
            (0, first, j * lanes, min(lanes, count * way.rows - j * lanes)) for j in range(vectors)
        ]
        rows = [(row, first, 0, count) for row in range(way.rows)]
        source, target = (rows, lying) if way.woven else (lying, rows)
        loaded = [self.load({**at, **self.place(row, s)}, ahead, n) for row, s, ahead, n in source]
        made = self.woven(loaded, vectors) if way.woven else self.unwoven(loaded)
        (output,) = self.task.outputs
        for (row, s, ahead, n), value in zip(target, made, strict=True):
            where = output.offset({**at, **self.place(row, s)}, self.task.axes) + ahead
            self.b.store(self.y, where, value, n if n < lanes else None)

    def place(self, row: int, position: Dim) -> dict[str, Dim]:
        return {**bind(self.way.across, row), **bind(self.way.along, position)}

    def load(self, at: Mapping[str, Dim], ahead: int, count: int) -> Value:
        """A vector, `ahead` of a place."""
        where = self.way.layout.offset([substitute(d, at) for d in self.way.read.index]) + ahead
        valid = count if count < self.way.lanes else None
        type = ValueType(self.x.dtype, self.way.lanes)
        return self.b.let(Load(self.x, where, type, valid=valid))

    def woven(self, rows: Sequence[Value], vectors: int) -> list[Value]:
        """Vectors of what lies side by side."""
        return woven(self.b, rows, vectors, by_tiles=self.way.by_tiles)

    def unwoven(self, lying: Sequence[Value]) -> list[Value]:
        """The rows again."""
        way, lanes = self.way, self.way.lanes

        def picks(elements: Sequence[int]) -> list[Place]:
            return [divmod(e, lanes) for e in elements]

        if not way.by_tiles:
            rows = [range(row, lanes * way.rows, way.rows) for row in range(way.rows)]
            return [_picked(self.b, lying, picks(row)) for row in rows]
        positions = [range(s * way.rows, (s + 1) * way.rows) for s in range(lanes)]
        return _turned(self.b, [_picked(self.b, lying, picks(s)) for s in positions])[: way.rows]


def turning(lanes: int) -> int:
    """Shuffles of a square of vectors, and to join or part what lies side by side."""
    return lanes * (lanes.bit_length() - 1) + 2 * lanes


def woven(b: Builder, rows: Sequence[Value], vectors: int, *, by_tiles: bool) -> list[Value]:
    """The first vectors of what lies side by side, of r rows: element e is of row e mod r."""
    many, lanes = len(rows), rows[0].type.lanes
    elements = [range(j * lanes, (j + 1) * lanes) for j in range(vectors)]
    if not by_tiles:
        return [_picked(b, rows, [(e % many, e // many) for e in es]) for es in elements]
    turned = _turned(b, rows)
    return [_picked(b, turned, [divmod(e, many) for e in es]) for es in elements]


def _turned(b: Builder, vectors: Sequence[Value]) -> list[Value]:
    """A square of vectors, transposed; those that are not there hold zeros."""
    type = vectors[0].type
    return transposed(b, [*vectors, *[Const(0, type)] * (type.lanes - len(vectors))])


def _picked(b: Builder, sources: Sequence[Value], picks: Sequence[Place]) -> Value:
    """A vector of lanes of others; those that are not there, and what lies behind the last of
    the picks, may be anything."""
    lanes = sources[0].type.lanes
    wanted = {lane: pick for lane, pick in enumerate(picks) if pick[0] < len(sources)}
    used = sorted({source for source, _ in wanted.values()})
    if not used:
        return Const(0, sources[0].type)
    here = {lane: at for lane, (source, at) in wanted.items() if source == used[0]}
    value = sources[used[0]]
    for source in used[1:] or used:
        found = {n: way for n, (of, way) in wanted.items() if of == source and n not in here}
        order = {**here, **{lane: lanes + at for lane, at in found.items()}}
        chosen = tuple(order.get(lane, lane) for lane in range(lanes))
        value = b.let(Shuffle(value, sources[source], chosen), "woven")
        here = {lane: lane for lane in order}
    return value


def weaving(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "weaving",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
