"""Elements at positions that are data: embeddings, permutations, nearest neighbours."""

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
    Reach,
    WindowRule,
    no_contraction,
    no_state,
)
from convdsl.ir.shapes import resolve_axis
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over, lookup
from convdsl.tensor import DType, TensorType


def resolve_take(call: Call) -> Mapping[str, Any]:
    """x, any dtype, positions of i64, and the axis of x from 0 on. Raises OpError for others."""
    positions = call.type("positions")
    if positions.dtype is not DType.I64:
        raise OpError(f"positions are i64, not {positions}", operands=("positions",))
    return {**call.attributes, "axis": resolve_axis(call)}


def infer_take(call: Call) -> tuple[TensorType, ...]:
    """y, the axes of the positions in the place of the axis of x."""
    x, positions = call.type("x"), call.type("positions")
    axis: int = call["axis"]
    shape = (*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :])
    return (TensorType(x.dtype, shape),)


def field_take(call: Call) -> WindowRule:
    """Batch and channels have no place; along space any position may be read."""
    is_list = call.type("positions").rank == 1
    return Reach.POINTWISE if call["axis"] < 2 and is_list else Reach.DERIVED


def kernel_take(call: Call) -> TensorExpr:
    """y[a.., p.., b..] = x[a.., positions[p..], b..]"""
    x, positions = call.var("x"), call.var("positions")
    (out,) = call.outputs
    axis: int = call["axis"]
    axes = axes_over(out.shape)
    at = [a.i for a in axes]
    last = axis + positions.type.rank
    place = Read(positions, tuple(at[axis:last]))
    body = lookup(x, (*at[:axis], place, *at[last:]), from_end=True)
    return TensorExpr((x, positions), (Stage(TensorVar("y", out), axes, body),), ("y",))


TAKE = OpDef(
    name="take",
    aliases=(),
    doc="""The elements of x at positions along an axis; -1 is the last one.

    Of a position that the axis has not, the nearest one is taken.""",
    operands=(Operand("x"), Operand("positions")),
    attributes=(Attribute("axis", Kind.INT, 1, "axis of x that the positions count along"),),
    outputs=("y",),
    resolve=resolve_take,
    state=no_state,
    infer=infer_take,
    window=field_take,
    cost=no_contraction,
    kernel=kernel_take,
    gradient=DERIVED,
)

OPERATORS = (TAKE,)
