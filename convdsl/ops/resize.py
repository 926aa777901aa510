"""Resizing of space: nearest and linear interpolation under every corner convention of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from struct import pack, unpack
from typing import Any

from convdsl.ir.derivative import derive_call
from convdsl.ir.opdef import (
    Attribute,
    Call,
    Derived,
    Doubt,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    Unproven,
    derived,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import entries
from convdsl.ir.windows import FITTING
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
)
from convdsl.tensor import Dim, DType, TensorType, bounds, ceil_div, dim_max, dim_min, floor_div

WHOLE = "whole"
NEAREST, LINEAR = "nearest", "linear"
CROP, TENSORFLOW = "tf_crop_and_resize", "tf_half_pixel_for_nn"
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    TENSORFLOW,
    CROP,
)
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


_SAID = "twice as large is resize(2); as large as another resize(size = y.space)"


def resolve_resize(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating, and either the size of the output or a scale, one number an axis
    of space; `coordinates` without `pytorch`, `mode` without the names of ranks. Raises OpError
    for other ranks, both or neither of size and scale, and a `roi` where the coordinates have
    none."""
    x = call.type("x")
    float_type(call)
    if x.rank < 3:
        raise OpError(f"resize needs batch, channels and space, not {x}", operands=("x",))
    if (call["size"] == FITTING) == (call["scale"] == FITTING):
        both = call["size"] != FITTING
        help = "leave one of them out: either follows from the other" if both else _SAID
        text = f"resize needs either a size or a scale, and has {'both' if both else 'neither'}"
        raise OpError(text, attributes=("size", "scale"), help=(help,))
    rank = x.rank - 2
    mode = NEAREST if call["mode"] == NEAREST else LINEAR
    coordinates = call["coordinates"]
    if coordinates == "pytorch":
        coordinates = "asymmetric" if mode == NEAREST else "half_pixel"
    if (coordinates == CROP) != (call["roi"] != WHOLE):
        raise OpError(f"roi belongs to {CROP}", attributes=("roi", "coordinates"))
    if call["roi"] != WHOLE and len(call["roi"]) != 2 * rank:
        raise OpError(f"roi needs {rank} starts and {rank} ends, from 0 to 1", attributes=("roi",))
    return {
        **call.attributes,
        "mode": mode,
        "coordinates": coordinates,
        "size": _per_axis(call, "size", rank),
        "scale": _per_axis(call, "scale", rank),
    }


_MOST = 32
"""What maps are enlarged by at once, at the most: FCN-32s goes back by the stride of VGG."""


def doubt_resize(call: Call) -> Doubt | None:
    """A scale that is meant for a size: `resize(224)`."""
    if call["scale"] == FITTING or min(call["scale"]) <= _MOST:
        return None
    numbers = [int(scale) if scale == int(scale) else scale for scale in call["scale"]]
    text = f"resize enlarges {'x'.join(map(str, numbers))} times: its first argument is a scale"
    help = f"to a size: `resize(size = {numbers})`; if it is meant, say so: `scale = ...`"
    return Doubt(text, help, "scale")


def _per_axis(call: Call, name: str, rank: int) -> Any:
    if call[name] == FITTING:
        return FITTING
    given = entries(call, name, rank)
    for entry in given:
        low = bounds(entry)[0] if name == "size" else entry
        if low is None or low <= 0:
            help = () if name == "size" else ("2 doubles, 0.5 halves",)
            raise OpError(f"cannot resize to {name} {entry}", attributes=(name,), help=help)
    return given


def rational(value: float) -> Fraction:
    """The number itself if single precision holds it, as ONNX's scales; else the fraction that a
    decimal stands for: 0.333333 is a third."""
    single = unpack("f", pack("f", value))[0] if abs(value) < DType.F32.largest else value
    return Fraction(value) if single == value else Fraction(value).limit_denominator(10**6)


def infer_resize(call: Call) -> tuple[TensorType, ...]:
    """size, or floor(extent * scale)"""
    x = call.type("x")
    if call["size"] != FITTING:
        if call["coordinates"] == TENSORFLOW:
            for extent, size in zip(x.shape[2:], call["size"], strict=True):
                _known_to_stay(extent, size)
        return (TensorType(x.dtype, (*x.shape[:2], *call["size"])),)
    space: list[Dim] = []
    for extent, scale in zip(x.shape[2:], call["scale"], strict=True):
        ratio = rational(scale)
        space.append(floor_div(extent * ratio.numerator, ratio.denominator))
        if bounds(space[-1])[1] == 0:
            raise OpError(
                f"nothing of {x} is left at scale {scale}", attributes=("scale",), operands=("x",)
            )
    return (TensorType(x.dtype, (*x.shape[:2], *space)),)


def _known_to_stay(extent: Dim, size: Dim) -> None:
    """Raises Unproven where it is open whether an axis is resized at all."""
    low, high = bounds(extent - size)
    if extent != size and (low is None or low <= 0) and (high is None or high >= 0):
        raise Unproven(f"{TENSORFLOW} needs to know whether {extent} is {size}", None)


