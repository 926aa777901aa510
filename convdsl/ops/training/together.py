"""What the ranks of one job compute together: sums over all of them, and normalisation by the
statistics of the whole batch, of which each rank has a part.

All ranks run one graph, each on its own samples. The loss of the batch is the sum of what the ranks
have of it, so that a gradient flows back through a sum over ranks as another one:

    y_r = sum over s of x_s            dx_r = sum over s of dy_s
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    Zero,
    no_contraction,
    no_state,
    pointwise,
    resolve_as_given,
)
from convdsl.ir.opdef import derived as derived_field
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
    positions_of,
)
from convdsl.ops.training.batch_norm import BATCH_NORM_DX, BATCH_NORM_SUMS
from convdsl.tensor import DType, TensorType

SUMMED = (DType.F32, DType.F64)
"""Types whose sums over ranks there are; others are widened before."""


def resolve_sum(call: Call) -> Mapping[str, Any]:
    """x0, x1, .. of one type of `SUMMED`; raises OpError otherwise."""
    dtypes = {type.dtype for type in call.types.values()}
    if len(dtypes) != 1 or not dtypes <= set(SUMMED):
        raise OpError(f"sums over ranks are of one of {', '.join(map(str, SUMMED))}")
    return call.attributes


def infer_sum(call: Call) -> tuple[TensorType, ...]:
    """y0, y1, .. as the operands."""
    return tuple(call.types[name] for name in call.variadic("x"))


def kernel_sum(call: Call) -> TensorExpr:
    """y0[i..] = x0[i..], ...: what one rank alone has. Others' parts are added in memory."""
    inputs = tuple(call.var(name) for name in call.variadic("x"))
    stages: list[Stage] = []
    for number, x in enumerate(inputs):
        axes = axes_over(x.type.shape)
        body = Read(x, tuple(axis.i for axis in axes))
        stages.append(Stage(TensorVar(f"y{number}", x.type), axes, body))
    return TensorExpr(inputs, tuple(stages), tuple(stage.target.name for stage in stages))


def gradient_sum(p: Pullback) -> Gradients:
    """The sums of dy over all ranks"""
    flowing = {number: dy for number, dy in enumerate(p.dys) if dy is not None}
    given = {f"x{place}": dy for place, dy in enumerate(flowing.values())}
    made = p.build.apply(ALL_REDUCE, given, name="dx")
    return {f"x{n}": y for n, y in zip(flowing, made.outputs, strict=True)}


ALL_REDUCE = OpDef(
    name="all_reduce",
    aliases=(),
    doc="""The sums of tensors over all ranks of a job, which each of them gets.

    Several operands travel as one message. With one rank they are what they were.""",
    operands=(Operand("x", variadic=True),),
    attributes=(
        Attribute(
            "turn",
            Kind.INT,
            0,
            "where it stands among others: as if made after the node of this id; 0 is its own",
        ),
    ),
    outputs=("y*",),
    resolve=resolve_sum,
    state=no_state,
    infer=infer_sum,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_sum,
    gradient=Rule(gradient_sum, "a sum over ranks again"),
    exchanges=True,
)


# Batch normalisation by the statistics of all ranks


def _reduced(call: Call) -> tuple[Axis, ...]:
    """All axes of x but the channels', for sums."""
    axes = axes_over(call.type("x").shape)
    return tuple(Axis(f"r{a.name}", a.extent) for a in (axes[0], *axes[2:]))


def infer_channels(call: Call) -> tuple[TensorType, ...]:
    """One element for each channel."""
    x = call.type("x")
    return (TensorType(x.dtype, (x.shape[1],)),)


def infer_squares(call: Call) -> tuple[TensorType, ...]:
    """squares has one element for each channel, count is one number."""
    return (*infer_channels(call), TensorType(call.type("x").dtype, ()))


def kernel_squares(call: Call) -> TensorExpr:
    """squares[c] = sum of (x[.., c, ..] - mean[c])^2 / count; count = elements of a channel"""
    x, mean = call.var("x"), call.var("mean")
    channel, reduced = Axis("c", x.type.shape[1]), _reduced(call)
    first, *space = (axis.i for axis in reduced)
    offset = Read(x, (first, channel.i, *space)) - Read(mean, (channel.i,))
    size, dtype = positions_of(reduced), x.type.dtype
    count: Expr = Literal(size, dtype) if isinstance(size, int) else IndexValue(size, dtype)
    squares, number = map(TensorVar, call.op.outputs, infer_squares(call))
    stages = (
        Stage(squares, (channel,), Reduce("sum", reduced, offset * offset) / count),
        Stage(number, (), count),
    )
    return TensorExpr((x, mean), stages, call.op.outputs)


