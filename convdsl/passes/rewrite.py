"""Rewrites: small pattern classes, and the greedy walker that applies them until none fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, Node, OpNode, StateNode, Value
from convdsl.ir.timing import Timing
from convdsl.ops import BY_NAME


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite of whole graphs. Its fields are its options; `run` returns how much it changed."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, graph: Graph) -> int: ...

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class Pattern(ABC):
    """One local rewrite."""

    @abstractmethod
    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        """Rewrite around `node` if the pattern fits; say whether it did."""


class Rewriter:
    """A graph being rewritten: new nodes take name and place from the node they stand for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._names = Names(node.name for node in graph.nodes())
        self._build = Build(graph, BY_NAME, self._names)
        self._timing = Timing(graph)

    def at(self, origin: Node) -> Build:
        """Makes what stands for a node, or serves it: named `<origin>.<name>`, in its place."""
        return self._build.at(origin)

    def is_bound(self, value: Value) -> bool:
        """Whether a value is known once weights are bound; rewrites never change that."""
        return self._timing.is_bound(value.node)

    def replace(self, old: OpNode, new: Value, name: str | None = None) -> None:
        """Users of `old` read `new`; `old` goes, and so does what only it needed.

        With `name`, the new node is called so if what bore the name is gone.
        """
        self.graph.replace_uses(old.output, new)
        self.sweep(old)
        if name is not None:
            self.rename(new.node, name)

    def rename(self, node: Node, name: str) -> None:
        """Call a node by a name, if what bore it is gone."""
        if name not in self._names:
            self._names.free(node.name)
            node.name = self._names.unused(name)

    def replace_value(self, old: Value, new: Value) -> None:
        """Users of one output of a node read `new`; the node stays."""
        self.graph.replace_uses(old, new)

    def sweep(self, node: Node) -> None:
        """Remove a node that nothing uses, and whatever was used by it alone."""
        pending = [node]
        while pending:
            dead = pending.pop()
            if dead not in self.graph or self.graph.is_used(dead):
                continue
            self.graph.remove(dead)
            self._names.free(dead.name)
            if isinstance(dead, OpNode):
                pending += [v.node for v in dead.inputs.values() if _is_removable(v.node)]


def _is_removable(node: Node) -> bool:
    return isinstance(node, (OpNode, StateNode))


def rewrite_greedily(graph: Graph, patterns: Sequence[Pattern]) -> int:
    """Apply patterns in topological order, again and again until none fits; how many fitted."""
    rewriter = Rewriter(graph)
    total = 0
    while True:
        before = total
        for node in graph.op_nodes():
            for pattern in patterns:
                if node not in graph:
                    break
                total += pattern.rewrite(node, rewriter)
        if total == before:
            return total
