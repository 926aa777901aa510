"""Graphs as text: one line per operator, weights as operands.

    graph
      input image: f32[N, 3, 224, 224]
      conv1 = conv(image, weight=conv1.weight: f32[64, 3, 7, 7]) channels=64 kernel=7 stride=2 ...
      output logits = fc
      update fc.weight = fc.weight_new

Attributes appear where they differ from the operator's defaults. The network stands first; what is
computed of weights alone, once, follows.
"""

from __future__ import annotations

from typing import Any

from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import Call, OpError, Required
from convdsl.ir.timing import bound_nodes
from convdsl.tensor import SymDim


def format_graph(graph: Graph, locations: bool = False) -> str:
    """The graph as text; with `locations`, where in the source each operator came from."""
    bound = bound_nodes(graph)
    nodes = graph.op_nodes()
    early = [_format_node(node, locations) for node in nodes if node.id in bound]
    late = [_format_node(node, locations) for node in nodes if node.id not in bound]
    lines = ["graph"]
    lines += [f"  input {name}: {value.type}" for name, value in graph.inputs.items()]
    lines += late
    lines += [f"  output {name} = {value.name}" for name, value in graph.outputs.items()]
    lines += [f"  update {key} = {value.name}" for key, value in graph.updates.items()]
    lines += ["  # before, once, when weights are bound", *early] if early else []
    return "\n".join(lines) + "\n"


def _format_node(node: OpNode, locations: bool) -> str:
    operands = ", ".join(_format_operand(key, value) for key, value in node.inputs.items())
    types = ", ".join(str(value.type) for value in node.outputs)
    notes = [] if node.group is None else [f"group {node.group}"]
    notes += [node.span.location] if locations and node.span else []
    tail = f"  # {', '.join(notes)}" if notes else ""
    attributes = "".join(f" {name}={text}" for name, text in stated_attributes(node).items())
    return f"  {node.name} = {node.op.name}({operands}){attributes}: {types}{tail}"


def _format_operand(key: str, value: Value) -> str:
    if isinstance(value.node, StateNode):
        return f"{key}={value.name}: {value.type}"
    return value.name


def stated_attributes(node: OpNode) -> dict[str, str]:
    """The attributes that differ from what the operator's defaults resolve to, as text."""
    stated: dict[str, str] = {}
    for attribute in node.op.attributes:
        value = node.attributes[attribute.name]
        if isinstance(attribute.default, Required) or value != _default(node, attribute.name):
            stated[attribute.name] = format_attribute(value)
    return stated


def _default(node: OpNode, name: str) -> Any:
    call = node.call
    given = {**call.attributes, name: node.op.defaults()[name]}
    try:
        return node.op.resolve(Call(call.op, call.types, given))[name]
    except OpError:  # the default does not apply here, e.g. `half` to an even kernel
        return None


def format_attribute(value: Any) -> str:
    """`3x1` for sizes, `(0,1)x1` for padding, lower-case booleans; axes that agree said once."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        parts = [_format_axis(item) for item in _items(value)]
        return parts[0] if len(set(parts)) == 1 else "x".join(parts) or "()"
    if isinstance(value, SymDim):
        return str(value).replace(" ", "")
    return f"array{list(value.shape)}" if hasattr(value, "shape") else str(value)


def _format_axis(item: Any) -> str:
    if not isinstance(item, tuple):
        return format_attribute(item)
    parts = [format_attribute(part) for part in _items(item)]
    return parts[0] if len(parts) == 2 and parts[0] == parts[1] else f"({','.join(parts)})"


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value)
