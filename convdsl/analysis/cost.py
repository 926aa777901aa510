"""What each operator costs: parameters, arithmetic, elements put out.

`macs` counts multiply-accumulates of convolutions, linear layers and matrix products only.
`flops` is, under `all`, every arithmetic node of the operators' tensor expressions, and under
`torchvision` twice the macs. A figure that is not known is None, and a sum that lacks one is
a lower bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from convdsl.ir.classify import OpClass, classify
from convdsl.ir.graph import Graph, OpNode, StateNode
from convdsl.ir.opdef import Role
from convdsl.ir.rules import Answers, numbered
from convdsl.tensor import Dim

CONVENTIONS = {
    "all": "every arithmetic operation of every operator counts one; "
    "macs are multiply-accumulates of convolutions, linear layers and matrix products",
    "torchvision": "multiply-accumulates of convolutions, linear layers and matrix products "
    "alone, flops = 2 x macs; bias, normalisation, activation, pooling and addition count 0",
}
"""Counting conventions by name, as reports state them."""

Figure: TypeAlias = "Dim | None"


@dataclass(frozen=True, slots=True)
class Cost:
    """The figures of one operator."""

    params: Dim  # parameters that no earlier operator uses
    macs: Figure
    flops: Figure
    neurons: Dim  # elements put out per sample by convolutions and linear layers
    activations: Dim  # elements put out


def costs(
    graph: Graph, convention: str = "all", numbers: Sequence[int] | None = None
) -> dict[OpNode, Cost]:
    """The cost of every operator, in graph order. `numbers`: of their calls, where known."""
    counted: set[int] = set()
    known: Answers[Cost] = Answers()  # without parameters
    result: dict[OpNode, Cost] = {}
    nodes = graph.op_nodes()
    numbers = numbers or numbered(node.call for node in nodes)
    for node, number in zip(nodes, numbers, strict=True):
        own = [s for s in _parameters(node) if s.id not in counted]
        counted.update(s.id for s in own)
        cost = known.of(number, partial(_cost, node, convention))
        params = known_sum(s.type.elements for s in own)
        result[node] = replace(cost, params=params) if own else cost
    return result


def _parameters(node: OpNode) -> list[StateNode]:
    sources = {v.node.id: v.node for v in node.inputs.values()}
    states = [s for s in sources.values() if isinstance(s, StateNode)]
    return [s for s in states if s.role is Role.PARAMETER]


def _cost(node: OpNode, convention: str) -> Cost:
    call = node.call
    cost = node.op.cost(call)
    macs, flops = cost.macs, cost.flops
    if convention == "torchvision":
        macs = cost.macs if cost.macs_by_input is None else cost.macs_by_input
        flops = macs * 2
    layered = any(operand.role is Role.PARAMETER for operand in node.op.operands)
    neurons: Dim = 0
    if layered and classify(call.kernel) is OpClass.CONTRACTION:
        neurons = known_sum(product(v.type.shape[1:]) for v in node.outputs)
    return Cost(
        params=0,
        macs=macs,
        flops=flops,
        neurons=neurons,
        activations=known_sum(v.type.elements for v in node.outputs),
    )


def product(extents: Iterable[Dim]) -> Dim:
    """How many positions some extents span."""
    total: Dim = 1
    for extent in extents:
        total = total * extent
    return total


def known_sum(figures: Iterable[Figure]) -> Dim:
    """The sum of the figures that are known. Of many most are alike, and each is added once."""
    total: Dim = 0
    for figure, count in Counter(figures).items():
        total = total if figure is None else total + figure * count
    return total


def sum_or_gap(figures: Sequence[Figure]) -> Figure:
    """The sum; None where a figure is not known."""
    return None if has_gap(figures) else known_sum(figures)


def has_gap(figures: Iterable[Figure]) -> bool:
    """Whether a figure is not known."""
    return any(figure is None for figure in figures)


def weight_bytes(graph: Graph) -> Dim:
    """Bytes of parameters and buffers."""
    kept = (Role.PARAMETER, Role.BUFFER)
    return known_sum(s.type.bytes for s in graph.states.values() if s.role in kept)
