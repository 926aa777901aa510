"""Normalisation by statistics of the very input: layer, group and instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Reach,
    Role,
    StateSpec,
    WindowRule,
    float_type,
    no_contraction,
    same_type,
)
from convdsl.ir.shapes import known_size, resolve_axis, whole_along
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
from convdsl.tensor import Dim, TensorType, floor_div


def statistics(
    call: Call, kept: tuple[Axis, ...], reduced: tuple[Axis, ...], index: Sequence[Dim]
) -> tuple[Stage, Stage]:
    """mean[kept..] = sum over reduced.. of x[index..] / count
    scale[kept..] = 1 / sqrt(sum over reduced.. of (x[index..] - mean)^2 / count + eps)"""
    x = call.var("x")
    dtype = x.type.dtype
    size = positions_of(reduced)
    count: Expr = Literal(size, dtype) if isinstance(size, int) else IndexValue(size, dtype)
    type = TensorType(dtype, tuple(axis.extent for axis in kept))
    at = tuple(axis.i for axis in kept)
    value = Read(x, tuple(index))
    mean = Stage(TensorVar("mean", type), kept, Reduce("sum", reduced, value) / count)
    offset = value - Read(mean.target, at)
    variance = Reduce("sum", reduced, offset * offset) / count
    scale = Stage(TensorVar("scale", type), kept, 1.0 / Unary("sqrt", variance + call["eps"]))
    return mean, scale


def normalised(
    call: Call,
    stages: tuple[Stage, Stage],
    axes: tuple[Axis, ...],
    at: tuple[Dim, ...],
    weight_at: tuple[Dim, ...],
) -> TensorExpr:
    """y = (x - mean[at..]) * scale[at..] * weight[weight_at..] + bias[weight_at..]"""
    x = call.var("x")
    mean, scale = stages
    value = Read(x, tuple(axis.i for axis in axes)) - Read(mean.target, at)
    body = value * Read(scale.target, at)
    inputs = [x]
    if call.has("weight"):
        weight, bias = call.var("weight"), call.var("bias")
        body = body * Read(weight, weight_at) + Read(bias, weight_at)
        inputs += [weight, bias]
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    return TensorExpr(tuple(inputs), (*stages, y), ("y",))


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


def kernel_layer_norm(call: Call) -> TensorExpr:
    """statistics over the axes from `axis` on"""
    axes, first = axes_over(call.type("x").shape), int(call["axis"])
    kept = axes[:first]
    reduced = tuple(Axis(f"r{axis.name}", axis.extent) for axis in axes[first:])
    at = tuple(axis.i for axis in kept)
    stages = statistics(call, kept, reduced, (*at, *(axis.i for axis in reduced)))
    return normalised(call, stages, axes, at, tuple(axis.i for axis in axes[first:]))


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


def kernel_group_norm(call: Call) -> TensorExpr:
    """statistics over the channels of a group and all of space"""
    shape = call.type("x").shape
    axes = axes_over(shape)
    n, c = axes[:2]
    size = floor_div(shape[1], groups_of(call))
    g = Axis("g", groups_of(call))
    member = Axis("rc", size)
    space = tuple(Axis(f"r{axis.name}", axis.extent) for axis in axes[2:])
    index = (n.i, g.i * size + member.i, *(axis.i for axis in space))
    stages = statistics(call, (n, g), (member, *space), index)
    return normalised(call, stages, axes, (n.i, c.i // size), (c.i,))


_OPERANDS = (
    Operand("x"),
    Operand("weight", Role.PARAMETER, optional=True),
    Operand("bias", Role.PARAMETER, optional=True),
)
_EPS = Attribute("eps", Kind.FLOAT, 1e-5, "added to the variance, as PyTorch", keyword_only=True)


def _affine(default: bool) -> Attribute:
    doc = "a trained weight and bias; the default is PyTorch's"
    return Attribute("affine", Kind.BOOL, default, doc, keyword_only=True)


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
    gradient=DERIVED,
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
    gradient=DERIVED,
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
    gradient=DERIVED,
)

OPERATORS = (LAYER_NORM, GROUP_NORM, INSTANCE_NORM)
