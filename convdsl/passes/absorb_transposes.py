"""Transposes that a product need not wait for."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import ClassVar

from convdsl.ir.graph import Graph, OpNode
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily


@dataclass(frozen=True)
class AbsorbTransposes(Pass):
    """Read a transposed factor of a product as it lies, where the sum runs along its rows."""

    name: ClassVar[str] = "absorb-transposes"

    def run(self, graph: Graph) -> int:
        return rewrite_greedily(graph, (ReadAlongSum(),))


class ReadAlongSum(Pattern):
    """matmul(a, transpose(y))  ->  einsum(a, y), the sum along the last axis of y.

    Requires: both are computed in calls (weights are packed in any case), have the same leading
    axes, and nothing else reads the transposed.
    """

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op.name != "matmul":
            return False
        a, b = node.inputs["a"], node.inputs["b"]
        turned, rank = b.node, b.type.rank
        if not isinstance(turned, OpNode) or turned.op.name != "transpose":
            return False
        graph, axes = rewriter.graph, turned.attributes["axes"]
        alone = len(graph.users(b)) == 1 and not graph.is_result(b)
        if not alone or rewriter.is_bound(a) or rewriter.is_bound(b) or not a.type.dtype.is_float:
            return False
        if rank < 2 or axes[-2] != rank - 1 or a.type.shape[:-2] != b.type.shape[:-2]:
            return False
        *outer, m, k, n = ascii_lowercase[: rank + 1]
        lying = dict(zip(axes, (*outer, k, n), strict=True))
        factors = "".join((*outer, m, k)), "".join(lying[axis] for axis in range(rank))
        equation = f"{','.join(factors)}->{''.join((*outer, m, n))}"
        build = rewriter.at(node)
        made = build("einsum", a, turned.inputs["x"], equation=equation, name="product")
        rewriter.replace(node, made, node.name)
        return True
