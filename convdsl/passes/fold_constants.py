"""Constant folding: arithmetic on what the text itself states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.graph import Graph, OpNode, StateNode, is_open
from convdsl.ir.opdef import Role
from convdsl.ir.weight_time import run_in_double
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute operators all of whose operands are constants of the text.

    `limit` is the largest result, in elements, that is stored in place of its recipe.
    """

    name: ClassVar[str] = "fold-constants"
    limit: int = 2**20

    def run(self, graph: Graph) -> int:
        return rewrite_greedily(graph, (FoldConstant(self.limit),))


@dataclass(frozen=True)
class FoldConstant(Pattern):
    """op(constant, ...)  ->  constant. In double precision, rounded once."""

    limit: int

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        operands = {key: value.node for key, value in node.inputs.items()}
        arrays = {
            key: state.data
            for key, state in operands.items()
            if isinstance(state, StateNode) and state.role is Role.CONSTANT
        }
        sizes = [value.type.elements for value in node.outputs]
        small = all(isinstance(size, int) and size <= self.limit for size in sizes)
        # Of an open amount the result may be known in size alone: a part from H % 2 on.
        waits = any(map(is_open, node.attributes.values()))
        if len(arrays) < len(operands) or not small or waits:
            return False
        for value, array in zip(node.outputs, run_in_double(node, arrays), strict=True):
            folded = rewriter.at(node).constant(array, value.type.dtype, name="value")
            rewriter.replace_value(value, folded)
        rewriter.sweep(node)
        return True
