"""Softmax and its logarithm along one axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    Attribute,
    Call,
    Gradient,
    Kind,
    OpDef,
    Operand,
    Rule,
    WindowRule,
    float_type,
    no_contraction,
    no_state,
    same_type,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import resolve_axis, whole_along
from convdsl.kernel.expr import (
    Axis,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
)
from convdsl.tensor import Dim, TensorType


def resolve_softmax(call: Call) -> Mapping[str, Any]:
    """The axis from 0 on. Raises OpError if it does not exist, and unless x is floating."""
    float_type(call)
    return {**call.attributes, "axis": resolve_axis(call)}


def field_softmax(call: Call) -> WindowRule:
    """Along the axis all is seen."""
    return whole_along(call.type("x").shape, (call["axis"],))


def kernel_softmax(call: Call) -> TensorExpr:
    """top = max over j of x[j]; e[i] = exp(x[i] - top); total = sum over j of e[j]
    y[i] = e[i] / total"""
    x = call.var("x")
    axis: int = call["axis"]
    axes = axes_over(x.type.shape)
    outer = axes[:axis] + axes[axis + 1 :]
    along = Axis("j", axes[axis].extent)
    whole = tuple(a.i for a in axes)
    kept = tuple(a.i for a in outer)
    line: tuple[Dim, ...] = (*kept[:axis], along.i, *kept[axis:])
    smaller = TensorType(x.type.dtype, tuple(a.extent for a in outer))

    top = Stage(TensorVar("top", smaller), outer, Reduce("max", (along,), Read(x, line)))
    shifted = Read(x, whole) - Read(top.target, kept)
    e = Stage(TensorVar("e", x.type), axes, Unary("decay", shifted))
    total = Stage(TensorVar("total", smaller), outer, Reduce("sum", (along,), Read(e.target, line)))
    if call.op is SOFTMAX:
        body = Read(e.target, whole) / Read(total.target, kept)
    else:
        body = shifted - Unary("log", Read(total.target, kept))
    y = Stage(TensorVar("y", x.type), axes, body)
    return TensorExpr((x,), (top, e, total, y), ("y",))


_AXIS = Attribute("axis", Kind.INT, 1, "axis whose values sum to one; channels")


def gradient_softmax(p: Pullback) -> Gradients:
    """dx = y * (dy - sum of dy * y along the axis)"""
    b, y = p.build, p.y
    total = b("reduce_sum", b("mul", p.dy, y), axes=(p["axis"],), keepdims=True)
    return {"x": b("mul", y, b("sub", p.dy, total), name="dx")}


def gradient_log_softmax(p: Pullback) -> Gradients:
    """dx = dy - exp(y) * sum of dy along the axis"""
    b = p.build
    total = b("reduce_sum", p.dy, axes=(p["axis"],), keepdims=True)
    return {"x": b("sub", p.dy, b("mul", b("exp", p.y), total), name="dx")}


def softmax(name: str, doc: str, gradient: Gradient) -> OpDef:
    """The record of softmax or its logarithm."""
    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("x"),),
        attributes=(_AXIS,),
        outputs=("y",),
        resolve=resolve_softmax,
        state=no_state,
        infer=same_type,
        window=field_softmax,
        cost=no_contraction,
        kernel=kernel_softmax,
        gradient=gradient,
    )


SOFTMAX = softmax(
    "softmax",
    "exp(x) over its sum along an axis; the maximum is taken out first. Bridle 1990.",
    Rule(gradient_softmax, "from the output; the maximum cancels"),
)
LOG_SOFTMAX = softmax(
    "log_softmax",
    "The logarithm of softmax, computed without underflow.",
    Rule(gradient_log_softmax, "from the output; the maximum cancels"),
)

OPERATORS = (SOFTMAX, LOG_SOFTMAX)
