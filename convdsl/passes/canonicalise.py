"""Canonical forms: one way to say each thing, for the passes that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.classify import copied_operand
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.opdef import OpError, Role
from convdsl.ir.rules import arithmetic_of
from convdsl.kernel.expr import Binary, Read, TensorExpr
from convdsl.passes.idioms import NameActivations
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily
from convdsl.passes.written_norms import NameNormalisations

COMMUTATIVE = frozenset({"add", "mul", "max", "min"})

RESHAPES = frozenset({"reshape", "flatten", "squeeze", "unsqueeze"})
"""Operators that keep every element in row-major order."""


@dataclass(frozen=True)
class Canonicalise(Pass):
    """Remove what only hands on, join reshapes, name what is written out, order operands."""

    name: ClassVar[str] = "canonicalise"

    def run(self, graph: Graph) -> int:
        named = (NameActivations(), NameNormalisations())
        patterns = (RemoveCopy(), JoinReshapes(), *named, OrderOperands())
        return rewrite_greedily(graph, patterns)


class RemoveCopy(Pattern):
    """y = copy(x)  ->  x: dropout at inference, reshaping to the same shape, joining one tensor. A
    sum over ranks is a copy only where there is one."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op.exchanges:
            return False
        types = [value.type for value in node.inputs.values()]
        if types != [value.type for value in node.outputs]:
            return False
        operand = copied_operand(arithmetic_of(node.call))
        if operand is None:
            return False
        source = node.inputs[operand]
        if rewriter.graph.is_output(node.output) and not _may_leave(rewriter, source):
            return False
        rewriter.replace(node, source)
        return True


def _may_leave(rewriter: Rewriter, value: Value) -> bool:
    """Model outputs stay computed values, and distinct ones."""
    computed = isinstance(value.node, OpNode) and not rewriter.is_bound(value)
    return computed and not rewriter.graph.is_output(value)


class JoinReshapes(Pattern):
    """reshape(reshape(x))  ->  reshape(x): only the last shape counts; flatten and the like too."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op.name not in RESHAPES:
            return False
        before = node.inputs["x"].node
        if not isinstance(before, OpNode) or before.op.name not in RESHAPES:
            return False
        shape = node.output.type.shape
        joined = rewriter.at(node)("reshape", before.inputs["x"], shape=shape, name="joined")
        rewriter.replace(node, joined, node.name)
        return True


class OrderOperands(Pattern):
    """a + b  ->  b + a, so that weights stand second and what was made first stands first."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        plain = all(operand.role is Role.DATA for operand in node.op.operands)
        if len(node.inputs) != 2 or not plain or not _is_commutative(arithmetic_of(node.call)):
            return False
        (first, a), (second, b) = node.inputs.items()
        if _order(a, rewriter) <= _order(b, rewriter) or not _takes(node, {first: b, second: a}):
            return False
        rewriter.graph.set_input(node, first, b)
        rewriter.graph.set_input(node, second, a)
        return True


def _takes(node: OpNode, inputs: Mapping[str, Value]) -> bool:
    """Whether the operator takes other operands and gives the same then. A gradient may not: its
    operands have the shapes that they had in the forward call."""
    if len({value.type for value in inputs.values()}) == 1:
        return True
    try:
        call = node.op.call({name: v.type for name, v in inputs.items()}, node.attributes)
        return call.outputs == tuple(value.type for value in node.outputs)
    except OpError:
        return False


def _is_commutative(expr: TensorExpr) -> bool:
    """One stage, `a[...] op b[...]` with an operator that does not mind."""
    if len(expr.stages) != 1:
        return False
    body = expr.stages[0].body
    return (
        isinstance(body, Binary)
        and body.op in COMMUTATIVE
        and isinstance(body.a, Read)
        and isinstance(body.b, Read)
    )


def _order(value: Value, rewriter: Rewriter) -> tuple[bool, int, int]:
    return (rewriter.is_bound(value), value.node.id, value.index)
