"""What batch_norm is while training, and the gradients of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    float_type,
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
    Unary,
    axes_over,
    positions_of,
)
from convdsl.tensor import Dim, DType, TensorType, bounds


def resolve_batch(call: Call) -> Mapping[str, Any]:
    """x[N, C, ..], floating, more than one element of each channel; raises OpError otherwise."""
    x = call.type("x")
    float_type(call)
    count = positions_of(_reduced(x.shape))
    if bounds(count)[1] == 1:
        raise OpError(
            f"batch_norm cannot train on one element for each channel, which {x} has: its variance "
            "would be zero",
            operands=("x",),
            help=("take larger batches or images, or freeze the layer",),
        )
    return call.attributes


def _channels(call: Call) -> TensorType:
    """The type of what has one element for each channel."""
    x = call.type("x")
    return TensorType(x.dtype, (x.shape[1],))


def infer_batch(call: Call) -> tuple[TensorType, ...]:
    """y as x; mean, inverse and both running statistics have one element for each channel."""
    return (call.type("x"), *[_channels(call)] * 4)


def _reduced(shape: tuple[Dim, ...]) -> tuple[Axis, ...]:
    """All axes but the channels', for sums."""
    axes = axes_over(shape)
    return tuple(Axis(f"r{a.name}", a.extent) for a in (axes[0], *axes[2:]))


def _index(channel: Axis, reduced: tuple[Axis, ...]) -> tuple[Dim, ...]:
    first, *space = (axis.i for axis in reduced)
    return (first, channel.i, *space)


def _number(value: Dim, dtype: DType) -> Expr:
    return Literal(value, dtype) if isinstance(value, int) else IndexValue(value, dtype)


def kernel_batch(call: Call) -> TensorExpr:
    """mean[c] = sum of x[.., c, ..] / count; var[c] = sum of (x[.., c, ..] - mean[c])^2 / count
    inverse[c] = 1 / sqrt(var[c] + eps)
    y[n,c..] = (x[n,c..] - mean[c]) * (weight[c] * inverse[c]) + bias[c]
    new_mean = (1 - momentum) running_mean + momentum mean
    new_var = (1 - momentum) running_var + momentum var count / (count - 1)"""
    x = call.var("x")
    channel, reduced = Axis("c", x.type.shape[1]), _reduced(x.type.shape)
    size, stages = positions_of(reduced), _Stages(channel, _channels(call))
    count, dtype = _number(size, x.type.dtype), x.type.dtype
    value = Read(x, _index(channel, reduced))
    mean = stages.add("mean", Reduce("sum", reduced, value) / count)
    offset = value - mean
    squares = stages.add("squares", Reduce("sum", reduced, offset * offset))
    inverse = stages.add("inverse", 1.0 / Unary("sqrt", squares / count + call["eps"]))
    unbiased = squares / _number(size - 1, dtype)
    for name, old, new in (("mean", "running_mean", mean), ("var", "running_var", unbiased)):
        kept = call.var(old)[channel.i] * (1.0 - call["momentum"])
        stages.add(f"new_{name}", kept + new * call["momentum"])
    inputs = [x, call.var("running_mean"), call.var("running_var")]
    gain, axes = inverse, axes_over(x.type.shape)
    if call.has("weight"):
        inputs += [call.var("weight"), call.var("bias")]
        gain = stages.add("gain", call.var("weight")[channel.i] * inverse)
    c = axes[1].i
    body = (Read(x, tuple(a.i for a in axes)) - mean.tensor[c]) * gain.tensor[c]
    if call.has("weight"):
        body = body + call.var("bias")[c]
    y = Stage(TensorVar("y", x.type), axes, body)
    return TensorExpr(tuple(inputs), (*stages.made, y), call.op.outputs)


class _Stages:
    """Stages with one element for each channel."""

    def __init__(self, channel: Axis, type: TensorType) -> None:
        self._channel = channel
        self._type = type
        self.made: list[Stage] = []

    def add(self, name: str, body: Expr) -> Read:
        """A new one, and the read of it at the channel."""
        target = TensorVar(name, self._type)
        self.made.append(Stage(target, (self._channel,), body))
        return Read(target, (self._channel.i,))


def gradient_batch(p: Pullback) -> Gradients:
    """dx = gain dy + slope (x - mean) + level, with two sums over dy; dweight, dbias by the way."""
    _, dmean, dinverse, *updates = p.dys
    assert updates == [None, None], "nothing is computed from what replaces a state"
    x, weight = p.operand("x"), p.node.inputs.get("weight")
    dy = p.zeros(p.y.type) if p.dys[0] is None else p.dys[0]
    mean, inverse = p.node.outputs[1:3]
    given = {"x": x, "dy": dy, "mean": mean, "inverse": inverse, "weight": weight}
    given |= {"dmean": dmean, "dinverse": dinverse}
    present = {name: value for name, value in given.items() if value is not None}
    sums = p.build.apply(BATCH_NORM_SUMS, present, name="dsums")
    gain, slope, level, dweight, dbias = sums.outputs
    found: dict[str, Any] = {"weight": dweight, "bias": dbias} if weight is not None else {}
    if "x" in p.wanted:
        given = {"x": x, "dy": dy, "mean": mean, "gain": gain, "slope": slope, "level": level}
        found["x"] = p.build.apply(BATCH_NORM_DX, given, name="dx").output
    return found


