"""Convolution in any number of spatial dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Role,
    StateSpec,
    WindowRule,
    contraction,
    float_type,
    size_for_weights,
)
from convdsl.ir.windows import (
    FILTERS,
    before_flat,
    check_folding,
    explicit_window,
    padded_index,
    resolve_padding,
    resolve_sizes,
    shared_out,
    window_extents,
)
from convdsl.kernel.expr import Axis, Read, Reduce, Stage, TensorExpr, TensorVar
from convdsl.tensor import Dim, TensorType, provably


def resolve_conv(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating, with known C; one number an axis of space for kernel, stride and
    dilation, padding in pairs (`same` stays where sizes are free). Raises OpError for other
    ranks, channels that the groups do not divide, an even kernel with `half`, and folding beyond
    the input."""
    x = call.type("x")
    float_type(call)
    if x.rank < 3:
        raise OpError(
            f"conv needs batch, channels and at least one spatial axis, not {x}",
            operands=("x",),
            help=before_flat(x.rank),
        )
    rank = x.rank - 2
    kernel = resolve_sizes(call, "kernel", rank)
    stride = resolve_sizes(call, "stride", rank)
    dilation = resolve_sizes(call, "dilation", rank)
    channels, groups = size_for_weights(call, 1, "channels"), call["groups"]
    if channels % groups:
        raise OpError(
            f"{channels} input channels do not divide into {groups} groups",
            operands=("x",),
            attributes=("groups",),
            help=shared_out(channels, call["channels"]),
        )
    if call["channels"] % groups:
        raise OpError(
            f"{call['channels']} output channels do not divide into {groups} groups",
            attributes=("channels", "groups"),
            help=shared_out(channels, call["channels"]),
        )
    padding = resolve_padding(call, kernel, stride, dilation)
    if not isinstance(padding, str):
        check_folding(call, "pad_mode", x.shape[2:], padding)
    return {
        **call.attributes,
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "pad": padding,
    }


def state_conv(call: Call) -> tuple[StateSpec, ...]:
    """weight[channels, C / groups, kernel..] and, where asked for, bias[channels], of the dtype of
    x."""
    x = call.type("x")
    channels = x.shape[1]
    assert isinstance(channels, int)
    shape = (call["channels"], channels // call["groups"], *call["kernel"])
    weight = StateSpec("weight", TensorType(x.dtype, shape), Role.PARAMETER, "kaiming_uniform")
    if not call["bias"]:
        return (weight,)
    bias = TensorType(x.dtype, (call["channels"],))
    return (weight, StateSpec("bias", bias, Role.PARAMETER, "fan_in_uniform"))


def infer_conv(call: Call) -> tuple[TensorType, ...]:
    """y[N, channels, windows..]. Raises OpError where no window fits."""
    x = call.type("x")
    space = window_extents(call, explicit_window(call))
    return (TensorType(x.dtype, (x.shape[0], call["channels"], *space)),)


def field_conv(call: Call) -> WindowRule:
    """The window; where folded padding brings in positions beyond it, no exact rule is known."""
    window, mode = explicit_window(call), call["pad_mode"]
    if mode == "zeros":
        return window
    for axis, (before, after) in enumerate(window.padding):
        reach = window.extent(axis) - 1
        near = (before, after) if mode == "replicate" else (before * 2, after * 2)
        inside = mode != "circular" and all(provably(">=", reach, pad) for pad in near)
        if not inside and (before, after) != (0, 0):
            return Reach.UNAVAILABLE
    return window


def kernel_conv(call: Call) -> TensorExpr:
    """y[n,k,p..] = bias[k] + sum over c,r.. of x[n, g*C/G + c, p*U + r*D - P ..] * w[k,c,r..]"""
    x, w = call.var("x"), call.var("weight")
    (out,) = call.outputs
    rank, groups = x.type.rank - 2, call["groups"]
    n, k = Axis("n", out.shape[0]), Axis("k", out.shape[1])
    positions = [Axis(f"p{i}", out.shape[2 + i]) for i in range(rank)]
    c = Axis("c", w.type.shape[1])
    taps = [Axis(f"r{i}", extent) for i, extent in enumerate(w.type.shape[2:])]
    per_group = call["channels"] // groups
    channel: Dim = c.i if groups == 1 else (k.i // per_group) * w.type.shape[1] + c.i
    window = explicit_window(call)
    at = [
        positions[i].i * window.stride[i] + taps[i].i * window.dilation[i] - window.padding[i][0]
        for i in range(rank)
    ]
    where, outside = padded_index(call["pad_mode"], at, x.type.shape[2:], window.padding)
    tap = [t.i if not call["flip"] else t.extent - 1 - t.i for t in taps]
    product = Read(x, (n.i, channel, *where), outside) * Read(w, (k.i, c.i, *tap))
    body = Reduce("sum", (c, *taps), product)
    inputs = [x, w]
    if call.has("bias"):
        bias = call.var("bias")
        body = body + bias[k.i]
        inputs.append(bias)
    y = Stage(TensorVar("y", out), (n, k, *positions), body)
    return TensorExpr(tuple(inputs), (y,), ("y",))


CONV = OpDef(
    name="conv",
    aliases=("conv1d", "conv2d", "conv3d"),
    doc="""Convolution (cross-correlation; flip = true for the mathematician's).

    1-D, 2-D or 3-D by the rank of the input, channels first. Dumoulin, Visin 2016,
    arXiv:1603.07285.""",
    operands=(
        Operand("x"),
        Operand("weight", Role.PARAMETER),
        Operand("bias", Role.PARAMETER, optional=True),
    ),
    attributes=(
        *FILTERS,
        Attribute(
            "pad_mode",
            Kind.STRING,
            "zeros",
            "what lies outside the input",
            choices=("zeros", "reflect", "replicate", "circular"),
            keyword_only=True,
        ),
        Attribute(
            "flip", Kind.BOOL, False, "true convolution: the filter mirrored", keyword_only=True
        ),
    ),
    outputs=("y",),
    resolve=resolve_conv,
    state=state_conv,
    infer=infer_conv,
    window=field_conv,
    cost=contraction,
    kernel=kernel_conv,
    gradient=Derived(search=True),
)

OPERATORS = (CONV,)
