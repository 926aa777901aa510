"""When a value is known: its time, the one home of that question.

    TEXT    follows from constants of the text alone
    BIND    follows from weights: evaluated once, when they are bound
    STEP    changes from call to call: a state with an update, and what follows from such and
            from weights alone
    RUN     depends on an input

An operator's values are as late as the latest of its operands; without operands they are TEXT.
"""

from __future__ import annotations

import enum

from convdsl.ir.graph import Graph, InputNode, Node, OpNode, StateNode, Value
from convdsl.ir.opdef import Role


class Time(enum.IntEnum):
    """Times in their order."""

    TEXT = 0
    BIND = 1
    STEP = 2
    RUN = 3


_BOUND = Time.BIND


class Timing:
    """The times of a graph's values, found out when they are asked for and then remembered.

    It may be asked all through a rewrite, of nodes that were not there before: rewrites replace
    values by others of the same time, and leave alone which states have updates.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[int, Time] = {}

    def of(self, value: Value) -> Time:
        """The time of a value; that of its node."""
        return self.of_node(value.node)

    def of_node(self, node: Node) -> Time:
        """The time of all outputs of a node. Asking for every node of a graph, in any order,
        takes time proportional to its edges."""
        found = self._known.get(node.id)
        if found is not None:
            return found
        known, pending = self._known, [node]
        while pending:
            last = pending[-1]
            if last.id in known:
                pending.pop()
                continue
            operands = last.inputs.values() if isinstance(last, OpNode) else ()
            if not operands:
                known[last.id] = self._own(last)
                continue
            try:
                known[last.id] = max([known[value.node.id] for value in operands])
            except KeyError:  # seldom: nodes are mostly asked for in their order
                pending += [v.node for v in operands if v.node.id not in known]
        return known[node.id]

    def is_bound(self, node: Node) -> bool:
        """Whether what a node puts out is known once weights are bound: TEXT or BIND."""
        found = self._known.get(node.id)
        return (self.of_node(node) if found is None else found) <= _BOUND

    def _own(self, node: Node) -> Time:
        """The time of a node without operands."""
        if isinstance(node, InputNode):
            return Time.RUN
        if isinstance(node, StateNode) and node.role is not Role.CONSTANT:
            return Time.STEP if node.name in self._graph.updates else Time.BIND
        return Time.TEXT


def bound_nodes(graph: Graph, timing: Timing | None = None) -> set[int]:
    """Ids of the operators that are evaluated once, when weights are bound, and never again.
    `timing`: of the graph, where it was asked before."""
    timing = timing or Timing(graph)
    return {node.id for node in graph.op_nodes() if timing.is_bound(node)}
