"""What a graph is made of: inputs, states and applied operators, and the values that they put out.

Nodes know their operands and what they came from; who reads them, the graph knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.diagnostics import Frame, Span
from convdsl.ir.opdef import Call, OpDef, Role
from convdsl.tensor import TensorType


class Value:
    """One output of a node: what edges carry. Compared by identity."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int, type: TensorType) -> None:
        self.node = node
        self.index = index
        self.type = type

    @property
    def name(self) -> str:
        """The node's name; with the output's own name where there are several."""
        if isinstance(self.node, OpNode) and len(self.node.outputs) > 1:
            return f"{self.node.name}:{self.node.call.output_names[self.index]}"
        return self.node.name

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type}>"


class Node:
    """Common to all nodes: identity, name, where in the source text it came from."""

    __slots__ = ("frames", "id", "name", "outputs", "span")

    def __init__(self, id: int, name: str, span: Span | None, frames: tuple[Frame, ...]) -> None:
        self.id = id
        self.name = name
        self.span = span
        self.frames = frames
        self.outputs: tuple[Value, ...] = ()

    @property
    def output(self) -> Value:
        """The only output of a node that has one."""
        (value,) = self.outputs
        return value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name}>"


class InputNode(Node):
    """A model input."""

    __slots__ = ()

    @property
    def type(self) -> TensorType:
        return self.output.type


class StateNode(Node):
    """A weight (`name` is its key in weight files), a running statistic or a constant."""

    __slots__ = ("data", "init", "role")

    def __init__(
        self,
        id: int,
        name: str,
        span: Span | None,
        frames: tuple[Frame, ...],
        role: Role,
        init: str,
        data: Any,
    ) -> None:
        super().__init__(id, name, span, frames)
        self.role = role
        self.init = init
        self.data = data  # numpy array of a CONSTANT, else None

    @property
    def type(self) -> TensorType:
        return self.output.type


class OpNode(Node):
    """An applied operator. `group` is set by fusion: nodes of one group become one kernel."""

    __slots__ = ("attributes", "group", "inputs", "op")

    def __init__(
        self,
        id: int,
        name: str,
        span: Span | None,
        frames: tuple[Frame, ...],
        op: OpDef,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, Any],
    ) -> None:
        super().__init__(id, name, span, frames)
        self.op = op
        self.inputs: dict[str, Value] = dict(inputs)
        self.attributes: dict[str, Any] = dict(attributes)
        self.group: int | None = None

    @property
    def call(self) -> Call:
        """The operator with this node's operand types and attributes."""
        types = {name: value.type for name, value in self.inputs.items()}
        return Call(self.op, types, self.attributes)

    @property
    def data_inputs(self) -> tuple[Value, ...]:
        """Operands that are not weights by role (in operand order)."""
        state = {o.name for o in self.op.operands if o.role is not Role.DATA}
        return tuple(value for name, value in self.inputs.items() if name not in state)


def copied(node: Node, values: Mapping[Value, Value]) -> Node:
    """A node of its own, that reads what stands for its operands."""
    id, name, span, frames = node.id, node.name, node.span, node.frames
    match node:
        case OpNode():
            inputs = {key: values[value] for key, value in node.inputs.items()}
            made = OpNode(id, name, span, frames, node.op, inputs, node.attributes)
            made.group = node.group
            return made
        case StateNode():
            return StateNode(id, name, span, frames, node.role, node.init, node.data)
        case _:
            return InputNode(id, name, span, frames)


_KINDS: dict[type[Node], str] = {InputNode: "input", StateNode: "state", OpNode: "op"}


def describe(node: Node) -> dict[str, Any]:
    """A node's facts by name, for users of networkx."""
    facts: dict[str, Any] = {
        "kind": _KINDS[type(node)],
        "id": node.id,
        "shapes": tuple(value.type.shape for value in node.outputs),
        "dtypes": tuple(str(value.type.dtype) for value in node.outputs),
        "file": node.span.source.path if node.span else None,
        "line": node.span.line if node.span else None,
        "span": node.span,
    }
    if isinstance(node, OpNode):
        cost = node.op.cost(node.call)
        facts |= {"op": node.op.name, "attributes": dict(node.attributes)}
        facts |= {"macs": cost.macs, "flops": cost.flops}
    elif isinstance(node, StateNode):
        facts["role"] = node.role.value
    return facts
