"""Linear layers: products with matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Field,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Role,
    StateSpec,
    contraction,
    float_type,
)
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorExpr, TensorVar
from convdsl.tensor import TensorType, Window


def resolve_linear(call: Call) -> Mapping[str, Any]:
    x = call.type("x")
    float_type(call)
    if x.rank < 2:
        raise OpError(f"linear needs batch and features, not {x}", operands=("x",))
    if not isinstance(x.shape[-1], int):
        raise OpError(
            f"linear needs a known number of features, not {x.shape[-1]}", operands=("x",)
        )
    return call.attributes


def state_linear(call: Call) -> tuple[StateSpec, ...]:
    x = call.type("x")
    shape = (call["channels"], x.shape[-1])
    weight = StateSpec("weight", TensorType(x.dtype, shape), Role.PARAMETER, "kaiming_uniform")
    if not call["bias"]:
        return (weight,)
    bias = TensorType(x.dtype, (call["channels"],))
    return (weight, StateSpec("bias", bias, Role.PARAMETER, "fan_in_uniform"))


def infer_linear(call: Call) -> tuple[TensorType, ...]:
    x = call.type("x")
    return (TensorType(x.dtype, (*x.shape[:-1], call["channels"])),)


def field_linear(call: Call) -> Field:
    """The last axis is channels in a matrix; in deeper tensors it is space, seen whole."""
    x = call.type("x")
    rank = x.rank - 2
    if rank == 0:
        return Reach.POINTWISE
    ones = (1,) * rank
    return Window((*ones[1:], x.shape[-1]), (*ones[1:], 0), ((0, 0),) * rank, ones)


def kernel_linear(call: Call) -> TensorExpr:
    """y[..,k] = bias[k] + sum over c of x[..,c] * w[k,c]"""
    x, w = call.var("x"), call.var("weight")
    (out,) = call.outputs
    leading = tuple(Axis(f"i{j}", extent) for j, extent in enumerate(x.type.shape[:-1]))
    k, c = Axis("k", call["channels"]), Axis("c", x.type.shape[-1])
    at = tuple(axis.i for axis in leading)
    body: Expr = Reduce("sum", (c,), Read(x, (*at, c.i)) * w[k.i, c.i])
    inputs = [x, w]
    if call.has("bias"):
        bias = call.var("bias")
        body = body + bias[k.i]
        inputs.append(bias)
    y = Stage(TensorVar("y", out), (*leading, k), body)
    return TensorExpr(tuple(inputs), (y,), ("y",))


LINEAR = OpDef(
    name="linear",
    aliases=(),
    doc="""A linear layer along the last axis: y = x W^T + b, as PyTorch.""",
    operands=(
        Operand("x"),
        Operand("weight", Role.PARAMETER),
        Operand("bias", Role.PARAMETER, optional=True),
    ),
    attributes=(
        Attribute("channels", Kind.INT, REQUIRED, "number of output features", minimum=1),
        Attribute("bias", Kind.BOOL, True, "add a bias per output feature, as PyTorch"),
    ),
    outputs=("y",),
    resolve=resolve_linear,
    state=state_linear,
    infer=infer_linear,
    window=field_linear,
    cost=contraction,
    kernel=kernel_linear,
)

OPERATORS = (LINEAR,)
