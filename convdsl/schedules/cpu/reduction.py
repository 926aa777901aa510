"""Reductions over many positions, as `totals` plans them: one kernel, or two where positions are
split into shares, the second to combine what the shares have found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Read
from convdsl.kernel.nodes import Buffer, Kernel, ReduceLanes, Value
from convdsl.kernel.target import Target
from convdsl.schedules.accumulators import Accumulators
from convdsl.schedules.chain import declare_outputs, emit_stages, store_outputs
from convdsl.schedules.cpu.rounds import Position, Rounds
from convdsl.schedules.cpu.totals import Loop, Way, cycles, plan_totals
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Arguments, Output, Pack, Schedule, Scheduled, Scratch, Task
from convdsl.schedules.totals import MANY, match_totals
from convdsl.tensor import Dim, dim_min
from convdsl.tensor.records import record


def plan(task: Task, target: Target) -> Way | None:
    """How the task is walked; None where it is no reduction by itself. Fewer positions than are
    worth loops of their own may fill vectors, if they lie side by side."""
    totals = match_totals(task, MANY if task.ending else target.lanes(task.element))
    made = None if totals is None else plan_totals(totals, task, target)
    if made is None or (made.kept and made.totals.positions < MANY):
        return None
    return made


def cost(task: Task, target: Target) -> float | None:
    """Cycles of the walk."""
    made = plan(merged(task), target)
    return None if made is None else cycles(made)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel, or one that sums shares and one that combines them in their order."""
    task = merged(task)
    made = plan(task, target)
    assert made is not None
    emitter = _Reduction(task, made)
    if made.shares == 1:
        return Scheduled((emitter.walking(name, finishes=True),))
    first = emitter.walking(f"{name}_shares", finishes=False)
    scratch = tuple(
        Scratch(_partial(number), reduce.dtype, emitter.size)
        for number, reduce in enumerate(made.totals.reduces)
    )
    return Scheduled((first, emitter.combining(name)), scratch)


def _partial(number: int) -> str:
    """The name of the memory for what shares find."""
    return f"partial{number}"


@record
class _Unit:
    """A vector of results, or a single one: where its axes stand (the vector's own at its first
    position), its number among all, and which lanes exist."""

    at: Position
    number: Dim
    valid: int | None
    share: Dim


class _Kernel:
    """A kernel under construction: buffers of those operands that it reads, of outputs and of
    what shares find."""

    def __init__(self, task: Task, plan: Way, name: str) -> None:
        self.task = task
        self.plan = plan
        self.b = Builder(name, plan.totals.reduces[0].dtype, plan.lanes)
        self.views: dict[str, View] = {}
        self.arguments: list[tuple[str, Pack | None]] = []

    def operands(self, wanted: Sequence[Read]) -> None:
        names = {read.tensor.name for read in wanted}
        for operand in self.task.operands:
            name, dtype = operand.var.name, operand.var.type.dtype
            if name in names:
                layout = self.plan.layouts[name]
                self.views[name] = View(self.b.buffer(name, dtype, layout.size), layout)
                self.arguments.append((name, layout if operand.static else None))

    def outputs(self, outputs: Sequence[Output]) -> None:
        self.views |= declare_outputs(self.b, outputs)
        self.arguments += [(output.var.name, None) for output in outputs]

    def scratch(self, size: int, *, written: bool) -> list[Buffer]:
        made: list[Buffer] = []
        for number, reduce in enumerate(self.plan.totals.reduces):
            made.append(self.b.buffer(_partial(number), reduce.dtype, size, written=written))
            self.arguments.append((_partial(number), None))
        return made

    def finished(self) -> tuple[Kernel, Arguments]:
        return self.b.kernel(), tuple(self.arguments)

    def units(self, shares: int, body: Callable[[_Unit], None]) -> None:
        """All units, and shares of each, in parallel; a vector that is not whole by itself."""
        plan = self.plan
        if not plan.kept:
            self._units(shares, 1, 0, None, body)
            return
        if plan.whole:
            self._units(shares, plan.whole, 0, None, body)
        if plan.rest:
            self._units(shares, 1, plan.whole, plan.rest, body)

    def _units(
        self, shares: int, count: int, start: int, valid: int | None, body: Callable[[_Unit], None]
    ) -> None:
        plan = self.plan
        names = [*(axis.name for axis in plan.others), "block", "share"]
        extents = [*(extent_of(axis) for axis in plan.others), count, shares]
        with self.b.parallel(names, extents) as (*others, block, share):
            at = {axis.name: i for axis, i in zip(plan.others, others, strict=True)}
            number: Dim = 0
            for axis, i in zip(plan.others, others, strict=True):
                number = number * extent_of(axis) + i
            number = number * plan.blocks + start + block
            if plan.kept:
                at[plan.axis.name] = (start + block) * plan.lanes
            body(_Unit(at, number, valid, share))

    def finish(self, unit: _Unit, values: Sequence[Value]) -> None:
        """The stages after the reductions, and what leaves."""
        plan, totals, b = self.plan, self.plan.totals, self.b
        at, lanes = dict(unit.at), plan.lanes
        if plan.kept:
            at[plan.axis.name] = at[plan.axis.name] + lane_symbol(lanes)
        else:
            pairs = zip(totals.reduces, values, strict=True)
            values, lanes = [b.let(ReduceLanes(r.op, v), r.op) for r, v in pairs], 1
        known = tuple(zip(totals.reduces, values, strict=True))
        emitter = Emitter(b, self.views, lanes, unit.valid, known)
        held = emit_stages(emitter, totals.stages, totals.outputs, at)
        store_outputs(emitter, totals.outputs, totals.kept, held, unit.at, unit.valid)


