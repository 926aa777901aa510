"""Dead code: what neither an output nor an update needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.graph import Graph, InputNode, Node, OpNode
from convdsl.passes.rewrite import Pass


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Remove operators and weights that no output and no update depends on.

    Model inputs stay, they are the model's signature; so do states with an update, which are
    read from outside.
    """

    name: ClassVar[str] = "eliminate-dead-code"

    def run(self, graph: Graph) -> int:
        states = graph.states
        pending: list[Node] = [value.node for value in graph.results]
        pending += [states[key] for key in graph.updates]
        needed = {node.id for node in pending}
        while pending:
            node = pending.pop()
            if isinstance(node, OpNode):
                for value in node.inputs.values():
                    if value.node.id not in needed:
                        needed.add(value.node.id)
                        pending.append(value.node)
        dead = [n for n in graph.nodes() if n.id not in needed and not isinstance(n, InputNode)]
        for node in reversed(dead):
            graph.remove(node)
        return len(dead)
