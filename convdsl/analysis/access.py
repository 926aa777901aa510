"""Which positions of an operand one output position reads, axis by axis.

Along one axis of an operand the positions read by output position o are, for a period T,

    { t + (o div T) * advance : t in phases[o mod T] }

which covers windows (T = 1), transposed convolutions and resizing (one phase per residue),
and regroupings such as flatten. Positions count outside the operand too: those of padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import lcm, prod
from typing import Any, TypeAlias

import numpy as np

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    IndexCompare,
    IndexValue,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    children,
    reads,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, SymDim, Window, evaluate, floor_div, substitute, symbols_of
from convdsl.tensor.dim import Atom, Extremum, Floor
from convdsl.tensor.records import record

LARGEST_GRID = 2**22
"""Positions that are enumerated to find the period of an index that is not affine."""


@record
class Span:
    """All positions first..last, where at least one end is symbolic."""

    first: Dim
    last: Dim


Taps: TypeAlias = "Sequence[int] | Span"


@record
class Access:
    """Positions along one operand axis, as the module says; `axis` None where o plays no part.
    `gathered`: those of all channels together, of which each reads some."""

    axis: int | None
    advance: int
    phases: tuple[Taps, ...]
    gathered: bool = False


def window_access(window: Window, axis: int) -> Access:
    """The access of a window along spatial axis `axis` (tensor axis 2 + axis)."""
    first = -window.padding[axis][0]
    taps = _progression(first, window.kernel[axis], window.dilation[axis])
    return Access(axis + 2, window.stride[axis], (taps,))


def _progression(first: Dim, count: Dim, step: int) -> Taps:
    last = first + (count - 1) * step
    if isinstance(first, int) and isinstance(last, int):
        return range(first, last + 1, step)
    return Span(first, last)


@record
class Guard:
    """An index condition that a read stands under.

    A soft one only keeps reads inside their tensors: without it they would see padding. Where
    it depends on the border it is left out, so that fields go on beyond the border.
    """

    compare: IndexCompare
    truth: bool
    soft: bool = False

    @property
    def difference(self) -> Dim:
        return self.compare.a - self.compare.b

    def names(self) -> set[str]:
        return _names(self.compare.a) | _names(self.compare.b)

    def at(self, bindings: Mapping[str, Dim]) -> Guard:
        a, b = (substitute(d, bindings) for d in (self.compare.a, self.compare.b))
        return Guard(IndexCompare(self.compare.op, a, b), self.truth, self.soft)


@record
class Place:
    """A read inside a stage: the reductions around it and the conditions it stands under."""

    read: Read
    reduced: tuple[Axis, ...]
    guards: tuple[Guard, ...]


def places(stage: Stage, before: Iterable[Stage] = ()) -> Iterator[Place]:
    """Every read of a stage, with its surroundings; `before` are the stages that it may read."""
    known = {s.target.name: s for s in before}
    yield from _either_way(_places(stage.body, (), (), known))


def _either_way(found: Iterable[Place]) -> Iterator[Place]:
    """What both arms of a condition read is read whatever it says."""
    kept: dict[tuple[Read, tuple[Axis, ...]], list[Place]] = {}
    for place in found:
        known = kept.setdefault((place.read, place.reduced), [])
        for other in known:
            differ = {*place.guards} ^ {*other.guards}
            if len(differ) == 2 and len({(g.compare, g.soft) for g in differ}) == 1:
                guards = tuple(g for g in place.guards if g not in differ)
                place = replace(place, guards=guards)
        if not any({*other.guards} <= {*place.guards} for other in known):
            known[:] = [o for o in known if not {*place.guards} <= {*o.guards}] + [place]
    for known in kept.values():
        yield from known


def _places(
    e: Expr, reduced: tuple[Axis, ...], guards: tuple[Guard, ...], known: Mapping[str, Stage]
) -> Iterator[Place]:
    match e:
        case Read():
            yield Place(e, reduced, guards)
        case Reduce():
            yield from _places(e.body, reduced + e.axes, guards, known)
        case Pick():  # data says which: any of them
            yield from _places(e.index, reduced, guards, known)
            yield from _places(e.body, (*reduced, e.axis), guards, known)
        case Select():
            conditions = _conjunction(e.condition)
            masked = next(reads(e.no), None) is None
            allow = tuple(Guard(c, True, masked and _is_border(c, e.yes)) for c in conditions)
            deny = tuple(Guard(c, False) for c in conditions) if len(conditions) == 1 else ()
            yield from _places(e.condition, reduced, guards, known)
            yield from _places(e.yes, reduced, guards + allow, known)
            yield from _places(e.no, reduced, guards + deny, known)
        case Binary(op="mul"):
            yield from _places(e.a, reduced, guards + _nonzero(e.b, known), known)
            yield from _places(e.b, reduced, guards + _nonzero(e.a, known), known)
        case _:
            for child in children(e):
                yield from _places(child, reduced, guards, known)


def _nonzero(factor: Expr, known: Mapping[str, Stage]) -> tuple[Guard, ...]:
    """Conditions without which a factor is zero: it is read from outside its tensor, or it is
    an interpolation weight, a quotient of indices tabulated in a stage of its own."""
    if not isinstance(factor, Read):
        return ()
    conditions: list[IndexCompare] = []
    if factor.outside == 0.0:
        for at, extent in zip(factor.index, factor.tensor.type.shape, strict=True):
            conditions += [IndexCompare("ge", at, 0), IndexCompare("lt", at, extent)]
    stage = known.get(factor.tensor.name)
    if stage is not None and isinstance(stage.body, Binary) and stage.body.op == "div":
        top = stage.body.a
        if isinstance(top, IndexValue):
            here = {a.name: at for a, at in zip(stage.axes, factor.index, strict=True)}
            conditions.append(IndexCompare("ne", substitute(top.index, here), 0))
    return tuple(Guard(condition, True, soft=True) for condition in conditions)


def _is_border(condition: IndexCompare, arm: Expr) -> bool:
    """True for a condition that says no more than that some read of the arm stays inside."""
    difference = condition.a - condition.b
    return any(
        (condition.op == "ge" and difference == at)
        or (condition.op == "lt" and difference == at - extent)
        for read in reads(arm)
        for at, extent in zip(read.index, read.tensor.type.shape, strict=True)
    )


def _conjunction(e: Expr) -> tuple[IndexCompare, ...]:
    """The index comparisons that all hold where the condition does."""
    if isinstance(e, IndexCompare):
        return (e,)
    if isinstance(e, Binary) and e.op == "and":
        return _conjunction(e.a) + _conjunction(e.b)
    return ()


def read_access(place: Place, operand_axis: int, axes: tuple[Axis, ...]) -> Access | None:
    """The access of a read along one of its tensor's axes; None where no exact one is known.

    Where channels and space both decide, the position is that in space, and the access is
    that of all channels together.
    """
    point: dict[str, Dim] = {a.name: 0 for a in (*axes, *place.reduced) if a.extent == 1}
    index = substitute(unclamped(place.read.index[operand_axis]), point)
    guards = [g.at(point) for g in place.guards]
    guards = [g for g in guards if g.names() & _names(index)]
    names = _names(index).union(*(g.names() for g in guards))
    outer = [number for number, a in enumerate(axes) if a.name in names]
    drivers = [number for number in outer if number >= 2] or outer
    if len(drivers) > 1:
        return None
    driver = drivers[0] if drivers else None
    free = [a for number, a in enumerate(axes) if number in outer and number != driver]
    free += [a for a in place.reduced if a.name in names]
    moving = None if driver is None else axes[driver]
    found = None if guards else _affine(index, moving, free)
    if found is None:
        found = _periodic(index, guards, moving, free)
    if found is None:
        return None
    advance, phases = found
    return Access(driver, advance, phases, len(outer) > len(drivers))


def channels_read(place: Place, axes: tuple[Axis, ...]) -> set[int | None]:
    """What says which channel a read is of: axes of the output by number, None for sums."""
    names = _names(place.read.index[1]) if place.read.tensor.type.rank > 1 else set[str]()
    found: set[int | None] = {number for number, a in enumerate(axes) if a.name in names}
    if any(a.name in names for a in place.reduced):
        found.add(None)
    return found


def _names(value: Dim) -> set[str]:
    return {s.name for s in symbols_of(value)}


def unclamped(index: Dim) -> Dim:
    """The index without folding at the borders: what is copied there counts as padding.

    min(max(i, 0), E - 1) and its mirrored like become i: of the alternatives, the only one
    that grows.
    """
    if isinstance(index, int):
        return index
    result: Dim = 0
    for monomial, coefficient in index.terms:
        if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(coefficient, int):
            result = result + _unclamped_atom(monomial[0][0]) * coefficient
        else:
            result = result + SymDim({monomial: coefficient})
    return result


def _unclamped_atom(atom: Atom) -> Dim:
    if isinstance(atom, Extremum):
        growing = [a for a in atom.arguments if _grows(a)]
        if len(growing) == 1:
            return unclamped(growing[0])
    if isinstance(atom, Floor):
        return floor_div(unclamped(atom.numerator), atom.denominator)
    return SymDim({((atom, 1),): 1})


def _grows(value: Dim) -> bool:
    """True where every term that an axis takes part in grows with it."""
    if isinstance(value, int):
        return False
    moving = [(m, c) for m, c in value.terms if _has_axes(SymDim({m: 1}))]
    return bool(moving) and all(
        c > 0 and all(not isinstance(a, Extremum) or any(map(_grows, a.arguments)) for a, _ in m)
        for m, c in moving
    )


def _has_axes(value: Dim) -> bool:
    """Axes start at 0, sizes at 1 or more."""
    return any(s.minimum == 0 for s in symbols_of(value))


_Found: TypeAlias = "tuple[int, tuple[Taps, ...]]"  # advance, phases


def _affine(index: Dim, moving: Axis | None, free: list[Axis]) -> _Found | None:
    """index = o * advance + sum of axis * step + offset, steps known; sizes may be symbolic."""
    slopes: list[int] = []
    offset = index
    axes = free if moving is None else [moving, *free]
    for axis in axes:
        slope = substitute(index, {axis.name: 1}) - substitute(index, {axis.name: 0})
        if not isinstance(slope, int):
            return None
        slopes.append(slope)
        offset = offset - axis.i * slope
    if _names(offset) & {a.name for a in axes}:
        return None
    advance = 0 if moving is None else slopes.pop(0)
    return advance, (_taps(offset, free, slopes),)


def _taps(offset: Dim, axes: list[Axis], slopes: list[int]) -> Taps:
    """All values of offset + sum of axis * slope."""
    counts = [a.extent for a in axes]
    known = [c for c in counts if isinstance(c, int)]
    if isinstance(offset, int) and len(known) == len(counts) and prod(known) <= LARGEST_GRID:
        total = np.asarray(offset)
        for count, slope in zip(known, slopes, strict=True):
            total = np.unique(np.add.outer(total, np.arange(count) * slope))
        return _sequence(np.unique(total))
    first = last = offset
    for axis, slope in zip(axes, slopes, strict=True):
        reach = (axis.extent - 1) * slope
        first, last = (first, last + reach) if slope > 0 else (first + reach, last)
    return Span(first, last)


def _periodic(
    index: Dim, guards: list[Guard], moving: Axis | None, free: list[Axis]
) -> _Found | None:
    """The access of an index with floors, found by evaluating it over one proven period."""
    period, advance = 1, 0
    if moving is not None:
        period = lcm(_period(index), *(_period(g.difference) for g in guards))
        shift: dict[str, Dim] = {moving.name: moving.i + period}
        move = substitute(index, shift) - index
        steady = {g: substitute(g.difference, shift) == g.difference for g in guards}
        if not isinstance(move, int) or any(not steady[g] and not g.soft for g in guards):
            return None
        advance, guards = move, [g for g in guards if steady[g]]
    counts = [a.extent for a in free]
    known = [c for c in counts if isinstance(c, int)]
    variables = {a.name for a in free} | ({moving.name} if moving else set[str]())
    names = _names(index).union(*(g.names() for g in guards))
    if len(known) < len(counts) or names - variables or period * prod(known) > LARGEST_GRID:
        return None
    grids = np.ix_(np.arange(period), *(np.arange(c) for c in known))
    labels = [moving.name if moving else "", *(a.name for a in free)]
    bindings = dict(zip(labels, grids, strict=True))
    shape = (period, *known)
    values = np.broadcast_to(evaluate(index, bindings), shape).reshape(period, -1)
    taken = np.ones(shape, bool)
    for guard in guards:
        difference = evaluate(guard.difference, bindings)
        taken = taken & (FUNCTIONS[guard.compare.op].meaning(difference, 0) == guard.truth)
    kept = taken.reshape(period, -1)
    rows = [np.unique(row[keep]) for row, keep in zip(values, kept, strict=True)]
    return advance, tuple(_sequence(row) for row in rows)


def _sequence(positions: np.ndarray[Any, Any]) -> Sequence[int]:
    """A range where the positions are evenly spaced."""
    values: list[int] = positions.tolist()
    if len(values) < 2:
        return tuple(values)
    spaced = range(values[0], values[-1] + 1, values[1] - values[0])
    return spaced if list(spaced) == values else tuple(values)


def _period(value: Dim) -> int:
    """A period of the floors inside: floor((a*o + b) / c) repeats, shifted, every c."""
    if isinstance(value, int):
        return 1
    return lcm(1, *(_atom_period(atom) for monomial, _ in value.terms for atom, _ in monomial))


def _atom_period(atom: Atom) -> int:
    if isinstance(atom, Floor) and isinstance(atom.denominator, int):
        return atom.denominator * _period(atom.numerator)
    if isinstance(atom, Extremum):
        return lcm(1, *(_period(a) for a in atom.arguments))
    return 1
