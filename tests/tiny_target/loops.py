"""The one schedule of a tiny processor: every position of the output, one scalar at a time."""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.layout import Layout
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.emission import Emitter, View, extent_of
from convdsl.schedules.task import Arguments, Schedule, Scheduled, Task


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
        arguments = [
            *zip(views, packs, strict=True),
            *((output, None) for output in outputs),
        ]
        return Frame(b, views | outputs, tuple(arguments))

    def finish(self) -> Scheduled:
        return Scheduled.one(self.b.kernel(), self.arguments)


def emit(task: Task, name: str) -> Scheduled:
    frame = Frame.open(task, name)
    names = [axis.name for axis in task.axes]
    with frame.b.parallel(names, [extent_of(axis) for axis in task.axes]) as indices:
        at = dict(zip(names, indices, strict=True))
        emit_chain(Emitter(frame.b, frame.views, 1), task, at, at)
    return frame.finish()


LOOPS = Schedule("loops", lambda task: 1.0, emit)
