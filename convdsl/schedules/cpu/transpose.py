"""Copies that turn rows into vectors: filters packed in calls, from the arrays that a step changes.

    y[.., c, r.., k] = x[k, c, r..]

Picking the elements of a vector one by one meets as many rows of x at each step, which lie far
apart and push each other out of the cache. So as many vectors are loaded along the rows as a
vector has lanes, transposed in registers, and stored where their elements belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, IndexTest, Load, Shuffle, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, floor_div, substitute

_CYCLES = 0.6  # of one element


@dataclass(frozen=True, slots=True)
class _Way:
    """`read` moves by one element along the `run` axes (the last one fastest), taken as one; by
    more along `across`, the last axis of what is written."""

    read: Read
    across: Axis
    run: tuple[Axis, ...]
    lanes: int

    @property
    def length(self) -> int:
        return prod(extent_of(axis) for axis in self.run)


def plan(task: Task, target: Target) -> _Way | None:
    """None where the task is no such copy, or rows are shorter than a vector."""
    (stage, *more), lanes = task.stages, target.lanes(task.element)
    read = stage.body
    if more or task.ending is not None or not isinstance(read, Read) or not stage.axes:
        return None
    layout = task.operands[0].layout
    dtypes = {read.dtype, stage.target.type.dtype}
    if layout is None or layout.axis is not None or task.layout.axis is not None or len(dtypes) > 1:
        return None
    offset, across = layout.offset(read.index), stage.axes[-1]
    steps = {axis.name: coefficient(offset, axis) for axis in stage.axes}
    if lanes < 2 or lanes & (lanes - 1) or None in steps.values() or extent_of(across) % lanes:
        return None
    run: list[Axis] = []
    wanted = 1
    while found := [a for a in stage.axes[:-1] if steps[a.name] == wanted and extent_of(a) > 1]:
        run.insert(0, found[0])
        wanted *= extent_of(found[0])
    way = _Way(read, across, tuple(run), lanes)
    return way if way.length >= lanes and _stays(way, stage.axes) else None


def _stays(way: _Way, axes: Sequence[Axis]) -> bool:
    """Whether only the position along `across` decides if the tensor is left."""
    if way.read.outside is None:
        return True
    others: dict[str, Dim] = {axis.name: 0 for axis in axes if axis in way.run}
    for index, extent in zip(way.read.index, way.read.tensor.type.sizes, strict=True):
        if substitute(index, others) != index and bounds_tests(index, extent):
            return False
    return True


def cost(task: Task, target: Target) -> float | None:
    """Loads, shuffles and stores of vectors."""
    return None if plan(task, target) is None else task.layout.size * _CYCLES


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Blocks of lanes x lanes, then shorter ones at the end of a row."""
    way = plan(task, target)
    assert way is not None
    (operand,), (output,) = task.operands, task.outputs
    layout, lanes = operand.layout, way.lanes
    assert layout is not None
    b = Builder(name, task.element, lanes)
    x = b.buffer(operand.var.name, operand.var.type.dtype, layout.size)
    y = b.buffer(output.var.name, output.var.type.dtype, output.layout.size, written=True)
    others = [axis for axis in task.axes[:-1] if axis not in way.run]
    start: dict[str, Dim] = {axis.name: 0 for axis in way.run}
    whole, rest = divmod(way.length, lanes)

    def block(at: Mapping[str, Dim], position: Dim) -> None:
        """As many positions of as many rows."""
        rows = [
            b.let(_row(way, layout, x, {**at, **start, way.across.name: first + lane}, position))
            for lane in range(lanes)
        ]
        for i, vector in enumerate(transposed(b, rows)):
            here = {**at, **_digits(way.run, position + i), way.across.name: first}
            b.store(y, output.offset(here, task.axes), vector)

    names = [*(axis.name for axis in others), "block"]
    extents = [*(extent_of(axis) for axis in others), extent_of(way.across) // lanes]
    with b.parallel(names, extents) as (*outer, number):
        at = {axis.name: place for axis, place in zip(others, outer, strict=True)}
        first = number * lanes
        with b.serial("row", whole) as row:
            block(at, row * lanes)
        if rest:
            block(at, way.length - lanes)
    return Scheduled.one(b.kernel(), [(operand.var.name, None), (output.var.name, None)])


def _row(way: _Way, layout: Layout, x: Buffer, at: Mapping[str, Dim], position: Dim) -> Load:
    """A vector along a row, zeros where there is no such row."""
    index = [substitute(d, at) for d in way.read.index]
    guards: list[IndexTest] = []
    if way.read.outside is not None:
        for place, extent in zip(index, way.read.tensor.type.sizes, strict=True):
            guards += bounds_tests(place, extent)
    type = ValueType(x.dtype, way.lanes)
    return Load(x, layout.offset(index) + position, type, tuple(guards), way.read.outside or 0)


def _digits(axes: Sequence[Axis], position: Dim) -> dict[str, Dim]:
    """Where each axis stands at a position of all of them as one."""
    at: dict[str, Dim] = {}
    for axis in reversed(axes[1:]):
        above = floor_div(position, extent_of(axis))
        at[axis.name] = position - above * extent_of(axis)
        position = above
    return at | {axes[0].name: position}


def transposed(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """As many vectors as they have lanes, a power of two: vector i has lane i of each.

    In step s = 1, 2, 4 .. lanes whose numbers differ in that bit change places with vectors whose
    numbers do."""
    found, lanes, step = list(rows), len(rows), 1
    while step < lanes:
        low = tuple(i if not i & step else lanes + i - step for i in range(lanes))
        high = tuple(i + step if not i & step else lanes + i for i in range(lanes))
        for i in range(lanes):
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
