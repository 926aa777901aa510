"""Regions of maps at one size: what detectors look at a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    derived,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.shapes import disagreement
from convdsl.ir.windows import resolve_sizes
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
    lookup,
    maximum,
    minimum,
)
from convdsl.tensor import DType, TensorType

MEAN, LARGEST = "mean", "max"

ADAPTIVE = 0
"""As many samples along an axis as a cell has elements of the map, begun ones counted."""

NOWHERE = -2.0
"""A position so far before the map that none of its neighbours is in it."""

_COORDINATES = 4


def resolve_regions(call: Call) -> Mapping[str, Any]:
    """x[N, C, H, W], regions[R, 4] floating alike, images[R] of i64; the size as two numbers.
    Raises OpError for others, and for the largest of an adaptive number of samples."""
    x, regions, images = (call.type(name) for name in ("x", "regions", "images"))
    float_type(call)
    what = f"cannot take {regions} from {x}"
    if x.rank != 4 or regions.rank != 2 or x.dtype is not regions.dtype:
        raise OpError(f"{what}: regions are [R, 4], maps [N, C, H, W]", operands=("regions", "x"))
    if regions.shape[1] != _COORDINATES:
        corners = f"{what}: a region is left, top, right, bottom"
        raise disagreement(corners, regions.shape[1], _COORDINATES, ("regions",))
    if images.rank != 1 or images.dtype is not DType.I64:
        raise OpError(f"{what}: its images are [R], i64, not {images}", operands=("images",))
    if images.shape[0] != regions.shape[0]:
        raise disagreement(what, images.shape[0], regions.shape[0], ("images", "regions"))
    if call.attributes.get("mode") == LARGEST and call["samples"] == ADAPTIVE:
        raise OpError("the largest of samples needs their number", attributes=("samples", "mode"))
    return {**call.attributes, "size": resolve_sizes(call, "size", 2)}


def infer_regions(call: Call) -> tuple[TensorType, ...]:
    """y[R, C, size..]"""
    x, regions = call.type("x"), call.type("regions")
    return (TensorType(x.dtype, (regions.shape[0], x.shape[1], *call["size"])),)


@dataclass(frozen=True)
class _Side:
    """One axis of space, 2 or 3, of all regions r: what is said of their cells p along it."""

    call: Call
    number: int
    stages: list[Stage]

    @property
    def dtype(self) -> DType:
        return self.call.outputs[0].dtype

    @property
    def extent(self) -> Expr:
        """Of the map."""
        return IndexValue(self.call.type("x").shape[self.number], self.dtype)

    @property
    def region(self) -> Axis:
        return Axis("r", self.call.type("regions").shape[0])

    @property
    def cells(self) -> int:
        return self.call["size"][self.number - 2]

    @property
    def cell(self) -> Axis:
        return Axis(self.name("p"), self.cells)

    def name(self, word: str) -> str:
        return f"{word}_{'hw'[self.number - 2]}"

    def corner(self, end: int) -> Expr:
        """Where a region begins (0) or ends (1), in elements of the map."""
        place = self.call.var("regions")[(self.region.i, 3 - self.number + 2 * end)]
        return place * Literal(self.call["scale"], self.dtype)

    def stage(self, word: str, axes: tuple[Axis, ...], body: Expr) -> TensorVar:
        shape = tuple(axis.extent for axis in axes)
        target = TensorVar(self.name(word), TensorType(body.dtype, shape))
        self.stages.append(Stage(target, axes, body))
        return target


def _both(a: Expr, b: Expr) -> Expr:
    return Binary("and", a, b)


def _expression(call: Call, rows: _Side, columns: _Side, body: Expr) -> TensorExpr:
    """The stages of both sides, and y[r, c, p_h, p_w]."""
    axes = (rows.region, Axis("c", call.type("x").shape[1]), rows.cell, columns.cell)
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    operands = tuple(call.var(name) for name in ("x", "regions", "images"))
    return TensorExpr(operands, (*rows.stages, y), ("y",))


# Samples between elements


@dataclass(frozen=True)
class _Samples:
    """Where cells are sampled along a side.

    at: [r, p, t], from the first element of the map to the last, or NOWHERE.
    count: how many samples a cell has, [r]; those of them that are no t lie outside the map.
    """

    side: _Side
    tap: Axis
    at: TensorVar
    count: Expr

    def place(self, tap: Axis) -> Expr:
        return Read(self.at, (self.side.region.i, self.side.cell.i, tap.i))


def _cells(side: _Side) -> tuple[Expr, Expr]:
    """(where a region begins, how long its cells are); one element at least unless aligned."""
    shift = 0.5 if side.call["aligned"] else 0.0
    begin = side.stage("begin", (side.region,), side.corner(0) - shift)[side.region.i]
    length = side.corner(1) - shift - begin
    length = length if side.call["aligned"] else maximum(length, 1.0)
    cell = length / Literal(side.cells, side.dtype)
    return begin, side.stage("cell", (side.region,), cell)[side.region.i]


def _samples(side: _Side) -> _Samples:
    """Sample s of cell p lies at begin + p cell + (s + 1/2) cell / count

    of which -1 .. extent counts as in the map. An adaptive count has no bound; but where it is more
    than one, samples are more than half an element apart, so that at most 2 (extent + 1) + 1 are in
    the map. The first of them may be found one off by rounding, at either end.
    """
    (begin, cell), dtype = _cells(side), side.dtype
    start = begin + IndexValue(side.cell.i, dtype) * cell
    count: Expr = Literal(side.call["samples"], dtype)
    tap = Axis(side.name("t"), side.call["samples"])
    sample: Expr = IndexValue(tap.i, dtype)
    divisor = count
    if side.call["samples"] == ADAPTIVE:
        count = side.stage("count", (side.region,), maximum(Unary("ceil", cell), 0.0))[
            side.region.i
        ]
        divisor = maximum(count, 1.0)
        skipped = Unary("ceil", (-1.0 - start) * divisor / cell - 0.5) - 1.0
        first = side.stage("first", (side.region, side.cell), maximum(skipped, 0.0))
        tap = Axis(side.name("t"), 2 * side.call.type("x").shape[side.number] + 5)
        sample = first[(side.region.i, side.cell.i)] + IndexValue(tap.i, dtype)
    place = start + (sample + 0.5) * cell / divisor
    inside = _both(Compare("ge", place, Literal(-1.0, dtype)), Compare("le", place, side.extent))
    inside = _both(inside, Compare("lt", sample, count))
    kept = minimum(maximum(place, 0.0), side.extent - 1.0)
    body = Select(inside, kept, Literal(NOWHERE, dtype))
    return _Samples(side, tap, side.stage("at", (side.region, side.cell, tap), body), count)


@dataclass(frozen=True)
class _Neighbours:
    """The two elements on either side of every sample: which, and how much they count.

    place, weight: [r, p, t, k], for neighbour k of sample t.
    """

    taps: tuple[Axis, Axis]
    place: Expr
    weight: Expr


def _neighbours(samples: _Samples) -> _Neighbours:
    """Of what is left of a position f, the second counts f and the first 1 - f."""
    side, tap, near = samples.side, samples.tap, Axis(samples.side.name("k"), 2)
    axes = (side.region, side.cell, tap, near)
    at = tuple(axis.i for axis in axes)
    whole, number = Unary("floor", samples.place(tap)), IndexValue(near.i, side.dtype)
    place = side.stage("place", axes, Cast(whole + number, DType.I64))
    hat = 1.0 - Unary("abs", samples.place(tap) - whole - number)
    return _Neighbours((tap, near), place[at], side.stage("weight", axes, hat)[at])


def kernel_roi_align(call: Call) -> TensorExpr:
    """w[r, p, t, k] = how much neighbour k of sample t counts, along either axis
    band[r, c, p_h, w] = sum over t, k of w_h[r, p_h, t, k] * x[images[r], c, floor(at_h) + k, w]
    y[r, c, p_h, p_w]  = sum over t, k of w_w[r, p_w, t, k] * band[r, c, p_h, floor(at_w) + k]
                         / samples, or the largest of what is summed over both"""
    if call["samples"] == ADAPTIVE:
        return products_roi_align(call)
    rows, columns = sides = _sides(call)
    above, beside = (_neighbours(_samples(side)) for side in sides)
    x, image = call.var("x"), Read(call.var("images"), (rows.region.i,))
    c, w = Axis("c", x.type.shape[1]), Axis(columns.name("x"), x.type.shape[3])
    if call["mode"] == LARGEST:
        value = lookup(x, (image, c.i, above.place, beside.place), outside=0.0)
        terms = above.weight * beside.weight * value
        return _expression(call, *sides, Reduce("max", (*above.taps, *beside.taps), terms))
    value = lookup(x, (image, c.i, above.place, w.i), outside=0.0)
    total = Reduce("sum", above.taps, above.weight * value)
    band = rows.stage("band", (rows.region, c, rows.cell, w), total)
    value = lookup(band, (rows.region.i, c.i, rows.cell.i, beside.place), outside=0.0)
    total = Reduce("sum", beside.taps, beside.weight * value)
    count = Literal(call["samples"] ** 2, rows.dtype)
    return _expression(call, *sides, total / count)


def products_roi_align(call: Call) -> TensorExpr:
    """a_h[r, p, h] = sum over samples of max(0, 1 - |at - h|), and a_w alike
    band[r, c, p_h, w]  = sum over h of a_h[r, p_h, h] * x[images[r], c, h, w]
    y[r, c, p_h, p_w]   = sum over w of a_w[r, p_w, w] * band[r, c, p_h, w] / samples"""
    sides = _sides(call)
    samples = [_samples(side) for side in sides]
    c, x = Axis("c", call.type("x").shape[1]), call.var("x")
    h, w = (Axis(side.name("x"), x.type.shape[side.number]) for side in sides)
    hats: list[TensorVar] = []
    for each, own in zip(samples, (h, w), strict=True):
        apart = Unary("abs", each.place(each.tap) - IndexValue(own.i, each.side.dtype))
        total = Reduce("sum", (each.tap,), maximum(1.0 - apart, 0.0))
        hats.append(each.side.stage("hat", (each.side.region, each.side.cell, own), total))
    rows, columns = sides
    r, p, q = rows.region, rows.cell, columns.cell
    image = Read(call.var("images"), (r.i,))
    value = lookup(x, (image, c.i, h.i, w.i))
    across = Reduce("sum", (h,), hats[0][(r.i, p.i, h.i)] * value)
    band = rows.stage("band", (r, c, p, w), across)
    total = Reduce("sum", (w,), hats[1][(r.i, q.i, w.i)] * band[(r.i, c.i, p.i, w.i)])
    count = samples[0].count * samples[1].count
    return _expression(call, *sides, total / maximum(count, 1.0))


def _sides(call: Call) -> tuple[_Side, _Side]:
    """Rows and columns, with one list of stages."""
    stages: list[Stage] = []
    return _Side(call, 2, stages), _Side(call, 3, stages)


def form_roi_align(call: Call) -> TensorExpr:
    """Means as products, which are turned around as such."""
    return kernel_roi_align(call) if call["mode"] == LARGEST else products_roi_align(call)


# Whole elements


def _rounded(x: Expr) -> Expr:
    """The nearest integer, halves away from zero, as C's round."""
    size = Unary("abs", x)
    whole = Unary("floor", size)
    up = Compare("ge", size - whole, Literal(0.5, x.dtype))
    whole = Select(up, whole + 1.0, whole)
    return Select(Compare("lt", x, Literal(0.0, x.dtype)), -whole, whole)


