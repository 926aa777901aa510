"""Whether two graphs compute the same from the same inputs and weights, nodes named as they may."""

from __future__ import annotations

from typing import Any

import numpy as np

from convdsl.ir.canonical import value_text
from convdsl.ir.graph import Graph, InputNode, OpNode, StateNode, Value


def outputs_differ(a: Graph, b: Graph) -> str | None:
    """The first output, in order, that is another one; None where the graphs are alike.

    Nodes are alike that have the same operator, attributes and types over operands that are alike;
    inputs and weights those of one name and type. Of orders, that of operands counts alone.
    """
    if list(a.outputs) != list(b.outputs):
        return f"outputs {', '.join(a.outputs)} became {', '.join(b.outputs)}"
    if [(k, str(v.type)) for k, v in a.inputs.items()] != [
        (k, str(v.type)) for k, v in b.inputs.items()
    ]:
        return "the inputs differ"
    numbers: dict[Any, int] = {}
    first, second = _numbered(a, numbers), _numbered(b, numbers)
    for name, value in a.outputs.items():
        if first[value] != second[b.outputs[name]]:
            return f"output {name} is computed in another way"
    return None


def _numbered(graph: Graph, numbers: dict[Any, int]) -> dict[Value, int]:
    """A number for every value, equal for values that are alike."""
    found: dict[Value, int] = {}
    for node in graph.nodes():
        match node:
            case OpNode():
                operands = tuple((key, found[value]) for key, value in node.inputs.items())
                said = tuple((k, value_text(v)) for k, v in sorted(node.attributes.items()))
                meaning: Any = (node.op.name, operands, said)
            case InputNode():
                meaning = ("input", node.name)
            case StateNode():
                meaning = ("state", node.name if node.data is None else _data(node.data))
            case _:
                raise TypeError(f"a node of type {type(node).__name__}")
        number = isinstance(node, StateNode) and node.data is not None and np.size(node.data) == 1
        for value in node.outputs:
            carried = value.type.dtype.value if number else str(value.type)
            key = (meaning, value.index, carried)
            found[value] = numbers.setdefault(key, len(numbers))
    return found


def _data(array: Any) -> str:
    """A constant's elements; a single number is the same of any rank: what reads it says how far
    it is repeated."""
    data = np.asarray(array)
    return value_text(data.reshape(()) if data.size == 1 else data)
