"""The NumPy oracle of tensor expressions, and the arithmetic of weight time.

Each stage is evaluated over the grid of its axes. Every value is an array with one dimension
per axis in scope, of extent 1 where it does not depend on the axis, so that NumPy's own
broadcasting does the rest: reads along axes are views, only folded or guarded indices gather,
and sums of products go through einsum. Stages too large for memory are cut along their axes.

It computes in the dtypes that the expression states, those that are only stored widened
(`kernel.storage`). For weights in double precision, build the expression from f64 types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

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
    Unary,
    children,
    walk,
)
from convdsl.kernel.scalar import FUNCTIONS, REDUCTIONS
from convdsl.kernel.scatter import Scatter, match_scatter
from convdsl.kernel.storage import widened
from convdsl.tensor import Dim, DType, Symbol, symbols_of
from convdsl.tensor import evaluate as evaluate_dim
from convdsl.tensor.conversion import convert, stored

Array: TypeAlias = "np.ndarray[Any, Any]"

LARGEST_GRID = 16 * 2**20
"""Elements that one array of a stage's evaluation may have before the stage is cut."""


@dataclass
class Counter:
    """Counts arithmetic as it is executed, under the convention of convdsl.kernel.expr."""

    operations: int = 0

    def add(self, operations: int) -> None:
        """Count operations."""
        self.operations += operations


def evaluate(
    expr: TensorExpr, arrays: Mapping[str, Array], counter: Counter | None = None
) -> dict[str, Array]:
    """Outputs by name from inputs by name; all sizes known.

    Raises ValueError where arrays do not fit the declared types, and IndexError where an
    unguarded read leaves its tensor.
    """
    expr = widened(expr)
    known: dict[str, Array] = {}
    for x in expr.inputs:
        array = np.asarray(arrays[x.name])
        if array.shape != x.type.shape or array.dtype != x.type.dtype.numpy:
            found = f"{array.dtype}{list(array.shape)}"
            raise ValueError(f"{x.name} is declared {x.type}, the array is {found}")
        known[x.name] = array
    with np.errstate(all="ignore"):
        for stage in expr.stages:
            known[stage.target.name] = _run_stage(stage, known, counter)
    return {name: known[name] for name in expr.outputs}


def _run_stage(stage: Stage, known: Mapping[str, Array], counter: Counter | None) -> Array:
    shape = tuple(_size(a.extent) for a in stage.axes)
    out = np.empty(shape, stage.target.type.dtype.numpy)
    rank = len(stage.axes) + max(_depth(stage.body), 0)
    ranges = [(axis, 0, _size(axis.extent)) for axis in stage.axes]
    pending = [ranges] if out.size else []
    while pending:
        part = pending.pop()
        halves = _halves(stage.body, part)
        if halves:
            pending += halves
            continue
        scope = _Scope(known, counter, rank)
        for axis, start, stop in part:
            scope = scope.enter(axis, start, stop)
        value = scope.value(stage.body)
        inner = value.reshape(value.shape[: len(shape)])
        if part is ranges and _is_fresh(inner, out, known):
            return inner
        out[tuple(slice(start, stop) for _, start, stop in part)] = inner
    return out


def _is_fresh(array: Array, like: Array, known: Mapping[str, Array]) -> bool:
    """Whether an array can be the result as it is: complete, and no view of an operand."""
    complete = array.shape == like.shape and array.dtype == like.dtype
    return complete and not any(np.may_share_memory(array, other) for other in known.values())


_Range: TypeAlias = "tuple[Axis, int, int]"


def _halves(body: Expr, part: list[_Range]) -> list[list[_Range]]:
    """The two halves of a part that is too large, cut along its first divisible axis."""
    extents = {axis.name: stop - start for axis, start, stop in part}
    if _largest(body, extents, {})[0] <= LARGEST_GRID:
        return []
    for position, (axis, start, stop) in enumerate(part):
        if stop - start > 1:
            middle = (start + stop) // 2
            first, second = list(part), list(part)
            first[position] = (axis, start, middle)
            second[position] = (axis, middle, stop)
            return [first, second]
    return []


