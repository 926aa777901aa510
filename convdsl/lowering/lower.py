"""Graph -> Program: groups become tasks, tasks kernels, values buffers.

Layouts: inputs and outputs of the model are plain, tensors of rank 3 and more in between are
blocked along the channels, by the vector width; the rest is plain. What follows from weights
alone is evaluated when weights are bound and packed as its kernel wants it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ir.classify import weight_time_nodes
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.liveness import live_ranges
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over, reads
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Argument, Place, Port, Program, Step
from convdsl.kernel.target import Target
from convdsl.lowering.compose import Composed, compose
from convdsl.lowering.memory import aligned, plan_arena
from convdsl.lowering.packing import Packing, Source, pack_weights
from convdsl.lowering.slices import find_slices, resolve
from convdsl.schedules.cpu.chooser import bids
from convdsl.schedules.task import Operand, Pack, Scheduled, Task
from convdsl.tensor import DType, TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """Why a step runs as it does: predicted cycles of every schedule that applied."""

    nodes: tuple[str, ...]
    kernel: str
    schedule: str
    bids: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Lowered:
    """A program and the recipe for its weights."""

    program: Program
    graph: Graph
    packings: tuple[Packing, ...]
    choices: tuple[Choice, ...]

    def pack_weights(self, states: Mapping[str, Array], out: npt.NDArray[np.uint8]) -> None:
        """Evaluate weight-time arithmetic and write all packed weights into `out`."""
        pack_weights(self.graph, self.packings, states, out)


def lower(graph: Graph, target: Target, name: str) -> Lowered:
    """The program of a graph whose shapes are all bound (InputError if one is not)."""
    _check_bound(graph)
    return _Lowering(graph, target, name).run()


def arena_bytes(graph: Graph, target: Target) -> int:
    """Bytes of the program's arena: what `lower` would plan, without making the kernels."""
    _check_bound(graph)
    return _Outline(graph, target, "").run().program.arena_bytes


def stage_sources(graph: Graph, target: Target) -> dict[tuple[int, str], Source]:
    """Weights that stages of lowering's own make, by step and variable (see Packing.stage)."""
    _check_bound(graph)
    outline = _Outline(graph, target, "")
    outline.run()
    return outline.made


def _check_bound(graph: Graph) -> None:
    for node in graph.nodes():
        for value in node.outputs:
            if value.type.symbols():
                free = ", ".join(sorted(s.name for s in value.type.symbols()))
                raise InputError(f"sizes not given: {free} ({value.name} is {value.type})")


# What a step's buffer is, before memory is planned: a value of the graph or a scratch tensor.
Key = Hashable


@dataclass(frozen=True)
class _Call:
    """A kernel call whose arguments are still keys; packed weights carry their index."""

    kernel: str
    arguments: tuple[Key, ...]
    nodes: tuple[str, ...]
    schedule: str


@dataclass(frozen=True)
class _Weight:
    index: int


@dataclass(frozen=True)
class _Output:
    slot: int


