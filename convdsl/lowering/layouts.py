"""How everything lies between kernels: decided once for the whole graph, producers first."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from convdsl.ir.graph import Graph, Node, OpNode, Value
from convdsl.ir.groups import leaving
from convdsl.ir.rules import kernel_of
from convdsl.ir.timing import Time, Timing
from convdsl.kernel.expr import Stage, reads
from convdsl.kernel.layout import Layout
from convdsl.schedules.machine import Machine
from convdsl.tensor import Dim, DType, TensorType


class Layouts:
    """The layout of every stage of every operator that runs. The machine decides, by the stage
    and by how what it reads lies. States that change are plain, and so is what is computed for
    their sake alone."""

    def __init__(
        self,
        graph: Graph,
        machine: Machine,
        timing: Timing,
        kernels: Sequence[Sequence[OpNode]],
    ) -> None:
        self._machine = machine
        self._timing = timing
        self._plain = _plain_shapes(graph, timing, kernels)
        self._handed_out = _handed_out(graph, timing, kernels)
        self._stages: dict[tuple[OpNode, str], Layout] = {}
        self._decided: dict[Hashable, tuple[Stage, Layout]] = {}  # by a stage that stays, and more
        self._known: dict[OpNode, dict[str, Layout | None]] = {}
        for node in graph.op_nodes():
            if not timing.is_bound(node):
                self._add(node)

    def _add(self, node: OpNode) -> None:
        known: dict[str, Layout | None] = {
            operand: None if self._is_plain(value.node, value.type) else self.of_value(value)
            for operand, value in node.inputs.items()
            if not self._timing.is_bound(value.node)
        }
        stages, group = kernel_of(node.call).stages, self._handed_out.get(node, ())
        if group and self._is_handed_out_plain(group, stages, known):
            for one in group:
                made = kernel_of(one.call).stages
                own = self._plain.get(one, set())
                self._plain[one] = own | {stage.target.type.shape for stage in made}
        for stage in stages:
            name = stage.target.name
            self._stages[node, name] = layout = self._layout(node, stage, known)
            if any(read.tensor.name in known for read in reads(stage.body)):
                known[name] = layout  # else it follows from weights alone
        self._known[node] = known

    def _is_handed_out_plain(
        self, group: Sequence[OpNode], stages: Sequence[Stage], known: Mapping[str, Layout | None]
    ) -> bool:
        """Whether a group that only the caller reads makes all that is as large plain: its first
        operator has one stage, and the maps that the others read beside it lie plain or are
        bound."""
        inside = {value for node in group for value in node.outputs}
        beside = (
            value
            for node in group[1:]
            for value in node.inputs.values()
            if value not in inside and not self._timing.is_bound(value.node)
            if any(extent != 1 for extent in value.type.shape[2:])
        )
        plain = len(stages) == 1 and all(map(self._lies_plain, beside))
        return plain and self._machine.handed_out(stages[0], known, self._machine.known)

    def _lies_plain(self, value: Value) -> bool:
        """Whether a value is known to lie row by row: not what comes later in the order."""
        node = value.node
        if not isinstance(node, OpNode):
            return True
        found = self._stages.get((node, node.call.output_names[value.index]))
        return found is not None and found.axis is None

    def _layout(self, node: OpNode, stage: Stage, known: Mapping[str, Layout | None]) -> Layout:
        if self._is_plain(node, stage.target.type):
            return plain_layout(stage)
        key = (id(stage), *known.items())  # layers repeat, and so do their stages
        found = self._decided.get(key)
        if found is None:
            layout = self._machine.layout(stage, known, self._machine.known)
            found = self._decided[key] = stage, layout
        return found[1]

    def lies_alike(self, value: Value, dtype: DType) -> bool:
        """Whether what an operator makes would lie as it does were its elements of another type."""
        node = value.node
        assert isinstance(node, OpNode)
        name = node.call.output_names[value.index]
        stages = (s for s in kernel_of(node.call).stages if s.target.name == name)
        (stage,) = (retyped(stage, dtype) for stage in stages)
        return self._layout(node, stage, self._known[node]) == self._stages[node, name]

    def _is_plain(self, node: Node, type: TensorType) -> bool:
        return isinstance(node, OpNode) and type.shape in self._plain.get(node, ())

    def of_stage(self, node: OpNode, stage: Stage) -> Layout:
        """Of what a stage of an operator makes."""
        return self._stages[node, stage.target.name]

    def of_value(self, value: Value) -> Layout | None:
        """Of what an operator makes at run time; None for what lies as the caller has it."""
        node = value.node
        if not isinstance(node, OpNode):
            return None
        return self._stages[node, node.call.output_names[value.index]]


def retyped(stage: Stage, dtype: DType) -> Stage:
    """A stage whose target is of another element type, whatever its body says."""
    type = replace(stage.target.type, dtype=dtype)
    return replace(stage, target=replace(stage.target, type=type))


def plain_layout(stage: Stage) -> Layout:
    """What a stage makes, row by row."""
    return Layout(stage.target.type.sizes)


def _handed_out(
    graph: Graph, timing: Timing, kernels: Sequence[Sequence[OpNode]]
) -> dict[OpNode, Sequence[OpNode]]:
    """Groups of one result, which only the caller reads, and of maps of one size, by their first
    operator."""
    found: dict[OpNode, Sequence[OpNode]] = {}
    for nodes in kernels:
        left = leaving(graph, list(nodes))
        apart = len(left) == 1 and graph.is_output(left[0]) and not graph.users(left[0])
        alike = {value.type.shape for node in nodes for value in node.outputs}
        if apart and len(alike) == 1 and not timing.is_bound(nodes[0]):
            found[nodes[0]] = nodes
    return found


def _plain_shapes(
    graph: Graph, timing: Timing, kernels: Sequence[Sequence[OpNode]]
) -> dict[OpNode, set[tuple[Dim, ...]]]:
    """By operator the shapes in which what it makes is plain: all where it follows from states that
    change alone; those of the states that its group replaces, and of what ranks sum. What ends in
    the gradient of a bias, or in running statistics, lies as it would without."""
    found: dict[OpNode, set[tuple[Dim, ...]]] = {}
    new = set(graph.updates.values())
    exchanging = [node for node in graph.op_nodes() if node.op.exchanges]
    summed = {v for node in exchanging for v in (*node.inputs.values(), *node.outputs)}
    for nodes in kernels:
        shapes = {v.type.shape for node in nodes for v in node.outputs if v in new or v in summed}
        if timing.of_node(nodes[-1]) is Time.STEP:
            made = (kernel_of(node.call).stages for node in nodes)
            shapes = {stage.target.type.shape for stages in made for stage in stages}
        if shapes:
            found |= dict.fromkeys(nodes, shapes)
    return found
