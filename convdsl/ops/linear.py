"""Linear layers: products with matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Doubt,
    Kind,
    OpDef,
    Operand,
    OpError,
    Role,
    StateSpec,
    WindowRule,
    contraction,
    derived,
    float_type,
    no_state,
    size_for_weights,
)
from convdsl.ir.shapes import broadcast_shapes, disagreement, whole_along
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorExpr, TensorVar
from convdsl.tensor import Dim, TensorType


def resolve_linear(call: Call) -> Mapping[str, Any]:
    """x[N, .., features] with known features. Raises OpError for rank 1, free features, and dtypes
    that are not floating."""
    x = call.type("x")
    float_type(call)
    if x.rank < 2:
        space = ("a mean over space leaves them: mean(space)",) if x.rank == 0 else ()
        raise OpError(f"linear needs batch and features, not {x}", operands=("x",), help=space)
    size_for_weights(call, -1, "features")
    return call.attributes


def state_linear(call: Call) -> tuple[StateSpec, ...]:
    """weight[channels, features] and, where asked for, bias[channels], of the dtype of x."""
    x = call.type("x")
    shape = (call["channels"], x.shape[-1])
    weight = StateSpec("weight", TensorType(x.dtype, shape), Role.PARAMETER, "kaiming_uniform")
    if not call["bias"]:
        return (weight,)
    bias = TensorType(x.dtype, (call["channels"],))
    return (weight, StateSpec("bias", bias, Role.PARAMETER, "fan_in_uniform"))


def infer_linear(call: Call) -> tuple[TensorType, ...]:
    """y[N, .., channels]"""
    x = call.type("x")
    return (TensorType(x.dtype, (*x.shape[:-1], call["channels"])),)


def field_linear(call: Call) -> WindowRule:
    """The last axis is channels in a matrix; in deeper tensors it is space, seen whole."""
    shape = call.type("x").shape
    return whole_along(shape, (len(shape) - 1,))


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


def doubt_linear(call: Call) -> Doubt | None:
    """The last axis of a map of space is one of space."""
    x = call.type("x")
    if x.rank < 4:
        return None
    text = f"linear works along the last axis, which is space here: {x.shape[-1]} columns of a map"
    return Doubt(text, "`flatten` it first, or pool: `avgpool(global) -> flatten -> linear(...)`")


def resolve_matmul(call: Call) -> Mapping[str, Any]:
    """a[.., I, J] and b[.., J, K], floating and of one dtype. Raises OpError for rank 1, and where
    the J are not provably equal."""
    a, b = call.type("a"), call.type("b")
    float_type(call, "a")
    if a.dtype is not b.dtype:
        raise OpError(f"cannot multiply {a} and {b}: their dtypes differ", operands=("a", "b"))
    for name, type in call.types.items():
        if type.rank < 2:
            raise OpError(f"matmul needs matrices, not {type}", operands=(name,))
    if a.shape[-1] != b.shape[-2]:
        error = disagreement(f"cannot multiply {a} and {b}", a.shape[-1], b.shape[-2], ("a", "b"))
        if a.shape[-1] == b.shape[-1]:
            axes = [*range(b.rank - 2), b.rank - 1, b.rank - 2]
            error.help = (f"turn the second: `-> transpose({axes})`",)
            if a.shape[-2] == b.shape[-2]:
                rows, columns = a.shape[-2:]
                which = f"the second for {rows} x {rows}, the first for {columns} x {columns}"
                error.help = (f"turn one by `-> transpose({axes})`: {which}",)
        raise error
    return call.attributes


def infer_matmul(call: Call) -> tuple[TensorType, ...]:
    """y[.., I, K], leading axes broadcast. Raises OpError where they do not."""
    a, b = call.type("a"), call.type("b")
    batch = broadcast_shapes(call, ("a", "b"), trailing=2)
    return (TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1])),)


def kernel_matmul(call: Call) -> TensorExpr:
    """y[..,m,k] = sum over c of a[..,m,c] * b[..,c,k]"""
    a, b, (out,) = call.var("a"), call.var("b"), call.outputs
    batch = tuple(Axis(f"i{j}", extent) for j, extent in enumerate(out.shape[:-2]))
    m, k = Axis("m", out.shape[-2]), Axis("k", out.shape[-1])
    c = Axis("c", a.type.shape[-1])
    left = Read(a, (*_batch_index(a, batch), m.i, c.i))
    right = Read(b, (*_batch_index(b, batch), c.i, k.i))
    body = Reduce("sum", (c,), left * right)
    return TensorExpr((a, b), (Stage(TensorVar("y", out), (*batch, m, k), body),), ("y",))


def _batch_index(x: TensorVar, batch: tuple[Axis, ...]) -> tuple[Dim, ...]:
    own = x.type.shape[:-2]
    axes = batch[len(batch) - len(own) :]
    return tuple(0 if extent == 1 else axis.i for extent, axis in zip(own, axes, strict=True))


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
    gradient=DERIVED,
    doubt=doubt_linear,
)

MATMUL = OpDef(
    name="matmul",
    aliases=(),
    doc="Products of matrices in the last two axes; leading axes broadcast, as NumPy's.",
    operands=(Operand("a"), Operand("b")),
    attributes=(),
    outputs=("y",),
    resolve=resolve_matmul,
    state=no_state,
    infer=infer_matmul,
    window=derived,
    cost=contraction,
    kernel=kernel_matmul,
    gradient=DERIVED,
)

OPERATORS = (LINEAR, MATMUL)
