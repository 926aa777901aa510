"""Running reductions: one walk along the axis, what is combined so far beside it.

for i in order: acc = acc + v[i]; y[i] = acc        (exclusive: stored before it is added)

Along rows acc is a register; across them it is a strip of vectors in memory of the iteration's own,
so that each step reads and writes a long piece of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, arithmetic
from convdsl.kernel.nodes import Binary, Buffer, Cast, Const, Get, Value, ValueType
from convdsl.kernel.running import Running, match_running
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.generic import operand_layout
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim
from convdsl.tensor.records import record

_STEP = 5.0  # cycles from one addition to the next, with load and store
_STRIP = 0.5  # of the first-level cache: long pieces of rows are read ahead, short ones waited for
_SHARES = 4  # strips, where what is beside them gives fewer, but for strips shorter than
_SHORT = 4096  # bytes: a page
_TOGETHER = 4  # vectors of a strip that are met in one body of a loop


@record
class Walk:
    """The reduction, and vectors of `lanes` along `along` (scalars where that is None), up to
    `strip` of them side by side."""

    running: Running
    along: Axis | None
    lanes: int
    rest: tuple[Axis, ...]
    strip: int = 1


def plan(task: Task, target: Target) -> Walk | None:
    """None where the task is anything but a running reduction. Axes are as few as it lies along."""
    task = merged(task)
    (stage, *more) = task.stages
    found = match_running(stage)
    if more or found is None or task.ending is not None:
        return None
    along, lanes = task.axes[-1], target.lanes(task.element)
    if task.layout.axis is not None:
        along, lanes = task.axes[task.layout.axis], task.layout.block
    narrow = extent_of(along) < lanes and task.layout.axis is None
    if along is found.axis or lanes == 1 or narrow:
        rest = tuple(axis for axis in task.axes if axis is not found.axis)
        return Walk(found, None, 1, rest)
    rest = tuple(axis for axis in task.axes if axis not in (found.axis, along))
    return Walk(found, along, lanes, rest, _strip(extent_of(along) // lanes, rest, target))


def _strip(vectors: int, rest: Sequence[Axis], target: Target) -> int:
    """As many vectors as one walk meets side by side; several strips are as long as each other,
    but for the last."""
    room = int(target.caches.l1_bytes * _STRIP) // target.vector_bytes
    shares = -(-_SHARES // math.prod(map(extent_of, rest)))
    long = vectors * target.vector_bytes // _SHORT
    strips = max(-(-vectors // room), min(shares, long), 1)
    return max(1, -(-vectors // strips))


def cost(task: Task, target: Target) -> float | None:
    """Cycles: the walks, each step waiting for the one before."""
    chosen = plan(task, target)
    if chosen is None:
        return None
    work = arithmetic(chosen.running.value)
    assert isinstance(work, int)
    vectors = 1 if chosen.along is None else -(-extent_of(chosen.along) // chosen.lanes)
    walks = math.prod(map(extent_of, chosen.rest)) * vectors
    return float(walks * extent_of(chosen.running.axis)) * (_STEP + work)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: each share of the output is walked once."""
    task = merged(task)
    chosen = plan(task, target)
    assert chosen is not None
    reads, along = task.reads, chosen.along
    layouts = {o.var.name: operand_layout(o, reads, along, chosen.lanes) for o in task.operands}
    frame = Frame.open(task, name, chosen.lanes, layouts)
    dtype = chosen.running.value.dtype
    strip = frame.b.private("strip", chosen.strip * chosen.lanes, dtype)
    _Walks(frame.b, task, chosen, frame.views, strip).all()
    own = Scratch(strip.name, dtype, strip.size, private=True)
    return Scheduled(((frame.b.kernel(), (*frame.arguments, (strip.name, None))),), (own,))


@record
class _Walks:
    """The loops: strips of the rest in parallel, each walked along the axis."""

    b: Builder
    task: Task
    plan: Walk
    views: Mapping[str, View]
    strip: Buffer

    def all(self) -> None:
        plan = self.plan
        if plan.along is None:
            self.share(1, 0, 1)
            return
        whole, over = divmod(extent_of(plan.along), plan.lanes)
        if whole:
            long = plan.strip
            self.share(whole // long, 0, plan.lanes, width=long)
            self.share(1, whole // long * long, plan.lanes, width=whole % long)
        if over and self.task.layout.axis is not None:  # the filling may be written
            self.share(1, whole, plan.lanes, over)
        elif over:
            self.share(over, whole * plan.lanes, 1)

    def share(
        self, count: int, first: int, lanes: int, valid: int | None = None, width: int = 1
    ) -> None:
        """`count` strips of `width` vectors of `lanes` from number `first` on, for all the rest."""
        if not count or not width:
            return
        plan, b = self.plan, self.b
        names = [axis.name for axis in plan.rest]
        extents = [extent_of(axis) for axis in plan.rest]
        type = ValueType(plan.running.value.dtype, lanes)
        total = b.registers(1, type, "total")
        start = Const(REDUCTIONS[plan.running.op].neutral(type.dtype), type)
        with b.parallel([*names, "vector"], [*extents, count]) as (*rest, vector):
            at = dict(zip(names, rest, strict=True))
            if width == 1:
                b.set(total, 0, start)
            else:
                with b.serial("clear", width) as number:
                    b.store(self.strip, number * lanes, start)
            extent = extent_of(plan.running.axis)
            with b.serial("step", extent) as step:
                position = extent - 1 - step if plan.running.backwards else step
                for number in [0] if width == 1 else self.numbers(width):
                    so_far = Get(total, 0) if width == 1 else b.load(self.strip, number * lanes)
                    where = (first + vector * width + number) * lanes
                    new = self.step(so_far, at, position, where, valid)
                    if width == 1:
                        b.set(total, 0, new)
                    else:
                        b.store(self.strip, number * lanes, new)

    def numbers(self, width: int) -> Iterator[Dim]:
        """Numbers of the vectors of a strip, in loops whose bodies are several of them."""
        several, rest = divmod(width, _TOGETHER)
        if several:
            with self.b.serial("several", several) as group:
                for number in range(_TOGETHER):
                    yield group * _TOGETHER + number
        yield from range(width - rest, width)

    def step(
        self,
        so_far: Value,
        at: Mapping[str, Dim],
        position: Dim,
        first: Dim,
        valid: int | None,
    ) -> Value:
        """Take in the value at one position, and put out what is combined before or after."""
        b, parts, lanes = self.b, self.plan.running, so_far.type.lanes
        (output,) = self.task.outputs
        view = self.views[output.var.name]
        bound = {**at, parts.axis.name: position, parts.term.name: position}
        where = view.layout.offset([self.along(bound, first)[a.name] for a in self.task.axes])
        emitter = Emitter(b, self.views, lanes, valid)
        value = b.let(emitter.emit(parts.value, self.along(bound, first + lane_symbol(lanes))))
        new = b.let(Binary(REDUCTIONS[parts.op].combine, so_far, value), "total")
        kept: Value = new if parts.included else so_far
        if parts.stored is not kept.type.dtype:
            kept = Cast(kept, ValueType(parts.stored, lanes))
        b.store(view.buffer, where, kept)
        return new

    def along(self, at: Mapping[str, Dim], position: Dim) -> dict[str, Dim]:
        """With the axis of the vectors bound as well."""
        return {**at, self.plan.along.name: position} if self.plan.along else {**at}


def running(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "running",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
