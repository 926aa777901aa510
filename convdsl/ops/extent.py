"""Data movement that changes extents: slicing, padding, repeating."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    WindowRule,
    derived,
    no_contraction,
    no_state,
)
from convdsl.ir.shapes import SPACE, differ, disagreement, entries, resolve_axes
from convdsl.ir.windows import Padding, check_folding, padded_index
from convdsl.kernel.expr import Axis, Read, Stage, TensorExpr, TensorVar, axes_over
from convdsl.tensor import (
    Dim,
    SymDim,
    TensorType,
    bounds,
    ceil_div,
    dim_max,
    dim_min,
    format_shape,
)


def moved(
    call: Call, axes: tuple[Axis, ...], index: tuple[Dim, ...], outside: float | None = None
) -> TensorExpr:
    """y[axes..] = x[index..]"""
    x, y = call.var("x"), TensorVar("y", call.outputs[0])
    return TensorExpr((x,), (Stage(y, axes, Read(x, index, outside)),), ("y",))


# Slice

BEGIN, END = "begin", "end"


def resolve_slice(call: Call) -> Mapping[str, Any]:
    """Axes in order, from 0 on, with their limits and steps. Raises OpError for axes that do not
    exist or come twice, lists of different lengths, and a step of 0."""
    x = call.type("x")
    axes, order = resolve_axes(call, "axes", x.rank), entries(call, "axes")
    count = len(order)
    limits = {
        "start": entries(call, "start", count),
        "stop": entries(call, "stop", count),
        "step": entries(call, "step", count),
    }
    if 0 in limits["step"]:
        raise OpError("a slice cannot step by 0", attributes=("step",))
    ranks = sorted(range(count), key=lambda j: order[j] % x.rank)
    for name in ("start", "stop"):
        for limit in limits[name]:
            _check_end(name, limit)
    in_order = {name: tuple(value[j] for j in ranks) for name, value in limits.items()}
    return {**call.attributes, "axes": axes, **in_order}


def _check_end(name: str, limit: Any) -> None:
    """From which end a limit counts has to be known."""
    if isinstance(limit, str):
        return
    low, high = bounds(limit)
    if (low is None or low < 0) and (high is None or high >= 0):
        help = ("say a least size where the input is declared: `where H >= 8`",)
        text = f"whether {limit} counts from the front or from the end is open"
        raise OpError(text, attributes=(name,), help=help)


def cut(extent: Dim, start: Any, stop: Any, step: int) -> tuple[Dim, Dim]:
    """(first position, how many), as Python's slices cut a sequence of this extent."""
    low, high = (0, extent) if step > 0 else (-1, extent - 1)

    def position(value: Any, default: Dim) -> Dim:
        if isinstance(value, str):
            return default
        most = bounds(value)[1]
        counted = extent + value if most is not None and most < 0 else value
        return dim_min(dim_max(counted, low), high)

    first = position(start, low if step > 0 else high)
    last = position(stop, high if step > 0 else low)
    span = last - first if step > 0 else first - last
    return first, dim_max(ceil_div(span, abs(step)), 0)


def limits_of(call: Call) -> Iterator[tuple[int, Any, Any, int]]:
    """(axis, start, stop, step) of every axis that is cut."""
    yield from zip(call["axes"], call["start"], call["stop"], call["step"], strict=True)


def infer_slice(call: Call) -> tuple[TensorType, ...]:
    """x, its axes cut. Raises OpError where nothing of one is left."""
    x = call.type("x")
    shape = list(x.shape)
    for axis, start, stop, step in limits_of(call):
        _, shape[axis] = cut(shape[axis], start, stop, step)
        if bounds(shape[axis])[1] == 0:
            raise OpError(
                f"nothing of axis {axis} of {x} is left",
                attributes=("start", "stop"),
                operands=("x",),
            )
    return (TensorType(x.dtype, tuple(shape)),)


def field_slice(call: Call) -> WindowRule:
    """Batch and channels have no place; along space what the expression reads counts."""
    return Reach.POINTWISE if max(call["axes"]) < 2 else Reach.DERIVED


def kernel_slice(call: Call) -> TensorExpr:
    """y[.., i, ..] = x[.., first + i * step, ..]"""
    axes = axes_over(call.outputs[0].shape)
    index = [axis.i for axis in axes]
    for axis, start, stop, step in limits_of(call):
        first, _ = cut(call.type("x").shape[axis], start, stop, step)
        index[axis] = index[axis] * step + first
    return moved(call, axes, tuple(index))


