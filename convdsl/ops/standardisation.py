"""Normalisation by statistics of the very input: layer, group and instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convdsl.ir.keeping import Recording
from convdsl.ir.lines import Lines, LineStages
from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Role,
    Rule,
    StateSpec,
    WindowRule,
    derived,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    resolve_as_given,
    same_type,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import known_size, resolve_axis, whole_along
from convdsl.ir.windows import shared_out
from convdsl.kernel.expr import (
    Axis,
    Expr,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
)
from convdsl.tensor import Dim, TensorType, floor_div


def statistics(call: Call, lines: Lines) -> LineStages:
    """mean[group] = sum over the group of x / count
    scale[group] = 1 / sqrt(sum over the group of (x - mean)^2 / count + eps)"""
    stages, groups = LineStages(call, lines), lines.groups
    mean = stages.add("mean", groups, stages.total("totals", stages.read("x")) / stages.count)
    offset = stages.read("x") - stages.at_lines("middles", mean.tensor)
    variance = stages.total("squares", offset * offset) / stages.count
    stages.add("scale", groups, 1.0 / Unary("sqrt", variance + call["eps"]))
    return stages


def normalised(
    call: Call,
    stages: LineStages,
    axes: tuple[Axis, ...],
    at: tuple[Dim, ...],
    weight_at: tuple[Dim, ...],
) -> TensorExpr:
    """y = (x - mean[at..]) * scale[at..] * weight[weight_at..] + bias[weight_at..]"""
    x, made = call.var("x"), {stage.target.name: stage.target for stage in stages.made}
    value = Read(x, tuple(axis.i for axis in axes)) - Read(made["mean"], at)
    body = value * Read(made["scale"], at)
    inputs = [x]
    if call.has("weight"):
        weight, bias = call.var("weight"), call.var("bias")
        body = body * Read(weight, weight_at) + Read(bias, weight_at)
        inputs += [weight, bias]
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    return TensorExpr(tuple(inputs), (*stages.made, y), ("y",))


def affine_state(call: Call, shape: tuple[Dim, ...]) -> tuple[StateSpec, ...]:
    """With `affine` weight and bias of a shape, of the dtype of x."""
    if not call["affine"]:
        return ()
    type = TensorType(call.type("x").dtype, shape)
    return (
        StateSpec("weight", type, Role.PARAMETER, "ones"),
        StateSpec("bias", type, Role.PARAMETER, "zeros"),
    )


# Layer


def resolve_layer_norm(call: Call) -> Mapping[str, Any]:
    """x floating, the axis from 0 on. Raises OpError if it does not exist; with `affine` also for
    free sizes from it on."""
    float_type(call)
    axis = resolve_axis(call)
    if call["affine"]:
        for position in range(axis, call.type("x").rank):
            known_size(call, "x", position)
    return {**call.attributes, "axis": axis}


def state_layer_norm(call: Call) -> tuple[StateSpec, ...]:
    """With `affine` weight and bias, as large as x from the axis on."""
    return affine_state(call, call.type("x").shape[call["axis"] :])


def field_layer_norm(call: Call) -> WindowRule:
    """Along normalised axes all is seen."""
    shape = call.type("x").shape
    return whole_along(shape, range(call["axis"], len(shape)))


def _rows(call: Call) -> Lines:
    axes, first = axes_over(call.type("x").shape), int(call["axis"])
    over = tuple(Axis(f"r{axis.name}", axis.extent) for axis in axes[first:])
    return Lines(axes[:first], over, axes[:first])


def kernel_layer_norm(call: Call) -> TensorExpr:
    """statistics over the axes from `axis` on"""
    axes, lines = axes_over(call.type("x").shape), _rows(call)
    at = tuple(axis.i for axis in lines.lines)
    weight_at = tuple(axis.i for axis in axes[len(at) :])
    return normalised(call, statistics(call, lines), axes, at, weight_at)


# Group and instance


def resolve_group_norm(call: Call) -> Mapping[str, Any]:
    """x[N, C, ..], floating, with known C, which the groups divide; raises OpError otherwise."""
    float_type(call)
    if call.type("x").rank < 2:
        raise OpError(f"{call.op.name} needs channels, not {call.type('x')}", operands=("x",))
    channels, groups = known_size(call, "x", 1), groups_of(call)
    if channels % groups:
        raise OpError(
            f"{channels} channels do not divide into {groups} groups",
            help=shared_out(channels),
            attributes=("groups",),
            operands=("x",),
        )
    return call.attributes


def resolve_instance_norm(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating, with known C; raises OpError otherwise."""
    if call.type("x").rank < 3:
        raise OpError(f"instance_norm needs space, not {call.type('x')}", operands=("x",))
    return resolve_group_norm(call)


