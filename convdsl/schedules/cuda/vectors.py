"""Maps, windows and movements: a thread for sixteen bytes of what lies side by side.

Vectors of four run along the channels, which are filled up to whole ones, or along the last axis
of what is plain, once neighbouring axes along which everything lies alike are one. A thread makes
one vector: neighbours read and write side by side, four times as much at each access, and as many
are on their way as a multiprocessor has threads for. Whatever a thread sums (the window of a pool,
the taps of a filter that has each channel for itself) it holds in registers; that its neighbours
read some of it too is left to the cache. Tasks that read nothing of each other but where they stand
(what is largest in a window, and which tap that is) are one kernel, which reads each window once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from convdsl.ir.classify import is_in_place
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis, Read, Reduce, reads, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import IndexTest, Value, Var
from convdsl.kernel.renaming import over
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.cuda.costs import (
    moved_bytes,
    nanoseconds,
    reads_of_an_element,
    spread,
    steps_of_an_element,
)
from convdsl.schedules.cuda.frame import block_of, each, guarded, stride_along, unravelled
from convdsl.schedules.emission import Emitter, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.merging import merged
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim
from convdsl.tensor.records import record

LANES = 4

_SMALL = 8
"""An operand of so many times fewer elements than the output is small."""


@record
class Way:
    """The task, perhaps over fewer axes; vectors along `axis`, whole ones and what is left."""

    task: Task
    axis: Axis
    whole: int
    rest: int
    layouts: Mapping[str, Layout]
    packed: Collection[str] = ()  # operands that are brought into their layout in each call

    @property
    def others(self) -> tuple[Axis, ...]:
        """The other axes, in the order in which they lie."""
        return tuple(axis for axis in self.task.axes if axis != self.axis)

    @property
    def vectors(self) -> int:
        return math.prod(map(extent_of, self.others)) * self.whole


def plan(task: Task) -> Way | None:
    """None where vectors would not lie at multiples of their size."""
    if not task.axes:
        return None
    if task.earlier:
        together = _together(task)
        if together is None:
            return None
        task = together
    if task.layout.axis is not None:
        axis, block = task.axes[task.layout.axis], task.layout.block
        if task.layout.blocks > 1 or block % LANES:
            return None
        whole, rest = -(-extent_of(axis) // LANES), 0
    else:
        task = task if task.earlier else _flat(task)
        axis, block = task.axes[-1], LANES
        whole, rest = divmod(extent_of(axis), LANES)
        if not whole or (rest and len(task.axes) > 1):
            return None
    layouts = {o.var.name: operand_layout(o, task.reads, axis, block) for o in task.operands}
    packed = _packed(task, axis, block)
    return Way(task, axis, whole, rest, layouts | packed, tuple(packed))


def _together(task: Task) -> Task | None:
    """The task and its earlier ones over the same axes; None where they are not, where they are cut
    otherwise, or where what one hands on is not read at its own position alone."""
    own = (task.layout.shape, task.layout.axis, task.layout.block)
    handed: set[str] = set()
    for one in (*task.earlier, task):
        if (one.layout.shape, one.layout.axis, one.layout.block) != own:
            return None
        for stage in one.stages:
            made = [read for read in reads(stage.body) if read.tensor.name in handed]
            if not all(is_in_place(read, stage.axes) for read in made):
                return None
        handed |= {stage.target.name for stage in one.stages}
    earlier = tuple(
        replace(one, stages=tuple(over(stage, task.axes) for stage in one.stages))
        for one in task.earlier
    )
    return replace(task, earlier=earlier)


def _packed(task: Task, axis: Axis, block: int) -> dict[str, Layout]:
    """Small operands that sums read across, filters that change: with the vectors' axis inside, so
    that a thread need not pick their elements one by one."""
    summed = [
        r for s in task.stages for e in walk(s.body) if isinstance(e, Reduce) for r in reads(e)
    ]
    elements = math.prod(task.layout.shape)
    found: dict[str, Layout] = {}
    for operand in task.operands:
        name, shape = operand.var.name, operand.var.type.sizes
        own = [read for read in summed if read.tensor.name == name]
        plain = operand.layout is not None and operand.layout.axis is None
        if plain and own and math.prod(shape) * _SMALL <= elements:
            places = {tuple(at == axis.i for at in read.index) for read in own}
            moved = next(iter(places))
            if len(places) == 1 and any(moved) and not moved[-1]:
                found[name] = Layout(shape, moved.index(True), block)
    return found


def _flat(task: Task) -> Task:
    """The task over fewer axes, unless weights would have another shape than in their files."""
    flat = merged(task)
    own = {operand.var for operand in task.operands if operand.static}
    return flat if own <= {operand.var for operand in flat.operands} else task


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: an access for each vector, four for one whose lanes lie apart."""
    way = plan(task)
    if way is None:
        return None
    tasks = (*task.earlier, task)
    each_reads = sum(map(reads_of_an_element, tasks))
    outputs = [output for each in tasks for output in each.outputs]
    accesses = way.vectors * (each_reads * _apart(way) + len(outputs))
    moved = moved_bytes(replace(task, outputs=tuple(outputs)))
    steps = sum(map(steps_of_an_element, tasks))
    return nanoseconds(target, moved, accesses, steps, 1 + len(way.packed))


