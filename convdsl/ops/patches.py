"""Patches of space as columns, and columns added up to space again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Rule,
    derived,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.places import digits
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import disagreement, entries
from convdsl.ir.windows import resolve_padding, resolve_sizes
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    IndexCompare,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
)
from convdsl.kernel.preimage import lattice
from convdsl.tensor import Dim, TensorType, bounds, floor_div


def _sizes(call: Call, rank: int) -> dict[str, Any]:
    """kernel, stride, dilation and padding, one entry per axis of space."""
    sizes = {name: resolve_sizes(call, name, rank) for name in ("kernel", "stride", "dilation")}
    pad = resolve_padding(call, sizes["kernel"], sizes["stride"], sizes["dilation"])
    if isinstance(pad, str):
        raise OpError(f"pad = {pad} needs known sizes", attributes=("pad",), operands=("x",))
    return {**sizes, "pad": pad}


def places_of(space: Sequence[Dim], how: Mapping[str, Any]) -> tuple[Dim, ...]:
    """How many windows there are along each axis of space. Raises OpError where there is none."""
    found: list[Dim] = []
    for axis, (extent, kernel) in enumerate(zip(space, how["kernel"], strict=True)):
        reach = how["dilation"][axis] * (kernel - 1) + 1
        slack = extent + sum(how["pad"][axis]) - reach
        most = bounds(slack)[1]
        if most is not None and most < 0:
            raise OpError(
                f"a window of {reach} does not fit an extent of {extent} with its padding",
                operands=("x",),
                attributes=("kernel",),
            )
        found.append(floor_div(slack, how["stride"][axis]) + 1)
    return tuple(found)


# Patches as columns


def resolve_unfold(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating; sizes for every axis of space."""
    float_type(call)
    if call.type("x").rank < 3:
        raise OpError(f"unfold needs space, not {call.type('x')}", operands=("x",))
    return {**call.attributes, **_sizes(call, call.type("x").rank - 2)}


def infer_unfold(call: Call) -> tuple[TensorType, ...]:
    """y[N, C * kernel.., places]"""
    x, taps = call.type("x"), prod(call["kernel"])
    columns: Dim = prod(places_of(x.shape[2:], call.attributes))
    return (TensorType(x.dtype, (x.shape[0], x.shape[1] * taps, columns)),)


def kernel_unfold(call: Call) -> TensorExpr:
    """y[n, (c, r..), (o..)] = x[n, c, o * stride + r * dilation - before ..], outside: 0"""
    x, (out,) = call.var("x"), call.outputs
    axes = n, row, column = axes_over(out.shape)
    places = digits(column.i, places_of(x.type.shape[2:], call.attributes))
    channel, *taps = digits(row.i, (x.type.shape[1], *call["kernel"]))
    index: list[Dim] = []
    for axis, (place, tap) in enumerate(zip(places, taps, strict=True)):
        step = place * call["stride"][axis] + tap * call["dilation"][axis]
        index.append(step - call["pad"][axis][0])
    body = Read(x, (n.i, channel, *index), 0.0)
    return TensorExpr((x,), (Stage(TensorVar("y", out), axes, body),), ("y",))


def gradient_unfold(p: Pullback) -> Gradients:
    """dy, added up where it was taken"""
    how = {name: p[name] for name in _WINDOW}
    return {"x": p.build("fold", p.dy, size=p.operand("x").type.shape[2:], name="dx", **how)}


# Columns added up


def resolve_fold(call: Call) -> Mapping[str, Any]:
    """x[N, C * kernel.., places], floating: a column for each place of windows in the size. Raises
    OpError for others."""
    float_type(call)
    x, size = call.type("x"), tuple(entries(call, "size"))
    if x.rank != 3:
        raise OpError(f"fold needs columns [N, C, places], not {x}", operands=("x",))
    how = {**call.attributes, "size": size, **_sizes(call, len(size))}
    taps = prod(how["kernel"])
    if floor_div(x.shape[1], taps) * taps != x.shape[1]:
        raise OpError(
            f"{x.shape[1]} rows do not divide into patches of {taps}",
            attributes=("kernel",),
            operands=("x",),
        )
    wanted: Dim = prod(places_of(size, how))
    if wanted != x.shape[2]:
        what = f"{x} has not a column for each place"
        raise disagreement(what, x.shape[2], wanted, ("x",), ("size", "kernel"))
    return how


