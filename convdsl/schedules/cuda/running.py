"""Running reductions: a block of threads walks along the axis together, a stretch at each turn.

A thread combines some neighbouring positions, one after the other; what comes before its own is
found among the threads of the block, and what comes before the stretch is carried from turn to
turn. So each position is read once, and nothing is ever taken away again: infinities and NaN
reach those that come after them, and no others.

    y[i] = carried + (of the threads before) + v[first] + .. + v[i]

Where the axis itself lies side by side, a team of whole warps has a row: lanes find what comes
before by shuffles (an exclusive scan as a butterfly), warps by shared memory. Where another axis
does, neighbouring threads have neighbouring rows, and members of a team meet in shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.expr import Axis
from convdsl.kernel.nodes import Buffer, Cast, Const, Get, IndexTest, Load, Select, Value, ValueType
from convdsl.kernel.running import Running, match_running
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.schedules.cuda.costs import moved_bytes, nanoseconds
from convdsl.schedules.cuda.frame import THREADS, guarded, unravelled
from convdsl.schedules.cuda.meeting import combined
from convdsl.schedules.emission import Emitter, View, extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.powers import power_from
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min, floor_div
from convdsl.tensor.records import record

_OWN = 4
"""Neighbouring positions of a thread at a turn: enough that what threads find out of each other is
not the most of the work."""

_MEMBERS = 16
"""Of a team whose totals each thread reads one by one."""


@record
class Way:
    """`units` rows to a block, each walked by `team` threads. `side` says that neighbouring rows
    lie side by side, not neighbouring positions; `rest` are the axes of rows, as they lie."""

    running: Running
    rest: tuple[Axis, ...]
    side: bool
    units: int
    team: int

    @property
    def extent(self) -> int:
        """Positions of a row."""
        return extent_of(self.running.axis)

    @property
    def results(self) -> int:
        """Rows."""
        return prod(map(extent_of, self.rest))

    @property
    def turns(self) -> int:
        return -(-self.extent // (self.team * _OWN))

    @property
    def parts(self) -> int:
        """Of a team, what shared memory has the totals of: members, or warps."""
        return self.team if self.side else self.team // WARP


def plan(task: Task) -> Way | None:
    """None where the task is anything but a running reduction."""
    (stage, *more) = task.stages
    found = match_running(stage)
    if more or found is None or task.ending is not None or task.earlier:
        return None
    inner = task.axes[-1 if task.layout.axis is None else task.layout.axis]
    if extent_of(inner) == 1 and task.layout.axis is None:
        inner = next((a for a in reversed(task.axes) if extent_of(a) > 1), inner)
    side = inner is not found.axis
    rest = [axis for axis in task.axes if axis not in (found.axis, inner)]
    rows = (*rest, inner) if side else tuple(rest)
    wanted = -(-extent_of(found.axis) // _OWN)  # threads that a row gives work
    results = prod(map(extent_of, rows))
    if side:
        units = min(WARP, power_from(results))
        team = min(_MEMBERS, THREADS // units, power_from(wanted))
    else:
        team = max(WARP, min(THREADS, power_from(wanted)))
        units = max(1, min(THREADS // team, power_from(results)))
    return Way(found, rows, side, units, team)


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: each position read and written once, one turn after the other."""
    way = plan(task)
    if way is None:
        return None
    accesses = way.results * way.extent * (len(task.reads) + 1)
    return nanoseconds(target, moved_bytes(task), accesses, way.turns)


def emit(task: Task, name: str) -> Scheduled:
    """One kernel."""
    way = plan(task)
    assert way is not None
    frame = Frame.open(task, name)
    _Walk(frame.b, task, way, frame.views).all()
    return frame.finish()