def _limits(side: _Side) -> tuple[TensorVar, TensorVar]:
    """The first element of a cell and the one behind its last, [r, p], both from 0 to extent."""
    begin = side.stage("begin", (side.region,), _rounded(side.corner(0)))[side.region.i]
    length = maximum(_rounded(side.corner(1)) - begin + 1.0, 1.0)
    cell = length / Literal(side.cells, side.dtype)
    cell = side.stage("cell", (side.region,), cell)[side.region.i]
    limits: list[TensorVar] = []
    for word, turn, end in (("low", "floor", 0), ("high", "ceil", 1)):
        edge = Unary(turn, IndexValue(side.cell.i + end, side.dtype) * cell) + begin
        edge = minimum(maximum(edge, 0.0), side.extent)
        limits.append(side.stage(word, (side.region, side.cell), edge))
    return limits[0], limits[1]


def kernel_roi_pool(call: Call) -> TensorExpr:
    """y[r, c, p_h, p_w] = max over h in low_h[r, p_h] .. high_h[r, p_h], w in low_w[r, p_w] ..
    high_w[r, p_w] of x[images[r], c, h, w]; 0 of a cell without elements"""
    rows, columns = sides = _sides(call)
    x, image = call.var("x"), Axis("image", call.type("x").shape[0])
    c, h, w = (Axis(name, extent) for name, extent in zip("chw", x.type.shape[1:], strict=True))
    cells = [_Cell(side, *_limits(side), along) for side, along in zip(sides, (h, w), strict=True)]
    within = _both(*(cell.within for cell in cells))
    value = Select(within, x[image.i, c.i, h.i, w.i], Literal(-float("inf"), x.type.dtype))
    largest: Expr = Reduce("max", (h, w), value)
    for cell in reversed(cells):
        largest = cell.bound(largest)
    largest = Pick(image, Read(call.var("images"), (rows.region.i,)), largest)
    body = Select(_both(*(cell.filled for cell in cells)), largest, Literal(0.0, rows.dtype))
    return _expression(call, rows, columns, body)


