"""Transposed convolution, gathered: each output position asks which inputs reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.derivative import derive
from convdsl.ir.graph import Value
from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Cost,
    Kind,
    OpDef,
    Operand,
    OpError,
    Role,
    Rule,
    StateSpec,
    derived,
    float_type,
    size_for_weights,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.windows import (
    PADDINGS,
    SAME,
    before_flat,
    resolve_padding,
    resolve_sizes,
    shared_out,
)
from convdsl.kernel.expr import (
    Axis,
    Expr,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    flops,
)
from convdsl.kernel.preimage import Lattice, lattice
from convdsl.tensor import Dim, TensorType, bounds, ceil_div, dim_max, dim_min, floor_div


def resolve_conv_transpose(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating, with known C; one number an axis of space for kernel, stride,
    dilation and output padding, padding in pairs. Raises OpError for other ranks, channels that
    the groups do not divide, output padding that reaches the stride and the dilation, and `same`
    where windows leave gaps."""
    x = call.type("x")
    float_type(call)
    if x.rank < 3:
        raise OpError(
            f"conv_transpose needs batch, channels and at least one spatial axis, not {x}",
            operands=("x",),
            help=before_flat(x.rank),
        )
    rank = x.rank - 2
    sizes = {
        name: resolve_sizes(call, name, rank)
        for name in ("kernel", "stride", "dilation", "output_pad")
    }
    channels, groups = size_for_weights(call, 1, "channels"), call["groups"]
    for amount, what in ((channels, "input"), (call["channels"], "output")):
        if amount % groups:
            raise OpError(
                f"{amount} {what} channels do not divide into {groups} groups",
                attributes=("groups",),
                help=shared_out(channels, call["channels"]),
            )
    for extra, s, d in zip(sizes["output_pad"], sizes["stride"], sizes["dilation"], strict=True):
        if extra >= max(s, d):
            raise OpError(
                f"output padding of {extra} must be less than the stride {s} or the dilation {d}",
                attributes=("output_pad",),
            )
    return {**call.attributes, **sizes, "pad": _resolve_padding(call, sizes)}