def groups_of(call: Call) -> int:
    """Groups of channels; instance_norm is group_norm with one channel each."""
    return call.attributes.get("groups") or known_size(call, "x", 1)


def state_group_norm(call: Call) -> tuple[StateSpec, ...]:
    """With `affine` weight[C] and bias[C]."""
    return affine_state(call, call.type("x").shape[1:2])


def field_group_norm(call: Call) -> WindowRule:
    """All of space is seen, if there is any."""
    return Reach.WHOLE if call.type("x").rank > 2 else Reach.POINTWISE


def _channels(call: Call) -> Lines:
    n, c, *space = axes_over(call.type("x").shape)
    groups = groups_of(call)
    size = floor_div(c.extent, groups)
    over = tuple(Axis(f"r{axis.name}", axis.extent) for axis in space)
    if size == 1:
        return Lines((n, c), over, (n, c))
    return Lines((n, c), over, (n, Axis("g", groups)), Axis("rc", size))


def kernel_group_norm(call: Call) -> TensorExpr:
    """statistics over the channels of a group and all of space"""
    axes, lines = axes_over(call.type("x").shape), _channels(call)
    at = lines.group_of(axes[:2])
    return normalised(call, statistics(call, lines), axes, at, (axes[1].i,))


# Gradients


_STATISTICS = ("x", "dy", "mean", "scale", "weight")
_COEFFICIENTS = ("slope", "level")
_FURTHER = ("dmean", "dscale")


def gradient_norm(p: Pullback) -> Gradients:
    """dx = dy weight scale + slope (x - mean) + level, from sums over dy for each group"""
    name = p.node.op.name.partition(".")[0]
    dy, *others = p.dys
    given = dict(zip(_FURTHER, others, strict=False)) | {"weight": p.node.inputs.get("weight")}
    given |= dict(zip(("mean", "scale"), p.kept(Recording(("mean", "scale"))), strict=True))
    given |= {"x": p.operand("x"), "dy": p.zeros(p.y.type) if dy is None else dy}
    present = {operand: value for operand, value in given.items() if value is not None}
    sums = _SUMS[name, "weight" in present]
    found = p.build.apply(sums, present, p.node.attributes, name="dsums")
    made = dict(zip(sums.outputs, found.outputs, strict=True))
    gradients = {n.removeprefix("d"): value for n, value in made.items() if n not in _COEFFICIENTS}
    if "x" in p.wanted:
        own = {
            n: value for n, value in (present | made).items() if n in (*_STATISTICS, *_COEFFICIENTS)
        }
        gradients["x"] = p.build.apply(_DX[name], own, p.node.attributes, name="dx").output
    return gradients


def infer_sums(call: Call) -> tuple[TensorType, ...]:
    """slope and level as mean; with a weight two gradients as that."""
    mean = call.type("mean")
    return (mean, mean, *((call.type("weight"),) * 2 if call.has("weight") else ()))


def _coefficients(call: Call, stages: LineStages, total: Expr, moment: Expr) -> None:
    """With total = sum of dy weight over a group, moment = sum of dy weight (x - mean):

    slope = -(moment + dscale) scale^3 / count
    level = (dmean - scale total) / count

    From var = sum of (x - mean)^2 / count and scale = (var + eps)^(-1/2) by the chain rule.
    """
    scale, groups = stages.statistic("scale"), stages.lines.groups
    steep = moment + stages.statistic("dscale") if call.has("dscale") else moment
    stages.add("slope", groups, -steep * (scale * scale * scale) / stages.count)
    level = -(scale * total)
    level = level + stages.statistic("dmean") if call.has("dmean") else level
    stages.add("level", groups, level / stages.count)