def _largest(
    e: Expr, extents: Mapping[str, int], picked: Mapping[str, frozenset[str]]
) -> tuple[int, frozenset[str]]:
    """(elements of the largest array that evaluating makes, axes the result depends on).
    `picked`: axes whose position is data, by the axes that this depends on."""
    match e:
        case Literal():
            return 1, frozenset()
        case Read():
            indices: tuple[Dim, ...] = e.index
        case IndexValue():
            indices = (e.index,)
        case IndexCompare():
            indices = (e.a, e.b)
        case Reduce():
            inner = {**extents, **{a.name: _size(a.extent) for a in e.axes}}
            names = frozenset(a.name for a in e.axes)
            found = [_largest(part, inner, picked) for part in _parts(e)]
            axes = frozenset(a for _, below in found for a in below) - names
            return max(prod(extents[a] for a in axes), *(size for size, _ in found)), axes
        case Pick():
            size, axes = _largest(e.index, extents, picked)
            larger, all_axes = _largest(e.body, extents, {**picked, e.axis.name: axes})
            return max(size, larger), all_axes
        case _:
            found = [_largest(child, extents, picked) for child in children(e)]
            axes = frozenset(a for _, below in found for a in below)
            return max(prod(extents[a] for a in axes), *(size for size, _ in found)), axes
    names = {s.name for d in indices for s in symbols_of(d)}
    axes = frozenset(a for name in names for a in picked.get(name, (name,)))
    return prod(extents[a] for a in axes), axes


def _parts(e: Reduce) -> tuple[Expr, ...]:
    """What a reduction evaluates over its grid."""
    factors, scatter = _factors(e), match_scatter(e)
    if factors is not None:
        return factors
    return (e.body,) if scatter is None else (scatter.index, scatter.value)


def _factors(e: Reduce) -> tuple[Expr, Expr] | None:
    """The two factors of a sum of products, which einsum evaluates without the grid."""
    body = e.body
    if e.op != "sum" or not isinstance(body, Binary) or body.op != "mul":
        return None
    return (body.a, body.b) if e.dtype is body.dtype and e.dtype.is_float else None


def _depth(e: Expr) -> int:
    """Reduction axes nested along the deepest path."""
    below = max((_depth(child) for child in children(e)), default=0)
    return below + (len(e.axes) if isinstance(e, Reduce) else 0)


def _size(extent: Dim) -> int:
    if not isinstance(extent, int):
        raise ValueError(f"the size {extent} is not known")  # noqa: TRY004
    return extent