class _Lowering:
    def __init__(self, graph: Graph, target: Target, name: str) -> None:
        self.graph = graph
        self.target = target
        self.name = name
        self.static_nodes = weight_time_nodes(graph)
        wide = any(v.type.dtype is DType.F64 for n in graph.nodes() for v in n.outputs)
        self.block = target.lanes(DType.F64 if wide else DType.F32)
        self.inputs = list(graph.inputs.items())
        self.outputs = list(graph.outputs.items())
        self.layouts: dict[Key, Layout] = {}
        self.dtypes: dict[Key, DType] = {}
        self.kernels: dict[Task, tuple[Kernel, Scheduled, Choice]] = {}
        self.calls: list[_Call] = []
        self.choices: list[Choice] = []
        self.packings: list[Packing] = []
        self.packed: dict[tuple[Source, Pack], int] = {}
        self.direct_outputs: dict[Value, int] = {}
        self.slices = find_slices(graph, lambda v: self.layout_for(v.type), self.is_static)

    def run(self) -> Lowered:
        for _, value in self.inputs:
            self.place(value, Layout(value.type.sizes), value.type.dtype)
        self.choose_outputs()
        for nodes, root in self.groups():
            if self.is_whole(root.outputs[0]):
                self.place(root.output, self.layout_for(root.output.type), root.output.type.dtype)
                continue
            self.group(compose(nodes, root), tuple(node.name for node in nodes))
        self.copy_outputs()
        program, offsets = self.assemble()
        packings = tuple(
            replace(packing, offset=offset)
            for packing, offset in zip(self.packings, offsets, strict=True)
        )
        return Lowered(program, self.graph, packings, tuple(self.choices))

    # Order

    def groups(self) -> list[tuple[list[OpNode], OpNode]]:
        """(nodes, root) of each group, ordered by its last node."""
        members: dict[object, list[OpNode]] = {}
        for node in self.graph.op_nodes():
            if node.id not in self.static_nodes:
                key = node.id if node.group is None else ("group", node.group)
                members.setdefault(key, []).append(node)
        position = {node.id: i for i, node in enumerate(self.graph.nodes())}
        ordered = sorted(members.values(), key=lambda nodes: position[nodes[-1].id])
        return [(nodes, nodes[0]) for nodes in ordered]

    # Layouts

    def place(self, key: Key, layout: Layout, dtype: DType) -> None:
        self.layouts[key] = layout
        self.dtypes[key] = dtype

    def layout_for(self, type: TensorType) -> Layout:
        shape = type.sizes
        if len(shape) >= 3 and self.block > 1:
            return Layout(shape, 1, self.block)
        return Layout(shape)

    def choose_outputs(self) -> None:
        """Outputs that a kernel can write in place: plain, and made by an operator."""
        for slot, (_, value) in enumerate(self.outputs):
            made = isinstance(value.node, OpNode) and value.node.id not in self.static_nodes
            plain = self.layout_for(value.type).axis is None
            if made and plain and value not in self.direct_outputs:
                self.direct_outputs[value] = slot

    def copy_outputs(self) -> None:
        """The other outputs: copied, from blocked to plain, or from the packed weights."""
        for slot, (name, value) in enumerate(self.outputs):
            if self.direct_outputs.get(value) == slot:
                continue
            axes = axes_over(value.type.shape)
            x = TensorVar("x0", value.type)
            stage = Stage(TensorVar("t0", value.type), axes, Read(x, tuple(a.i for a in axes)))
            self.place(_Output(slot), Layout(value.type.sizes), value.type.dtype)
            keys: dict[str, Key] = {"t0": _Output(slot)}
            statics: dict[str, Source] = {}
            if self.is_static(value):
                statics["x0"] = Source(value)
            else:
                keys["x0"] = value
            self.task("copy", stage, keys, statics, (f"output {name}",))

    def is_whole(self, value: Value) -> bool:
        """True for a concatenation whose parts lie in place already."""
        return any(part.whole is value for part in self.slices.values())

    # Tasks

    def is_static(self, value: Value) -> bool:
        return isinstance(value.node, StateNode) or value.node.id in self.static_nodes

    def group(self, composed: Composed, names: tuple[str, ...]) -> None:
        """One task a stage; stages over weights alone become packed weights."""
        keys: dict[str, Key] = {}
        statics: dict[str, Source] = {}
        for name, value in composed.sources.items():
            if self.is_static(value):
                statics[name] = Source(value)
            else:
                keys[name] = value
        for stage in composed.stages:
            target = stage.target
            used = {read.tensor.name for read in reads(stage.body)}
            if target.name not in composed.targets and used <= statics.keys():
                statics[target.name] = _static_stage(stage, statics)
                continue
            value = composed.targets.get(target.name)
            keys[target.name] = value if value is not None else (names, target.name)
            self.place(keys[target.name], self.layout_for(target.type), target.type.dtype)
            self.task(composed.op, stage, keys, statics, names)

    def task(
        self,
        op: str,
        stage: Stage,
        keys: Mapping[str, Key],
        statics: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        variables = {read.tensor.name: read.tensor for read in reads(stage.body)}
        operands = tuple(
            Operand(var, None if name in statics else self.layouts[keys[name]])
            for name, var in sorted(variables.items())
        )
        output = self.layouts[keys[stage.target.name]]
        task = Task(op, stage, operands, output, self.target)
        kernel, scheduled, choice = self.schedule(task, names)
        arguments: list[Key] = []
        for variable, pack in scheduled.arguments:
            if pack is None:
                arguments.append(keys[variable])
            else:
                stage_of = (len(self.calls), variable)
                dtype = variables[variable].type.dtype
                packing = Packing(statics[variable], pack, dtype, 0, stage_of)
                arguments.append(_Weight(self.weight(packing)))
        self.calls.append(_Call(kernel.name, tuple(arguments), names, choice.schedule))
        self.choices.append(replace(choice, nodes=names))

    def schedule(self, task: Task, names: tuple[str, ...]) -> tuple[Kernel, Scheduled, Choice]:
        if task not in self.kernels:
            offers = bids(task)
            chosen = offers[0][1]
            name = f"{task.op}_{len(self.kernels)}"
            scheduled = chosen.emit(task, name)
            listed = tuple((schedule.name, cost) for cost, schedule in offers)
            choice = Choice(names, name, chosen.name, listed)
            self.kernels[task] = (scheduled.kernel, scheduled, choice)
        return self.kernels[task]

    def weight(self, packing: Packing) -> int:
        key = (packing.source, packing.pack)
        if key not in self.packed:
            self.packed[key] = len(self.packings)
            known = packing.source.value is not None
            self.packings.append(replace(packing, stage=None) if known else packing)
        return self.packed[key]

    # Memory

    def assemble(self) -> tuple[Program, list[int]]:
        weight_offsets: list[int] = []
        weight_bytes = 0
        for packing in self.packings:
            weight_offsets.append(weight_bytes)
            weight_bytes += aligned(packing.pack.size * packing.dtype.bytes)
        fixed = self.fixed_arguments()
        steps = [
            (
                [
                    self.owner(k)[0]
                    for k in call.arguments[:-1]
                    if k not in fixed and not isinstance(k, _Weight)
                ],
                [self.owner(k)[0] for k in call.arguments[-1:] if k not in fixed],
            )
            for call in self.calls
        ]
        ranges = live_ranges(steps)
        sizes = {k: self.layouts[k].size * self.dtypes[k].bytes for k in ranges}
        offsets, arena_bytes = plan_arena(ranges, sizes)

        def argument(key: Key) -> Argument:
            if isinstance(key, _Weight):
                return Argument(Place.WEIGHTS, 0, weight_offsets[key.index])
            if key in fixed:
                return fixed[key]
            owner, offset = self.owner(key)
            return Argument(Place.ARENA, 0, offsets[owner] + offset)

        program = Program(
            self.name,
            tuple(kernel for kernel, _, _ in self.kernels.values()),
            tuple(
                Step(c.kernel, tuple(map(argument, c.arguments)), c.nodes, c.schedule)
                for c in self.calls
            ),
            tuple(Port(name, value.type) for name, value in self.inputs),
            tuple(Port(name, value.type) for name, value in self.outputs),
            weight_bytes,
            arena_bytes,
        )
        return program, weight_offsets

    def owner(self, key: Key) -> tuple[Key, int]:
        """(the key whose memory this one lies in, offset in bytes)."""
        if not isinstance(key, Value):
            return key, 0
        value, offset = resolve(key, self.slices)
        return value, offset * value.type.dtype.bytes

    def fixed_arguments(self) -> dict[Key, Argument]:
        """Keys that lie in memory of the caller."""
        fixed: dict[Key, Argument] = {}
        for slot, (_, value) in enumerate(self.inputs):
            fixed[value] = Argument(Place.INPUT, slot)
        for value, slot in self.direct_outputs.items():
            fixed[value] = Argument(Place.OUTPUT, slot)
        for slot in range(len(self.outputs)):
            fixed[_Output(slot)] = Argument(Place.OUTPUT, slot)
        return fixed


class _Outline(_Lowering):
    """Lowering without kernels: no schedule is asked. The steps and the memory plan are right."""

    def __init__(self, graph: Graph, target: Target, name: str) -> None:
        super().__init__(graph, target, name)
        self.made: dict[tuple[int, str], Source] = {}

    def task(
        self,
        op: str,
        stage: Stage,
        keys: Mapping[str, Key],
        statics: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        read = {read.tensor.name for read in reads(stage.body)}
        for name in read & statics.keys():
            self.made[len(self.calls), name] = statics[name]
        late = sorted(read - statics.keys())
        arguments = (*(keys[name] for name in late), keys[stage.target.name])
        self.calls.append(_Call("", arguments, names, ""))


def _static_stage(stage: Stage, statics: Mapping[str, Source]) -> Source:
    variables = {read.tensor.name: read.tensor for read in reads(stage.body)}
    expr = TensorExpr(tuple(variables.values()), (stage,), (stage.target.name,))
    return Source(None, expr, tuple((name, statics[name]) for name in variables))


def state_shapes(graph: Graph) -> dict[str, TensorType]:
    """Types of all parameters and buffers by key."""
    return {name: node.type for name, node in graph.states.items() if node.data is None}


__all__ = ["Lowered", "arena_bytes", "lower", "stage_sources", "state_shapes"]