@dataclass(frozen=True)
class _Walk:
    """The kernel under construction."""

    b: Builder
    task: Task
    way: Way
    views: Mapping[str, View]

    @property
    def type(self) -> ValueType:
        return ValueType(self.way.running.value.dtype)

    @property
    def neutral(self) -> Const:
        return Const(REDUCTIONS[self.way.running.op].neutral(self.type.dtype), self.type)

    def together(self, a: Value, b: Value) -> Value:
        """Two parts, the earlier one first."""
        return self.b.let(combined(self.way.running.op, a, b), "t")

    def all(self) -> None:
        """Every turn of every block."""
        b, way = self.b, self.way
        carried = b.registers(1, self.type, "carried")
        with b.blocks(("block",), (-(-way.results // way.units),)) as (block,):
            size = way.parts * way.units
            memory = b.shared("parts", size, self.type.dtype) if way.parts > 1 else None
            names, extents = ("unit", "member"), (way.units, way.team)
            if way.side:
                names, extents = names[::-1], extents[::-1]
            with b.threads(names, extents) as counters:
                unit, member = counters[::-1] if way.side else counters
                row = block * way.units + unit
                exists = IndexTest("lt", row, way.results)
                place = unravelled(
                    dim_min(row, way.results - 1), [extent_of(axis) for axis in way.rest]
                )
                at = {axis.name: i for axis, i in zip(way.rest, place, strict=True)}
                b.set(carried, 0, self.neutral)
                with b.serial("turn", way.turns) as turn:
                    first = (turn * way.team + member) * _OWN
                    own = self.own(at, first)
                    before, total = self.before(own[-1], memory, unit, member)
                    start = self.together(Get(carried, 0), before)
                    self.leave(at, first, start, own, exists)
                    b.set(carried, 0, self.together(Get(carried, 0), total))

    def own(self, at: Mapping[str, Dim], first: Dim) -> list[Value]:
        """What a thread's positions come to, up to each."""
        found: list[Value] = []
        for step in range(_OWN):
            place = self.position(at, dim_min(first + step, self.way.extent - 1))
            value: Value = Emitter(self.b, self.views, 1).emit(self.way.running.value, place)
            if self.way.extent % (self.way.team * _OWN):
                inside = IndexTest("lt", first + step, self.way.extent)
                value = Select(inside, value, self.neutral)
            value = self.b.let(value, "v")
            found.append(self.together(found[-1], value) if found else value)
        return found

    def position(self, at: Mapping[str, Dim], step: Dim) -> dict[str, Dim]:
        """The axes at a step along the walk."""
        parts = self.way.running
        here = self.way.extent - 1 - step if parts.backwards else step
        return {**at, parts.axis.name: here, parts.term.name: here}

    def before(
        self, total: Value, memory: Buffer | None, unit: Dim, member: Dim
    ) -> tuple[Value, Value]:
        """What the threads before have in this turn, and what all of the team have."""
        before: Value = self.neutral
        part = member
        if not self.way.side:
            part = floor_div(member, WARP)
            before, total = self.within_warp(total, member - part * WARP)
        if memory is None:
            return before, total
        return self.between_parts(memory, unit, part, before, total, member)

    def within_warp(self, total: Value, lane: Dim) -> tuple[Value, Value]:
        """Pairs, pairs of pairs and so on: the later one of two has the earlier one before it."""
        before: Value = self.neutral
        mask = 1
        while mask < WARP:
            other = self.b.exchange(total, mask, WARP)
            bit = floor_div(lane, mask) - floor_div(lane, 2 * mask) * 2
            later = IndexTest("eq", bit, 1)
            before = self.b.let(Select(later, self.together(other, before), before), "before")
            pair = Select(later, self.together(other, total), self.together(total, other))
            total = self.b.let(pair, "total")
            mask *= 2
        return before, total

    def between_parts(
        self, memory: Buffer, unit: Dim, part: Dim, before: Value, total: Value, member: Dim
    ) -> tuple[Value, Value]:
        """The same between the parts of a team, each of which says its total."""
        b, way = self.b, self.way
        own = [] if way.side else [IndexTest("eq", member - part * WARP, 0)]
        with guarded(b, *own):
            b.store(memory, part * way.units + unit, total)
        b.barrier()
        loads = [b.let(Load(memory, i * way.units + unit, self.type)) for i in range(way.parts)]
        b.barrier()  # before the next turn stores there
        earlier: Value = self.neutral
        whole: Value = loads[0]
        for i, load in enumerate(loads):
            if i + 1 < way.parts:
                counts = IndexTest("lt", i, part)
                earlier = b.let(Select(counts, self.together(earlier, load), earlier), "earlier")
            if i:
                whole = self.together(whole, load)
        return self.together(earlier, before), whole

    def leave(
        self,
        at: Mapping[str, Dim],
        first: Dim,
        start: Value,
        own: Sequence[Value],
        exists: IndexTest,
    ) -> None:
        """Store what comes up to each position, or before it."""
        b, way = self.b, self.way
        (output,) = self.task.outputs
        view = self.views[output.var.name]
        for step in range(_OWN):
            inside = IndexTest("lt", first + step, way.extent)
            with guarded(b, exists, inside):
                last = step if way.running.included else step - 1
                value = start if last < 0 else self.together(start, own[last])
                if way.running.stored is not self.type.dtype:
                    value = Cast(value, ValueType(way.running.stored))
                place = self.position(at, dim_min(first + step, way.extent - 1))
                b.store(view.buffer, output.offset(place, self.task.axes), value)


def running(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule("running", lambda task: cost(task, target), emit)