@dataclass(frozen=True)
class _Scope:
    """Where an expression is evaluated: tensors, and the axes in scope with their ranges.

    Axis number j of the scope runs along dimension j of every array; dimensions beyond the
    scope have extent 1. `guard` says which positions are really taken, None meaning all. No two
    axes in scope share a name, those of picks included.
    """

    known: Mapping[str, Array]
    counter: Counter | None
    rank: int
    ranges: Mapping[str, tuple[int, int, int]] = field(
        default_factory=dict[str, "tuple[int, int, int]"]  # by axis: dimension, from, to
    )
    guard: Array | None = None
    picked: Mapping[str, Array] = field(default_factory=dict[str, Array])  # positions that are data

    def enter(self, axis: Axis, start: int, stop: int) -> _Scope:
        return replace(self, ranges={**self.ranges, axis.name: (len(self.ranges), start, stop)})

    def count(self, operations: int = 1) -> None:
        """Note operations executed at every position in scope."""
        if self.counter is not None:
            extents = (stop - start for _, start, stop in self.ranges.values())
            self.counter.add(operations * prod(extents))

    def value(self, e: Expr) -> Array:
        """The expression at every position in scope."""
        match e:
            case Literal():
                return np.full((1,) * self.rank, stored(e.value, e.type))
            case Read():
                return self._read(e)
            case IndexValue():
                return self._index(e.index).astype(e.type.numpy)
            case IndexCompare():
                return FUNCTIONS[e.op].meaning(self._index(e.a), self._index(e.b))
            case Unary():
                function = FUNCTIONS[e.op]
                self.count(function.operations)
                return function.meaning(self.value(e.x))
            case Binary() | Compare():
                function = FUNCTIONS[e.op]
                self.count(function.operations)
                return function.meaning(self.value(e.a), self.value(e.b))
            case Select():
                return self._select(e)
            case Cast():
                return convert(self.value(e.x), e.x.dtype, e.type)
            case Reduce():
                return self._reduce(e)
            case Pick():
                return self._pick(e)

    def _select(self, e: Select) -> Array:
        condition = self.value(e.condition)
        if not _is_index_condition(e.condition):
            return np.where(condition, self.value(e.yes), self.value(e.no))
        outer = True if self.guard is None else self.guard
        yes = replace(self, guard=outer & condition).value(e.yes)
        no = replace(self, guard=outer & ~condition).value(e.no)
        return np.where(condition, yes, no)

    def _pick(self, e: Pick) -> Array:
        extent = _size(e.axis.extent)
        if not extent:
            raise ValueError(f"{e.axis.name} has no position to pick")
        index = replace(self, counter=None).value(e.index)
        if e.from_end:
            index = np.where(index < 0, index + extent, index)
        place = np.clip(index, 0, extent - 1)
        found = replace(self, picked={**self.picked, e.axis.name: place}).value(e.body)
        if e.outside is None:
            return found
        return np.where(place == index, found, stored(e.outside, e.dtype))

    # Reductions

    def _reduce(self, e: Reduce) -> Array:
        inner = self
        for axis in e.axes:
            inner = inner.enter(axis, 0, _size(axis.extent))
        positions = prod(_size(axis.extent) for axis in e.axes)
        self.count(positions - 1)
        dimensions = tuple(inner.ranges[axis.name][0] for axis in e.axes)
        factors, scatter = _factors(e), match_scatter(e)
        if factors is not None:
            inner.count()
            return _sum_of_products(inner.value(factors[0]), inner.value(factors[1]), dimensions, e)
        if scatter is not None:
            inner.count()
            return inner._scatter(scatter, dimensions)
        body = convert(inner.value(e.body), e.body.dtype, e.dtype)
        shape = list(body.shape)
        for axis, dimension in zip(e.axes, dimensions, strict=True):
            shape[dimension] = _size(axis.extent)
        record = REDUCTIONS[e.op]
        values = np.broadcast_to(body, shape)
        # NumPy has no maximum of nothing; the combination has what it starts from.
        stated = values.size == 0 and e.dtype is not DType.BOOL
        start = {"initial": record.neutral(e.dtype)} if stated else {}
        found = record.whole(values, axis=dimensions, keepdims=True, **start)
        return found.astype(e.dtype.numpy, copy=False)

    def _scatter(self, e: Scatter, summed: tuple[int, ...]) -> Array:
        """Each value combined where it belongs, in order: the axes of the sum, which were entered
        last, run fastest. Those that belong nowhere go to a place behind the last."""
        place, start, stop = self.ranges[e.place]
        index, value = self.value(e.index) - start, self.value(e.value)
        grid = list(np.broadcast_shapes(index.shape, value.shape))
        for axis in e.axes:
            grid[self.ranges[axis.name][0]] = _size(axis.extent)
        kept = [1 if dimension in summed else size for dimension, size in enumerate(grid)]
        kept[place] = stop - start + 1
        steps = [prod(kept[dimension + 1 :]) for dimension in range(len(kept))]
        at = np.where((index >= 0) & (index < stop - start), index, stop - start) * steps[place]
        for dimension, size in enumerate(kept):
            if size > 1 and dimension != place:
                run = np.arange(size) * steps[dimension]
                at = at + run.reshape([-1 if d == dimension else 1 for d in range(len(kept))])
        reduction = REDUCTIONS[e.op]
        combine = FUNCTIONS[reduction.combine].meaning
        assert isinstance(combine, np.ufunc)
        total = np.full(prod(kept), reduction.neutral(e.value.dtype), value.dtype)
        where, what = np.broadcast_to(at, grid), np.broadcast_to(value, grid)
        combine.at(total, where.reshape(-1), what.reshape(-1))
        return np.delete(total.reshape(kept), -1, axis=place)

    # Indices

    def _index(self, index: Dim) -> Array:
        bindings: dict[str, Array] = {}
        for s in symbols_of(index):
            if s.name in self.picked:
                bindings[s.name] = self.picked[s.name]
                continue
            dimension, start, stop = self._range(s)
            shape = [1] * self.rank
            shape[dimension] = stop - start
            bindings[s.name] = np.arange(start, stop).reshape(shape)
        value = np.asarray(evaluate_dim(index, bindings))
        return value.reshape((1,) * self.rank) if value.ndim == 0 else value

    def _range(self, s: Symbol) -> tuple[int, int, int]:
        if s.name not in self.ranges:
            raise ValueError(f"the size {s.name} is not known")
        return self.ranges[s.name]

    def _read(self, e: Read) -> Array:
        array = self.known[e.tensor.name]
        view = self._view(array, e.index)
        return self._gather(array, e) if view is None else view

    def _view(self, array: Array, index: tuple[Dim, ...]) -> Array | None:
        """The read as a strided view, if every index is `a * axis + b`, axes differ, and all
        positions are inside."""
        cuts: list[int | slice] = []
        dimensions: list[int] = []
        for at, extent in zip(index, array.shape, strict=True):
            line = _line(at)
            if line is None or (line[0] is not None and line[0].name in self.picked):
                return None
            axis, scale, offset = line
            dimension, start, stop = (-1, 0, 1) if axis is None else self._range(axis)
            first, last = scale * start + offset, scale * (stop - 1) + offset
            if dimension in dimensions or first < 0 or last >= extent or stop == start:
                return None
            if axis is None:
                cuts.append(first)
            else:
                dimensions.append(dimension)
                cuts.append(slice(first, last + 1, scale))
        part = array[tuple(cuts)].transpose(np.argsort(dimensions))
        shape = [1] * self.rank
        for dimension, extent in zip(sorted(dimensions), part.shape, strict=True):
            shape[dimension] = extent
        return part.reshape(shape)

    def _gather(self, array: Array, e: Read) -> Array:
        places: list[Array] = []
        inside: Array = np.ones((1,) * self.rank, bool)
        for at, extent in zip(e.index, array.shape, strict=True):
            place = self._index(at)
            good = (place >= 0) & (place < extent)
            if not good.all():
                inside = inside & good
                place = np.clip(place, 0, max(extent - 1, 0))
            places.append(place)
        if e.outside is None and not (inside if self.guard is None else inside | ~self.guard).all():
            raise IndexError(f"{e.tensor.name}{list(map(str, e.index))} leaves {e.tensor.type}")
        if not array.size:
            shape = np.broadcast_shapes(*(place.shape for place in places))
            return np.full(shape, stored(e.outside or 0, e.dtype))
        found = array[tuple(places)]
        if e.outside is None or inside.all():
            return found
        return np.where(inside, found, stored(e.outside, e.dtype))


