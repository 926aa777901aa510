"""What every contraction schedule shares around its accumulators: buffers and the fused store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Reduce
from convdsl.kernel.nodes import Registers, Value, ValueType, Var
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.cpu.generic import operand_layout
from convdsl.schedules.emission import Emitter, View
from convdsl.schedules.task import Pack, Scheduled, Task
from convdsl.tensor import Dim


@dataclass(frozen=True, slots=True)
class Frame:
    """A kernel under construction: its buffers as views, the outputs' among them, and the
    reduction whose values the schedule computes."""

    task: Task
    b: Builder
    reduce: Reduce
    views: Mapping[str, View]
    arguments: tuple[tuple[str, Pack | None], ...]

    def registers(self, count: int) -> Registers:
        return self.b.registers(count, ValueType(self.reduce.dtype, self.b.lanes))

    @property
    def waiting(self) -> View | None:
        """An output that sums may lie in before they are complete, if one has their type."""
        fitting = (o for o in self.task.outputs if o.var.type.dtype is self.reduce.dtype)
        return next((self.views[output.var.name] for output in fitting), None)

    def store(
        self,
        at: Mapping[str, Dim],
        first: Dim,
        value: Value,
        valid: int | None = None,
        loaded: dict[tuple[str, Dim], Var] | None = None,
    ) -> None:
        """Run the task's stages on one vector of sums and store what leaves. `at` binds the
        axes, the channel to first + lane; lanes from `valid` on do not exist. `loaded` is shared
        by the stores of one tile."""
        known = ((self.reduce, value),)
        emitter = Emitter(self.b, self.views, self.b.lanes, valid, known, loaded)
        start = {**at, self.task.axes[1].name: first}
        emit_chain(emitter, self.task, at, start, valid)

    def finish(self) -> Scheduled:
        return Scheduled.one(self.b.kernel(), self.arguments)


def open_frame(task: Task, name: str, reduce: Reduce, packs: Mapping[str, Pack]) -> Frame:
    """Declare the buffers: packed weights as given, other weights blocked along the channels."""
    lanes = task.layout.block
    b = Builder(name, reduce.dtype, lanes)
    views: dict[str, View] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for operand in task.operands:
        var = operand.var
        layout = operand_layout(operand, task.reads, task.axes[1], lanes)
        pack = packs.get(var.name, layout)
        views[var.name] = View(b.buffer(var.name, var.type.dtype, pack.size), layout)
        arguments.append((var.name, pack if operand.static else None))
    views |= declare_outputs(b, task.outputs)
    arguments += [(output.var.name, None) for output in task.outputs]
    return Frame(task, b, reduce, views, tuple(arguments))
