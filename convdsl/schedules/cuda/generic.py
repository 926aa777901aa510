"""Any task: a thread for each element, in the order in which they lie in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis, Reduce, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import IndexTest
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.emission import Emitter, View, extent_of
from convdsl.schedules.task import Arguments, Schedule, Scheduled, Task
from convdsl.tensor import Dim, floor_div

THREADS = 256
"""Of a block: enough warps to hide a load behind, few enough for any number of registers."""

_SLOWER = 4.0
"""What a position of a reduction costs beside a vector of an elementwise map: each thread reads for
itself what its neighbours read too."""


@dataclass(frozen=True)
class Frame:
    """A kernel whose buffers are declared: operands as they lie, weights as in their files."""

    b: Builder
    views: dict[str, View]
    arguments: Arguments

    @staticmethod
    def open(task: Task, name: str) -> Frame:
        b = Builder(name, task.element, 1)
        views: dict[str, View] = {}
        for operand in task.operands:
            layout = operand.layout or Layout(operand.var.type.sizes)
            buffer = b.buffer(operand.var.name, operand.var.type.dtype, layout.size)
            views[operand.var.name] = View(buffer, layout)
        packs = [views[o.var.name].layout if o.static else None for o in task.operands]
        outputs = declare_outputs(b, task.outputs)
        arguments = (
            *zip(views, packs, strict=True),
            *((output, None) for output in outputs),
        )
        return Frame(b, views | outputs, arguments)

    def finish(self) -> Scheduled:
        """The kernel with what its buffers hold."""
        return Scheduled.one(self.b.kernel(), self.arguments)


def unravelled(number: Dim, extents: Sequence[int]) -> list[Dim]:
    """The position of which a number is the row-major place."""
    found: list[Dim] = []
    for axis, extent in enumerate(extents):
        inner = math.prod(extents[axis + 1 :])
        here = floor_div(number, inner)
        found.append(here if axis == 0 else here - floor_div(number, inner * extent) * extent)
    return found


def position(place: Sequence[Dim], layout: Layout, axes: Sequence[Axis]) -> dict[str, Dim]:
    """The axes at a place of a layout's physical axes."""
    index = list(place)
    if layout.axis is not None:
        lane = index.pop()
        index[layout.axis] = index[layout.axis] * layout.block + lane
    return {axis.name: at for axis, at in zip(axes, index, strict=True)}


def physical(layout: Layout) -> tuple[int, ...]:
    """The extents to walk: without the filling where one block holds all channels."""
    if layout.axis is None or layout.blocks > 1:
        return layout.physical
    return (*layout.physical[:-1], layout.shape[layout.axis])


def generic(target: CudaTarget) -> Schedule:
    """The schedule that runs anything."""

    def cost(task: Task) -> float:
        total = math.prod(extent_of(axis) for axis in task.axes)
        reduces = [e for s in task.stages for e in walk(s.body) if isinstance(e, Reduce)]
        depth = sum(math.prod(extent_of(axis) for axis in e.axes) for e in reduces)
        return total * (1 + _SLOWER * depth)

    return Schedule("generic", cost, emit)


def emit(task: Task, name: str) -> Scheduled:
    """One block of threads after the other, over all elements."""
    frame = Frame.open(task, name)
    extents = physical(task.layout)
    total = math.prod(extents)
    with (
        frame.b.blocks(("block",), (-(-total // THREADS),)) as (block,),
        frame.b.threads(("thread",), (THREADS,)) as (thread,),
        frame.b.when(IndexTest("lt", block * THREADS + thread, total)),
    ):
        place = unravelled(block * THREADS + thread, extents)
        at = position(place, task.layout, task.axes)
        emit_chain(Emitter(frame.b, frame.views, 1), task, at, at)
    return frame.finish()
