"""The one schedule of a tiny processor: every position of the output, one scalar at a time."""

from __future__ import annotations

from convdsl.schedules.chain import emit_chain
from convdsl.schedules.emission import Emitter, extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.task import Schedule, Scheduled, Task


def emit(task: Task, name: str) -> Scheduled:
    frame = Frame.open(task, name)
    names = [axis.name for axis in task.axes]
    with frame.b.parallel(names, [extent_of(axis) for axis in task.axes]) as indices:
        at = dict(zip(names, indices, strict=True))
        emit_chain(Emitter(frame.b, frame.views, 1), task, at, at)
    return frame.finish()


LOOPS = Schedule("loops", lambda task: 1.0, emit)
