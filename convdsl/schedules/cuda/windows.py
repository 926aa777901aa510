"""Windows that slide: several outputs a thread, of depthwise convolutions, data gradients, pools.

What neighbouring windows share is loaded once and stays in registers: of a filter of 3 x 3, eight
outputs side by side read thirty positions instead of seventy-two, and each filter once instead of
eight times. A thread has four channels of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product

from convdsl.kernel.builder import Builder
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis, Read, Reduce, reads, walk
from convdsl.kernel.nodes import Const, Get, IndexTest, Load, Registers, Value, Var
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.contraction import coefficient, depends
from convdsl.schedules.cuda import vectors
from convdsl.schedules.cuda.costs import moved_bytes, nanoseconds
from convdsl.schedules.cuda.frame import THREADS, block_of, each, guarded, unravelled
from convdsl.schedules.emission import Emitter, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min, substitute

_MOST = 8
"""Outputs of a thread."""

_LOADS = 20
"""Vectors that a row of windows reads at most: with the sums, eight more, they stay within the
registers of half as many threads as a multiprocessor may have."""

_UNROLLED = 32  # positions of a window


@dataclass(frozen=True, slots=True)
class Windows:
    """`side` outputs of a thread along an axis; `way` is how a single one would be made."""

    way: vectors.Way
    reduce: Reduce
    axis: Axis
    side: int

    @property
    def blocks(self) -> int:
        """Along the axis; the last one overlaps the one before where they do not divide it."""
        return -(-extent_of(self.axis) // self.side)

    @property
    def others(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.way.others if axis != self.axis)

    @property
    def threads(self) -> int:
        return math.prod(map(extent_of, self.others)) * self.blocks * self.way.whole

    @property
    def last(self) -> Axis:
        """The axis of the window along which outputs lie."""
        return next(
            a for a in self.reduce.axes if any(_slides(r, self.axis, a) for r in self.reads)
        )

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(reads(self.reduce.body))

    @property
    def overlaps(self) -> bool:
        """Whether neighbouring windows read the same positions."""
        moving = (r for r in self.reads if _slides(r, self.axis, self.last))
        return all(len(set(p)) < len(p) for p in (list(self._places(r)) for r in moving))

    @property
    def row(self) -> int:
        """Vectors that a row of a thread's windows reads."""
        return sum(map(self.met, self.reads))

    def met(self, read: Read) -> int:
        """Those of one operand."""
        return len(set(self._places(read)))

    def _places(self, read: Read) -> Iterator[tuple[int, ...]]:
        """Where the outputs read for all taps of a row, on the axes that they move on."""
        for number, tap in product(range(self.side), range(extent_of(self.last))):
            at = {self.axis.name: number, self.last.name: tap}
            zero = dict.fromkeys(at, 0)
            moved = (substitute(d, at) - substitute(d, zero) for d in read.index)
            yield tuple(step for step in moved if isinstance(step, int))

    @property
    def rows(self) -> int:
        return math.prod(map(extent_of, self.reduce.axes)) // extent_of(self.last)


def _slides(read: Read, axis: Axis, tap: Axis) -> bool:
    """Whether a window moves along an axis in the index that one of its own axes moves."""
    return any(
        depends(index, axis) and (coefficient(index, axis) or 0) and coefficient(index, tap)
        for index in read.index
    )


def plan(task: Task, target: CudaTarget) -> Windows | None:
    """None where no windows slide along an axis of what has channels inside, or threads are few."""
    way = vectors.plan(task)
    if way is None or task.layout.axis is None or len(task.reducing) != 1 or task.ending:
        return None
    found = {e: None for s in task.stages for e in walk(s.body) if isinstance(e, Reduce)}
    if len(found) != 1:
        return None
    (reduce,) = found
    if any(isinstance(e, Reduce) for e in walk(reduce.body)):
        return None
    own = tuple(reads(reduce.body))
    for axis in reversed(way.others):
        if not any(_slides(r, axis, tap) for r in own for tap in reduce.axes):
            continue
        for side in _sides(extent_of(axis)):
            made = Windows(way, reduce, axis, side)
            busy = made.threads >= target.facts.multiprocessors * THREADS
            if busy and made.overlaps and made.row <= _LOADS and extent_of(made.last) <= _UNROLLED:
                return made
    return None


