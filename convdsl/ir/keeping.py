"""Operators that put out more of what they compute on the way, for their gradients to read.

`layer_norm.keeping(mean, scale)` computes what layer_norm computes; its results are y and two of
the tensors between. A gradient that wants them makes the forward node one that keeps them
(`Pullback.kept`); where none is taken, nothing is kept.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from convdsl.ir.opdef import Call, OpDef
from convdsl.kernel.expr import TensorExpr
from convdsl.tensor import TensorType


@cache
def keeping(op: OpDef, stages: tuple[str, ...]) -> OpDef:
    """The operator whose outputs are those of `op` and what some of the stages of its arithmetic
    make. Its gradient is that of `op`: derived, or a rule, which sees more outputs."""

    def kernel(call: Call) -> TensorExpr:
        expr = op.kernel(replace(call, op=op))
        return replace(expr, outputs=(*expr.outputs, *stages))

    def infer(call: Call) -> tuple[TensorType, ...]:
        forward = replace(call, op=op)
        expr = op.kernel(forward)
        return (*op.infer(forward), *(expr.stage(name).target.type for name in stages))

    return replace(
        op,
        name=f"{op.name}.keeping({', '.join(stages)})",
        aliases=(),
        outputs=(*op.outputs, *stages),
        infer=infer,
        kernel=kernel,
    )
