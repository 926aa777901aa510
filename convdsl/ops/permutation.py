"""Data movement that keeps every element and puts it elsewhere: transposes and shuffles."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Rule,
    WindowRule,
    derived,
    no_contraction,
    no_state,
    pointwise,
    same_type,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import entries, known_size, resolve_axes
from convdsl.ir.windows import resolve_sizes, shared_out
from convdsl.kernel.expr import Axis, Read, Stage, TensorExpr, TensorVar, axes_over
from convdsl.tensor import Dim, TensorType, exact_div


def moved(call: Call, axes: tuple[Axis, ...], index: tuple[Dim, ...]) -> TensorExpr:
    """y[axes..] = x[index..]"""
    x = call.var("x")
    return TensorExpr((x,), (Stage(TensorVar("y", call.outputs[0]), axes, Read(x, index)),), ("y",))


# Transpose


def resolve_transpose(call: Call) -> Mapping[str, Any]:
    """The order of axes from 0 on. Raises OpError unless each axis of x comes once."""
    x = call.type("x")
    order: tuple[int, ...] = entries(call, "axes")
    axes = tuple(axis + x.rank if axis < 0 else axis for axis in order)
    if sorted(axes) != list(range(x.rank)):
        raise OpError(
            f"axes {list(order)} do not name every axis of {x} once",
            attributes=("axes",),
            operands=("x",),
            help=_all_axes(axes, x.rank),
        )
    return {**call.attributes, "axes": axes}


def _all_axes(axes: tuple[int, ...], rank: int) -> tuple[str, ...]:
    """Two axes to exchange, those of a sample, or some of the first: what that is of all of
    them."""
    order = list(range(rank))
    if len(axes) == 2 and len({*axes}) == 2 and {*axes} <= {*order} and {*axes} != {0, 1}:
        order[axes[0]], order[axes[1]] = axes[1], axes[0]
    elif len(axes) > 2 and axes[0] and sorted(axes) == order[:-1]:
        order = [0, *(axis + 1 for axis in axes)]
        return (f"the batch is an axis too: transpose({order})",)
    elif sorted(axes) == order[: len(axes)]:
        order = [*axes, *order[len(axes) :]]
    else:
        return ()
    return (f"of {rank} axes: transpose({order})",)


def infer_transpose(call: Call) -> tuple[TensorType, ...]:
    """y, axis i as long as axis axes[i] of x."""
    x = call.type("x")
    order: tuple[int, ...] = call["axes"]
    return (TensorType(x.dtype, tuple(x.shape[axis] for axis in order)),)


def field_transpose(call: Call) -> WindowRule:
    """Positions stay where space keeps its order; else what the expression reads counts."""
    order = call["axes"]
    return Reach.POINTWISE if order[2:] == tuple(range(2, len(order))) else Reach.DERIVED


def kernel_transpose(call: Call) -> TensorExpr:
    """y[i_axes[0], i_axes[1], ..] = x[i_0, i_1, ..]"""
    axes = axes_over(call.outputs[0].shape)
    index: list[Dim] = [0] * len(axes)
    for axis, source in zip(axes, call["axes"], strict=True):
        index[source] = axis.i
    return moved(call, axes, tuple(index))


# Roll


def resolve_roll(call: Call) -> Mapping[str, Any]:
    """Axes in order, from 0 on, each with its shift, counted from 0 where the extent is known.
    Raises OpError for axes that do not exist or come twice, and lists of different lengths."""
    x = call.type("x")
    axes, order = resolve_axes(call, "axes", x.rank), entries(call, "axes")
    given = entries(call, "shift", len(order))
    by_axis = dict(zip((axis % x.rank for axis in order), given, strict=True))
    shifts: list[int] = []
    for axis in axes:
        extent, shift = x.shape[axis], by_axis[axis]
        shifts.append(shift % max(extent, 1) if isinstance(extent, int) else shift)
    return {**call.attributes, "axes": axes, "shift": tuple(shifts)}


def kernel_roll(call: Call) -> TensorExpr:
    """y[.., i, ..] = x[.., (i - shift) mod I, ..]"""
    (out,) = call.outputs
    axes = axes_over(out.shape)
    index = [axis.i for axis in axes]
    for axis, shift in zip(call["axes"], call["shift"], strict=True):
        if out.shape[axis] != 0:
            index[axis] = (index[axis] - shift) % out.shape[axis]
    return moved(call, axes, tuple(index))


def field_roll(call: Call) -> WindowRule:
    """Batch and channels have no place; along space what the expression reads counts."""
    return Reach.POINTWISE if max(call["axes"]) < 2 else Reach.DERIVED


# Shuffles


def resolve_channel_shuffle(call: Call) -> Mapping[str, Any]:
    """x[N, C, ..] with known C, which the groups divide; raises OpError otherwise."""
    if call.type("x").rank < 2:
        raise OpError(f"channel_shuffle needs channels, not {call.type('x')}", operands=("x",))
    channels = known_size(call, "x", 1)
    if channels % call["groups"]:
        raise OpError(
            f"{channels} channels do not divide into {call['groups']} groups",
            help=shared_out(channels),
            attributes=("groups",),
            operands=("x",),
        )
    return call.attributes


def kernel_channel_shuffle(call: Call) -> TensorExpr:
    """y[n,c..] = x[n, (c mod G) * C/G + c div G ..]: column by column what was row by row"""
    axes, groups = axes_over(call.outputs[0].shape), int(call["groups"])
    size = known_size(call, "x", 1) // groups
    n, c, *space = (axis.i for axis in axes)
    return moved(call, axes, (n, c % groups * size + c // groups, *space))


def resolve_pixel_shuffle(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..] with known C; one factor for each axis of space, whose product divides C.
    Raises OpError otherwise."""
    x = call.type("x")
    factor = _factor(call)
    channels = known_size(call, "x", 1)
    if channels % prod(factor):
        text = "x".join(map(str, factor))
        raise OpError(
            f"{channels} channels of {x} do not divide into blocks of {text}",
            attributes=("factor",),
            operands=("x",),
            help=(f"for {channels} behind it: conv({channels * prod(factor)}, ...) before it",),
        )
    return {**call.attributes, "factor": factor}


