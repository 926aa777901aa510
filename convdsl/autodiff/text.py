"""The backward graph as text: what it reads of the forward pass, then every gradient by the name of
what it is the gradient of.

    gradient of y by conv.weight
    kept of the forward pass
      relu = relu(conv): f32[1, 8, 6, 6]
    gradients, from the last to the first
      dy = expand(1.0) shape=1x8x6x6: f32[1, 8, 6, 6]
      dconv = relu.grad(x)(relu, dy): f32[1, 8, 6, 6]
      dconv.weight = conv.grad(weight)(x, dconv): f32[8, 3, 3, 3]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from convdsl.autodiff import Flow
from convdsl.ir.derivative import describes_forward
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.text import stated_attributes


def format_backward(graph: Graph, flow: Flow) -> str:
    """The text of what `autodiff.backward` gives."""
    of, *_ = graph.outputs
    forward = _before(graph.outputs[of])
    names = _names(graph, flow, forward)
    made = [node for node in graph.op_nodes() if node not in forward]
    read = {value for node in made for value in node.inputs.values()}
    kept = [node for node in graph.op_nodes() if node in forward and read & {*node.outputs}]
    wrt = ", ".join(name.removeprefix("d") for name in list(graph.outputs)[1:])
    lines = [f"gradient of {of} by {wrt}", "kept of the forward pass"]
    lines += [f"  input {n}: {v.type}" for n, v in graph.inputs.items() if v in read]
    lines += [_line(node, {}) for node in kept]
    lines += ["gradients, from the last to the first"]
    for node in made:
        lines.append(_line(node, names))
        for value in node.outputs:
            lines += [f"  {other} = {names[value]}" for other in _others(flow, names, value)]
    return "\n".join(lines) + "\n"


def _before(value: Value) -> set[OpNode]:
    """The operators that a value is computed by."""
    found: set[OpNode] = set()
    pending = [value.node]
    while pending:
        node = pending.pop()
        if isinstance(node, OpNode) and node not in found:
            found.add(node)
            pending += [operand.node for operand in node.inputs.values()]
    return found


def _names(graph: Graph, flow: Flow, forward: set[OpNode]) -> dict[Value, str]:
    """Gradients by what they are gradients of: `dx`; where several flow into x, `dx.1`, `dx.2` ..
    are those that are summed."""
    names: dict[Value, str] = {}

    def give(value: Value, name: str) -> None:
        if value.node not in forward:
            names.setdefault(value, name)

    for value, total in flow.totals.items():
        give(total, f"d{value.name}")
    for value, parts in flow.parts.items():
        if value in flow.totals and len(parts) > 1:
            for number, part in enumerate(parts, start=1):
                give(part, f"d{value.name}.{number}")
    return names


def _others(flow: Flow, names: Mapping[Value, str], gradient: Value) -> Iterator[str]:
    """What else has this gradient: operands of a sum have the sum's."""
    for value, total in flow.totals.items():
        if total is gradient and names.get(gradient) != f"d{value.name}":
            yield f"d{value.name}"


def _name(value: Value) -> str:
    """A value that is no gradient; a single number as it is."""
    data = value.node.data if isinstance(value.node, StateNode) else None
    return value.name if data is None or data.size > 1 else str(data.reshape(-1)[0])


def _line(node: OpNode, names: Mapping[Value, str]) -> str:
    operands = ", ".join(names.get(v) or _name(v) for v in node.inputs.values())
    results = ", ".join(names.get(v, v.name) for v in node.outputs)
    types = ", ".join(str(value.type) for value in node.outputs)
    stated = stated_attributes(node).items()
    attributes = "".join(f" {n}={text}" for n, text in stated if not describes_forward(n))
    return f"  {results} = {node.op.name}({operands}){attributes}: {types}"