def infer_sums(call: Call) -> tuple[TensorType, ...]:
    """One element for each channel."""
    return (_channels(call),) * 5


def kernel_sums(call: Call) -> TensorExpr:
    """total[c] = sum of dy[.., c, ..]; moment[c] = sum of dy[.., c, ..] (x[.., c, ..] - mean[c])
    gain = weight inverse
    slope = -(gain moment + dinverse inverse) inverse^2 / count
    level = (dmean - gain total) / count
    dweight = inverse moment; dbias = total

    From var = sum of (x - mean)^2 / count and inverse = (var + eps)^(-1/2) by the chain rule.
    """
    x, dy, mean, inverse = (call.var(name) for name in ("x", "dy", "mean", "inverse"))
    channel, reduced = Axis("c", x.type.shape[1]), _reduced(x.type.shape)
    stages = _Stages(channel, _channels(call))
    count, at = _number(positions_of(reduced), x.type.dtype), _index(channel, reduced)
    here = {name: Read(call.var(name), (channel.i,)) for name in call.types if name not in "x dy"}
    offset = Read(x, at) - here["mean"]
    total = stages.add("dbias", Reduce("sum", reduced, Read(dy, at)))
    moment = stages.add("moment", Reduce("sum", reduced, Read(dy, at) * offset))
    gain = here["weight"] * here["inverse"] if call.has("weight") else here["inverse"]
    gain = stages.add("gain", gain)
    steep = gain * moment
    steep = steep + here["dinverse"] * here["inverse"] if call.has("dinverse") else steep
    stages.add("slope", -steep * (here["inverse"] * here["inverse"]) / count)
    level = -(gain * total)
    level = level + here["dmean"] if call.has("dmean") else level
    stages.add("level", level / count)
    stages.add("dweight", moment * here["inverse"])
    inputs = (x, dy, mean, inverse, *(call.var(n) for n in call.types if n in _FURTHER))
    return TensorExpr(inputs, tuple(stages.made), call.op.outputs)


_FURTHER = ("weight", "dmean", "dinverse")


def infer_dx(call: Call) -> tuple[TensorType, ...]:
    """dx as x"""
    return (call.type("x"),)


def kernel_dx(call: Call) -> TensorExpr:
    """dx[n,c..] = gain[c] dy[n,c..] + slope[c] (x[n,c..] - mean[c]) + level[c]"""
    variables = tuple(call.var(name) for name in call.types)
    axes = axes_over(call.type("x").shape)
    at, c = tuple(axis.i for axis in axes), axes[1].i
    read = {v.name: Read(v, (c,) if v.type.rank == 1 else at) for v in variables}
    line = (read["x"] - read["mean"]) * read["slope"] + read["level"]
    y = Stage(TensorVar("dx", call.type("x")), axes, read["dy"] * read["gain"] + line)
    return TensorExpr(variables, (y,), ("dx",))


_EPS = Attribute("eps", Kind.FLOAT, REQUIRED, "added to the variance")
_MOMENTUM = Attribute("momentum", Kind.FLOAT, REQUIRED, "share of the batch in what is kept")

BATCH_NORM_TRAINING = OpDef(
    name="batch_norm.training",
    aliases=(),
    doc="""Batch normalisation by the statistics of the batch, and what the running ones become.

    Two passes, of which the second adds up squares of distances from the mean: never
    E[x^2] - E[x]^2, whose digits cancel. The running variance is unbiased, as PyTorch's.
    Ioffe, Szegedy 2015, arXiv:1502.03167.""",
    operands=(
        Operand("x"),
        Operand("weight", optional=True),
        Operand("bias", optional=True),
        Operand("running_mean"),
        Operand("running_var"),
    ),
    attributes=(_EPS, _MOMENTUM),
    outputs=("y", "mean", "inverse", "new_mean", "new_var"),
    resolve=resolve_batch,
    state=no_state,
    infer=infer_batch,
    window=derived_field,
    cost=no_contraction,
    kernel=kernel_batch,
    gradient=Rule(gradient_batch, "two sums and one map, from the statistics that are kept"),
)

BATCH_NORM_SUMS = OpDef(
    name="batch_norm.training.sums",
    aliases=(),
    doc="What the gradients of batch_norm.training need of each channel.",
    operands=(
        *(Operand(name) for name in ("x", "dy", "mean", "inverse")),
        *(Operand(name, optional=True) for name in _FURTHER),
    ),
    attributes=(),
    outputs=("gain", "slope", "level", "dweight", "dbias"),
    resolve=resolve_as_given,
    state=no_state,
    infer=infer_sums,
    window=derived_field,
    cost=no_contraction,
    kernel=kernel_sums,
    gradient=DERIVED,
)

BATCH_NORM_DX = OpDef(
    name="batch_norm.training.dx",
    aliases=(),
    doc="The gradient of batch_norm.training by its input, from what `sums` found.",
    operands=tuple(Operand(name) for name in ("x", "dy", "mean", "gain", "slope", "level")),
    attributes=(),
    outputs=("dx",),
    resolve=resolve_as_given,
    state=no_state,
    infer=infer_dx,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_dx,
    gradient=DERIVED,
)