@dataclass(frozen=True)
class _Cell:
    """The elements of a cell along a side: from low[r, p] to before high[r, p], which are data, so
    that loops run over them alone."""

    side: _Side
    low: TensorVar
    high: TensorVar
    along: Axis

    def _edge(self, word: str) -> Axis:
        return Axis(self.side.name(word), self.along.extent + 1)

    def _limit(self, limit: TensorVar) -> Expr:
        return limit[(self.side.region.i, self.side.cell.i)]

    @property
    def within(self) -> Expr:
        """Whether an element is one of them, where `bound` says which they are."""
        start, stop = self._edge("start").i, self._edge("stop").i
        return _both(
            IndexCompare("ge", self.along.i, start), IndexCompare("lt", self.along.i, stop)
        )

    @property
    def filled(self) -> Expr:
        """Whether there are any."""
        return Compare("lt", self._limit(self.low), self._limit(self.high))

    def bound(self, body: Expr) -> Expr:
        """What is said of a cell, where that is known."""
        for word, limit in (("stop", self.high), ("start", self.low)):
            body = Pick(self._edge(word), Cast(self._limit(limit), DType.I64), body)
        return body


def form_roi_pool(call: Call) -> TensorExpr:
    """band[r, c, p_h, w] = max over h in low_h[r, p_h] .. high_h[r, p_h] of x[images[r], c, h, w],
    of which the first of equal rows is the one that counts; y as ever"""
    rows, columns = _sides(call)
    edges = [_limits(side) for side in (rows, columns)]
    x, image = call.var("x"), Read(call.var("images"), (rows.region.i,))
    c, h, w = (Axis(name, extent) for name, extent in zip("chw", x.type.shape[1:], strict=True))
    value = lookup(x, (image, c.i, h.i, w.i))
    axes = (rows.region, c, rows.cell, w)
    band = rows.stage("band", axes, _largest(rows, edges[0], h, value))
    return _pooled(call, rows, columns, edges, band)


