"""Groups become tasks, tasks kernels: one task a chain of stages, equal tasks share
their kernels.

Stages over weights alone are no tasks: they are evaluated when weights are bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import Read, Stage, TensorVar, axes_over
from convdsl.kernel.nodes import Kernel
from convdsl.lowering.buffers import Buffers, Call, CopiedOutput, Key
from convdsl.lowering.compose import Chain, compose, leaving
from convdsl.lowering.packing import Packing, Source, bound_sources
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
        self.calls: list[Call] = []
        self.choices: list[Choice] = []

    @property
    def kernels(self) -> list[Kernel]:
        made = (scheduled for scheduled, _ in self._scheduled.values())
        return [kernel for scheduled in made for kernel, _ in scheduled.kernels]

    def add_graph(self, graph: Graph) -> None:
        """All groups in order, then the outputs that must be copied."""
        for nodes in groups_of(graph, self._buffers.timing):
            root = nodes[0]
            if self._buffers.is_whole(root.outputs[0]):
                self._buffers.place(root.output, root.output.type)
            else:
                self._add_group(graph, nodes)
        for slot, name, value in self._buffers.copied_outputs():
            self._add_copy(slot, name, value)

    def _add_group(self, graph: Graph, nodes: list[OpNode]) -> None:
        buffers = self._buffers
        composed = compose(nodes, leaving(graph, nodes), buffers.timing, buffers.vectors)
        bound = bound_sources(composed, nodes[-1], buffers.timing)
        names = tuple(node.name for node in nodes)
        keys: dict[str, Key] = {n: v for n, v in composed.sources.items() if n not in bound}
        for chain in composed.chains:
            for stage in chain.stages:
                name = stage.target.name
                if name in chain.outputs:
                    keys[name] = composed.targets.get(name, (names, name))
                    buffers.place(keys[name], stage.target.type)
            self._add_task(composed.op, chain, keys, bound, names)

    def _add_copy(self, slot: int, name: str, value: Value) -> None:
        x = TensorVar("x0", value.type)
        axes = axes_over(value.type.shape)
        stage = Stage(TensorVar("t0", value.type), axes, Read(x, tuple(a.i for a in axes)))
        key = CopiedOutput(slot)
        self._buffers.place(key, value.type, plain=True)
        keys: dict[str, Key] = {"t0": key}
        bound: dict[str, Source] = {}
        if self._buffers.timing.is_bound(value.node):
            bound["x0"] = Source(value)
        else:
            keys["x0"] = value
        self._add_task("copy", Chain((stage,), ("t0",)), keys, bound, (f"output {name}",))

    def _add_task(
        self,
        op: str,
        chain: Chain,
        keys: Mapping[str, Key],
        bound: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        variables = chain.operands
        operands = tuple(
            Operand(var, None if name in bound else self._buffers.layout(keys[name]))
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
                    dtype = variables[variable].type.dtype
                    packing = Packing(bound[variable], pack, dtype, 0)
                    arguments.append(self._buffers.weight(packing))
            buffers = zip(kernel.buffers, arguments, strict=True)
            written = frozenset(key for buffer, key in buffers if buffer.written)
            self.calls.append(Call(kernel.name, tuple(arguments), written, names, choice.schedule))
            self.choices.append(replace(choice, nodes=names, kernel=kernel.name))

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


def groups_of(graph: Graph, timing: Timing) -> list[list[OpNode]]:
    """The nodes of each group that runs, its root first; ordered by their last nodes."""
    members: dict[object, list[OpNode]] = {}
    for node in graph.op_nodes():
        if not timing.is_bound(node):
            key = node.id if node.group is None else ("group", node.group)
            members.setdefault(key, []).append(node)
    position = {node.id: i for i, node in enumerate(graph.nodes())}
    return sorted(members.values(), key=lambda nodes: position[nodes[-1].id])