def _sides(extent: int) -> Iterator[int]:
    """How many outputs to try: what divides an axis before what does not."""
    counts = range(min(_MOST, extent), 1, -1)
    yield from (n for n in counts if extent % n == 0 and n > 2)
    yield from (n for n in counts if n > 2)
    yield 2


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: an access for each vector that a thread's windows meet."""
    made = plan(task, target)
    if made is None:
        return None
    own = sum(made.met(read) * vectors.price(read, made.way) for read in made.reads)
    others = list(task.reads)
    for read in made.reads:
        others.remove(read)
    beside = sum(vectors.price(read, made.way) for read in others) + len(task.outputs)
    accesses = made.threads * (made.rows * own + made.side * beside)
    launches = 1 + len(made.way.packed)
    rows = made.rows if made.rows * extent_of(made.last) > _UNROLLED else 0
    return nanoseconds(target, moved_bytes(task), accesses, rows, launches)


def emit(task: Task, name: str, target: CudaTarget) -> Scheduled:
    """One kernel."""
    made = plan(task, target)
    assert made is not None
    frame = Frame.open(task, name, vectors.LANES, made.way.layouts, made.way.packed)
    b, extent = frame.b, extent_of(made.axis)
    extents = [*map(extent_of, made.others), made.blocks, made.way.whole]
    ends = {made.way.axis.name: extent_of(made.way.axis)}
    with each(b, made.threads, block_of(target, made.threads)) as number:
        *outer, block, vector = unravelled(number, extents)
        begin = block * made.side
        start = dim_min(begin, extent - made.side)
        at: dict[str, Dim] = {a.name: i for a, i in zip(made.others, outer, strict=True)}
        channel = vector * vectors.LANES
        places = [{**at, made.axis.name: start + number} for number in range(made.side)]
        lanes = [
            {**place, made.way.axis.name: channel + lane_symbol(vectors.LANES)} for place in places
        ]
        emitter = _Remembering(b, frame.views, vectors.LANES, ends=ends)
        values = _sums(b, emitter, made, lanes)
        for place, here, value in zip(places, lanes, values, strict=True):
            with guarded(b, IndexTest("ge", place[made.axis.name], begin)):
                own = replace(emitter, known=((made.reduce, value),))
                held = emit_stages(own, task.stages, task.outputs, here)
                first = {**place, made.way.axis.name: channel}
                store_outputs(own, task.outputs, task.axes, held, first)
    return frame.finish()


@dataclass(frozen=True, slots=True)
class _Remembering(Emitter):
    """Loads once what several windows read, inside the map or not."""

    def once(self, load: Load, name: str) -> Value:
        if self.loaded is None:
            return load
        key = (f"{load.buffer.name} {load.guards}", load.index)
        if key not in self.loaded:
            self.loaded[key] = self.b.let(load, name)
        return self.loaded[key]


def _sums(b: Builder, emitter: Emitter, made: Windows, places: list[dict[str, Dim]]) -> list[Var]:
    """The reduction of every window: rows of it in loops where they are many."""
    reduce = made.reduce
    acc = b.registers(made.side, emitter.type(reduce.dtype))
    for slot in range(made.side):
        b.set(acc, slot, Const(REDUCTIONS[reduce.op].neutral(reduce.dtype), acc.type))
    outer = [axis for axis in reduce.axes if axis != made.last]
    unrolled = made.rows * extent_of(made.last) <= _UNROLLED
    with ExitStack() as loops:
        rows: list[dict[str, Dim]] = [{}]
        for axis in outer:
            steps = range(extent_of(axis))
            if unrolled:
                rows = [{**row, axis.name: step} for row in rows for step in steps]
            else:
                step = loops.enter_context(b.serial(axis.name, extent_of(axis)))
                rows = [{**row, axis.name: step} for row in rows]
        for row in rows:
            _row(replace(emitter, loaded={}), made, acc, row, places)
    return [b.let(Get(acc, slot), reduce.op) for slot in range(made.side)]


def _row(
    emitter: Emitter,
    made: Windows,
    acc: Registers,
    row: Mapping[str, Dim],
    places: list[dict[str, Dim]],
) -> None:
    """One row of all windows."""
    for tap in range(extent_of(made.last)):
        for slot, place in enumerate(places):
            emitter.combine(made.reduce, acc, slot, {**place, **row, made.last.name: tap}, ())


def windows(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule(
        "windows",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
