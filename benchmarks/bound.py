"""The least time that a network can take: a roofline of its layers.

    seconds = sum over kernels of max(multiplications / peak, bytes / bandwidth)

Multiply-adds are those of the model as written, two operations each, but for dense 3x3 convolutions
of stride 1: these by F(4x4, 3x3) (Lavin, Gray 2016), with a fourth of them. Bytes are the weights,
which other layers have driven out of the caches since the last call, at the bandwidth of memory,
and values larger than half of the second-level caches at that of what lies just beyond. Elementwise
work, transforms and everything else take no time in it.
"""

from __future__ import annotations

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.groups import kernels_of, leaving
from convdsl.measure.machine import Figures
from convdsl.passes import PASSES
from convdsl.passes import run as run_passes

WINOGRAD_SAVING = 4.0
"""144 multiplications for a tile of 4 x 4 outputs and a 3 x 3 filter become 36."""


def bound_seconds(graph: Graph, machine: Figures, threads: int) -> float:
    """Of a graph whose sizes are bound, on a machine as it was measured for a team."""
    near = threads * find_target().caches.l2_bytes // 2
    fused = run_passes(graph, PASSES)
    total = 0.0
    for nodes in kernels_of(fused):
        work = sum(2 * _macs(node) / _saving(node) for node in nodes)
        weights, values = _moved(fused, nodes, near)
        memory = weights / machine.memory_bytes + values / machine.l3_bytes
        total += max(work / machine.flops, memory)
    return total


def _macs(node: OpNode) -> float:
    macs = node.op.cost(node.call).macs
    return float(macs) if isinstance(macs, int) else 0.0


def _saving(node: OpNode) -> float:
    """How many times fewer multiplications the cheapest arithmetic has."""
    weight = next((v.type.shape for n, v in node.inputs.items() if n == "weight"), ())
    attributes = node.call.attributes
    strides, groups = attributes.get("stride"), attributes.get("groups", 1)
    dense = tuple(weight[2:]) == (3, 3) and strides in (1, (1, 1)) and groups == 1
    return WINOGRAD_SAVING if dense else 1.0


def _moved(graph: Graph, nodes: list[OpNode], near: int) -> tuple[float, float]:
    """Bytes of weights, and of values that are not near, that enter or leave a kernel."""
    inside = {value for node in nodes for value in node.outputs}
    entering: set[Value] = {v for node in nodes for v in node.inputs.values()} - inside
    weights = sum(_size(v) for v in entering if isinstance(v.node, StateNode))
    moved = [*(v for v in entering if not isinstance(v.node, StateNode)), *leaving(graph, nodes)]
    return weights, sum(size for v in moved if (size := _size(v)) > near)


def _size(value: Value) -> float:
    size = value.type.bytes
    return float(size) if isinstance(size, int) else 0.0
