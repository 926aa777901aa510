"""Where the largest or smallest elements are: argmax, argmin, top-k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convdsl.ir.derivative import derive_call
from convdsl.ir.opdef import (
    DERIVED,
    POSITIONS,
    REQUIRED,
    Attribute,
    Call,
    Cost,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Rule,
    WindowRule,
    no_contraction,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import known_size, resolve_axis, whole_along
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
)
from convdsl.kernel.ranks import ranks
from convdsl.kernel.scatter import scatter_sum
from convdsl.tensor import DType, TensorType


def resolve_selection(call: Call) -> Mapping[str, Any]:
    """The axis from 0 on. Raises OpError if it does not exist, and for masks."""
    if call.type("x").dtype is DType.BOOL:
        raise OpError(f"{call.op.name} needs numbers, not bool", operands=("x",))
    return {**call.attributes, "axis": resolve_axis(call)}


def _or_nan(condition: Expr, x: Expr) -> Expr:
    return Binary("or", condition, Unary("isnan", x)) if x.dtype.is_float else condition


# argmax, argmin


def infer_arg(call: Call) -> tuple[TensorType, ...]:
    """y, i64: x without the axis; with `keepdims` it stays with extent 1."""
    shape = list(call.type("x").shape)
    if call["keepdims"]:
        shape[call["axis"]] = 1
    else:
        del shape[call["axis"]]
    return (TensorType(DType.I64, tuple(shape)),)


def field_arg(call: Call) -> WindowRule:
    """Along the axis all is seen; where it goes, no axis stands where it stood."""
    if call["keepdims"]:
        return whole_along(call.type("x").shape, (call["axis"],))
    return Reach.WHOLE if call.outputs[0].rank <= 2 else Reach.DERIVED


def kernel_arg(call: Call) -> TensorExpr:
    """best = max (or min) over j of x[.., j, ..]; y = min over j of those j where x is the best"""
    x, (out,) = call.var("x"), call.outputs
    axis: int = call["axis"]
    axes = axes_over(out.shape)
    outer = axes[:axis] + axes[axis + (1 if call["keepdims"] else 0) :]
    along = Axis("j", x.type.shape[axis])
    at = tuple(a.i for a in outer)
    value = Read(x, (*at[:axis], along.i, *at[axis:]))
    op = "max" if call.op.name == "argmax" else "min"
    smaller = TensorType(x.type.dtype, tuple(a.extent for a in outer))
    best = Stage(TensorVar("best", smaller), outer, Reduce(op, (along,), value))
    is_best = _or_nan(Compare("eq", value, Read(best.target, at)), value)
    place = Select(is_best, IndexValue(along.i, out.dtype), IndexValue(along.extent, out.dtype))
    y = Stage(TensorVar("y", out), axes, Reduce("min", (along,), place))
    return TensorExpr((x,), (best, y), ("y",))


def _arg(name: str, what: str) -> OpDef:
    return OpDef(
        name=name,
        aliases=(),
        doc=f"The position of the {what} element along an axis: the first of equals, or a NaN.",
        operands=(Operand("x"),),
        attributes=(
            Attribute("axis", Kind.INT, 1, "axis to search; channels"),
            Attribute("keepdims", Kind.BOOL, False, "leave the axis with extent 1; no, as PyTorch"),
        ),
        outputs=("y",),
        resolve=resolve_selection,
        state=no_state,
        infer=infer_arg,
        window=field_arg,
        cost=no_contraction,
        kernel=kernel_arg,
        gradient=POSITIONS,
    )


# top-k


def resolve_top_k(call: Call) -> Mapping[str, Any]:
    """The axis from 0 on, with a known extent of at least `k`; raises OpError otherwise."""
    resolved = resolve_selection(call)
    extent = known_size(call, "x", resolved["axis"])
    if call["k"] > extent:
        raise OpError(
            f"there are {extent} elements along axis {resolved['axis']}, not {call['k']}",
            attributes=("k",),
            operands=("x",),
        )
    return resolved


def infer_top_k(call: Call) -> tuple[TensorType, ...]:
    """values, of the dtype of x, and positions, i64: x with `k` elements along the axis."""
    x = call.type("x")
    axis: int = call["axis"]
    shape = (*x.shape[:axis], call["k"], *x.shape[axis + 1 :])
    return (TensorType(x.dtype, shape), TensorType(DType.I64, shape))


def field_top_k(call: Call) -> WindowRule:
    """Along the axis all is seen."""
    return whole_along(call.type("x").shape, (call["axis"],))


def kernel_top_k(call: Call) -> TensorExpr:
    """rank[.., i, ..] = how many j come before i
    positions[.., k, ..] = the i of rank k
    values[.., k, ..] = x[.., positions[.., k, ..], ..]"""
    x, outputs = call.var("x"), call.outputs
    axis: int = call["axis"]
    axes = axes_over(x.type.shape)
    other = Axis("j", x.type.shape[axis])
    here = Read(x, tuple(a.i for a in axes))
    count = ranks(axes[axis], other, here, largest=call["largest"])
    rank = Stage(TensorVar("rank", TensorType(DType.I64, x.type.shape)), axes, count)

    chosen = axes_over(outputs[0].shape)
    at = tuple(a.i for a in chosen)
    along = (*at[:axis], other.i, *at[axis + 1 :])
    place = scatter_sum(
        (other,), chosen[axis], Read(rank.target, along), IndexValue(other.i, DType.I64)
    )
    positions = Stage(TensorVar("positions", outputs[1]), chosen, place)
    value = Pick(other, Read(positions.target, at), Read(x, along))
    values = Stage(TensorVar("values", outputs[0]), chosen, value)
    return TensorExpr((x,), (rank, positions, values), ("values", "positions"))


def cost_top_k(call: Call) -> Cost:
    """Each element is compared as often as a search among the k largest so far takes; the
    expression compares every two."""
    return Cost(macs=0, flops=call.type("x").elements * call["k"].bit_length())


def kernel_picked(call: Call) -> TensorExpr:
    """y[.., k, ..] = sum over j of (x[.., j, ..] where positions[.., k, ..] is j, else 0)"""
    x, positions, (out,) = call.var("x"), call.var("positions"), call.outputs
    axis: int = call["axis"]
    axes = axes_over(out.shape)
    at = tuple(a.i for a in axes)
    other = Axis("j", x.type.shape[axis])
    is_it = Compare("eq", Read(positions, at), IndexValue(other.i, DType.I64))
    value = Read(x, (*at[:axis], other.i, *at[axis + 1 :]))
    chosen = Select(is_it, value, Literal(0, x.type.dtype))
    y = Stage(TensorVar("y", out), axes, Reduce("sum", (other,), chosen))
    return TensorExpr((x, positions), (y,), ("y",))


def gradient_top_k(p: Pullback) -> Gradients:
    """Back to the positions that were put out."""
    positions, attributes = p.node.outputs[1], p.node.attributes
    call = _PICKED.call({"x": p.operand("x").type, "positions": positions.type}, attributes)
    return {"x": derive_call(p.build, call, {"positions": positions}, {"dy": p.dy}, "x")}


def infer_picked(call: Call) -> tuple[TensorType, ...]:
    """The values of top_k."""
    return infer_top_k(call)[:1]


TOP_K = OpDef(
    name="top_k",
    aliases=("topk",),
    doc="The k largest elements along an axis, in order, and their positions.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("k", Kind.INT, REQUIRED, "how many", minimum=1),
        Attribute("axis", Kind.INT, 1, "axis to search; channels"),
        Attribute("largest", Kind.BOOL, True, "the largest, or else the smallest"),
    ),
    outputs=("values", "positions"),
    resolve=resolve_top_k,
    state=no_state,
    infer=infer_top_k,
    window=field_top_k,
    cost=cost_top_k,
    kernel=kernel_top_k,
    gradient=Rule(gradient_top_k, "by the positions that it puts out"),
)

_PICKED = replace(
    TOP_K,
    name="top_k.picked",
    aliases=(),
    operands=(Operand("x"), Operand("positions")),
    outputs=("y",),
    infer=infer_picked,
    cost=no_contraction,
    kernel=kernel_picked,
    gradient=DERIVED,
)

OPERATORS = (_arg("argmax", "largest"), _arg("argmin", "smallest"), TOP_K)