def _largest(side: _Side, limits: tuple[TensorVar, TensorVar], along: Axis, value: Expr) -> Expr:
    """Of the values of a cell."""
    at, place = (side.region.i, side.cell.i), IndexValue(along.i, side.dtype)
    within = _both(Compare("ge", place, limits[0][at]), Compare("lt", place, limits[1][at]))
    return Reduce("max", (along,), Select(within, value, Literal(-float("inf"), side.dtype)))


def _pooled(
    call: Call,
    rows: _Side,
    columns: _Side,
    edges: list[tuple[TensorVar, TensorVar]],
    band: TensorVar,
) -> TensorExpr:
    """The largest of each band along its row; 0 of a cell without elements."""
    r, c, p, w = (Axis(name, extent) for name, extent in zip(_BAND, band.type.shape, strict=True))
    largest = _largest(columns, edges[1], w, band[(r.i, c.i, p.i, w.i)])
    filled = [
        Compare("lt", *(limit[(side.region.i, side.cell.i)] for limit in limits))
        for side, limits in zip((rows, columns), edges, strict=True)
    ]
    body = Select(_both(*filled), largest, Literal(0.0, rows.dtype))
    return _expression(call, rows, columns, body)


_BAND = ("r", "c", "p_h", "w")


_OPERANDS = (Operand("x"), Operand("regions"), Operand("images"))
_SIZE = Attribute("size", Kind.SIZES, REQUIRED, "height and width of every region", minimum=1)
_SCALE = Attribute("scale", Kind.FLOAT, 1.0, "elements of the map in one unit of the regions")