@dataclass(frozen=True)
class _Source:
    """Where an output position lies in the input, exactly: numerator / denominator."""

    numerator: Dim
    denominator: Dim
    extent: Dim

    def nearest(self, rounding: str) -> Dim:
        match rounding:
            case "floor":
                place = floor_div(self.numerator, self.denominator)
            case "ceil":
                place = ceil_div(self.numerator, self.denominator)
            case "round_prefer_floor":
                place = ceil_div(self.numerator * 2 - self.denominator, self.denominator * 2)
            case _:
                place = floor_div(self.numerator * 2 + self.denominator, self.denominator * 2)
        return self.clamped(place)

    def clamped(self, place: Dim) -> Dim:
        return dim_min(dim_max(place, 0), self.extent - 1)

    @property
    def floor(self) -> Dim:
        return floor_div(self.numerator, self.denominator)

    @property
    def exact(self) -> bool:
        """Whether it is known to be a position of the input, not one between two."""
        return self.numerator == self.floor * self.denominator

    @property
    def beyond(self) -> tuple[IndexCompare, IndexCompare]:
        """Conditions that hold where the place is inside the input."""
        last = (self.extent - 1) * self.denominator
        return IndexCompare("ge", self.numerator, 0), IndexCompare("le", self.numerator, last)


def _source(call: Call, axis: int, o: Dim) -> _Source:
    """The source of output position o under the coordinate convention of the call.

    With the scale p / q, e the input's and f the output's extent:
        half_pixel            (o + 1/2) q/p - 1/2
        half_pixel_symmetric  the same, and (e - f q/p) / 2 further
        pytorch_half_pixel    the same as half_pixel, but 0 where f = 1
        align_corners         o (e - 1) / (f - 1), 0 where f = 1
        asymmetric            o q/p
        tf_half_pixel_for_nn  (o + 1/2) q/p, but o where p = q (as onnxruntime)
    """
    extent, size = call.type("x").shape[2 + axis], call.outputs[0].shape[2 + axis]
    p, q = _ratio(call, axis, extent, size)
    rest = dim_max(size - 1, 1)
    middle = (o * 2 + 1) * q - p
    match call["coordinates"]:
        case "half_pixel":
            top, bottom = middle, p * 2
        case "half_pixel_symmetric":
            top, bottom = middle + extent * p - size * q, p * 2
        case "pytorch_half_pixel":
            top, bottom = middle * dim_min(size - 1, 1), p * 2
        case "align_corners":
            top, bottom = o * (extent - 1), rest
        case "tf_half_pixel_for_nn" if p != q:
            top, bottom = (o * 2 + 1) * q, p * 2
        case "asymmetric" | "tf_half_pixel_for_nn":
            top, bottom = o * q, p
        case _:
            top, bottom = _cropped(call, axis, o)
    return _Source(top, bottom, extent)


def _ratio(call: Call, axis: int, extent: Dim, size: Dim) -> tuple[Dim, Dim]:
    """Numerator and denominator of the scale."""
    if call["scale"] != FITTING:
        ratio = rational(call["scale"][axis])
        return ratio.numerator, ratio.denominator
    if isinstance(extent, int) and isinstance(size, int):
        ratio = Fraction(size, extent)
        return ratio.numerator, ratio.denominator
    return size, extent


def _cropped(call: Call, axis: int, o: Dim) -> tuple[Dim, Dim]:
    """start (e - 1) + o (end - start) (e - 1) / (f - 1); the middle of both where f = 1."""
    extent, size = call.type("x").shape[2 + axis], call.outputs[0].shape[2 + axis]
    rank = len(call["roi"]) // 2
    start, end = rational(call["roi"][axis]), rational(call["roi"][rank + axis])
    common = lcm(start.denominator, end.denominator)
    first, last = int(start * common), int(end * common)
    if size == 1:
        return (extent - 1) * (first + last), common * 2
    if bounds(size)[0] == 1:
        raise OpError(f"{CROP} needs a known size", attributes=("size", "scale"))
    return (extent - 1) * ((size - 1) * first + o * (last - first)), (size - 1) * common


def kernel_resize(call: Call) -> TensorExpr:
    """nearest: y[n,c,p..] = x[n, c, rounded source of p ..]
    linear: the neighbours of the source, weighted by its fraction, axis by axis"""
    x, (out,) = call.var("x"), call.outputs
    n, c = Axis("n", out.shape[0]), Axis("c", out.shape[1])
    positions = tuple(Axis(f"p{i}", extent) for i, extent in enumerate(out.shape[2:]))
    sources = tuple(_source(call, i, p.i) for i, p in enumerate(positions))
    stages: list[Stage] = []
    if call["mode"] == NEAREST:
        at = (source.nearest(call["rounding"]) for source in sources)
        body: Expr = Read(x, (n.i, c.i, *at))
    else:
        stages = [
            _fractions(out, i, position, source)
            for i, (position, source) in enumerate(zip(positions, sources, strict=True))
        ]
        weights = [stage.target[stage.axes[0].i] for stage in stages]
        body = _interpolated(x, (n.i, c.i), sources, weights)
    if call["coordinates"] == CROP:
        for source in sources:
            for condition in source.beyond:
                body = Select(condition, body, Literal(call["extrapolation"], out.dtype))
    y = Stage(TensorVar("y", out), (n, c, *positions), body)
    return TensorExpr((x,), (*stages, y), ("y",))


