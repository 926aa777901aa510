"""Sampling at positions between elements, which are data: by a grid, or beside a filter's taps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Cost,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Role,
    StateSpec,
    derived,
    float_type,
    no_contraction,
    no_state,
    size_for_weights,
)
from convdsl.ir.places import digits
from convdsl.ir.shapes import disagreement
from convdsl.ir.windows import (
    FILTERS,
    explicit_window,
    resolve_padding,
    resolve_sizes,
    window_extents,
)
from convdsl.kernel import expr
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
    lift,
    maximum,
    minimum,
)
from convdsl.tensor import Dim, DType, TensorType

NEAREST, LINEAR, CUBIC = "nearest", "linear", "cubic"
ZEROS, BORDER, REFLECTION = "zeros", "border", "reflection"

How: TypeAlias = "Mapping[str, Any]"
"""The words of a grid's sampling: mode, padding, align_corners."""

TAPS = {NEAREST: 1, LINEAR: 2, CUBIC: 4}
"""Neighbours along an axis that a value is made of."""

_FIRST = {NEAREST: 0, LINEAR: 0, CUBIC: -1}
_SHARPNESS = -0.75
"""Of cubic weights, as PyTorch and ONNX have it. Keys 1981."""


def resolve_grid_sample(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..] and grid[N, space.., axes], floating alike; the linear mode by one name.
    Raises OpError for others, and for cubic sampling of anything but planes."""
    x, grid = call.type("x"), call.type("grid")
    float_type(call)
    what = f"cannot sample {x} at {grid}"
    rank = x.rank - 2
    if x.rank < 3 or grid.rank != x.rank or x.dtype is not grid.dtype:
        raise OpError(what, operands=("grid", "x"))
    if grid.shape[-1] != rank:
        found = disagreement(
            f"{what}: a position has {rank} numbers", grid.shape[-1], rank, ("grid",)
        )
        if grid.shape[1] == rank:
            last = [0, *range(2, grid.rank), 1]
            found.help = (f"its axis stands last: grid -> transpose({last})", *found.help)
        raise found
    if x.shape[0] != grid.shape[0]:
        raise disagreement(what, x.shape[0], grid.shape[0], ("grid", "x"))
    mode = LINEAR if call["mode"] in ("bilinear", "trilinear") else call["mode"]
    mode = CUBIC if mode == "bicubic" else mode
    if mode == CUBIC and rank != 2:
        raise OpError(f"cubic sampling is of planes, not of {x}", attributes=("mode",))
    return {**call.attributes, "mode": mode}


def infer_grid_sample(call: Call) -> tuple[TensorType, ...]:
    """y[N, C, the grid's space..]"""
    x, grid = call.type("x"), call.type("grid")
    return (TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1])),)


# Where a position lies


def _unfolded(call: Call, g: Expr, extent: Dim) -> Expr:
    """The position along an axis that -1 .. 1 says: of the outermost elements' middles with
    `align_corners`, else of their outer edges."""
    size = IndexValue(extent, g.dtype)
    if call["align_corners"]:
        return (g + 1.0) * 0.5 * (size - 1.0)
    return ((g + 1.0) * size - 1.0) * 0.5


def _reflected(how: How, x: Expr, extent: Dim) -> Expr:
    """Thrown back at the borders as often as it takes: width - |(|x - low| mod 2 width) - width|"""
    if extent == 1:
        return Literal(0.0, x.dtype)
    low, width = (0.0, extent - 1) if how["align_corners"] else (-0.5, extent)
    size = IndexValue(width, x.dtype)
    turn = Binary("mod", Unary("abs", x - low), size * 2.0)
    return size - Unary("abs", turn - size) + low


def _kept(how: How, x: Expr, extent: Dim) -> Expr:
    """The position as the padding has it. With zeros around, as far out as no neighbour reaches."""
    last = IndexValue(extent, x.dtype) - 1.0
    if how["padding"] == ZEROS:
        return minimum(maximum(x, -3.0), last + 3.0)
    if how["padding"] == REFLECTION:
        x = _reflected(how, x, extent)
    return minimum(maximum(x, 0.0), last)