ROI_ALIGN = OpDef(
    name="roi_align",
    aliases=(),
    doc="""Regions of maps at one size, by samples between elements: [R, C, size..].

    A region is left, top, right, bottom, and lies in the map of `images`, one number for each. The
    mean of samples s x s a cell, each interpolated, outside of the map 0. He et al. 2017,
    arXiv:1703.06870, section 3; as torchvision and ONNX RoiAlign.""",
    operands=_OPERANDS,
    attributes=(
        _SIZE,
        _SCALE,
        Attribute(
            "samples",
            Kind.INT,
            ADAPTIVE,
            "along each axis of a cell; 0: as many as it has elements, as torchvision",
            minimum=0,
        ),
        Attribute(
            "aligned",
            Kind.BOOL,
            False,
            "whether 0 is the edge of the first element, not its middle; as torchvision",
        ),
        Attribute(
            "mode",
            Kind.STRING,
            MEAN,
            "mean, or of all neighbours of samples, weighted, the largest, as ONNX",
            choices=(MEAN, LARGEST),
        ),
    ),
    outputs=("y",),
    resolve=resolve_regions,
    state=no_state,
    infer=infer_regions,
    window=derived,
    cost=no_contraction,
    kernel=kernel_roi_align,
    gradient=Derived(form=form_roi_align),
)

ROI_POOL = OpDef(
    name="roi_pool",
    aliases=(),
    doc="""Regions of maps at one size, by the largest of their elements: [R, C, size..].

    A region is left, top, right, bottom, rounded, all of them in it, and lies in the map of
    `images`, one number for each. Girshick 2015, arXiv:1504.08083, section 2.1; as torchvision and
    ONNX MaxRoiPool.""",
    operands=_OPERANDS,
    attributes=(_SIZE, _SCALE),
    outputs=("y",),
    resolve=resolve_regions,
    state=no_state,
    infer=infer_regions,
    window=derived,
    cost=no_contraction,
    kernel=kernel_roi_pool,
    gradient=Derived(form=form_roi_pool),
)

OPERATORS = (ROI_ALIGN, ROI_POOL)
