"""Any task: a thread for each element, in the order in which they lie in memory."""

from __future__ import annotations

import math

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.layout import Layout
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.cuda.costs import (
    moved_bytes,
    nanoseconds,
    reads_of_an_element,
    spread,
    steps_of_an_element,
)
from convdsl.schedules.cuda.frame import THREADS, each, position, unravelled
from convdsl.schedules.emission import Emitter, extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.task import Schedule, Scheduled, Task


def physical(layout: Layout) -> tuple[int, ...]:
    """The extents to walk: without the filling where one block holds all channels."""
    if layout.axis is None or layout.blocks > 1:
        return layout.physical
    return (*layout.physical[:-1], layout.shape[layout.axis])


def cost(task: Task, target: CudaTarget) -> float:
    """Nanoseconds: each element reads for itself, one number at a time."""
    elements = math.prod(extent_of(axis) for axis in task.axes)
    accesses = elements * (reads_of_an_element(task) * _apart(task) + len(task.outputs))
    return nanoseconds(target, moved_bytes(task), accesses, steps_of_an_element(task))


def _apart(task: Task) -> float:
    """What a read costs, on the average, by how far apart neighbours read."""
    if not task.axes or not task.reads:
        return 1.0
    own = task.axes[-1 if task.layout.axis is None else task.layout.axis]
    layouts = {o.var.name: o.layout or Layout(o.var.type.sizes) for o in task.operands}
    offsets = (layouts[read.tensor.name].offset(read.index) for read in task.reads)
    return sum(spread(at, own.name) for at in offsets) / len(task.reads)


def emit(task: Task, name: str) -> Scheduled:
    """One block of threads after the other, over all elements."""
    frame = Frame.open(task, name)
    extents = physical(task.layout)
    with each(frame.b, math.prod(extents), THREADS) as number:
        at = position(unravelled(number, extents), task.layout, task.axes)
        emit_chain(Emitter(frame.b, frame.views, 1), task, at, at)
    return frame.finish()


def generic(target: CudaTarget) -> Schedule:
    """The schedule that runs anything."""
    return Schedule("generic", lambda task: cost(task, target), emit)
