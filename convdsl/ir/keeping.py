"""Operators that put out more of what they compute, for their gradients to read.

`layer_norm.keeping(mean, scale)` computes what layer_norm computes; its results are y and two of
the tensors between. A gradient that wants them makes the forward node one that keeps them
(`Pullback.kept`); where none is taken, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from convdsl.ir.opdef import Call, OpDef
from convdsl.kernel.expr import TensorExpr
from convdsl.tensor import TensorType


@dataclass(frozen=True, slots=True)
class Recording:
    """Stages to keep, by name. `kernel`: the arithmetic, where the operator's own has no such
    stages: the same outputs, and more besides."""

    stages: tuple[str, ...]
    kernel: Callable[[Call], TensorExpr] | None = None


@cache
def keeping(op: OpDef, wanted: Recording) -> OpDef:
    """The operator whose outputs are those of `op` and what some stages make. Its gradient is that
    of `op`: derived, or a rule, which sees more outputs."""
    arithmetic = wanted.kernel or op.kernel

    def kernel(call: Call) -> TensorExpr:
        expr = arithmetic(replace(call, op=op))
        return replace(expr, outputs=(*expr.outputs, *wanted.stages))

    def infer(call: Call) -> tuple[TensorType, ...]:
        forward = replace(call, op=op)
        expr = arithmetic(forward)
        kept = (expr.stage(name).target.type for name in wanted.stages)
        return (*op.infer(forward), *kept)

    return replace(
        op,
        name=f"{op.name}.keeping({', '.join(wanted.stages)})",
        aliases=(),
        outputs=(*op.outputs, *wanted.stages),
        infer=infer,
        kernel=kernel,
    )