def kernel_layer_sums(call: Call) -> TensorExpr:
    """sums over rows for slope and level, over everything else for the weights:
    dbias = sum of dy; dweight = sum of dy (x - mean) scale"""
    lines = _rows(call)
    stages = LineStages(call, lines)
    dy, offset = stages.read("dy"), stages.read("x") - stages.statistic("mean")
    weight_at = tuple(axis.i for axis in lines.over)
    g = dy * Read(call.var("weight"), weight_at) if call.has("weight") else dy
    _coefficients(call, stages, stages.along(g), stages.along(g * offset))
    if call.has("weight"):
        terms = {"dweight": dy * (offset * stages.statistic("scale")), "dbias": dy}
        for name, term in terms.items():
            body = Reduce("sum", lines.lines, term) if lines.lines else term
            stages.add(name, lines.over, body)
    return _all_of(call, stages.made, call.op.outputs)


def kernel_group_sums(call: Call) -> TensorExpr:
    """the same, each line added up once"""
    lines = _channels(call)
    stages = LineStages(call, lines)
    n, c = lines.lines
    middle = stages.at_lines("middles", call.var("mean"))
    dy, offset = stages.read("dy"), stages.read("x") - middle
    total = stages.add("totals", lines.lines, stages.along(dy))
    moment = stages.add("moments", lines.lines, stages.along(dy * offset))
    if call.has("weight"):
        gain = Read(call.var("weight"), (c.i,))
        scale = stages.at_lines("scales", call.var("scale"))
        terms = {"dweight": moment * scale, "dbias": total}
        for name, term in terms.items():
            stages.add(name, (c,), Reduce("sum", (n,), term))
        total = stages.add("weighted_totals", lines.lines, total * gain)
        moment = stages.add("weighted_moments", lines.lines, moment * gain)
    _coefficients(call, stages, stages.over_group(total), stages.over_group(moment))
    return _all_of(call, stages.made, call.op.outputs)


def _all_of(call: Call, stages: Sequence[Stage], outputs: tuple[str, ...]) -> TensorExpr:
    return TensorExpr(tuple(call.var(name) for name in call.types), tuple(stages), outputs)


def infer_dx(call: Call) -> tuple[TensorType, ...]:
    """dx as x"""
    return (call.type("x"),)


def kernel_layer_dx(call: Call) -> TensorExpr:
    """dx, statistics and weights as layer_norm reads them"""
    first = int(call["axis"])
    at = tuple(axis.i for axis in axes_over(call.type("x").shape))
    return _dx(call, at[:first], at[first:])


def kernel_group_dx(call: Call) -> TensorExpr:
    """dx, statistics and weights as group_norm reads them"""
    axes = axes_over(call.type("x").shape)
    return _dx(call, _channels(call).group_of(axes[:2]), (axes[1].i,))


def _dx(call: Call, group: tuple[Dim, ...], weight_at: tuple[Dim, ...]) -> TensorExpr:
    """dx = dy (scale weight) + (slope (x - mean) + level)"""
    axes = axes_over(call.type("x").shape)
    here = tuple(axis.i for axis in axes)
    mean, gain, slope, level = (
        Read(call.var(name), group) for name in ("mean", "scale", "slope", "level")
    )
    whole: Expr = gain * Read(call.var("weight"), weight_at) if call.has("weight") else gain
    line = (Read(call.var("x"), here) - mean) * slope + level
    body = Read(call.var("dy"), here) * whole + line
    stage = Stage(TensorVar("dx", call.type("x")), axes, body)
    return _all_of(call, (stage,), ("dx",))


_OPERANDS = (
    Operand("x"),
    Operand("weight", Role.PARAMETER, optional=True),
    Operand("bias", Role.PARAMETER, optional=True),
)
_EPS = Attribute("eps", Kind.FLOAT, 1e-5, "added to the variance, as PyTorch", keyword_only=True)


def _affine(default: bool) -> Attribute:
    doc = "a trained weight and bias; the default is PyTorch's"
    return Attribute("affine", Kind.BOOL, default, doc, keyword_only=True)