def _resolve_padding(
    call: Call, sizes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[Dim, Dim], ...]:
    """As of convolutions; `same` makes the output stride times as large."""
    kernel, stride, dilation = sizes["kernel"], sizes["stride"], sizes["dilation"]
    if call["pad"] != SAME:
        padding = resolve_padding(call, kernel, stride, dilation)
        assert not isinstance(padding, str)
        return padding
    pairs: list[tuple[Dim, Dim]] = []
    for k, s, d, extra in zip(kernel, stride, dilation, sizes["output_pad"], strict=True):
        total = d * (k - 1) + 1 + extra - s
        if total < 0:
            raise OpError(
                f"a window of {d * (k - 1) + 1} cannot fill a stride of {s}",
                attributes=("pad", "kernel", "stride"),
                help=(f"add output_pad = {s - d * (k - 1) - 1}",),
            )
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def state_conv_transpose(call: Call) -> tuple[StateSpec, ...]:
    """weight[C, channels / groups, kernel..] and, where asked for, bias[channels], of the dtype of
    x."""
    x = call.type("x")
    shape = (x.shape[1], call["channels"] // call["groups"], *call["kernel"])
    weight = StateSpec("weight", TensorType(x.dtype, shape), Role.PARAMETER, "kaiming_uniform")
    if not call["bias"]:
        return (weight,)
    bias = TensorType(x.dtype, (call["channels"],))
    return (weight, StateSpec("bias", bias, Role.PARAMETER, "fan_in_uniform"))


def infer_conv_transpose(call: Call) -> tuple[TensorType, ...]:
    """(in - 1) * stride - before - after + dilation * (kernel - 1) + 1 + output_pad"""
    x = call.type("x")
    space: list[Dim] = []
    for axis, extent in enumerate(x.shape[2:]):
        before, after = call["pad"][axis]
        reach = call["dilation"][axis] * (call["kernel"][axis] - 1) + 1
        size = (extent - 1) * call["stride"][axis] - before - after
        size = size + (reach + call["output_pad"][axis])
        most = bounds(size)[1]
        if most is not None and most < 1:
            raise OpError(
                f"nothing is left of axis {axis + 2} of {x} after padding ({before}, {after})",
                operands=("x",),
                attributes=("pad",),
            )
        space.append(size)
    return (TensorType(x.dtype, (x.shape[0], call["channels"], *space)),)


def _lattice(call: Call, axis: int, o: Dim) -> Lattice:
    """The taps of one axis that reach an output position o, and the inputs that they come from: i
    reaches o through r where i * stride + r * dilation = o + before."""
    before: Dim = call["pad"][axis][0]
    stride, dilation = call["stride"][axis], call["dilation"][axis]
    return lattice(o + before, stride, dilation, call["kernel"][axis], f"t{axis}")


def kernel_conv_transpose(call: Call) -> TensorExpr:
    """y[n,k,o..] = bias[k] + sum over c,t.. of x[n,c,i(o,t)..] * w[c,k,r(o,t)..], outside: 0

    with taps r and inputs i such that i * stride + r * dilation = o + before.
    """
    x, w = call.var("x"), call.var("weight")
    (out,) = call.outputs
    rank, groups = x.type.rank - 2, call["groups"]
    n, k = Axis("n", out.shape[0]), Axis("k", out.shape[1])
    positions = [Axis(f"p{i}", out.shape[2 + i]) for i in range(rank)]
    lattices = [_lattice(call, i, p.i) for i, p in enumerate(positions)]
    per_group = call["channels"] // groups
    c = Axis("c", floor_div(x.type.shape[1], groups))
    channel = c.i if groups == 1 else (k.i // per_group) * c.extent + c.i
    own = k.i if groups == 1 else k.i % per_group
    weight = Read(
        w,
        (channel, own, *(taps.tap for taps in lattices)),
        0.0 if any(taps.overshoots for taps in lattices) else None,
    )
    pixel = Read(x, (n.i, channel, *(taps.source for taps in lattices)), 0.0)
    product: Expr = pixel * weight
    for taps in lattices:
        if taps.condition is not None:
            product = Select(taps.condition, product, Literal(0.0, out.dtype))
    body: Expr = Reduce("sum", (c, *(taps.t for taps in lattices)), product)
    inputs = [x, w]
    if call.has("bias"):
        bias = call.var("bias")
        body = body + bias[k.i]
        inputs.append(bias)
    y = Stage(TensorVar("y", out), (n, k, *positions), body)
    return TensorExpr(tuple(inputs), (y,), ("y",))


def cost_conv_transpose(call: Call) -> Cost:
    """Products really made: pairs of input and tap whose sum lies inside the output."""
    x, (out,) = call.type("x"), call.outputs
    channels: Dim = x.shape[0] * x.shape[1] * (call["channels"] // call["groups"])
    made = by_input = channels
    for axis, extent in enumerate(x.shape[2:]):
        made = made * _products(call, axis, extent, out.shape[2 + axis])
        by_input = by_input * extent * call["kernel"][axis]
    return Cost(macs=made, flops=flops(call.kernel), macs_by_input=by_input)


def _products(call: Call, axis: int, extent: Dim, size: Dim) -> Dim:
    """How often 0 <= i * stride + r * dilation - before < size for 0 <= i < extent, over all r."""
    stride, total = call["stride"][axis], 0
    for r in range(call["kernel"][axis]):
        shift: Dim = r * call["dilation"][axis] - call["pad"][axis][0]
        first = dim_max(ceil_div(-shift, stride), 0)
        last = dim_min(floor_div(size - 1 - shift, stride), extent - 1)
        total = total + dim_max(last - first + 1, 0)
    return total


def gradient_conv_transpose(p: Pullback) -> Gradients:
    """dx = conv(dy) with the same filters; dweight as that convolution's, with dy as its input and
    x as the gradient of its output"""
    b, x = p.build, p.operand("x")
    given = ("kernel", "stride", "pad", "dilation", "groups")
    conv = b.node(
        "conv",
        p.dy,
        states={"weight": p.operand("weight")},
        channels=x.type.shape[1],
        bias=False,
        name="dx",
        **{name: p[name] for name in given},
    )
    beyond = tuple(a - e for a, e in zip(conv.output.type.shape[2:], x.type.shape[2:], strict=True))
    found: dict[str, Value | None] = {"x": conv.output}
    if any(beyond):  # windows that start in the output padding
        space = tuple(range(2, x.type.rank))
        found["x"] = b("slice", conv.output, axes=space, stop=x.type.shape[2:])
        x = b("pad", x, pad=tuple((0, extra) for extra in beyond))
    if "weight" in p.wanted:
        found["weight"] = derive(b, conv, (x,), "weight")
    if "bias" in p.wanted:
        axes = (0, *range(2, x.type.rank))
        found["bias"] = b("reduce_sum", p.dy, axes=axes, name="dbias")
    return found


def _sizes(name: str, default: Any, doc: str, minimum: int) -> Attribute:
    return Attribute(name, Kind.SIZES, default, doc, minimum=minimum)


CONV_TRANSPOSE = OpDef(
    name="conv_transpose",
    aliases=("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "deconv"),
    doc="""Transposed convolution: the gradient of a convolution, used to enlarge maps.

    1-D, 2-D or 3-D by the rank of the input; weight [in, out / groups, kernel], as PyTorch.
    Dumoulin, Visin 2016, arXiv:1603.07285, chapter 4.""",
    operands=(
        Operand("x"),
        Operand("weight", Role.PARAMETER),
        Operand("bias", Role.PARAMETER, optional=True),
    ),
    attributes=(
        Attribute("channels", Kind.INT, REQUIRED, "number of output channels", minimum=1),
        _sizes("kernel", REQUIRED, "filter size, e.g. 2x2", 1),
        _sizes("stride", 1, "how far apart the inputs land in the output", 1),
        Attribute(
            "pad",
            Kind.PADDING,
            0,
            "positions cut off the output's borders; none, as PyTorch",
            choices=PADDINGS,
            minimum=0,
        ),
        _sizes("output_pad", 0, "positions added after the output's end", 0),
        _sizes("dilation", 1, "distance between filter taps", 1),
        Attribute("groups", Kind.INT, 1, "independent groups of channels", minimum=1),
        Attribute("bias", Kind.BOOL, True, "add a bias per output channel, as PyTorch"),
    ),
    outputs=("y",),
    resolve=resolve_conv_transpose,
    state=state_conv_transpose,
    infer=infer_conv_transpose,
    window=derived,
    cost=cost_conv_transpose,
    kernel=kernel_conv_transpose,
    gradient=Rule(gradient_conv_transpose, "it is the gradient of a convolution itself"),
)

OPERATORS = (CONV_TRANSPOSE,)
