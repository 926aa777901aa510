"""Triangles of matrices, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    no_contraction,
    no_state,
    pointwise,
    same_type,
)
from convdsl.kernel.expr import (
    IndexCompare,
    Literal,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
)
from convdsl.tensor import DType


def resolve_triangle(call: Call) -> Mapping[str, Any]:
    """x[.., I, J]; raises OpError for fewer axes."""
    if call.type("x").rank < 2:
        raise OpError(f"{call.op.name} needs matrices, not {call.type('x')}", operands=("x",))
    return call.attributes


def _triangle(name: str, sign: str, doc: str) -> OpDef:
    def kernel(call: Call) -> TensorExpr:
        """y[.., i, j] = x[.., i, j] where j <sign> i + diagonal, else 0"""
        x, (out,) = call.var("x"), call.outputs
        axes = axes_over(out.shape)
        row, column = axes[-2:]
        kept = IndexCompare(sign, column.i, row.i + call["diagonal"])
        zero = Literal(False if out.dtype is DType.BOOL else 0, out.dtype)
        body = Select(kept, Read(x, tuple(axis.i for axis in axes)), zero)
        return TensorExpr((x,), (Stage(TensorVar("y", out), axes, body),), ("y",))

    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("x"),),
        attributes=(
            Attribute("diagonal", Kind.INT, 0, "the last one kept; 1 is above the main one"),
        ),
        outputs=("y",),
        resolve=resolve_triangle,
        state=no_state,
        infer=same_type,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
        gradient=DERIVED,
    )


OPERATORS = (
    _triangle("tril", "le", "What lies on a diagonal of the matrices in the last axes and below."),
    _triangle("triu", "ge", "What lies on a diagonal of the matrices in the last axes and above."),
)