def _position(call: Call, g: Expr, extent: Dim) -> Expr:
    """Where a sample lies along an axis; the neighbours of a cubic one are kept one by one."""
    x = _unfolded(call, g, extent)
    if call["mode"] != CUBIC:
        return _kept(call.attributes, x, extent)
    far = IndexValue(extent, x.dtype) * 1e6  # where no integer is between neighbours any more
    return minimum(maximum(x, -1.0 * far), far)


def _begin(how: How, x: Expr) -> Expr:
    """The neighbour that others are counted from."""
    return Unary("round" if how["mode"] == NEAREST else "floor", x)


def _neighbour(how: How, x: Expr, extent: Dim, tap: Dim) -> Expr:
    """The element that a tap falls on, i64; with zeros around, one that there may not be."""
    place = _begin(how, x) + IndexValue(tap + _FIRST[how["mode"]], x.dtype)
    if how["mode"] == CUBIC and how["padding"] != ZEROS:
        place = _kept(how, place, extent)
    place = Cast(place, DType.I64)
    if how["padding"] == ZEROS:
        return place
    last = IndexValue(extent - 1, DType.I64)
    return minimum(maximum(place, 0), last)


def _weight(how: How, x: Expr, tap: Dim) -> Expr:
    """How much a tap counts: 1; t or 1 - t of what is left of the position; Keys' cubic of the
    distance."""
    if how["mode"] == NEAREST:
        return Literal(1.0, x.dtype)
    t = x - Unary("floor", x)
    if how["mode"] == LINEAR:
        return Select(IndexCompare("eq", tap, 0), 1.0 - t, t)
    a = _SHARPNESS
    near = [((a + 2.0) * d - (a + 3.0)) * d * d + 1.0 for d in (t, 1.0 - t)]
    far = [((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a for d in (t + 1.0, 2.0 - t)]
    inner = Select(IndexCompare("eq", tap, 1), near[0], near[1])
    outer = Select(IndexCompare("eq", tap, 0), far[0], far[1])
    between = Binary("and", IndexCompare("ge", tap, 1), IndexCompare("le", tap, 2))
    return Select(between, inner, outer)


# The expression


def kernel_grid_sample(call: Call) -> TensorExpr:
    """p_k[n, o..] = the position along axis k of space that grid[n, o.., ..] says
    at[t, n, o..] = the element that corner t falls on, counted row-major; -1 where there is none
    w[t, n, o..] = the product over k of how much it counts
    y[n, c, o..] = sum over t of w[t, n, o..] * x[n, c, at[t, n, o..]], of no element 0"""
    return _sampled(call, flattened=False)


def form_grid_sample(call: Call) -> TensorExpr:
    """The same of x with its space as one axis, of which positions can be turned around."""
    return _sampled(call, flattened=True)


def _sampled(call: Call, *, flattened: bool) -> TensorExpr:
    x, grid, (out,) = call.var("x"), call.var("grid"), call.outputs
    space = x.type.shape[2:]
    rank, taps = len(space), TAPS[call["mode"]]
    outer = axes_over(out.shape)
    at_output = tuple(axis.i for axis in outer)
    frame = (outer[0], *outer[2:])
    at = tuple(axis.i for axis in frame)
    shape = tuple(axis.extent for axis in frame)
    stages: list[Stage] = []

    def stage(name: str, dtype: DType, axes: Sequence[Axis], body: Expr) -> TensorVar:
        target = TensorVar(name, TensorType(dtype, tuple(axis.extent for axis in axes)))
        stages.append(Stage(target, tuple(axes), body))
        return target

    places: list[Expr] = []
    for k, extent in enumerate(space):
        g = Read(grid, (*at, rank - 1 - k))
        places.append(Read(stage(f"p{k}", out.dtype, frame, _position(call, g, extent)), at))
    corner = Axis("t", taps**rank)
    taken = [corner.i // taps ** (rank - 1 - k) % taps for k in range(rank)]
    found = stage(
        "at", DType.I64, (corner, *frame), _row_major(call.attributes, places, space, taken)
    )
    weights = [_weight(call.attributes, p, tap) for p, tap in zip(places, taken, strict=True)]
    weight: Expr = weights[0]
    for factor in weights[1:]:
        weight = weight * factor
    counted = stage("w", out.dtype, (corner, *frame), weight)
    flat = Axis("v", prod(space))
    index = digits(flat.i, space)
    value: Expr = Read(x, (*at_output[:2], *index))
    if flattened:
        axes = (*outer[:2], flat)
        value = Read(stage("flat", out.dtype, axes, value), (*at_output[:2], flat.i))
    inner = Axis("s", corner.extent)
    outside = 0.0 if call["padding"] == ZEROS else None
    picked = Pick(flat, Read(found, (inner.i, *at)), value, outside=outside)
    body = Reduce("sum", (inner,), Read(counted, (inner.i, *at)) * picked)
    assert shape == stages[0].target.type.shape
    stages.append(Stage(TensorVar("y", out), outer, body))
    return TensorExpr((x, grid), tuple(stages), ("y",))


def _row_major(
    how: How, places: Sequence[Expr], space: Sequence[Dim], digits: Sequence[Dim]
) -> Expr:
    """The element of a corner as one number; -1 where zeros lie."""
    number: Expr | None = None
    inside: Expr | None = None
    for place, extent, digit in zip(places, space, digits, strict=True):
        own = _neighbour(how, place, extent, digit)
        size = IndexValue(extent, DType.I64)
        number = own if number is None else number * size + own
        within = Binary("and", Compare("ge", own, lift(0, DType.I64)), Compare("lt", own, size))
        inside = within if inside is None else Binary("and", inside, within)
    assert number is not None
    assert inside is not None
    return Select(inside, number, lift(-1, DType.I64)) if how["padding"] == ZEROS else number


GRID_SAMPLE = OpDef(
    name="grid_sample",
    aliases=(),
    doc="""x at the positions of a grid, from -1 at its beginning to 1 at its end.

    The last axis of the grid says a position, the last axis of space first, as PyTorch's.
    Jaderberg et al. 2015, arXiv:1506.02025.""",
    operands=(Operand("x"), Operand("grid")),
    attributes=(
        Attribute(
            "mode",
            Kind.STRING,
            LINEAR,
            "how values arise between elements; linear, as PyTorch",
            choices=(NEAREST, LINEAR, CUBIC, "bilinear", "trilinear", "bicubic"),
        ),
        Attribute(
            "padding",
            Kind.STRING,
            ZEROS,
            "what lies outside; zeros, as PyTorch",
            choices=(ZEROS, BORDER, REFLECTION),
        ),
        Attribute(
            "align_corners",
            Kind.BOOL,
            False,
            "whether -1 and 1 are the middles of the outermost elements, or their outer edges",
        ),
    ),
    outputs=("y",),
    resolve=resolve_grid_sample,
    state=no_state,
    infer=infer_grid_sample,
    window=derived,
    cost=no_contraction,
    kernel=kernel_grid_sample,
    gradient=Derived(form=form_grid_sample),
)

# Beside the taps of a filter

_AROUND = {"mode": LINEAR, "padding": ZEROS}
_PLANE = 2


def _offset_groups(call: Call) -> int:
    """Parts of the channels that move together: as the offsets say."""
    taps, said = prod(call["kernel"]), call.type("offset").shape[1]
    channels = call.type("x").shape[1]
    if not isinstance(said, int) or said % (_PLANE * taps) or not said:
        text = f"offsets are two numbers for each of {taps} taps, which {said} channels are not"
        raise OpError(text, operands=("offset",))
    groups = said // (_PLANE * taps)
    assert isinstance(channels, int)
    if channels % groups:
        text = f"{channels} channels do not divide into {groups} parts that move together"
        raise OpError(text, operands=("offset", "x"))
    return groups


def resolve_deform_conv(call: Call) -> Mapping[str, Any]:
    """x[N, C, H, W] with known C, offset[N, 2 * parts * taps, windows..] and, where there is one,
    mask[N, parts * taps, windows..], floating alike. Raises OpError for others."""
    x, offset = call.type("x"), call.type("offset")
    float_type(call)
    if x.rank != 2 + _PLANE or offset.rank != x.rank or x.dtype is not offset.dtype:
        raise OpError(f"cannot convolve {x} beside {offset}: both are planes", operands=("offset",))
    channels, groups = size_for_weights(call, 1, "channels"), call["groups"]
    if channels % groups or call["channels"] % groups:
        raise OpError(
            f"{channels} channels into {call['channels']} do not divide into {groups} groups",
            attributes=("channels", "groups"),
        )
    sizes = {name: resolve_sizes(call, name, _PLANE) for name in ("kernel", "stride", "dilation")}
    padding = resolve_padding(call, sizes["kernel"], sizes["stride"], sizes["dilation"])
    return {**call.attributes, **sizes, "pad": padding}


def state_deform_conv(call: Call) -> tuple[StateSpec, ...]:
    """weight[channels, C / groups, kernel..] and, where asked for, bias[channels]."""
    x, made = call.type("x"), call["channels"]
    channels = x.shape[1]
    assert isinstance(channels, int)
    shape = (made, channels // call["groups"], *call["kernel"])
    weight = StateSpec("weight", TensorType(x.dtype, shape), Role.PARAMETER, "kaiming_uniform")
    bias = StateSpec("bias", TensorType(x.dtype, (made,)), Role.PARAMETER, "fan_in_uniform")
    return (weight, bias) if call["bias"] else (weight,)


def infer_deform_conv(call: Call) -> tuple[TensorType, ...]:
    """y[N, channels, windows..]. Raises OpError where offsets or mask are of other sizes."""
    x = call.type("x")
    places = window_extents(call, explicit_window(call))
    parts = _offset_groups(call)
    taps = parts * prod(call["kernel"])
    for name, channels in (("offset", _PLANE * taps), ("mask", taps)):
        if not call.has(name):
            continue
        wanted = (x.shape[0], channels, *places)
        type = call.type(name)
        if type.rank != len(wanted) or type.dtype is not x.dtype:
            raise OpError(f"{name} is {type}, not {TensorType(x.dtype, wanted)}", operands=(name,))
        for found, extent in zip(type.shape, wanted, strict=True):
            if found != extent:
                raise disagreement(f"{name} of {type}", found, extent, (name, "x"))
    return (TensorType(x.dtype, (x.shape[0], call["channels"], *places)),)


def cost_deform_conv(call: Call) -> Cost:
    """As of a convolution: what is between elements is no multiply-accumulate."""
    channels, (out,) = call.type("weight").shape[1], call.outputs
    return Cost(out.elements * channels * prod(call["kernel"]), expr.flops(call.kernel))


def kernel_deform_conv(call: Call) -> TensorExpr:
    """p[n, g, r.., o..] = o * U + r * D - P + offset[n, g, r.., o..], along each axis
    taken[n, o.., r.., c] = x[n, c] between the four elements around p, 0 outside, times the mask
    y[n, k, o..] = bias[k] + sum over c, r.. of taken[n, o.., r.., g * C/G + c] * w[k, c, r..]

    Channels lie last on the way: all of a position move alike, and are read in whole vectors."""
    x, offset, filters, (out,) = (*map(call.var, ("x", "offset", "weight")), call.outputs)
    space, kernel, window = x.type.shape[2:], call["kernel"], explicit_window(call)
    parts, channels = _offset_groups(call), filters.type.shape[1] * call["groups"]
    n, o = Axis("n", out.shape[0]), [Axis(f"p{i}", out.shape[2 + i]) for i in range(_PLANE)]
    r = [Axis(f"r{i}", extent) for i, extent in enumerate(kernel)]
    part = Axis("g", parts)
    frame = (n, part, *r, *o)
    at, tap = tuple(axis.i for axis in frame), r[0].i * kernel[1] + r[1].i
    number = part.i * prod(kernel) + tap
    stages: list[Stage] = []

    def stage(name: str, dtype: DType, axes: Sequence[Axis], body: Expr) -> TensorVar:
        target = TensorVar(name, TensorType(dtype, tuple(axis.extent for axis in axes)))
        stages.append(Stage(target, tuple(axes), body))
        return target

    places: list[Expr] = []
    for k, extent in enumerate(space):
        begin = o[k].i * window.stride[k] + r[k].i * window.dilation[k] - window.padding[k][0]
        moved = Read(offset, (n.i, _PLANE * number + k, o[0].i, o[1].i))
        place = _kept(_AROUND, IndexValue(begin, out.dtype) + moved, extent)
        places.append(Read(stage(f"p{k}", out.dtype, frame, place), at))
    corner = Axis("t", TAPS[LINEAR] ** _PLANE)
    sides = [corner.i // 2, corner.i % 2]
    found = stage("at", DType.I64, (corner, *frame), _row_major(_AROUND, places, space, sides))
    counted: Expr = _weight(_AROUND, places[0], sides[0]) * _weight(_AROUND, places[1], sides[1])
    if call.has("mask"):
        counted = counted * Read(call.var("mask"), (n.i, number, o[0].i, o[1].i))
    share = stage("w", out.dtype, (corner, *frame), counted)

    c, flat = Axis("c", channels), Axis("v", prod(space))
    value: Expr = Read(x, (n.i, c.i, *digits(flat.i, space)))
    rows = stage("rows", out.dtype, (n, flat, c), value)
    inner, order = Axis("s", corner.extent), (*o, *r)
    together: Dim = 0 if parts == 1 else c.i // (channels // parts)
    where = (inner.i, n.i, together, *(axis.i for axis in (*r, *o)))
    near = Pick(flat, Read(found, where), Read(rows, (n.i, flat.i, c.i)), outside=0.0)
    taken = Reduce("sum", (inner,), Read(share, where) * near)
    columns = stage("taken", out.dtype, (n, *order, c), taken)

    k, own = Axis("k", out.shape[1]), Axis("c", filters.type.shape[1])
    group = k.i // (call["channels"] // call["groups"])
    at_column = (n.i, *(axis.i for axis in order), group * own.extent + own.i)
    product = Read(columns, at_column) * Read(filters, (k.i, own.i, r[0].i, r[1].i))
    body: Expr = Reduce("sum", (own, *r), product)
    inputs = [v for v in ("x", "offset", "mask", "weight", "bias") if call.has(v)]
    if call.has("bias"):
        body = body + Read(call.var("bias"), (k.i,))
    stages.append(Stage(TensorVar("y", out), (n, k, *o), body))
    return TensorExpr(tuple(map(call.var, inputs)), tuple(stages), ("y",))


DEFORM_CONV = OpDef(
    name="deform_conv",
    aliases=("deform_conv2d",),
    doc="""Convolution of planes whose taps are moved by data, each at each position.

    Offsets are how far down and across, for each tap, in channels; a mask says how much a tap
    counts. Dai et al. 2017, arXiv:1703.06211; Zhu et al. 2018, arXiv:1811.11168.""",
    operands=(
        Operand("x"),
        Operand("offset"),
        Operand("mask", optional=True),
        Operand("weight", Role.PARAMETER),
        Operand("bias", Role.PARAMETER, optional=True),
    ),
    attributes=FILTERS,
    outputs=("y",),
    resolve=resolve_deform_conv,
    state=state_deform_conv,
    infer=infer_deform_conv,
    window=derived,
    cost=cost_deform_conv,
    kernel=kernel_deform_conv,
    gradient=DERIVED,
)

OPERATORS = (GRID_SAMPLE, DEFORM_CONV)