def _line(index: Dim) -> tuple[Symbol | None, int, int] | None:
    """(axis, scale, offset) of an index `scale * axis + offset` with a positive scale."""
    if isinstance(index, int):
        return None, 0, index
    axis, scale, offset = None, 0, 0
    for monomial, coefficient in index.terms:
        if not isinstance(coefficient, int):
            return None
        if not monomial:
            offset = coefficient
            continue
        atom, power = monomial[0]
        if axis is not None or len(monomial) > 1 or power > 1 or coefficient < 1:
            return None
        if not isinstance(atom, Symbol):
            return None
        axis, scale = atom, coefficient
    return axis, scale, offset


def _is_index_condition(e: Expr) -> bool:
    """IndexCompare, and logic over nothing else."""
    return all(
        isinstance(node, IndexCompare)
        or (isinstance(node, Binary) and node.op in ("and", "or", "xor"))
        or (isinstance(node, Unary) and node.op == "not")
        for node in walk(e)
    )


def _sum_of_products(a: Array, b: Array, dimensions: tuple[int, ...], e: Reduce) -> Array:
    """Sum of a * b over dimensions, by einsum over the dimensions that each really has."""
    rank = a.ndim
    repeated = 1  # reduced axes on which neither depends
    for axis, dimension in zip(e.axes, dimensions, strict=True):
        if a.shape[dimension] == b.shape[dimension] == 1:
            repeated *= _size(axis.extent)
    of_a = [j for j in range(rank) if a.shape[j] != 1]
    of_b = [j for j in range(rank) if b.shape[j] != 1]
    kept = [j for j in range(rank) if j in {*of_a, *of_b} and j not in dimensions]
    flat_a = a.reshape([a.shape[j] for j in of_a])
    flat_b = b.reshape([b.shape[j] for j in of_b])
    total = np.einsum(flat_a, of_a, flat_b, of_b, kept, optimize=True)
    shape = [1] * rank
    for j, extent in zip(kept, total.shape, strict=True):
        shape[j] = extent
    return np.asarray(total * a.dtype.type(repeated), a.dtype).reshape(shape)
