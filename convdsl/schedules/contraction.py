"""Finds convolutions and matrix products in the structure of a stage.

A contraction is a stage whose body holds exactly one sum of products of two reads; all around it
is the epilogue. What an axis is follows from which of the two factors it moves, and nothing else:
neither the order of the factors, nor which of them is a weight, nor the name of an operator.
Axes of one position move nothing and play no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod

from convdsl.kernel.counting import decide
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Expr,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorVar,
    transform,
    walk,
)
from convdsl.kernel.nodes import IndexTest
from convdsl.schedules.emission import extent_of, index_tests
from convdsl.tensor import Dim, floor_div, substitute, symbols_of
from convdsl.tensor.records import record


@record
class Contraction:
    """y[batch.., m.., n..] = epilogue(sum over k.. of a[batch.., m.., k..] b[batch.., n.., k..])

    Indices of `a` and `b` have 0 for axes of one position. A window is an axis of `m` or `n` that
    meets one of `k` in the same component of an index. `alone` are summed axes that move one factor
    only; under `guards` (index tests) the product counts, elsewhere it is zero.
    """

    reduce: Reduce
    a: Read
    b: Read
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    k: tuple[Axis, ...]
    alone: tuple[Axis, ...]
    guards: tuple[IndexTest, ...]

    @property
    def turned(self) -> Contraction:
        """The same with the factors in the other order."""
        return replace(self, a=self.b, b=self.a, m=self.n, n=self.m)

    @property
    def of_matrices(self) -> bool:
        """Whether both factors are indexed by axes as they are: no windows, borders or groups."""
        indices = {0, *(axis.i for axis in (*self.batch, *self.m, *self.n, *self.k))}
        plain = all(index in indices for index in (*self.a.index, *self.b.index))
        inside = self.a.outside is None and self.b.outside is None
        return plain and inside and not self.guards and not self.alone


def find_contraction(stage: Stage, *, stored: bool = False) -> Contraction | None:
    """The only reduction of the stage, if that is a sum of products of two reads, in their own
    floating type. `stored`: or of halves, which are widened to it as they are read. A tensor that
    is both factors has two names (`factors_apart`), unless it is squared."""
    found = [node for node in walk(stage.body) if isinstance(node, Reduce)]
    if len(found) != 1 or found[0].op != "sum":
        return None
    reduce = found[0]
    product, guards = unguarded(reduce.body)
    if not (isinstance(product, Binary) and product.op == "mul"):
        return None
    if reduce.dtype is not product.dtype or not product.dtype.is_float:
        return None
    if _is_by_itself(product):
        return None
    unit = {axis.name: 0 for axis in (*stage.axes, *reduce.axes) if axis.extent == 1}
    factors = (as_stored(f) if stored else f for f in (product.a, product.b))
    a, b = (_settled(factor, unit) for factor in factors)
    tests = [_decided(test, unit) for test in guards]
    if a is None or b is None or False in tests:
        return None
    outs = [(axis, _moves(a, axis), _moves(b, axis)) for axis in stage.axes]
    summed = [(axis, _moves(a, axis), _moves(b, axis)) for axis in reduce.axes]
    return Contraction(
        reduce,
        a,
        b,
        batch=tuple(axis for axis, in_a, in_b in outs if in_a and in_b),
        m=tuple(axis for axis, in_a, in_b in outs if in_a and not in_b),
        n=tuple(axis for axis, in_a, in_b in outs if in_b and not in_a),
        k=tuple(axis for axis, in_a, in_b in summed if in_a and in_b),
        alone=tuple(axis for axis, in_a, in_b in summed if in_a != in_b),
        guards=tuple(test for test in tests if isinstance(test, IndexTest)),
    )


def factors_apart(stage: Stage) -> tuple[Stage, TensorVar, TensorVar] | None:
    """A stage that multiplies a tensor with itself, at other places, with another name for it where
    it is the second factor; the tensor under both names. None for any other stage. Schedules pack
    factors by name, each in a way of its own."""
    for reduce in (e for e in walk(stage.body) if isinstance(e, Reduce) and e.op == "sum"):
        product, _ = unguarded(reduce.body)
        if isinstance(product, Binary) and product.op == "mul" and _is_by_itself(product):
            first, second = (as_stored(factor) for factor in (product.a, product.b))
            if isinstance(second, Read) and first != second:
                again = replace(second.tensor, name=f"{second.tensor.name}_again")
                b = _put(product.b, second, replace(second, tensor=again))
                body = _put(stage.body, product, replace(product, b=b))
                return replace(stage, body=body), second.tensor, again
    return None


def _put(e: Expr, old: Expr, new: Expr) -> Expr:
    return transform(e, lambda node: new if node == old else None)


def _is_by_itself(product: Binary) -> bool:
    """Whether both factors are the same tensor."""
    a, b = as_stored(product.a), as_stored(product.b)
    return isinstance(a, Read) and isinstance(b, Read) and a.tensor == b.tensor


def unguarded(body: Expr) -> tuple[Expr, list[IndexTest]]:
    """What is summed where all guards hold, and the guards: select(test, product, 0)."""
    guards: list[IndexTest] = []
    while isinstance(body, Select):
        tests = index_tests(body.condition)
        if tests is None or not (isinstance(body.no, Literal) and body.no.value == 0):
            break
        guards += tests
        body = body.yes
    return body, guards


def _decided(test: IndexTest, unit: Mapping[str, Dim]) -> IndexTest | bool:
    bound = IndexTest(test.op, substitute(test.a, unit), substitute(test.b, unit))
    known = decide(bound)
    return bound if known is None else known


def as_stored(e: Expr) -> Expr:
    """What is widened to the type that it computes in (`kernel.storage`)."""
    widened = isinstance(e, Cast) and e.x.dtype.computed is e.type is not e.x.dtype
    return e.x if isinstance(e, Cast) and widened else e


def _settled(e: Expr, unit: Mapping[str, Dim]) -> Read | None:
    """The read with axes of one position at 0; None for anything but a read."""
    if not isinstance(e, Read):
        return None
    return Read(e.tensor, tuple(substitute(d, unit) for d in e.index), e.outside)


def _moves(read: Read, axis: Axis) -> bool:
    return any(depends(component, axis) for component in read.index)


def depends(index: Dim, axis: Axis) -> bool:
    """Whether the index moves with the axis."""
    return any(symbol.name == axis.name for symbol in symbols_of(index))


def _index_of(axis: Axis) -> Dim:
    """The axis as it stands in settled indices."""
    return 0 if extent_of(axis) == 1 else axis.i


# Convolutions


@record
class Space:
    """One spatial axis: input position = out * stride + tap * dilation - pad.

    `flip`: the filter is read from its far end, at taps - 1 - tap.
    """

    out: Axis
    tap: Axis | None  # None: a single tap
    extent: int  # of the input
    stride: int
    dilation: int
    pad: int
    flip: bool = False

    @property
    def taps(self) -> int:
        return 1 if self.tap is None else extent_of(self.tap)

    @property
    def outs(self) -> int:
        return extent_of(self.out)

    @property
    def inside(self) -> bool:
        """No tap ever leaves the input."""
        last = (self.outs - 1) * self.stride + (self.taps - 1) * self.dilation - self.pad
        return self.pad <= 0 and last < self.extent

    def of_filter(self, tap: Dim) -> Dim:
        """Where in the filter a tap stands."""
        return self.taps - 1 - tap if self.flip else tap


@record
class Convolution:
    """y[n, k, p..] = epilogue(sum over c, r.. of x[n, g C/G + c, p U + r D - P ..] w[k, c, r..])

    where g is the group that the output channel k belongs to. `order` says how the filters lie, if
    not so: for each axis of the array its position in [G, K/G, C/G, taps..], where an axis of the
    array may stand for two (g and c).
    """

    reduce: Reduce
    x: Read
    w: Read
    n: Axis
    k: Axis
    c: Axis | None  # None: one input channel a group
    groups: int
    space: tuple[Space, ...]
    order: tuple[int, ...] = ()

    @property
    def channels_in(self) -> int:
        """Input channels of one group."""
        return 1 if self.c is None else extent_of(self.c)

    @property
    def channels_out(self) -> int:
        """Output channels of one group."""
        return extent_of(self.k) // self.groups

    @property
    def taps(self) -> int:
        return prod(space.taps for space in self.space)


@lru_cache(maxsize=512)
def match_convolution(stage: Stage, *, stored: bool = False) -> Convolution | None:
    """The convolution that a stage is, or None: its axes are n, k and those of space."""
    found = find_contraction(stage, stored=stored)
    if found is None or len(stage.axes) < 3 or found.guards or found.alone:
        return None
    return _convolution(stage, found) or _convolution(stage, found.turned)


def _convolution(stage: Stage, found: Contraction) -> Convolution | None:
    """The convolution of `found.a` with the filters `found.b`."""
    x, w = found.a, found.b
    n, k, *outs = stage.axes
    if len(x.index) != 2 + len(outs) or x.index[0] != _index_of(n) or (x.outside or 0.0) != 0.0:
        return None
    if (w.outside or 0.0) != 0.0 or any(_moves(w, axis) for axis in (n, *outs)):
        return None  # indices that are found below never leave the filters
    c = next((axis for axis in found.k if depends(x.index[1], axis)), None)
    taps = [next((t for t in found.k if depends(at, t)), None) for at in x.index[2:]]
    used = [axis.name for axis in (c, *taps) if axis is not None]
    groups = _groups(x.index[1], k, c)
    if groups is None or sorted(used) != sorted(axis.name for axis in found.k):
        return None
    space: list[Space] = []
    for index, out, tap, extent in zip(
        x.index[2:], outs, taps, x.tensor.type.sizes[2:], strict=True
    ):
        made = _space(index, out, tap, extent)
        if made is None or (x.outside is None and not made.inside):
            return None
        space.append(made)
    conv = Convolution(found.reduce, x, w, n, k, c, groups, tuple(space))
    return _with_filters(conv)


def _with_filters(conv: Convolution) -> Convolution | None:
    """How the filters lie: which axis of the array is which, and which of them run backwards."""
    g, k, c, first_tap = 0, 1, 2, 3
    own, channel = _index_of(conv.k), conv.x.index[1]
    extents = [conv.groups, conv.channels_out, conv.channels_in, *(s.taps for s in conv.space)]
    order: list[int] = []
    flipped: set[int] = set()
    for index, extent in zip(conv.w.index, conv.w.tensor.type.sizes, strict=True):
        tap = _tap(index, conv.space)
        if index == 0:
            found = []
        elif index == own:
            found = [g, k]
        elif index == channel:
            found = [g, c]
        elif conv.groups > 1 and index == own % conv.channels_out:
            found = [k]
        elif conv.c is not None and index == conv.c.i:
            found = [c]
        elif tap is not None:
            found = [first_tap + tap[0]]
            flipped |= {tap[0]} if tap[1] else set()
        else:
            return None
        if prod(extents[position] for position in found) != extent:
            return None  # a part of the array
        order += [position for position in found if extents[position] > 1]
    if sorted(order) != [position for position, extent in enumerate(extents) if extent > 1]:
        return None
    space = tuple(replace(s, flip=s.flip != (i in flipped)) for i, s in enumerate(conv.space))
    return replace(conv, space=space, order=() if order == sorted(order) else tuple(order))


def _tap(index: Dim, space: tuple[Space, ...]) -> tuple[int, bool] | None:
    """(the spatial axis whose tap an index is, whether it runs backwards)."""
    for number, axis in enumerate(space):
        if axis.tap is not None and index == axis.tap.i:
            return number, False
        if axis.tap is not None and index == axis.taps - 1 - axis.tap.i:
            return number, True
    return None


def _groups(index: Dim, k: Axis, c: Axis | None) -> int | None:
    """Number of groups G where index = (k // (K / G)) * C/G + c."""
    channels_in = 1 if c is None else extent_of(c)
    rest = index - (0 if c is None else c.i)
    if rest == 0:
        return 1
    outputs = extent_of(k)
    for groups in range(2, outputs + 1):
        if outputs % groups == 0 and floor_div(k.i, outputs // groups) * channels_in == rest:
            return groups
    return None


def _space(index: Dim, out: Axis, tap: Axis | None, extent: int) -> Space | None:
    """Match index = out * stride + tap * dilation - pad; a tap that runs backwards is turned."""
    stride = coefficient(index, out)
    dilation = 1 if tap is None else coefficient(index, tap)
    at = {out.name: 0} | ({tap.name: 0} if tap is not None else {})
    constant = substitute(index, at)
    if stride is None or dilation is None or not isinstance(constant, int):
        return None
    if out.i * stride + (0 if tap is None else tap.i * dilation) + constant != index:
        return None
    if (stride < 1 and extent_of(out) > 1) or dilation == 0:
        return None
    flip = dilation < 0
    if tap is not None and flip:
        constant += (extent_of(tap) - 1) * dilation
    return Space(out, tap, extent, max(stride, 1), abs(dilation), -constant, flip)


def coefficient(index: Dim, axis: Axis) -> int | None:
    """How far the index moves for a step along the axis, where that is constant."""
    step = substitute(index, {axis.name: 1}) - substitute(index, {axis.name: 0})
    return step if isinstance(step, int) and not depends(index - axis.i * step, axis) else None


# Matrix products


@record
class Product:
    """y[outer.., rows.., v] = epilogue(sum over k.. of x[outer.., rows.., k..] w[outer.., v, k..])

    `v` is the axis that vectors of the output run along. Of the outer axes, batches move both
    factors, others one of them; the order is the output's.
    """

    reduce: Reduce
    x: Read
    w: Read
    v: Axis
    rows: tuple[Axis, ...]
    outer: tuple[Axis, ...]
    k: tuple[Axis, ...]

    @property
    def w_outer(self) -> tuple[Axis, ...]:
        """Outer axes that `w` moves with."""
        return tuple(axis for axis in self.outer if _moves(self.w, axis))


@lru_cache(maxsize=512)
def match_product(stage: Stage, v: Axis) -> Product | None:
    """The matrix product that a stage is, its vectors along an axis of the output that one
    factor alone moves with; or None."""
    found = find_contraction(stage)
    if found is None or found.guards or found.alone:
        return None
    if v in found.m:
        found = found.turned
    if v not in found.n or found.a.outside is not None or found.b.outside is not None:
        return None
    outer = tuple(axis for axis in stage.axes if axis != v and axis not in found.m)
    return Product(found.reduce, found.a, found.b, v, found.m, outer, found.k)


def matrix_order(product: Product) -> tuple[int, ...] | None:
    """For each axis of `w`, those of extent 1 left out, its position in [outer.., v, k..]; None
    where its indices are anything but those axes, each of them whole."""
    axes = (*product.w_outer, product.v, *product.k)
    order: list[int] = []
    for index, extent in zip(product.w.index, product.w.tensor.type.sizes, strict=True):
        if index == 0 and extent == 1:
            continue
        at = next((i for i, axis in enumerate(axes) if index == axis.i), None)
        if at is None or extent_of(axes[at]) != extent:
            return None
        order.append(at)
    return tuple(order) if len(set(order)) == len(order) == len(axes) else None
