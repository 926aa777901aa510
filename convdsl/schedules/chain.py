"""The stages of a task at one position: each value computed once, and what leaves stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Stage, reads
from convdsl.kernel.nodes import Const, Get, Lane, Shuffle, Value, Var
from convdsl.schedules.emission import Emitter, View
from convdsl.schedules.task import Output, Task
from convdsl.tensor import Dim


def declare_outputs(b: Builder, outputs: Sequence[Output]) -> dict[str, View]:
    """The buffers of what leaves, as views by name."""
    return {
        output.var.name: View(
            b.buffer(output.var.name, output.var.type.dtype, output.layout.size, written=True),
            output.layout,
        )
        for output in outputs
    }


def emit_chain(
    emitter: Emitter,
    task: Task,
    at: Mapping[str, Dim],
    first: Mapping[str, Dim],
    valid: int | None = None,
) -> None:
    """All stages of a task where `at` binds their axes, the vectors' own to its first position +
    lane. Stored from `first` on, of the last lanes only those before `valid`."""
    held = emit_stages(emitter, task.stages, task.outputs, at)
    store_outputs(emitter, task.outputs, task.axes, held, first, valid)


def emit_stages(
    emitter: Emitter,
    stages: Sequence[Stage],
    outputs: Sequence[Output],
    at: Mapping[str, Dim],
    later: Sequence[str] = (),
) -> dict[str, Value]:
    """The values of all stages at one position, by name. What is read again, by another stage or
    `later` (names of tensors, as often as they are read), is computed once."""
    uses = Counter(read.tensor.name for stage in stages for read in reads(stage.body))
    uses.update(output.var.name for output in outputs)
    uses.update(later)
    held: dict[str, Value] = {}
    for stage in stages:
        value = emitter.holding(held).emit(stage.body, at)
        if uses[stage.target.name] > 1 and not isinstance(value, Const | Get | Var):
            value = emitter.b.let(value)
        held[stage.target.name] = value
    return held


def store_outputs(
    emitter: Emitter,
    outputs: Sequence[Output],
    axes: Sequence[Axis],
    held: Mapping[str, Value],
    first: Mapping[str, Dim],
    valid: int | None = None,
) -> None:
    """Store what leaves, after all was read: an output may lie where an operand lay."""
    for output in outputs:
        view = emitter.views[output.var.name]
        where = output.offset(first, axes)
        emitter.b.store(view.buffer, where, held[output.var.name], valid)


def store_parts(
    emitter: Emitter,
    outputs: Sequence[Output],
    axes: Sequence[Axis],
    held: Mapping[str, Value],
    parts: Sequence[tuple[Mapping[str, Dim], int, int]],
) -> None:
    """Store what leaves in parts: (place, first lane, lanes) of each."""
    for output in outputs:
        view = emitter.views[output.var.name]
        value = emitter.b.let(held[output.var.name])
        for place, first, count in parts:
            where = output.offset(place, axes)
            if count == 1:
                emitter.b.store(view.buffer, where, Lane(value, first))
                continue
            lanes = emitter.lanes
            turned = tuple((first + lane) % lanes for lane in range(lanes))
            part = Shuffle(value, value, turned) if first else value
            emitter.b.store(view.buffer, where, part, count)
