"""Normalisation: statistics taken out, an affine map put in."""

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
    Role,
    StateSpec,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    same_type,
    size_for_weights,
)
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    Literal,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
)
from convdsl.tensor import TensorType

_EPS = Attribute("eps", Kind.FLOAT, 1e-5, "added to the variance, as PyTorch", keyword_only=True)


def resolve_batch_norm(call: Call) -> Mapping[str, Any]:
    """x[N, C, ..], floating, with known C; raises OpError otherwise."""
    x = call.type("x")
    float_type(call)
    if x.rank < 2:
        raise OpError(f"batch_norm needs batch and channels, not {x}", operands=("x",))
    size_for_weights(call, 1, "channels")
    return call.attributes


def state_batch_norm(call: Call) -> tuple[StateSpec, ...]:
    """running_mean[C] and running_var[C], which are buffers, and with `affine` weight[C] and
    bias[C], all of the dtype of x."""
    x = call.type("x")
    per_channel = TensorType(x.dtype, (x.shape[1],))
    statistics = (
        StateSpec("running_mean", per_channel, Role.BUFFER, "zeros"),
        StateSpec("running_var", per_channel, Role.BUFFER, "ones"),
    )
    if not call["affine"]:
        return statistics
    return (
        StateSpec("weight", per_channel, Role.PARAMETER, "ones"),
        StateSpec("bias", per_channel, Role.PARAMETER, "zeros"),
        *statistics,
    )


def kernel_batch_norm(call: Call) -> TensorExpr:
    """scale[c] = weight[c] / sqrt(var[c] + eps); shift[c] = bias[c] - mean[c] * scale[c]
    y[n,c..] = x[n,c..] * scale[c] + shift[c]"""
    x, mean, var = call.var("x"), call.var("running_mean"), call.var("running_var")
    dtype = x.type.dtype
    channel = Axis("c", x.type.shape[1])
    affine = call.has("weight")
    inputs = (x, *((call.var("weight"), call.var("bias")) if affine else ()), mean, var)

    deviation = Unary("sqrt", var[channel.i] + call["eps"])
    gain: Expr = call.var("weight")[channel.i] if affine else Literal(1.0, dtype)
    scale = Stage(TensorVar("scale", var.type), (channel,), Binary("div", gain, deviation))

    centre = mean[channel.i] * scale.target[channel.i]
    offset: Expr = call.var("bias")[channel.i] - centre if affine else -centre
    shift = Stage(TensorVar("shift", var.type), (channel,), offset)

    axes = axes_over(x.type.shape)
    at, c = tuple(axis.i for axis in axes), axes[1].i
    body = x[at] * scale.target[c] + shift.target[c]
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    return TensorExpr(inputs, (scale, shift, y), ("y",))


BATCH_NORM = OpDef(
    name="batch_norm",
    aliases=("bn", "batchnorm"),
    doc="""Batch normalisation at inference: by running statistics, channel by channel.

    y = (x - mean) / sqrt(var + eps) * weight + bias. Ioffe, Szegedy 2015, arXiv:1502.03167.""",
    operands=(
        Operand("x"),
        Operand("weight", Role.PARAMETER, optional=True),
        Operand("bias", Role.PARAMETER, optional=True),
        Operand("running_mean", Role.BUFFER),
        Operand("running_var", Role.BUFFER),
    ),
    attributes=(
        _EPS,
        Attribute(
            "momentum",
            Kind.FLOAT,
            0.1,
            "share of the batch in the running statistics when training, as PyTorch",
            keyword_only=True,
        ),
        Attribute(
            "affine", Kind.BOOL, True, "a trained weight and bias per channel", keyword_only=True
        ),
    ),
    outputs=("y",),
    resolve=resolve_batch_norm,
    state=state_batch_norm,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_batch_norm,
    gradient=DERIVED,
)


BEFORE, AFTER = "before", "after"
"""Where a window of even size reaches one channel further."""


def resolve_lrn(call: Call) -> Mapping[str, Any]:
    """x[N, C, ..], floating; raises OpError otherwise. An odd size has no `extra` channel."""
    x = call.type("x")
    float_type(call)
    if x.rank < 2:
        raise OpError(f"lrn needs batch and channels, not {x}", operands=("x",))
    return {**call.attributes, "extra": call["extra"] if call["size"] % 2 == 0 else BEFORE}


def lrn_reach(call: Call) -> tuple[int, int]:
    """How many channels before and after its own a position sums over."""
    rest = call["size"] - 1
    fewer, more = rest // 2, rest - rest // 2
    return (more, fewer) if call["extra"] == BEFORE else (fewer, more)


def kernel_lrn(call: Call) -> TensorExpr:
    """y[n,c..] = x[n,c..] / (k + alpha / size * total)^beta
    total = sum over r < size of x[n, c + r - before ..]^2, outside: 0"""
    x, size = call.var("x"), int(call["size"])
    axes = axes_over(x.type.shape)
    n, c, *space = axes
    r = Axis("r", size)
    at = tuple(axis.i for axis in space)
    before, _ = lrn_reach(call)
    near = Read(x, (n.i, c.i + r.i - before, *at), 0.0)
    total = Reduce("sum", (r,), near * near)
    base = total * (call["alpha"] / size) + call["k"]
    divisor = Binary("pow", base, Literal(call["beta"], x.type.dtype))
    y = Stage(TensorVar("y", call.outputs[0]), axes, x[(n.i, c.i, *at)] / divisor)
    return TensorExpr((x,), (y,), ("y",))


def _number(name: str, default: float, doc: str) -> Attribute:
    return Attribute(name, Kind.FLOAT, default, doc)


LRN = OpDef(
    name="lrn",
    aliases=("local_response_norm",),
    doc="""Local response normalisation across neighbouring channels.

    Krizhevsky, Sutskever, Hinton 2012, section 3.3; alpha is divided by the size, as PyTorch
    and Caffe do (AlexNet's own alpha of 1e-4 is not).""",
    operands=(Operand("x"),),
    attributes=(
        Attribute("size", Kind.INT, 5, "channels summed over; five, as AlexNet", minimum=1),
        _number("alpha", 1e-4, "weight of the sum, as PyTorch"),
        _number("beta", 0.75, "exponent, as PyTorch"),
        _number("k", 1.0, "what the sum is added to, as PyTorch (AlexNet: 2)"),
        Attribute(
            "extra",
            Kind.STRING,
            BEFORE,
            "where an even size has one channel more; before, as PyTorch (after, as ONNX)",
            choices=(BEFORE, AFTER),
            keyword_only=True,
        ),
    ),
    outputs=("y",),
    resolve=resolve_lrn,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_lrn,
    gradient=DERIVED,
)

OPERATORS = (BATCH_NORM, LRN)
