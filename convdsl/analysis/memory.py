"""The most memory that a graph's values take at once, run as it is written."""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.liveness import live_ranges, occupancy
from convdsl.ir.timing import Timing, bound_nodes
from convdsl.tensor import Dim, dim_max, provably


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes alive at the fullest operator; `at` is None where sizes leave that open."""

    bytes: Dim
    at: OpNode | None


def alive_bytes(graph: Graph, timing: Timing | None = None) -> list[tuple[OpNode, Dim]]:
    """Bytes alive while each operator runs, by liveness: operators in graph order, one buffer per
    value.

    Model inputs count from the start to their last use, outputs and what replaces states to the
    end; states and what is known once weights are bound do not count; nothing is fused or done
    in place. `timing`: of the graph, where it was asked before.
    """
    bound = bound_nodes(graph, timing)
    nodes = [node for node in graph.op_nodes() if node.id not in bound]
    inputs = list(graph.inputs.values())
    values = {*inputs, *(value for node in nodes for value in node.outputs)}
    steps = [([v for v in n.inputs.values() if v in values], n.outputs) for n in nodes]
    results = [value for value in graph.results if value in values]
    ranges = live_ranges(steps, before=inputs, after=results)
    sizes = {value: value.type.bytes for value in values}
    return list(zip(nodes, occupancy(ranges, sizes, len(nodes)), strict=True))


def peak_activation_bytes(graph: Graph, timing: Timing | None = None) -> Peak:
    """The most of `alive_bytes`; the first operator of those that have it."""
    alive = alive_bytes(graph, timing)
    if not alive:
        return Peak(sum((value.type.bytes for value in graph.inputs.values()), 0), None)
    peak = dim_max(*{total for _, total in alive})
    fullest = (node for node, total in alive if total is peak or provably(">=", total, peak))
    return Peak(peak, next(fullest, None))
