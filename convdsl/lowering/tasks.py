"""Groups become tasks, tasks kernels: one task a chain of stages, equal tasks share
their kernels.

Stages over weights alone are no tasks: they are evaluated when weights are bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.groups import leaving
from convdsl.kernel.expr import Cast, Read, Stage, TensorVar, axes_over
from convdsl.kernel.in_place import Overlays
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.lowering.buffers import Buffers
from convdsl.lowering.calls import (
    Call,
    CopiedOutput,
    Enclosed,
    Key,
    Message,
    PackedValue,
    Part,
    Private,
)
from convdsl.lowering.chains import Chain
from convdsl.lowering.compose import Composed, Composer
from convdsl.lowering.memory import round_up
from convdsl.lowering.packing import Packing, Source, bound_sources
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Ending, Operand, Output, Pack, Schedule, Scheduled, Task
from convdsl.tensor import DType, TensorType

_MOST_JOINED = 8  # tasks of a group that are tried as one


@dataclass(frozen=True)
class Decision:
    """Why a step runs as it does: predicted cycles of every schedule that applied to its task."""

    task: Task
    nodes: tuple[str, ...]
    kernel: str
    schedule: str
    bids: tuple[tuple[str, float], ...]
    note: str = ""


class Tasks:
    """The calls of one program in the making, and the kernels that they share. `certain` is told
    of those that nothing takes the place of: results never lie over what they read."""

    def __init__(
        self,
        machine: Machine,
        buffers: Buffers,
        certain: Callable[[Kernel], None] | None = None,
    ) -> None:
        self._certain = certain
        self.overlays = Overlays()
        self._machine = machine
        self._buffers = buffers
        self._composer = Composer(buffers.timing, buffers.planned, buffers.narrowed)
        self._offers: dict[Task, list[tuple[float, Schedule]]] = {}
        self._scheduled: dict[Task, tuple[Scheduled, Decision]] = {}
        self.calls: list[Call] = []
        self.choices: list[Decision | None] = []  # None of sums over ranks
        self.kernels: dict[str, Kernel] = {}

    def add_graph(self, graph: Graph) -> None:
        """All groups in order, then the outputs that must be copied."""
        for nodes in self._buffers.kernels:
            root = nodes[0]
            if root.op.exchanges:
                self._add_sum(graph, root)
            elif self._buffers.is_nothing(root):
                for value in root.outputs:
                    self._buffers.place_made(value)
            else:
                self._add_group(graph, nodes)
        for slot, name, value in self._buffers.copied_outputs():
            self.add_copy(value, CopiedOutput(slot), value.type, f"output {name}")

    def reorder(self, order: Sequence[int]) -> None:
        """Put the calls into another order, that of their numbers."""
        self.calls[:] = [self.calls[number] for number in order]
        self.choices[:] = [self.choices[number] for number in order]

    def _add_sum(self, graph: Graph, node: OpNode) -> None:
        """A sum over ranks, in the memory of its operands: they are made where they lie behind each
        other, or copied there, and what comes back lies over them."""
        message, buffers = Message(node.name), self._buffers
        operands, end = list(node.inputs.values()), 0
        for number, (x, y) in enumerate(zip(operands, node.outputs, strict=True)):
            key: Key = x
            others = len(graph.users(x)) > 1 or graph.is_result(x)
            if others or not buffers.may_lie_inside(x):
                key = Enclosed(message, number)
                self.add_copy(x, key, x.type, f"copy for {node.name}")
            buffers.place(y, y.type, Layout(y.type.sizes))
            for inside in (key, y):
                buffers.enclose(inside, message, end)
            end = round_up(end + buffers.bytes_of(y), self._machine.alignment)
        dtype = operands[0].type.dtype
        buffers.place_message(message, TensorType(dtype, (end // dtype.bytes,)))
        whole = frozenset((message,))
        self.calls.append(Call("", (message,), whole, (node.name,), node.op.name, whole))
        self.choices.append(None)

    def _add_group(self, graph: Graph, nodes: list[OpNode]) -> None:
        buffers = self._buffers
        composed = self._composer.compose(nodes, leaving(graph, nodes))
        bound = bound_sources(composed, nodes[-1], buffers.timing)
        names = tuple(node.name for node in nodes)
        keys: dict[str, Key] = {n: v for n, v in composed.sources.items() if n not in bound}
        for chain in composed.chains:
            for stage in (*chain.stages, *chain.ending):
                name = stage.target.name
                keys[name] = composed.targets.get(name, (names, name))
                buffers.place(keys[name], stage.target.type, composed.layouts[name])
        for second, first in composed.again.items():
            if first in bound:
                bound[second] = bound[first]
            else:
                keys[second] = keys[first]
        pieces = [(piece, chain) for chain in composed.chains for piece in chain.apart()]
        while pieces:
            taken = self._joined(composed, [piece for piece, _ in pieces], keys, bound)
            count, (piece, chain) = len(taken), pieces[0]
            ends = count == 1 and chain.ending and piece.stages == chain.stages
            if ends and self._ends_well(composed.op, chain, keys, bound):
                taken, count = (chain,), 2
            self._add_task(composed.op, taken, keys, bound, names)
            del pieces[:count]

    def _joined(
        self,
        composed: Composed,
        parts: Sequence[Chain],
        keys: Mapping[str, Key],
        bound: Mapping[str, Source],
    ) -> tuple[Chain, ...]:
        """As many of the first parts as a schedule runs as one, for less than they cost apart."""
        for count in range(min(len(parts), _MOST_JOINED) if self._machine.joins else 0, 1, -1):
            read = {name for part in parts[count:] for name in part.operands}
            wanted = read.union(composed.targets)
            chains = tuple(_handing_on(part, wanted) for part in parts[:count])
            bids = self._bids(self._task(composed.op, chains, keys, bound))
            if bids and bids[0][0] < sum(
                self._bids(self._task(composed.op, (part,), keys, bound))[0][0]
                for part in parts[:count]
            ):
                return chains
        return (parts[0],)

    def _ends_well(
        self, op: str, chain: Chain, keys: Mapping[str, Key], bound: Mapping[str, Source]
    ) -> bool:
        """Whether a schedule runs a chain with its ending, for no more than both cost apart, where
        schedules bid that run no endings: those with fewer products."""
        bids = self._bids(self._task(op, (chain,), keys, bound))
        if not bids:
            return False
        apart = (self._bids(self._task(op, (piece,), keys, bound)) for piece in chain.apart())
        return bids[0][0] <= sum(each[0][0] for each in apart)

    def add_copy(self, source: Key, into: Key, type: TensorType, label: str) -> None:
        """Copy a value, or what lies under another key, into plain memory of a key of its own."""
        x = TensorVar("x0", type)
        axes = axes_over(type.shape)
        stage = Stage(TensorVar("t0", type), axes, Read(x, tuple(a.i for a in axes)))
        self._buffers.place(into, type, Layout(type.sizes))
        keys: dict[str, Key] = {"t0": into}
        bound: dict[str, Source] = {}
        if isinstance(source, Value) and self._buffers.timing.is_bound(source.node):
            bound["x0"] = Source(source)
        else:
            keys["x0"] = source
        self._add_task("copy", (Chain((stage,), ("t0",)),), keys, bound, (label,))

    def _task(
        self,
        op: str,
        chains: tuple[Chain, ...],
        keys: Mapping[str, Key],
        bound: Mapping[str, Source],
    ) -> Task:
        """Chains whose operands and outputs have their layouts: the last one, after the others."""
        buffers = self._buffers
        *before, chain = chains
        made = {stage.target.name for other in before for stage in other.stages}
        read = {name: var for each in chains for name, var in each.operands.items()}
        operands = tuple(
            Operand(var, None if name in bound else buffers.layout(keys[name]))
            for name, var in sorted(read.items())
            if name not in made
        )
        earlier = tuple(self._task(op, (other,), keys, bound) for other in before)

        def outputs(stages: tuple[Stage, ...], names: tuple[str, ...]) -> tuple[Output, ...]:
            stored = (stage.target for stage in stages if stage.target.name in names)
            return tuple(Output(var, buffers.layout(keys[var.name])) for var in stored)

        main = outputs(chain.stages, chain.outputs)
        layout = buffers.layout(keys[chain.stages[-1].target.name])
        ending = None
        if chain.ending:
            ending = Ending(chain.ending, outputs(chain.ending, chain.ending_outputs))
        return Task(op, chain.stages, operands, main, layout, ending, earlier)

    def _add_task(
        self,
        op: str,
        chains: tuple[Chain, ...],
        keys: Mapping[str, Key],
        bound: Mapping[str, Source],
        names: tuple[str, ...],
    ) -> None:
        """The calls of a task's kernels, after the steps that pack what is packed in calls."""
        task = self._task(op, chains, keys, bound)
        scheduled, choice = self._schedule(task)
        known: dict[str, Key] = dict(keys)
        private = 0
        for scratch in scheduled.scratch:
            if scratch.private:
                known[scratch.name] = piece = Private(private, scratch.size * scratch.dtype.bytes)
                private = round_up(piece.first + piece.bytes, self._machine.alignment)
                continue
            known[scratch.name] = (names, task.stages[0].target.name, scratch.name)
            self._buffers.place_scratch(known[scratch.name], scratch)
        for kernel, described in scheduled.kernels:
            arguments: list[Key] = []
            for variable, asked in described:
                pack = asked or self._narrowing(task, variable, keys, bound)
                if pack is None:
                    arguments.append(known[variable])
                elif variable in bound:
                    dtype = task.operand(variable).var.type.dtype
                    packing = Packing(bound[variable], pack, dtype, 0)
                    arguments.append(self._buffers.weight(packing))
                else:
                    var = task.operand(variable).var
                    arguments.append(self._packed(var, keys[variable], pack, names))
            buffers = zip(kernel.buffers, arguments, strict=True)
            written = frozenset(key for buffer, key in buffers if buffer.written)
            self.calls.append(Call(kernel.name, tuple(arguments), written, names, choice.schedule))
            self.choices.append(replace(choice, nodes=names, kernel=kernel.name))

    def _narrowing(
        self, task: Task, variable: str, keys: Mapping[str, Key], bound: Mapping[str, Source]
    ) -> Pack | None:
        """How an operand is packed that a kernel reads where it lies, in another type than it is
        stored in: as it lies."""
        operand = next((o for o in task.operands if o.var.name == variable), None)
        if operand is None or variable in bound:
            return None
        alike = self._buffers.dtype(keys[variable]) is operand.var.type.dtype
        return None if alike else operand.layout

    def _packed(self, var: TensorVar, key: Key, pack: Pack, names: tuple[str, ...]) -> PackedValue:
        """Steps that pack a value, and the key of what they make. What is packed alike from one
        value is packed once."""
        dtype = var.type.dtype
        packed = PackedValue(key, pack, dtype)
        if self._buffers.place_packed(packed):
            source = TensorVar("x0", replace(var.type, dtype=self._buffers.dtype(key)))
            for first, made in pack.stages(source):
                stage = _stored_as(dtype, made)
                name, part = stage.target.name, Part(packed, first)
                self._buffers.place_part(part, stage.target.type)
                ends: dict[str, Key] = {source.name: key, name: part}
                chain = Chain((stage,), (name,))
                self._add_task("pack", (chain,), ends, {}, (f"pack for {names[0]}",))
        return packed

    def _bids(self, task: Task) -> list[tuple[float, Schedule]]:
        """What schedules offer, asked once of equal tasks."""
        if task not in self._offers:
            self._offers[task] = self._machine.bids(task)
        return self._offers[task]

    def _schedule(self, task: Task) -> tuple[Scheduled, Decision]:
        """The kernels of a task, by the schedule that predicts the fewest cycles."""
        if task not in self._scheduled:
            offers = self._bids(task)
            chosen = offers[0][1]
            name = f"{_identifier(task.op)}_{len(self._scheduled)}"
            listed = tuple((schedule.name, cost) for cost, schedule in offers)
            choice = Decision(task, (), name, chosen.name, listed, chosen.note(task))
            scheduled = chosen.emit(task, name)
            self._scheduled[task] = (scheduled, choice)
            for kernel, _ in scheduled.kernels:
                self.kernels[kernel.name] = kernel
                if self._certain is not None and not self.overlays.may_write_over(kernel):
                    self._certain(kernel)
        return self._scheduled[task]


def _stored_as(dtype: DType, stage: Stage) -> Stage:
    """The stage, what it makes rounded to a type."""
    target = stage.target
    if target.type.dtype is dtype:
        return stage
    target = replace(target, type=replace(target.type, dtype=dtype))
    return replace(stage, target=target, body=Cast(stage.body, dtype))


def _handing_on(chain: Chain, wanted: Collection[str]) -> Chain:
    """A chain that stores no more than what is wanted."""
    outputs, ending = (
        tuple(name for name in names if name in wanted)
        for names in (chain.outputs, chain.ending_outputs)
    )
    return replace(chain, outputs=outputs, ending_outputs=ending)


def _identifier(op: str) -> str:
    """What backends can call a kernel of an operator: `conv_grad_x` for conv.grad(x)."""
    return re.sub(r"\W+", "_", op).strip("_")