SLICE = OpDef(
    name="slice",
    aliases=(),
    doc="""Part of x along some axes, as Python slices: from start up to stop by step.

    Negative positions count from the end; a negative step walks backwards.""",
    operands=(Operand("x"),),
    attributes=(
        Attribute("axes", Kind.INTS, REQUIRED, "the axes to cut"),
        Attribute("start", Kind.INTS, BEGIN, "first position", choices=(BEGIN,), open=True),
        Attribute("stop", Kind.INTS, END, "position behind the last", choices=(END,), open=True),
        Attribute("step", Kind.INTS, 1, "distance between positions"),
    ),
    outputs=("y",),
    resolve=resolve_slice,
    state=no_state,
    infer=infer_slice,
    window=field_slice,
    cost=no_contraction,
    kernel=kernel_slice,
    gradient=DERIVED,
)


# Pad


def resolve_pad(call: Call) -> Mapping[str, Any]:
    """Axes of space unless given, a pair (before, after) for each. Raises OpError for folding that
    goes beyond the input, and for a value that the dtype of x does not hold."""
    x = call.type("x")
    axes = tuple(range(2, x.rank)) if call["axes"] == SPACE else resolve_axes(call, "axes", x.rank)
    given = entries(call, "pad", len(axes))
    pairs = tuple((e, e) if isinstance(e, int | SymDim) else (e[0], e[1]) for e in given)
    if call["axes"] != SPACE:  # pads stand in the order in which the axes were named
        named = [axis % x.rank for axis in entries(call, "axes")]
        pairs = tuple(pairs[named.index(axis)] for axis in axes)
    check_folding(call, "mode", tuple(x.shape[axis] for axis in axes), pairs)
    if call["mode"] == "zeros" and not x.dtype.is_float:
        value = call["value"]
        whole = value % 1 == 0 and x.dtype.lowest <= value <= x.dtype.highest
        if not whole:
            raise OpError(f"{call['value']} is no {x.dtype}", attributes=("value",))
    return {**call.attributes, "axes": axes, "pad": pairs}


def infer_pad(call: Call) -> tuple[TensorType, ...]:
    """x, each axis longer by before + after."""
    x = call.type("x")
    shape = list(x.shape)
    for axis, (before, after) in zip(call["axes"], call["pad"], strict=True):
        shape[axis] = shape[axis] + before + after
    return (TensorType(x.dtype, tuple(shape)),)


def field_pad(call: Call) -> WindowRule:
    """Batch and channels have no place; along space what the expression reads counts."""
    return Reach.POINTWISE if max(call["axes"], default=0) < 2 else Reach.DERIVED


def kernel_pad(call: Call) -> TensorExpr:
    """y[.., i, ..] = x[.., i - before, ..], outside: value, or folded back"""
    x = call.type("x")
    pads: list[tuple[Dim, Dim]] = [(0, 0)] * x.rank
    for axis, pair in zip(call["axes"], call["pad"], strict=True):
        pads[axis] = pair
    axes = axes_over(call.outputs[0].shape)
    at = [axis.i - before for axis, (before, _) in zip(axes, pads, strict=True)]
    padding: Padding = tuple(pads)
    if call["mode"] == "zeros":
        padded = any(pair != (0, 0) for pair in padding)
        return moved(call, axes, tuple(at), call["value"] if padded else None)
    index = [
        folded if pair != (0, 0) else plain
        for folded, plain, pair in zip(
            padded_index(call["mode"], at, x.shape, padding)[0], at, padding, strict=True
        )
    ]
    return moved(call, axes, tuple(index))


PAD = OpDef(
    name="pad",
    aliases=(),
    doc="x with a border: a constant, or its own elements folded outwards.",
    operands=(Operand("x"),),
    attributes=(
        Attribute(
            "pad", Kind.PADDING, REQUIRED, "positions before and after", minimum=0, open=True
        ),
        Attribute(
            "mode",
            Kind.STRING,
            "zeros",
            "what the border holds; zeros: the value",
            choices=("zeros", "reflect", "replicate", "circular"),
        ),
        Attribute("value", Kind.FLOAT, 0.0, "the constant, in mode zeros", keyword_only=True),
        Attribute(
            "axes",
            Kind.INTS,
            SPACE,
            "the axes to pad; all of space",
            choices=(SPACE,),
            keyword_only=True,
        ),
    ),
    outputs=("y",),
    resolve=resolve_pad,
    state=no_state,
    infer=infer_pad,
    window=field_pad,
    cost=no_contraction,
    kernel=kernel_pad,
    gradient=Derived(search=True),
)


