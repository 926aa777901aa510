"""A graph in full, as text: what is equal here is lowered to the same code.

Unlike `format_graph`, which people read, nothing is left out: every attribute, every type, the
grouping, the data of constants. Nodes are numbered in their topological order, and operands
name numbers.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.ir.graph import Graph, InputNode, Node, OpNode, StateNode, Value
from convdsl.tensor import SymDim


def canonical_text(graph: Graph) -> str:
    """One line a node, then the outputs and the updates."""
    nodes = graph.nodes()
    number = {node.id: position for position, node in enumerate(nodes)}

    def place(value: Value) -> str:
        return f"{number[value.node.id]}.{value.index}"

    lines: list[str] = []
    for node in nodes:
        types = ", ".join(str(value.type) for value in node.outputs)
        lines.append(f"{number[node.id]} {node.name!r}: {types} = {_definition(node, place)}")
    lines += [f"output {name!r} {place(value)}" for name, value in graph.outputs.items()]
    lines += [f"update {key!r} {place(value)}" for key, value in graph.updates.items()]
    return "\n".join(lines)


class Origins:
    """What values are made of, whatever graph they are in: SHA-256 of all that they follow from,
    by the names of states."""

    def __init__(self) -> None:
        self._found: dict[Value, str] = {}

    def of(self, value: Value) -> str:
        if value not in self._found:
            text = f"{self._made(value.node)} {value.index} {value.type}"
            self._found[value] = hashlib.sha256(text.encode()).hexdigest()
        return self._found[value]

    def _made(self, node: Node) -> str:
        if isinstance(node, StateNode):
            if node.data is None:
                return f"state {node.name!r}"
            data: NDArray[Any] = np.ascontiguousarray(node.data)
            return f"state {node.name!r} {data.dtype} {hashlib.sha256(data.data).hexdigest()}"
        if isinstance(node, OpNode):
            operands = [f"{key}={self.of(value)}" for key, value in node.inputs.items()]
            attributes = [f"{k}={value_text(v)}" for k, v in sorted(node.attributes.items())]
            return " ".join((node.op.name, *operands, *attributes))
        raise TypeError(f"a node of type {type(node).__name__}")


def _definition(node: Node, place: Any) -> str:
    match node:
        case InputNode():
            return f"input {node.id}"  # inputs are ordered by id
        case StateNode():
            data = "" if node.data is None else f" {value_text(np.asarray(node.data))}"
            return f"state {node.role.value}{data}"
        case OpNode():
            operands = ", ".join(f"{key}={place(value)}" for key, value in node.inputs.items())
            attributes = ", ".join(
                f"{k}={value_text(v)}" for k, v in sorted(node.attributes.items())
            )
            return f"{node.op.name}({operands}) {{{attributes}}} group {node.group}"
        case _:
            raise TypeError(f"a node of type {type(node).__name__}")


def value_text(value: Any) -> str:
    """An attribute or an array in full."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, SymDim):
        return f"<{value}>"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(value_text, value))})"  # pyright: ignore[reportUnknownArgumentType]
    if hasattr(value, "dtype"):
        array: NDArray[Any] = np.asarray(value)
        return f"{array.dtype}{list(array.shape)} {array.tobytes().hex()}"
    raise TypeError(f"an attribute of type {type(value).__name__}")