def _apart(way: Way) -> float:
    """What a read costs, on the average: lanes that lie apart are read one by one."""
    return sum(price(read, way) for read in way.task.reads) / max(len(way.task.reads), 1)


def price(read: Read, way: Way) -> float:
    """What one vector costs, in accesses."""
    layout = way.layouts[read.tensor.name]
    stride, offset = stride_along(read, layout, way.axis, LANES), layout.offset(read.index)
    if stride == 0:  # one element for all lanes: where are those of the threads beside it?
        beside = [axis for axis in way.others if extent_of(axis) > 1]
        return max(1.0, spread(offset, beside[-1].name) / way.whole) if beside else 1.0
    return 1.0 if stride == 1 else LANES * spread(offset, way.axis.name, LANES)


def emit(task: Task, name: str, target: CudaTarget) -> Scheduled:
    """Vectors in the order in which they lie; the first threads make what is left as well."""
    way = plan(task)
    assert way is not None
    outputs = [output for each in (*way.task.earlier, way.task) for output in each.outputs]
    frame = Frame.open(way.task, name, LANES, way.layouts, way.packed, outputs)
    b, axis = frame.b, way.axis
    extents = [*map(extent_of, way.others), way.whole]
    count = max(way.vectors, way.rest)
    with each(b, count, block_of(target, count)) as number:
        with guarded(b, *([IndexTest("lt", number, way.vectors)] if way.rest else [])):
            *outer, vector = unravelled(number, extents)
            at: dict[str, Dim] = {a.name: i for a, i in zip(way.others, outer, strict=True)}
            first = {**at, axis.name: vector * LANES}
            here = {**at, axis.name: vector * LANES + lane_symbol(LANES)}
            ends = {axis.name: extent_of(axis)}
            emitter = Emitter(b, frame.views, LANES, loaded=_shared(way.task), ends=ends)
            _emit_all(emitter, way.task, here, first)
        if way.rest:
            with guarded(b, IndexTest("lt", number, way.rest)):
                last = {axis.name: number + way.whole * LANES}
                _emit_all(
                    Emitter(b, frame.views, 1, loaded=_shared(way.task)), way.task, last, last
                )
    return frame.finish()


def _shared(task: Task) -> dict[tuple[str, Dim], Var] | None:
    """Where several tasks read the same, what is loaded is remembered; not what is in loops."""
    if not task.earlier or steps_of_an_element(task) > 1:
        return None
    loops = any(steps_of_an_element(each) > 1 for each in task.earlier)
    return None if loops else {}


def _emit_all(
    emitter: Emitter, task: Task, at: Mapping[str, Dim], first: Mapping[str, Dim]
) -> None:
    """The values of all tasks, one after the other, then what leaves."""
    held: dict[str, Value] = {}
    tasks = (*task.earlier, task)
    for number, one in enumerate(tasks):
        behind = (
            read for later in tasks[number + 1 :] for s in later.stages for read in reads(s.body)
        )
        names = [read.tensor.name for read in behind]
        held |= emit_stages(emitter.holding(held), one.stages, one.outputs, at, names)
    for one in tasks:
        store_outputs(emitter, one.outputs, one.axes, held, first)


def vectors(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule(
        "vectors",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        joins=True,
    )