_RULE = Rule(gradient_norm, "two sums for each group and one map, from statistics that are kept")

LAYER_NORM = OpDef(
    name="layer_norm",
    aliases=("layernorm",),
    doc="""Layer normalisation: over an axis and all after it, position by position.

    Ba, Kiros, Hinton 2016, arXiv:1607.06450.""",
    operands=_OPERANDS,
    attributes=(
        Attribute("axis", Kind.INT, -1, "first normalised axis; the last alone"),
        _EPS,
        _affine(True),
    ),
    outputs=("y",),
    resolve=resolve_layer_norm,
    state=state_layer_norm,
    infer=same_type,
    window=field_layer_norm,
    cost=no_contraction,
    kernel=kernel_layer_norm,
    gradient=_RULE,
)

GROUP_NORM = OpDef(
    name="group_norm",
    aliases=("groupnorm",),
    doc="Group normalisation: over groups of channels and space. Wu, He 2018, arXiv:1803.08494.",
    operands=_OPERANDS,
    attributes=(
        Attribute("groups", Kind.INT, REQUIRED, "number of groups", minimum=1),
        _EPS,
        _affine(True),
    ),
    outputs=("y",),
    resolve=resolve_group_norm,
    state=state_group_norm,
    infer=same_type,
    window=field_group_norm,
    cost=no_contraction,
    kernel=kernel_group_norm,
    gradient=_RULE,
)

INSTANCE_NORM = OpDef(
    name="instance_norm",
    aliases=("instancenorm",),
    doc="Instance normalisation: every channel over space. Ulyanov et al. 2016, arXiv:1607.08022.",
    operands=_OPERANDS,
    attributes=(_EPS, _affine(False)),
    outputs=("y",),
    resolve=resolve_instance_norm,
    state=state_group_norm,
    infer=same_type,
    window=field_group_norm,
    cost=no_contraction,
    kernel=kernel_group_norm,
    gradient=_RULE,
)


def _sums(op: OpDef, kernel: Callable[[Call], TensorExpr], *, affine: bool) -> OpDef:
    """What the gradients of a normalisation need of each group, and those of its weights."""
    weight = ("weight",) if affine else ()
    return OpDef(
        name=f"{op.name}.sums" if affine else f"{op.name}.sums.plain",
        aliases=(),
        doc=f"The sums in the gradients of {op.name}.",
        operands=(
            *(Operand(name) for name in ("x", "dy", "mean", "scale", *weight)),
            *(Operand(name, optional=True) for name in _FURTHER),
        ),
        attributes=op.attributes,
        outputs=(*_COEFFICIENTS, *(("dweight", "dbias") if affine else ())),
        resolve=resolve_as_given,
        state=no_state,
        infer=infer_sums,
        window=derived,
        cost=no_contraction,
        kernel=kernel,
        gradient=DERIVED,
    )


def _map(op: OpDef, kernel: Callable[[Call], TensorExpr]) -> OpDef:
    """The gradient of a normalisation by its input, from these sums."""
    return OpDef(
        name=f"{op.name}.dx",
        aliases=(),
        doc=f"The gradient of {op.name} by its input, from sums.",
        operands=(
            *(Operand(name) for name in ("x", "dy", "mean", "scale", *_COEFFICIENTS)),
            Operand("weight", optional=True),
        ),
        attributes=op.attributes,
        outputs=("dx",),
        resolve=resolve_as_given,
        state=no_state,
        infer=infer_dx,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
        gradient=DERIVED,
    )


_KERNELS = {
    LAYER_NORM: (kernel_layer_sums, kernel_layer_dx),
    GROUP_NORM: (kernel_group_sums, kernel_group_dx),
    INSTANCE_NORM: (kernel_group_sums, kernel_group_dx),
}
_SUMS = {
    (op.name, affine): _sums(op, kernel, affine=affine)
    for op, (kernel, _) in _KERNELS.items()
    for affine in (True, False)
}
_DX = {op.name: _map(op, kernel) for op, (_, kernel) in _KERNELS.items()}

OPERATORS = (LAYER_NORM, GROUP_NORM, INSTANCE_NORM)
