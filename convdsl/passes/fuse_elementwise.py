"""Fusion: elementwise work joins the kernel of what precedes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.classify import OpClass, classify, reads_in_place
from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.timing import bound_nodes
from convdsl.kernel.expr import TensorExpr
from convdsl.passes.rewrite import Pass

# What a chain may start with, in order of preference where a map could join several.
_ROOTS = (OpClass.MAP, OpClass.REDUCTION, OpClass.WINDOW, OpClass.CONTRACTION)


@dataclass(frozen=True)
class FuseElementwise(Pass):
    """Group each map with the operator that makes its operand.

    A group is a chain: a root, then maps, each the only user of what precedes it and reading
    it at its own position. Other operands, a residual say, are computed before and read as
    they are. Since all of a group flows into its one last value, two groups never wait for
    each other. `longest` bounds the operators of a group.
    """

    name: ClassVar[str] = "fuse-elementwise"
    longest: int = 32

    def run(self, graph: Graph) -> int:
        bound = bound_nodes(graph)
        chains = _Chains(graph, self.longest)
        for node in graph.op_nodes():
            node.group = None
            if node.id not in bound:
                chains.place(node)
        return chains.number()


class _Chains:
    """Chains as they grow, node by node in topological order."""

    def __init__(self, graph: Graph, longest: int) -> None:
        self._graph = graph
        self._longest = longest
        self._chains: dict[int, tuple[OpClass, list[OpNode]]] = {}  # by id of the last node

    def place(self, node: OpNode) -> None:
        """Append the node to the best chain that it can continue, or start one."""
        expr = node.call.kernel
        kind = classify(expr)
        producers = self._producers(node) if kind is OpClass.MAP else []
        before = [p for p in producers if self._continues(node, expr, p)]
        if before:
            best = max(before, key=self._preference)
            root, chain = self._chains.pop(best.id)
            self._chains[node.id] = (root, [*chain, node])
        elif kind in _ROOTS:
            self._chains[node.id] = (kind, [node])

    def number(self) -> int:
        """Set the groups of chains that have more than a root; how many nodes joined one."""
        joined = 0
        for _, chain in self._chains.values():
            if len(chain) > 1:
                joined += len(chain) - 1
                for node in chain:
                    node.group = chain[0].id
        return joined

    def _producers(self, node: OpNode) -> list[OpNode]:
        found = {v.node.id: v.node for v in node.inputs.values()}
        return [n for n in found.values() if isinstance(n, OpNode) and n.id in self._chains]

    def _continues(self, node: OpNode, expr: TensorExpr, before: OpNode) -> bool:
        """Whether the map `node` may follow `before`, the last of a chain."""
        if len(before.outputs) != 1 or len(node.outputs) != 1:
            return False
        users = {user.id for user, _ in self._graph.users(before.output)}
        if users != {node.id} or self._graph.is_result(before.output):
            return False
        if len(self._chains[before.id][1]) >= self._longest:
            return False
        operands = [key for key, value in node.inputs.items() if value is before.output]
        return all(reads_in_place(expr, operand) for operand in operands)

    def _preference(self, last: OpNode) -> tuple[int, int]:
        return (_ROOTS.index(self._chains[last.id][0]), last.id)