def _factor(call: Call) -> tuple[int, ...]:
    x = call.type("x")
    if x.rank < 3:
        raise OpError(f"{call.op.name} needs space, not {x}", operands=("x",))
    return resolve_sizes(call, "factor", x.rank - 2)


def infer_pixel_shuffle(call: Call) -> tuple[TensorType, ...]:
    """y[N, C / product of the factors, space times the factors..]"""
    x, factor = call.type("x"), call["factor"]
    space = (extent * f for extent, f in zip(x.shape[2:], factor, strict=True))
    channels = known_size(call, "x", 1) // prod(factor)
    return (TensorType(x.dtype, (x.shape[0], channels, *space)),)


def kernel_pixel_shuffle(call: Call) -> TensorExpr:
    """y[n,c,p..] = x[n, (c * R + p mod R) * S + q mod S .., p div R, q div S ..]"""
    axes = axes_over(call.outputs[0].shape)
    n, channel, *space = (axis.i for axis in axes)
    for at, f in zip(space, call["factor"], strict=True):
        channel = channel * f + at % f
    source = (at // f for at, f in zip(space, call["factor"], strict=True))
    return moved(call, axes, (n, channel, *source))


def resolve_pixel_unshuffle(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..]; one factor for each axis of space, which it divides. Raises OpError where
    it does not, or cannot be proven to."""
    x, factor = call.type("x"), _factor(call)
    for axis, f in enumerate(factor, start=2):
        if exact_div(x.shape[axis], f) is None:
            known = isinstance(x.shape[axis], int)
            help = () if known else (f"declare it on the input: where {x.shape[axis]} % {f} == 0",)
            raise OpError(
                f"axis {axis} of {x} does not divide by {f}" + ("" if known else " for certain"),
                attributes=("factor",),
                operands=("x",),
                help=help,
            )
    return {**call.attributes, "factor": factor}


def infer_pixel_unshuffle(call: Call) -> tuple[TensorType, ...]:
    """y[N, C * product of the factors, space by the factors..]"""
    x, factor = call.type("x"), call["factor"]
    space = (extent // f for extent, f in zip(x.shape[2:], factor, strict=True))
    return (TensorType(x.dtype, (x.shape[0], x.shape[1] * prod(factor), *space)),)


def kernel_pixel_unshuffle(call: Call) -> TensorExpr:
    """y[n,c,p..] = x[n, c div (R*S), p * R + c div S mod R, q * S + c mod S ..]"""
    axes = axes_over(call.outputs[0].shape)
    n, channel, *space = (axis.i for axis in axes)
    source: list[Dim] = []
    for at, f in reversed(list(zip(space, call["factor"], strict=True))):
        source.insert(0, at * f + channel % f)
        channel = channel // f
    return moved(call, axes, (n, channel, *source))


def _block(doc: str) -> tuple[Attribute, ...]:
    return (Attribute("factor", Kind.SIZES, REQUIRED, doc, minimum=1),)


def gradient_transpose(p: Pullback) -> Gradients:
    """dy, its axes where they came from"""
    order: tuple[int, ...] = p["axes"]
    axes = tuple(order.index(axis) for axis in range(len(order)))
    return {"x": p.build("transpose", p.dy, axes=axes, name="dx")}


def gradient_roll(p: Pullback) -> Gradients:
    """dy, rolled back"""
    back = tuple(-shift for shift in p["shift"])
    return {"x": p.build("roll", p.dy, shift=back, axes=p["axes"], name="dx")}


def gradient_channel_shuffle(p: Pullback) -> Gradients:
    """dy, shuffled by C / G groups"""
    groups = known_size(p.node.call, "x", 1) // p["groups"]
    return {"x": p.build("channel_shuffle", p.dy, groups=groups, name="dx")}


def _inverse(op: str) -> Rule:
    """dx = op(dy) with the same factors"""

    def gradient(p: Pullback) -> Gradients:
        return {"x": p.build(op, p.dy, factor=p["factor"], name="dx")}

    return Rule(gradient, f"the inverse is {op}")


_INVERSE = {op: _inverse(op) for op in ("pixel_shuffle", "pixel_unshuffle")}

TRANSPOSE = OpDef(
    name="transpose",
    aliases=("permute",),
    doc="The axes in another order.",
    operands=(Operand("x"),),
    attributes=(Attribute("axes", Kind.INTS, REQUIRED, "which axis of x comes where"),),
    outputs=("y",),
    resolve=resolve_transpose,
    state=no_state,
    infer=infer_transpose,
    window=field_transpose,
    cost=no_contraction,
    kernel=kernel_transpose,
    gradient=Rule(gradient_transpose, "the inverse is a transpose"),
)

ROLL = OpDef(
    name="roll",
    aliases=(),
    doc="""Elements moved on along axes; what leaves at the end comes back at the beginning.

    The shifted windows of Liu et al. 2021, arXiv:2103.14030.""",
    operands=(Operand("x"),),
    attributes=(
        Attribute("shift", Kind.INTS, REQUIRED, "by how many places; negative ones go back"),
        Attribute("axes", Kind.INTS, REQUIRED, "along which axes"),
    ),
    outputs=("y",),
    resolve=resolve_roll,
    state=no_state,
    infer=same_type,
    window=field_roll,
    cost=no_contraction,
    kernel=kernel_roll,
    gradient=Rule(gradient_roll, "the inverse is a roll"),
)

CHANNEL_SHUFFLE = OpDef(
    name="channel_shuffle",
    aliases=(),
    doc="Channels of all groups interleaved. Zhang et al. 2017, arXiv:1707.01083.",
    operands=(Operand("x"),),
    attributes=(Attribute("groups", Kind.INT, REQUIRED, "number of groups", minimum=1),),
    outputs=("y",),
    resolve=resolve_channel_shuffle,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_channel_shuffle,
    gradient=Rule(gradient_channel_shuffle, "the inverse is a shuffle"),
)

PIXEL_SHUFFLE = OpDef(
    name="pixel_shuffle",
    aliases=(),
    doc="""Blocks of channels laid out in space: [N, C*r*r, H, W] -> [N, C, H*r, W*r].

    Shi et al. 2016, arXiv:1609.05158.""",
    operands=(Operand("x"),),
    attributes=_block("enlargement per axis"),
    outputs=("y",),
    resolve=resolve_pixel_shuffle,
    state=no_state,
    infer=infer_pixel_shuffle,
    window=derived,
    cost=no_contraction,
    kernel=kernel_pixel_shuffle,
    gradient=_INVERSE["pixel_unshuffle"],
)

PIXEL_UNSHUFFLE = OpDef(
    name="pixel_unshuffle",
    aliases=(),
    doc="Blocks of space gathered in channels: the inverse of pixel_shuffle.",
    operands=(Operand("x"),),
    attributes=_block("reduction per axis"),
    outputs=("y",),
    resolve=resolve_pixel_unshuffle,
    state=no_state,
    infer=infer_pixel_unshuffle,
    window=derived,
    cost=no_contraction,
    kernel=kernel_pixel_unshuffle,
    gradient=_INVERSE["pixel_shuffle"],
)

OPERATORS = (TRANSPOSE, ROLL, CHANNEL_SHUFFLE, PIXEL_SHUFFLE, PIXEL_UNSHUFFLE)