def infer_applied(call: Call) -> tuple[TensorType, ...]:
    """y as x"""
    return (call.type("x"),)


def kernel_applied(call: Call) -> TensorExpr:
    """gain[c] = weight[c] inverse[c]; y[n,c..] = (x[n,c..] - mean[c]) gain[c] + bias[c]"""
    x = call.var("x")
    axes = axes_over(x.type.shape)
    at, channel = tuple(axis.i for axis in axes), Axis("c", x.type.shape[1])
    names = [name for name in call.types if name not in ("x", "share")]
    read = {name: Read(call.var(name), (axes[1].i,)) for name in names}
    gain, stages = read["inverse"], list[Stage]()
    if call.has("weight"):
        weight, inverse = (Read(call.var(n), (channel.i,)) for n in ("weight", "inverse"))
        made = TensorVar("gain", infer_channels(call)[0])
        stages.append(Stage(made, (channel,), weight * inverse))
        gain = Read(made, (axes[1].i,))
    body = (Read(x, at) - read["mean"]) * gain
    body = body + read["bias"] if call.has("bias") else body
    inputs = (x, *(call.var(name) for name in names))
    return TensorExpr(inputs, (*stages, Stage(TensorVar("y", x.type), axes, body)), ("y",))


def gradient_applied(p: Pullback) -> Gradients:
    """dx = gain dy + slope (x - mean) + level, as of batch_norm.training, where slope and level
    are of the sums over dy of all ranks; dweight and dbias are this rank's.

    The mean and the variance follow from x, and what flows into them is part of dx.
    """
    x, weight, share = p.operand("x"), p.node.inputs.get("weight"), p.operand("share")
    mean, inverse = p.operand("mean"), p.operand("inverse")
    given = {"x": x, "dy": p.dy, "mean": mean, "inverse": inverse}
    given |= {} if weight is None else {"weight": weight}
    sums = p.build.apply(BATCH_NORM_SUMS, given, name="dsums")
    gain, slope, level, dweight, dbias = sums.outputs
    found: dict[str, Any] = {} if weight is None else {"weight": dweight, "bias": dbias}
    if "x" in p.wanted:
        # Both are divided by this rank's count: times its share, by that of all.
        parts = {f"x{n}": p.build("mul", part, share) for n, part in enumerate((slope, level))}
        slope, level = p.build.apply(ALL_REDUCE, parts, name="dsums_of_all").outputs
        given = {"x": x, "dy": p.dy, "mean": mean, "gain": gain, "slope": slope, "level": level}
        found["x"] = p.build.apply(BATCH_NORM_DX, given, name="dx").output
    return found


BATCH_NORM_SQUARES = OpDef(
    name="batch_norm.together.squares",
    aliases=(),
    doc="""The mean square of the distances of a rank's elements from the mean of all ranks, and
    how many elements of each channel it has.""",
    operands=(Operand("x"), Operand("mean")),
    attributes=(),
    outputs=("squares", "count"),
    resolve=resolve_as_given,
    state=no_state,
    infer=infer_squares,
    window=derived_field,
    cost=no_contraction,
    kernel=kernel_squares,
    gradient=Zero("what flows through the variance is part of dx of batch_norm.together"),
)

BATCH_NORM_APPLIED = OpDef(
    name="batch_norm.together",
    aliases=(),
    doc="""Batch normalisation by mean and 1 / sqrt(variance + eps) of a batch that ranks share.

    `share`, [] in the type of x, is this rank's part of the batch. Ioffe, Szegedy 2015,
    arXiv:1502.03167; across ranks Peng et al. 2018, arXiv:1711.07240.""",
    operands=(
        *(Operand(name) for name in ("x", "mean", "inverse", "share")),
        *(Operand(name, optional=True) for name in ("weight", "bias")),
    ),
    attributes=(),
    outputs=("y",),
    resolve=resolve_as_given,
    state=no_state,
    infer=infer_applied,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_applied,
    gradient=Rule(gradient_applied, "two sums over all ranks and one map"),
)
