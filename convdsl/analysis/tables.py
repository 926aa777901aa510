"""Fields written out: what every element of a value sees along one axis of a model input.

Where an axis of space becomes two, or several become one, what is seen is no interval that moves
with one position (fields.Path). It still follows from the indices, element by element, where all
sizes are known. An element is one of all axes, channels too; what is read from outside a value sees
nothing here, since nothing is known of the value beyond its borders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import combinations
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convdsl.analysis.access import Guard, Place
from convdsl.analysis.fields import Field, Interval, Path, UnavailableError
from convdsl.kernel.expr import Axis, IndexCompare
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, evaluate, symbols_of

Numbers: TypeAlias = "NDArray[np.int64]"

MOST_ELEMENTS = 2**21
"""Combinations of indices that are written out for one read."""

_FAR = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """First and last positions, by the axes of the value; an axis along which all elements see the
    same has length 1. `lo` is beyond `hi` where nothing is seen. `aligned` as of a Field."""

    lo: Numbers
    hi: Numbers
    aligned: bool

    def at(self, positions: Mapping[int, int]) -> Interval | None:
        """What all elements at `positions` (by axis) see together; None for nothing."""
        where = tuple(
            min(positions[axis], extent - 1) if axis in positions else slice(None)
            for axis, extent in enumerate(self.lo.shape)
        )
        lo, hi = int(self.lo[where].min()), int(self.hi[where].max())
        return Interval(lo, hi) if lo <= hi else None

    def sizes(self) -> Numbers:
        return np.maximum(self.hi - self.lo + 1, 0)

    def stride(self) -> Fraction | None:
        """How far each interval lies from the one before, if all lie alike along one axis."""
        moving = [extent for extent in self.lo.shape if extent > 1]
        if len(moving) != 1 or np.any(self.lo > self.hi):
            return None
        steps = {*np.diff(self.lo.reshape(-1)).tolist(), *np.diff(self.hi.reshape(-1)).tolist()}
        return Fraction(steps.pop()) if len(steps) == 1 else None

    def first(self) -> Interval | None:
        """What the first element sees."""
        lo, hi = int(self.lo.flat[0]), int(self.hi.flat[0])
        return Interval(lo, hi) if lo <= hi else None


def written_out(field: Field, shape: tuple[Dim, ...]) -> Table:
    """A field of paths as a table of a value of this shape. Raises UnavailableError where sizes are
    open, and of what channels see together only."""
    rank = len(shape)
    tables = [_of_path(path, shape) for path in field.paths] or [_nothing(rank)]
    return _collapsed(_united(tables, field.aligned))


def _nothing(rank: int) -> Table:
    return Table(np.full((1,) * rank, _FAR), np.full((1,) * rank, -_FAR), True)


def _of_path(path: Path, shape: tuple[Dim, ...]) -> Table:
    extent = 1 if path.axis is None else shape[path.axis]
    if path.gathered or not isinstance(extent, int) or extent > MOST_ELEMENTS:
        raise UnavailableError
    seen = [path.at(position) for position in range(extent)]
    ends = [(_FAR, -_FAR) if i is None else (i.lo, i.hi) for i in seen]
    if not all(isinstance(end, int) for pair in ends for end in pair):
        raise UnavailableError
    lie = [extent if axis == path.axis else 1 for axis in range(len(shape))]
    lo, hi = np.array(ends, np.int64).T
    return Table(lo.reshape(lie), hi.reshape(lie), True)


def _united(tables: Iterable[Table], aligned: bool) -> Table:
    several = list(tables)
    lo = reduce(np.minimum, (table.lo for table in several))
    hi = reduce(np.maximum, (table.hi for table in several))
    return Table(lo, hi, aligned)


def united(tables: Sequence[Table]) -> Table:
    """Of what depends on several operands at once; aligned where the centres agree. Of operands
    side by side an element sees one: they are aligned along the axes that go on alike."""
    pairs = list(combinations(tables, 2))
    whole = _collapsed(_united(tables, all(table.aligned for table in tables)))
    same = all(_concentric(a, b) for a, b in pairs)
    if same and any(np.any((a.lo <= a.hi) != (b.lo <= b.hi)) for a, b in pairs):
        same = whole.lo.size == 1 or whole.stride() is not None
    return replace(whole, aligned=same and whole.aligned)


def _concentric(a: Table, b: Table) -> bool:
    both = (a.lo <= a.hi) & (b.lo <= b.hi)
    return not np.any(both & (a.lo + a.hi != b.lo + b.hi))


def _collapsed(table: Table) -> Table:
    lo, hi = (np.broadcast_to(ends, np.broadcast(table.lo, table.hi).shape) for ends in
              (table.lo, table.hi))  # fmt: skip
    for axis in range(lo.ndim):
        one = (slice(None),) * axis + (slice(0, 1),)
        if lo.shape[axis] > 1 and (lo == lo[one]).all() and (hi == hi[one]).all():
            lo, hi = lo[one], hi[one]
    return Table(lo, hi, table.aligned)


def through_reads(
    table: Table, reads: Sequence[Place], axes: tuple[Axis, ...], before: Table | None = None
) -> Table:
    """What elements over `axes` see by reads of a value whose table is known."""
    found = [_through_read(table, place, axes) for place in reads]
    return _collapsed(_united([*found, *([before] if before else [])], table.aligned))


def _through_read(table: Table, place: Place, axes: tuple[Axis, ...]) -> Table:
    """Conditions that share no axis with what varies only say whether anything is read."""
    index, extents = place.read.index, place.read.tensor.type.shape
    moving = [axis for axis, extent in enumerate(table.lo.shape) if extent > 1]
    sizes = {a.name: a.extent for a in (*axes, *place.reduced)}
    conditions = [*place.guards, *_inside(index, extents, sizes)]
    whole = {name for axis in moving for name in _names(index[axis])}
    apart: list[tuple[set[str], list[Guard]]] = []
    here: list[Guard] = []
    for condition in sorted(conditions, key=lambda c: len(c.names()), reverse=True):
        _sort_in(condition, whole, here, apart)
    grid = _Grid(whole, axes, place.reduced)
    at = tuple(
        np.clip(grid.of(i), 0, extent - 1) if axis in moving else np.zeros((), np.int64)
        for axis, (i, extent) in enumerate(zip(index, table.lo.shape, strict=True))
    )
    taken = grid.hold(here)
    lo = grid.reduced(np.minimum, np.where(taken, table.lo[at], _FAR))
    hi = grid.reduced(np.maximum, np.where(taken, table.hi[at], -_FAR))
    for names, guards in apart:
        other = _Grid(names, axes, place.reduced)
        some = other.reduced(np.logical_or, other.hold(guards))
        lo, hi = np.where(some, lo, _FAR), np.where(some, hi, -_FAR)
    return Table(lo, hi, table.aligned)


def _sort_in(
    condition: Guard, whole: set[str], here: list[Guard], apart: list[tuple[set[str], list[Guard]]]
) -> None:
    """Into the sets of axes that decide together: what shares one joins them."""
    names, guards = condition.names(), [condition]
    for other in [o for o in apart if o[0] & names]:
        apart.remove(other)
        names, guards = names | other[0], guards + other[1]
    if names & whole:
        whole |= names
        here += guards
    else:
        apart.append((names, guards))


def _inside(
    index: Sequence[Dim], extents: Sequence[Dim], sizes: Mapping[str, Dim]
) -> Iterable[Guard]:
    """That a read is inside of its tensor, where it is not so by the range of one axis."""
    for at, extent in zip(index, extents, strict=True):
        if isinstance(at, int) and isinstance(extent, int) and 0 <= at < extent:
            continue
        axis = None if isinstance(at, int) else at.alone
        if axis is not None and sizes.get(axis.name) == extent:
            continue
        yield Guard(IndexCompare("ge", at, 0), True)
        yield Guard(IndexCompare("lt", at, extent), True)


def _names(value: Dim) -> set[str]:
    return {s.name for s in symbols_of(value)}


class _Grid:
    """All combinations of some axes: those of the stage where they lie in it, then reduced ones."""

    def __init__(self, names: set[str], axes: tuple[Axis, ...], summed: tuple[Axis, ...]) -> None:
        inner = [a for a in summed if a.name in names]
        own = [a if a.name in names else None for a in axes]
        counts = [1 if a is None else a.extent for a in (*own, *inner)]
        known = [count for count in counts if isinstance(count, int)]
        unbound = names - {a.name for a in (*axes, *summed)}
        if len(known) < len(counts) or prod(known) > MOST_ELEMENTS or unbound:
            raise UnavailableError
        self.shape = tuple(known)
        self.inner = tuple(range(len(axes), len(known)))
        grids = np.ix_(*(np.arange(count, dtype=np.int64) for count in known))
        labels = [*own, *inner]
        self.bindings = {a.name: g for a, g in zip(labels, grids, strict=True) if a is not None}

    def of(self, value: Dim) -> Numbers:
        return np.asarray(evaluate(value, self.bindings), np.int64)

    def hold(self, guards: Sequence[Guard]) -> NDArray[np.bool_]:
        taken = np.ones((1,) * len(self.shape), bool)
        for guard in guards:
            holds = FUNCTIONS[guard.compare.op].meaning(self.of(guard.difference), 0) == guard.truth
            taken = taken & holds
        return taken

    def reduced(self, by: Any, values: NDArray[Any]) -> NDArray[Any]:
        """Over the reduced axes; those of the stage are left."""
        full = np.broadcast_to(values, np.broadcast_shapes(values.shape, (1,) * len(self.shape)))
        return by.reduce(full, axis=self.inner) if self.inner else full
