"""Groups become tasks, tasks kernels: one task a chain of stages, equal tasks share
their kernels.

Stages over weights alone are no tasks: they are evaluated when weights are bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over, reads
from convdsl.kernel.nodes import Kernel
from convdsl.lowering.buffers import Buffers, Call, CopiedOutput, Key
from convdsl.lowering.compose import Chain, compose
from convdsl.lowering.packing import Packing, Source
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Operand, Output, Scheduled, Task


@dataclass(frozen=True)
class Choice:
    """Why a step runs as it does: predicted cycles of every schedule that applied."""

    nodes: tuple[str, ...]
    kernel: str
    schedule: str
    bids: tuple[tuple[str, float], ...]


class Tasks:
    """The calls of one program in the making, and the kernels that they share."""

    def __init__(self, machine: Machine, buffers: Buffers) -> None:
        self._machine = machine
        self._buffers = buffers
        self._scheduled: dict[Task, tuple[Scheduled, Choice]] = {}
        self._tasks = 0
        self.calls: list[Call] = []
        self.choices: list[Choice] = []

    @property
    def kernels(self) -> list[Kernel]:
        made = (scheduled for scheduled, _ in self._scheduled.values())
        return [kernel for scheduled in made for kernel, _ in scheduled.kernels]

    def add_graph(self, graph: Graph) -> None:
        """All groups in order, then the outputs that must be copied."""
        for nodes in groups_of(graph, self._buffers):
            root = nodes[0]
            if self._buffers.is_whole(root.outputs[0]):
                self._buffers.place(root.output, root.output.type)
            else:
                self._add_group(graph, nodes)
        for slot, name, value in self._buffers.copied_outputs():
            self._add_copy(slot, name, value)

    def _add_group(self, graph: Graph, nodes: list[OpNode]) -> None:
        buffers = self._buffers
        composed = compose(nodes, leaving(graph, nodes), buffers.is_static, buffers.vectors)
        names = tuple(node.name for node in nodes)
        keys: dict[str, Key] = {}
        statics: dict[str, Source] = {}
        for name, value in composed.sources.items():
            if buffers.is_static(value):
                statics[name] = Source(value)
            else:
                keys[name] = value
        for stage in composed.folded:
            statics[stage.target.name] = _static_stage(stage, statics)
        for chain in composed.chains:
            for stage in chain.stages:
                name = stage.target.name
                if name in chain.outputs:
                    keys[name] = composed.targets.get(name, (names, name))
                    buffers.place(keys[name], stage.target.type)
            self._add_task(composed.op, chain, keys, statics, names)

    def _add_copy(self, slot: int, name: str, value: Value) -> None:
        x = TensorVar("x0", value.type)
        axes = axes_over(value.type.shape)
        stage = Stage(TensorVar("t0", value.type), axes, Read(x, tuple(a.i for a in axes)))
        key = CopiedOutput(slot)
        self._buffers.place(key, value.type, plain=True)
        keys: dict[str, Key] = {"t0": key}
        statics: dict[str, Source] = {}
        if self._buffers.is_static(value):
            statics["x0"] = Source(value)
        else:
            keys["x0"] = value
        self._add_task("copy", Chain((stage,), ("t0",)), keys, statics, (f"output {name}",))

    def _add_task(
        self,
        op: str,
        chain: Chain,
        keys: Mapping[str, Key],
        statics: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        variables = chain.operands
        operands = tuple(
            Operand(var, None if name in statics else self._buffers.layout(keys[name]))
            for name, var in sorted(variables.items())
        )
        outputs = tuple(
            Output(stage.target, self._buffers.layout(keys[stage.target.name]))
            for stage in chain.stages
            if stage.target.name in chain.outputs
        )
        scheduled, choice = self._schedule(Task(op, chain.stages, operands, outputs))
        known: dict[str, Key] = dict(keys)
        for scratch in scheduled.scratch:
            known[scratch.name] = (names, chain.outputs, scratch.name)
            self._buffers.place_scratch(known[scratch.name], scratch)
        for kernel, described in scheduled.kernels:
            arguments: list[Key] = []
            for variable, pack in described:
                if pack is None:
                    arguments.append(known[variable])
                else:
                    stage_of = (self._tasks, variable)
                    dtype = variables[variable].type.dtype
                    packing = Packing(statics[variable], pack, dtype, 0, stage_of)
                    arguments.append(self._buffers.weight(packing))
            buffers = zip(kernel.buffers, arguments, strict=True)
            written = frozenset(key for buffer, key in buffers if buffer.written)
            self.calls.append(Call(kernel.name, tuple(arguments), written, names, choice.schedule))
            self.choices.append(replace(choice, nodes=names, kernel=kernel.name))
        self._tasks += 1

    def _schedule(self, task: Task) -> tuple[Scheduled, Choice]:
        """The kernels of a task, by the schedule that predicts the fewest cycles."""
        if task not in self._scheduled:
            offers = self._machine.bids(task)
            chosen = offers[0][1]
            name = f"{task.op}_{len(self._scheduled)}"
            listed = tuple((schedule.name, cost) for cost, schedule in offers)
            choice = Choice((), name, chosen.name, listed)
            self._scheduled[task] = (chosen.emit(task, name), choice)
        return self._scheduled[task]


class Outline(Tasks):
    """Tasks without kernels: no schedule is asked."""

    def __init__(self, machine: Machine, buffers: Buffers) -> None:
        super().__init__(machine, buffers)
        self.made: dict[tuple[int, str], Source] = {}

    def _add_task(
        self,
        op: str,
        chain: Chain,
        keys: Mapping[str, Key],
        statics: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        read = chain.operands.keys()
        for name in read & statics.keys():
            self.made[self._tasks, name] = statics[name]
        self._tasks += 1


def groups_of(graph: Graph, buffers: Buffers) -> list[list[OpNode]]:
    """The nodes of each group that runs, its root first; ordered by their last nodes."""
    members: dict[object, list[OpNode]] = {}
    for node in graph.op_nodes():
        if not buffers.is_static(node.outputs[0]):
            key = node.id if node.group is None else ("group", node.group)
            members.setdefault(key, []).append(node)
    position = {node.id: i for i, node in enumerate(graph.nodes())}
    return sorted(members.values(), key=lambda nodes: position[nodes[-1].id])


def leaving(graph: Graph, nodes: list[OpNode]) -> list[Value]:
    """The values of a group that others read or that the model puts out."""
    inside = {node.id for node in nodes}
    values = [value for node in nodes for value in node.outputs]
    return [
        value
        for value in values
        if graph.is_output(value) or any(user.id not in inside for user, _ in graph.users(value))
    ]


def _static_stage(stage: Stage, statics: Mapping[str, Source]) -> Source:
    variables = {read.tensor.name: read.tensor for read in reads(stage.body)}
    expr = TensorExpr(tuple(variables.values()), (stage,), (stage.target.name,))
    return Source(None, expr, tuple((name, statics[name]) for name in variables))
