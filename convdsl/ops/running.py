"""Sums so far, along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Cost,
    Kind,
    OpDef,
    Operand,
    OpError,
    WindowRule,
    no_state,
    same_type,
)
from convdsl.ir.shapes import resolve_axis, whole_along
from convdsl.kernel.expr import Axis, Read, Stage, TensorExpr, TensorVar, axes_over
from convdsl.kernel.running import running
from convdsl.tensor import Dim, DType


def resolve_cumsum(call: Call) -> Mapping[str, Any]:
    """The axis from 0 on. Raises OpError if it does not exist, and for masks."""
    if call.type("x").dtype is DType.BOOL:
        raise OpError(f"cumsum needs numbers, not {call.type('x')}", operands=("x",))
    return {**call.attributes, "axis": resolve_axis(call)}


def field_cumsum(call: Call) -> WindowRule:
    """Along the axis all is seen."""
    return whole_along(call.type("x").shape, (call["axis"],))


def kernel_cumsum(call: Call) -> TensorExpr:
    """y[.., i, ..] = sum over j of (x[.., j, ..] where j <= i, else 0)

    exclusive: j < i; reverse: j >= i, or j > i"""
    x, (out,) = call.var("x"), call.outputs
    axis: int = call["axis"]
    axes = axes_over(out.shape)
    at = tuple(a.i for a in axes)
    term = Axis("j", out.shape[axis])
    value = Read(x, (*at[:axis], term.i, *at[axis + 1 :]))
    body = running(
        "sum",
        axes[axis],
        term,
        value,
        backwards=call["reverse"],
        included=not call["exclusive"],
    )
    return TensorExpr((x,), (Stage(TensorVar("y", out), axes, body),), ("y",))


def cost_cumsum(call: Call) -> Cost:
    """An addition for each element after the first of a line: the sum so far is added to, not made
    anew as the expression says."""
    shape = call.type("x").shape
    axis: int = call["axis"]
    lines: Dim = 1
    for extent in (*shape[:axis], *shape[axis + 1 :]):
        lines = lines * extent
    return Cost(macs=0, flops=lines * (shape[axis] - 1))


CUMSUM = OpDef(
    name="cumsum",
    aliases=(),
    doc="The sum of all elements along an axis up to each.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("axis", Kind.INT, 1, "axis to add along; channels"),
        Attribute("exclusive", Kind.BOOL, False, "of those before, without the element itself"),
        Attribute("reverse", Kind.BOOL, False, "of those from each element on"),
    ),
    outputs=("y",),
    resolve=resolve_cumsum,
    state=no_state,
    infer=same_type,
    window=field_cumsum,
    cost=cost_cumsum,
    kernel=kernel_cumsum,
    gradient=DERIVED,
)

OPERATORS = (CUMSUM,)
