"""Common subexpressions: the same operator applied to the same values, once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from convdsl.ir.graph import Graph, Node, OpNode, StateNode
from convdsl.ir.opdef import Role
from convdsl.passes.rewrite import Pass, Rewriter


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge operators with equal attributes and operands, and constants with equal elements.

    Model outputs stay distinct values.
    """

    name: ClassVar[str] = "common-subexpressions"

    def run(self, graph: Graph) -> int:
        rewriter = Rewriter(graph)
        first: dict[Hashable, Node] = {}
        merged = 0
        for node in graph.nodes():
            key = _key(node)
            if key is None:
                continue
            kept = first.setdefault(key, node)
            if kept is not node and not (_is_put_out(graph, kept) and _is_put_out(graph, node)):
                for old, new in zip(node.outputs, kept.outputs, strict=True):
                    graph.replace_uses(old, new)
                rewriter.sweep(node)
                merged += 1
        return merged


def _is_put_out(graph: Graph, node: Node) -> bool:
    return any(graph.is_output(value) for value in node.outputs)


def _key(node: Node) -> Hashable:
    """What two nodes that compute the same have in common; None for what is itself alone."""
    if isinstance(node, OpNode):
        operands = tuple((k, v.node.id, v.index) for k, v in node.inputs.items())
        attributes = tuple((k, _frozen(v)) for k, v in node.attributes.items())
        return (node.op.name, operands, attributes)
    if isinstance(node, StateNode) and node.role is Role.CONSTANT:
        return (node.type, _frozen(np.asarray(node.data)))
    return None


def _frozen(value: Any) -> Hashable:
    """An attribute's value as a key; 1, 1.0 and True differ."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return (str(array.dtype), array.shape, array.tobytes())
    if isinstance(value, (tuple, list)):
        return tuple(_frozen(item) for item in _items(value))
    return (type(value).__name__, value)


def _items(value: Any) -> list[Any]:
    return list(value)
