"""The stages of a task at one position: each value computed once, and what leaves stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import reads
from convdsl.kernel.nodes import Const, Get, Value, Var
from convdsl.schedules.emission import Emitter, View
from convdsl.schedules.task import Task
from convdsl.tensor import Dim


def declare_outputs(b: Builder, task: Task) -> dict[str, View]:
    """The buffers of what leaves, as views by name."""
    return {
        output.var.name: View(
            b.buffer(output.var.name, output.var.type.dtype, output.layout.size, written=True),
            output.layout,
        )
        for output in task.outputs
    }


def emit_chain(
    emitter: Emitter,
    task: Task,
    at: Mapping[str, Dim],
    first: Mapping[str, Dim],
    valid: int | None = None,
) -> None:
    """All stages where `at` binds their axes, the vectors' own to its first position + lane.
    Stored from `first` on, of the last lanes only those before `valid`. All is read before
    anything is stored: an output may lie where an operand lay."""
    uses = Counter(read.tensor.name for stage in task.stages for read in reads(stage.body))
    uses.update(output.var.name for output in task.outputs)
    held: dict[str, Value] = {}
    for stage in task.stages:
        value = replace(emitter, held=held).emit(stage.body, at)
        if uses[stage.target.name] > 1 and not isinstance(value, Const | Get | Var):
            value = emitter.b.let(value)
        held[stage.target.name] = value
    for output in task.outputs:
        view = emitter.views[output.var.name]
        where = view.layout.offset([first[axis.name] for axis in task.axes])
        emitter.b.store(view.buffer, where, held[output.var.name], valid)
