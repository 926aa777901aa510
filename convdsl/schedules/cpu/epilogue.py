"""What every contraction schedule shares around its accumulators: buffers and the fused store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Reduce, reads
from convdsl.kernel.nodes import Registers, Value, ValueType, Var
from convdsl.schedules.cpu.generic import operand_layout
from convdsl.schedules.emission import Emitter, View
from convdsl.schedules.task import Pack, Scheduled, Task
from convdsl.tensor import Dim, substitute


@dataclass(frozen=True, slots=True)
class Frame:
    """A kernel under construction: its buffers as views, the output's among them."""

    task: Task
    b: Builder
    views: Mapping[str, View]
    arguments: tuple[tuple[str, Pack | None], ...]

    def registers(self, count: int) -> Registers:
        return self.b.registers(count, ValueType(self.task.stage.target.type.dtype, self.b.lanes))

    def store(
        self,
        at: Mapping[str, Dim],
        first: Dim,
        reduce: Reduce,
        value: Value,
        valid: int | None = None,
        loaded: dict[tuple[str, Dim], Var] | None = None,
    ) -> None:
        """Run the stage's epilogue on one vector of sums and store it. `at` binds the output's
        axes, the channel to first + lane; lanes from `valid` on do not
        exist. `loaded` is shared by the stores of one tile."""
        stage = self.task.stage
        known = ((reduce, value),)
        result = Emitter(self.b, self.views, self.b.lanes, valid, known, loaded).emit(
            stage.body, at
        )
        start = {**at, stage.axes[1].name: first}
        out = self.views[stage.target.name]
        where = out.layout.offset([start[axis.name] for axis in stage.axes])
        self.b.store(out.buffer, substitute(where, {}), result, valid)

    def finish(self) -> Scheduled:
        return Scheduled(self.b.kernel(), self.arguments)


def open_frame(task: Task, name: str, lanes: int, packs: Mapping[str, Pack]) -> Frame:
    """Declare the buffers: packed weights as given, other weights blocked along the channels."""
    stage = task.stage
    b = Builder(name, stage.target.type.dtype, lanes)
    stage_reads = list(reads(stage.body))
    views: dict[str, View] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for operand in task.operands:
        var = operand.var
        layout = operand_layout(operand, stage_reads, stage.axes[1], lanes)
        pack = packs.get(var.name, layout)
        views[var.name] = View(b.buffer(var.name, var.type.dtype, pack.size), layout)
        arguments.append((var.name, pack if operand.static else None))
    target = stage.target
    buffer = b.buffer(target.name, target.type.dtype, task.output.size, written=True)
    views[target.name] = View(buffer, task.output)
    return Frame(task, b, views, (*arguments, (target.name, None)))