class _Reduction:
    """Emits the kernels of one reduction."""

    def __init__(self, task: Task, plan: Way) -> None:
        self.task = task
        self.plan = plan
        self.totals = plan.totals
        self.size = plan.units * plan.shares * plan.lanes

    def walking(self, name: str, *, finishes: bool) -> tuple[Kernel, Arguments]:
        """The kernel that meets all positions."""
        plan, totals = self.plan, self.totals
        kernel = _Kernel(self.task, plan, name)
        kernel.operands(totals.inner_reads + (totals.outer_reads if finishes else []))
        kernel.outputs((*totals.front_outputs, *(totals.outputs if finishes else ())))
        scratch = [] if finishes else kernel.scratch(self.size, written=True)
        near = Accumulators.of(kernel.b, totals.reduces, plan.slots, plan.lanes)
        far = Accumulators.of(kernel.b, totals.reduces, 1, plan.lanes)

        def unit(unit: _Unit) -> None:
            far.clear()
            walk = _Walk(kernel, unit, near, far)
            walk.loops(plan.loops, rest=False)
            if plan.rest and not plan.kept:
                walk.loops(plan.last, rest=True)
            values = far.totals()
            if finishes:
                kernel.finish(unit, values)
            where = (unit.number * plan.shares + unit.share) * plan.lanes
            for buffer, value in zip(scratch, values, strict=False):
                kernel.b.store(buffer, where, value)

        kernel.units(plan.shares, unit)
        return kernel.finished()

    def combining(self, name: str) -> tuple[Kernel, Arguments]:
        """The kernel that combines what shares have found, always in the same order."""
        plan, totals, slots = self.plan, self.totals, 4
        kernel = _Kernel(self.task, plan, name)
        scratch = kernel.scratch(self.size, written=False)
        kernel.operands(totals.outer_reads)
        kernel.outputs(totals.outputs)
        acc = Accumulators.of(kernel.b, totals.reduces, slots, plan.lanes)

        def unit(unit: _Unit) -> None:
            def take(share: Dim, slot: int) -> None:
                where = (unit.number * plan.shares + share) * plan.lanes
                acc.take(slot, [kernel.b.load(buffer, where) for buffer in scratch])

            acc.clear()
            with kernel.b.serial("some", plan.shares // slots) as some:
                for slot in range(slots):
                    take(some * slots + slot, slot)
            for slot in range(plan.shares % slots):
                take(plan.shares // slots * slots + slot, slot)
            kernel.finish(unit, acc.totals())

        kernel.units(1, unit)
        return kernel.finished()


@record
class _Walk:
    """The loops over the positions of one share of a unit."""

    kernel: _Kernel
    unit: _Unit
    near: Accumulators
    far: Accumulators

    def loops(self, loops: tuple[Loop, ...], *, rest: bool) -> None:
        """`rest`: at the last, incomplete vector of the axis that vectors run along."""
        plan = self.kernel.plan
        rounds = Rounds(self.kernel.b, loops, plan.slots)
        chunk = -(-rounds.count // plan.shares)
        first = self.unit.share * chunk
        rounds.walk(
            first,
            dim_min(first + chunk, rounds.count),
            chunk,
            lambda at, slot: self.position(at, slot, rest=rest),
            self.near.clear,
            lambda: self.far.take(0, self.near.totals()),
        )

    def position(self, at: Position, slot: int, *, rest: bool) -> None:
        """One vector of terms."""
        plan, totals, unit = self.kernel.plan, self.kernel.plan.totals, self.unit
        single: Position = {axis.name: 0 for axis in totals.front_axes if axis.extent == 1}
        first = {**single, **unit.at, **at}
        own = plan.axis.name
        if not plan.kept:
            first[own] = plan.whole * plan.lanes if rest else first[own] * plan.lanes
        here = {**first, own: first[own] + lane_symbol(plan.lanes)}
        valid = plan.rest if rest else unit.valid
        emitter = Emitter(self.kernel.b, self.kernel.views, plan.lanes, valid, loaded={})
        held = emit_stages(
            emitter, totals.front, totals.front_outputs, here, self.kernel.task.ended
        )
        self.near.add(slot, emitter.holding(held), here, plan.rest if rest else None)
        store_outputs(emitter, totals.front_outputs, totals.front_axes, held, first, valid)


def reduction(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "reduction",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