def _fractions(out: TensorType, number: int, position: Axis, source: _Source) -> Stage:
    """fraction[p] = source of p minus its floor"""
    rest = source.numerator - source.floor * source.denominator
    top, bottom = IndexValue(rest, out.dtype), IndexValue(source.denominator, out.dtype)
    type = TensorType(out.dtype, (position.extent,))
    return Stage(TensorVar(f"fraction{number}", type), (position,), top / bottom)


def _interpolated(
    x: TensorVar, at: tuple[Dim, ...], sources: tuple[_Source, ...], weights: list[Read]
) -> Expr:
    """a (1 - w) + b w along the first axis left, a and b interpolated along the others."""
    if not sources:
        return Read(x, at)
    first, rest = sources[0], sources[1:]
    if first.exact:
        return _interpolated(x, (*at, first.clamped(first.floor)), rest, weights[1:])
    a, b = (
        _interpolated(x, (*at, first.clamped(first.floor + step)), rest, weights[1:])
        for step in (0, 1)
    )
    return a * (1.0 - weights[0]) + b * weights[0]


def gradient_resize(p: Pullback) -> Gradients:
    """Axis by axis, since values arise so: of neighbours along all axes at once there are more.

    dx = R_1' (R_2' dy), where R_k' is the transpose of resizing along axis k alone
    """
    x, y, found = p.operand("x").type, p.y.type, p.dy
    for axis in reversed(range(2, x.rank)):
        before = TensorType(x.dtype, (*y.shape[:axis], *x.shape[axis:]))
        after = TensorType(x.dtype, (*y.shape[: axis + 1], *x.shape[axis + 1 :]))
        call = _ALONG.call({"x": before}, _along(p.node.attributes, axis - 2, before, after))
        made = derive_call(p.build, call, {}, {"dy": found}, "x")
        assert made is not None, "a resized tensor depends on what was resized"
        found = made
    return {"x": found}


def _along(
    attributes: Mapping[str, Any], axis: int, before: TensorType, after: TensorType
) -> dict[str, Any]:
    """The attributes of a call that resizes one axis of space alone."""
    own, rank = dict(attributes), before.rank - 2
    if own["size"] != FITTING:
        own["size"] = after.shape[2:]
    else:
        own["scale"] = tuple(own["scale"][i] if i == axis else 1.0 for i in range(rank))
    if own["roi"] != WHOLE:
        starts, ends = own["roi"][:rank], own["roi"][rank:]
        own["roi"] = tuple(
            value if i == axis else whole
            for part, whole in ((starts, 0.0), (ends, 1.0))
            for i, value in enumerate(part)
        )
    return own


_ALONG = OpDef(
    name="resize.along",
    aliases=(),
    doc="""Space at another size, by the nearest or by linear interpolation of neighbours.

    Conventions as ONNX Resize; the source of every position is computed in exact fractions.""",
    operands=(Operand("x"),),
    attributes=(
        Attribute(
            "scale",
            Kind.ARRAY,
            FITTING,
            "enlargement of all axes or each; fitting: as the size asks for",
            choices=(FITTING,),
        ),
        Attribute(
            "mode",
            Kind.STRING,
            NEAREST,
            "how values arise; nearest, as PyTorch (bilinear and trilinear are linear)",
            choices=(NEAREST, LINEAR, "bilinear", "trilinear"),
        ),
        Attribute(
            "coordinates",
            Kind.STRING,
            "pytorch",
            "where a position lies; pytorch: asymmetric if nearest, else half_pixel",
            choices=("pytorch", *COORDINATES),
        ),
        Attribute(
            "size",
            Kind.SHAPE,
            FITTING,
            "spatial size of the output; fitting: as the scale asks for",
            choices=(FITTING,),
            keyword_only=True,
        ),
        Attribute(
            "rounding",
            Kind.STRING,
            "floor",
            "which position is nearest; floor, as PyTorch",
            choices=ROUNDINGS,
            keyword_only=True,
        ),
        Attribute(
            "roi",
            Kind.ARRAY,
            WHOLE,
            f"starts, then ends, per axis, from 0 to 1, for {CROP}",
            choices=(WHOLE,),
            keyword_only=True,
        ),
        Attribute(
            "extrapolation", Kind.FLOAT, 0.0, f"value outside, for {CROP}", keyword_only=True
        ),
    ),
    outputs=("y",),
    resolve=resolve_resize,
    state=no_state,
    infer=infer_resize,
    window=derived,
    cost=no_contraction,
    kernel=kernel_resize,
    gradient=Derived(search=True),
)

RESIZE = replace(
    _ALONG,
    name="resize",
    aliases=("upsample", "interpolate"),
    gradient=Rule(gradient_resize, "axis by axis"),
    doubt=doubt_resize,
)

OPERATORS = (RESIZE,)