# Repeating


def resolve_expand(call: Call) -> Mapping[str, Any]:
    """The shape without -1, which stands for what x has, counted from the last axis. Raises OpError
    for fewer axes than x has, negative extents, and an extent of x that is neither 1 nor as
    asked."""
    x, wanted = call.type("x"), tuple(call["shape"])
    if len(wanted) < x.rank:
        raise OpError(
            f"cannot expand {x} to {format_shape(wanted)}: fewer axes",
            attributes=("shape",),
            operands=("x",),
        )
    own = (1,) * (len(wanted) - x.rank) + x.shape
    shape = tuple(have if want == -1 else want for have, want in zip(own, wanted, strict=True))
    for want in shape:
        most = bounds(want)[1]
        if most is not None and most < 0:  # one that may be less is held to it when it is known
            raise OpError(f"{want} is no extent", attributes=("shape",))
    what = f"cannot expand {x} to {format_shape(shape)}"
    pairs = {pair: None for pair in zip(own, shape, strict=True) if pair[0] not in (1, pair[1])}
    certain = ", ".join(f"{have} is not {want}" for have, want in pairs if differ(have, want))
    if certain:
        more = len(shape) > x.rank
        tail = "; axes are paired from the last" if more else ""
        text = "new axes come in front: make one elsewhere before, unsqueeze([...])"
        raise OpError(
            f"{what}: {certain}{tail}",
            attributes=("shape",),
            operands=("x",),
            help=(text,) if more else (),
        )
    for have, want in pairs:
        error = disagreement(what, have, want, ("x",))
        if isinstance(want, int) and not isinstance(have, int):
            error.help = (f"{have} stays open: -1 leaves a size as it is",)
        raise error
    return {**call.attributes, "shape": shape}


def infer_expand(call: Call) -> tuple[TensorType, ...]:
    """y[shape..] of the dtype of x."""
    return (TensorType(call.type("x").dtype, call["shape"]),)


def kernel_expand(call: Call) -> TensorExpr:
    """y[i..] = x[i..], 0 along axes of extent 1"""
    x = call.type("x")
    axes = axes_over(call.outputs[0].shape)
    own = axes[len(axes) - x.rank :]
    index = tuple(0 if extent == 1 else axis.i for extent, axis in zip(x.shape, own, strict=True))
    return moved(call, axes, index)


EXPAND = OpDef(
    name="expand",
    aliases=(),
    doc="Axes of extent 1 repeated, new ones in front, as NumPy broadcasts.",
    operands=(Operand("x"),),
    attributes=(Attribute("shape", Kind.SHAPE, REQUIRED, "the new shape; -1 keeps an extent"),),
    outputs=("y",),
    resolve=resolve_expand,
    state=no_state,
    infer=infer_expand,
    window=derived,
    cost=no_contraction,
    kernel=kernel_expand,
    gradient=DERIVED,
)


def resolve_tile(call: Call) -> Mapping[str, Any]:
    """One number of repeats for each axis of x; raises OpError for another count."""
    x = call.type("x")
    repeats = entries(call, "repeats", x.rank)
    return {**call.attributes, "repeats": repeats}


def infer_tile(call: Call) -> tuple[TensorType, ...]:
    """x, each axis as many times as long."""
    x = call.type("x")
    shape = (extent * times for extent, times in zip(x.shape, call["repeats"], strict=True))
    return (TensorType(x.dtype, tuple(shape)),)


def kernel_tile(call: Call) -> TensorExpr:
    """y[i..] = x[i mod extent ..]"""
    axes = axes_over(call.outputs[0].shape)
    index: list[Dim] = []
    for axis, extent, times in zip(axes, call.type("x").shape, call["repeats"], strict=True):
        index.append(axis.i if times == 1 or extent == 0 else axis.i % extent)
    return moved(call, axes, tuple(index))


TILE = OpDef(
    name="tile",
    aliases=(),
    doc="x repeated along its axes.",
    operands=(Operand("x"),),
    attributes=(Attribute("repeats", Kind.INTS, REQUIRED, "how often, for every axis", minimum=1),),
    outputs=("y",),
    resolve=resolve_tile,
    state=no_state,
    infer=infer_tile,
    window=derived,
    cost=no_contraction,
    kernel=kernel_tile,
    gradient=DERIVED,
)

OPERATORS = (SLICE, PAD, EXPAND, TILE)
