"""A graph's run-time work in a few figures: what passes are compared by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from convdsl.analysis.cost import Figure, known_sum
from convdsl.analysis.memory import peak_activation_bytes
from convdsl.analysis.report import dim_to_json
from convdsl.ir.graph import Graph
from convdsl.ir.groups import kernels_of, leaving
from convdsl.ir.opdef import Cost
from convdsl.ir.rules import Answers
from convdsl.ir.timing import Timing, bound_nodes
from convdsl.tensor import Dim


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures of one graph; weight-time operators are counted apart and cost nothing here."""

    label: str
    operators: int
    kernels: int  # groups, and operators in none
    weight_time: int
    macs: Dim
    flops: Dim
    activation_bytes: Dim  # written to memory: values that leave a kernel
    peak_activation_bytes: Dim
    changes: int | None = None  # rewrites that led here
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "operators": self.operators,
            "kernels": self.kernels,
            "weight_time": self.weight_time,
            "macs": dim_to_json(self.macs),
            "flops": dim_to_json(self.flops),
            "activation_bytes": dim_to_json(self.activation_bytes),
            "peak_activation_bytes": dim_to_json(self.peak_activation_bytes),
            "changes": self.changes,
            "seconds": self.seconds,
        }


@dataclass
class Snapshots:
    """The figures of a graph while it is rewritten: what a pass left alone is not counted anew."""

    taken: list[Snapshot] = field(default_factory=list[Snapshot])
    _costs: Answers[Cost] = field(default_factory=Answers[Cost])

    def begin(self, graph: Graph, label: str) -> None:
        """Of a graph before the first pass."""
        self.taken.append(snapshot(graph, label, costs=self._costs))

    def after(self, graph: Graph, label: str, changes: int, seconds: float) -> None:
        """Of a graph after a pass that made so many changes."""
        if self.taken and not changes:
            as_before = replace(self.taken[-1], label=label, changes=changes, seconds=seconds)
            self.taken.append(as_before)
        else:
            self.taken.append(snapshot(graph, label, changes, seconds, self._costs))


def snapshot(
    graph: Graph,
    label: str,
    changes: int | None = None,
    seconds: float | None = None,
    costs: Answers[Cost] | None = None,
) -> Snapshot:
    """The figures of a graph as it is. `costs`: of calls that were asked before."""
    timing = Timing(graph)
    bound = bound_nodes(graph, timing)
    nodes = [node for node in graph.op_nodes() if node.id not in bound]
    kernels = kernels_of(graph, timing)
    known = costs or Answers[Cost]()
    found = [known.of(node.call, partial(node.op.cost, node.call)) for node in nodes]
    macs: list[Figure] = [cost.macs for cost in found]
    flops: list[Figure] = [cost.flops for cost in found]
    stored = [value.type.bytes for kernel in kernels for value in leaving(graph, kernel)]
    return Snapshot(
        label=label,
        operators=len(nodes),
        kernels=len(kernels),
        weight_time=len(bound),
        macs=known_sum(macs),
        flops=known_sum(flops),
        activation_bytes=known_sum(stored),
        peak_activation_bytes=peak_activation_bytes(graph, timing).bytes,
        changes=changes,
        seconds=seconds,
    )
