"""Transposes that undo each other, also across elementwise work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.classify import OpClass, classify, reads_in_place
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.rules import arithmetic_of
from convdsl.kernel.expr import IndexCompare, IndexValue, walk
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily


@dataclass(frozen=True)
class CancelTransposes(Pass):
    """Join two transposes, maps of one operand between them, into one or none."""

    name: ClassVar[str] = "cancel-transposes"

    def run(self, graph: Graph) -> int:
        return rewrite_greedily(graph, (JoinTransposes(),))


class JoinTransposes(Pattern):
    """transpose(f(transpose(x)))  ->  f(x), transposed once if the two are not inverse.

    Requires: f is a chain of maps of one operand that know nothing of positions, and nothing
    else reads what is in between.
    """

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        graph = rewriter.graph
        if node.op.name != "transpose":
            return False
        maps: list[OpNode] = []
        before = node.inputs["x"]
        while isinstance(before.node, OpNode) and _is_free_map(before.node):
            if not _is_read_once(graph, before):
                return False
            maps.append(before.node)
            (before,) = before.node.inputs.values()
        first = before.node
        if not isinstance(first, OpNode) or first.op.name != "transpose":
            return False
        if maps and not _is_read_once(graph, first.output):
            return False
        inner, outer = first.attributes["axes"], node.attributes["axes"]
        order = tuple(inner[axis] for axis in outer)
        straight = order == tuple(range(len(order)))
        if graph.is_output(node.output) and straight and not maps:
            return False  # a model output stays a computed value
        value = first.inputs["x"]
        moved: list[tuple[Value, str]] = []
        for step in reversed(maps):
            (operand,) = step.inputs
            build = rewriter.at(step)
            value = build.apply(step.op, {operand: value}, step.attributes, name="moved").output
            moved.append((value, step.name))
        if not straight:
            value = rewriter.at(node)("transpose", value, axes=order, name="joined")
            moved.append((value, node.name))
        rewriter.replace(node, value)
        for made, name in moved:
            rewriter.rename(made.node, name)
        return True


def _is_free_map(node: OpNode) -> bool:
    """A map of one operand whose value does not depend on the position."""
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    expr = arithmetic_of(node.call)
    (operand,) = node.inputs
    if classify(expr) is not OpClass.MAP or not reads_in_place(expr, operand):
        return False
    parts = [part for stage in expr.stages for part in walk(stage.body)]
    return not any(isinstance(part, (IndexValue, IndexCompare)) for part in parts)


def _is_read_once(graph: Graph, value: Value) -> bool:
    return len(graph.users(value)) == 1 and not graph.is_result(value)