def infer_fold(call: Call) -> tuple[TensorType, ...]:
    """y[N, C, size..]"""
    x = call.type("x")
    channels = floor_div(x.shape[1], prod(call["kernel"]))
    return (TensorType(x.dtype, (x.shape[0], channels, *call["size"])),)


def kernel_fold(call: Call) -> TensorExpr:
    """y[n, c, i..] = sum over t.. of x[n, (c, r(i,t)..), (o(i,t)..)]

    with taps r and places o such that o * stride + r * dilation = i + before, of those that there
    are."""
    x, (out,) = call.var("x"), call.outputs
    axes = n, c, *space = axes_over(out.shape)
    kernel, places = call["kernel"], places_of(call["size"], call.attributes)
    row, column = c.i, 0
    tests: list[Expr] = []
    terms: list[Axis] = []
    for k, axis in enumerate(space):
        target = axis.i + call["pad"][k][0]
        taps = lattice(target, call["stride"][k], call["dilation"][k], kernel[k], f"t{k}")
        row = row * kernel[k] + taps.tap
        column = column * places[k] + taps.source
        tests += [
            IndexCompare("ge", taps.source, 0),
            IndexCompare("lt", taps.source, places[k]),
        ]
        if taps.condition is not None:
            tests.append(taps.condition)
        if taps.overshoots:
            tests.append(IndexCompare("lt", taps.tap, kernel[k]))
        terms.append(taps.t)
    test = tests[0]
    for other in tests[1:]:
        test = Binary("and", test, other)
    value = Select(test, Read(x, (n.i, row, column)), Literal(0.0, out.dtype))
    body = Reduce("sum", tuple(terms), value)
    return TensorExpr((x,), (Stage(TensorVar("y", out), axes, body),), ("y",))


def gradient_fold(p: Pullback) -> Gradients:
    """dy at every place that was added to it"""
    how = {name: p[name] for name in _WINDOW}
    return {"x": p.build("unfold", p.dy, name="dx", **how)}


_WINDOW = ("kernel", "stride", "pad", "dilation")

_ATTRIBUTES = (
    Attribute("kernel", Kind.SIZES, REQUIRED, "size of a patch", minimum=1),
    Attribute("stride", Kind.SIZES, 1, "distance between patches; 1, as PyTorch", minimum=1),
    Attribute("pad", Kind.PADDING, 0, "zeros around; none, as PyTorch", minimum=0),
    Attribute("dilation", Kind.SIZES, 1, "distance between elements of a patch", minimum=1),
)

UNFOLD = OpDef(
    name="unfold",
    aliases=("im2col",),
    doc="Patches of space as columns: [N, C, H, W] -> [N, C*r*s, places].",
    operands=(Operand("x"),),
    attributes=_ATTRIBUTES,
    outputs=("y",),
    resolve=resolve_unfold,
    state=no_state,
    infer=infer_unfold,
    window=derived,
    cost=no_contraction,
    kernel=kernel_unfold,
    gradient=Rule(gradient_unfold, "what was copied is added up: a fold"),
)

FOLD = OpDef(
    name="fold",
    aliases=("col2im",),
    doc="Columns added up where patches of space were: [N, C*r*s, places] -> [N, C, H, W].",
    operands=(Operand("x"),),
    attributes=(
        Attribute("size", Kind.SHAPE, REQUIRED, "the size of space"),
        *_ATTRIBUTES,
    ),
    outputs=("y",),
    resolve=resolve_fold,
    state=no_state,
    infer=infer_fold,
    window=derived,
    cost=no_contraction,
    kernel=kernel_fold,
    gradient=Rule(gradient_fold, "what was added up is copied: an unfold"),
)

OPERATORS = (UNFOLD, FOLD)
