"""Which positions of an operand one output position reads, axis by axis.

Along one axis of an operand the positions read by output position o are, for a period T,

    { t + (o div T) * advance : t in phases[o mod T] }

which covers windows (T = 1), transposed convolutions and resizing (one phase per residue),
and regroupings such as flatten. Positions count outside the operand too: those of padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm, prod
from typing import Any, TypeAlias

import numpy as np

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    IndexCompare,
    Read,
    Reduce,
    Select,
    Stage,
    children,
)
from convdsl.tensor import Dim, SymDim, Window, evaluate, substitute, symbols_of
from convdsl.tensor.dim import Extremum, Floor

LARGEST_GRID = 2**22
"""Positions that are enumerated to find the period of an index that is not affine."""


@dataclass(frozen=True, slots=True)
class Span:
    """All positions first..last, where at least one end is symbolic."""

    first: Dim
    last: Dim


Taps: TypeAlias = "Sequence[int] | Span"


@dataclass(frozen=True, slots=True)
class Access:
    """Positions along one operand axis, as the module says; `axis` None where o plays no part."""

    axis: int | None
    advance: int
    phases: tuple[Taps, ...]


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


@dataclass(frozen=True, slots=True)
class Place:
    """A read inside a stage: the reductions around it and the index conditions it stands under."""

    read: Read
    reduced: tuple[Axis, ...]
    guards: tuple[tuple[IndexCompare, bool], ...]


def places(stage: Stage) -> Iterator[Place]:
    """Every read of a stage, with its surroundings."""
    return _places(stage.body, (), ())


def _places(
    e: Expr, reduced: tuple[Axis, ...], guards: tuple[tuple[IndexCompare, bool], ...]
) -> Iterator[Place]:
    if isinstance(e, Read):
        yield Place(e, reduced, guards)
    elif isinstance(e, Reduce):
        yield from _places(e.body, reduced + e.axes, guards)
    elif isinstance(e, Select):
        conditions = _conjunction(e.condition)
        yield from _places(e.condition, reduced, guards)
        yield from _places(e.yes, reduced, guards + tuple((c, True) for c in conditions))
        denied = tuple((c, False) for c in conditions) if len(conditions) == 1 else ()
        yield from _places(e.no, reduced, guards + denied)
    else:
        for child in children(e):
            yield from _places(child, reduced, guards)


def _conjunction(e: Expr) -> tuple[IndexCompare, ...]:
    """The index comparisons that all hold where the condition does."""
    if isinstance(e, IndexCompare):
        return (e,)
    if isinstance(e, Binary) and e.op == "and":
        return _conjunction(e.a) + _conjunction(e.b)
    return ()


def read_access(place: Place, operand_axis: int, axes: tuple[Axis, ...]) -> Access | None:
    """The access of a read along one of its tensor's axes; None where no exact one is known."""
    point = {a.name: 0 for a in (*axes, *place.reduced) if a.extent == 1}
    index = substitute(_unclamped(place.read.index[operand_axis]), point)
    names = _names(index)
    guards = [
        (IndexCompare(g.op, substitute(g.a, point), substitute(g.b, point)), truth)
        for g, truth in place.guards
    ]
    guards = [(g, truth) for g, truth in guards if (_names(g.a) | _names(g.b)) & names]
    for guard, _ in guards:
        names |= _names(guard.a) | _names(guard.b)
    outer = [(number, a) for number, a in enumerate(axes) if a.name in names]
    inner = [a for a in place.reduced if a.name in names]
    if len(outer) > 1:
        return None
    if not guards:
        affine = _affine_access(index, outer, inner)
        if affine is not None:
            return affine
    return _enumerated_access(index, guards, outer, inner)


def _names(value: Dim) -> set[str]:
    return {s.name for s in symbols_of(value)}


def _unclamped(index: Dim) -> Dim:
    """The index without clamping to the border: what is repeated there counts as padding."""
    if isinstance(index, int):
        return index
    result: Dim = 0
    for monomial, coefficient in index.terms:
        if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(coefficient, int):
            result = result + _unclamped_atom(monomial[0][0]) * coefficient
        else:
            result = result + SymDim({monomial: coefficient})
    return result


def _unclamped_atom(atom: Any) -> Dim:
    if isinstance(atom, Extremum):
        varying = [a for a in atom.arguments if _has_axes(a)]
        if len(varying) == 1:
            return _unclamped(varying[0])
    if isinstance(atom, Floor):
        return _unclamped(atom.numerator) // atom.denominator
    return SymDim({((atom, 1),): 1})


def _has_axes(value: Dim) -> bool:
    """Axes start at 0, sizes at 1 or more."""
    return any(s.minimum == 0 for s in symbols_of(value))


def _affine_access(index: Dim, outer: list[tuple[int, Axis]], inner: list[Axis]) -> Access | None:
    """index = o * advance + sum of axis * step + offset, steps known; sizes may be symbolic."""
    advance, steps = 0, dict.fromkeys((a.name for a in inner), 0)
    offset: Dim = index
    for axis in [a for _, a in outer] + inner:
        slope = substitute(index, {axis.name: 1}) - substitute(index, {axis.name: 0})
        if not isinstance(slope, int):
            return None
        offset = offset - axis.i * slope
        if axis.name in steps:
            steps[axis.name] = slope
        else:
            advance = slope
    if _names(offset) & {a.name for a in inner} or _names(offset) & {a.name for _, a in outer}:
        return None
    number = outer[0][0] if outer else None
    return Access(number, advance, (_taps(offset, inner, steps),))


def _taps(offset: Dim, inner: list[Axis], steps: dict[str, int]) -> Taps:
    """All values of offset + sum of axis * step."""
    moving = [(a, steps[a.name]) for a in inner if steps[a.name]]
    counts = [a.extent for a, _ in moving]
    known = [c for c in counts if isinstance(c, int)]
    if isinstance(offset, int) and len(known) == len(counts):
        if len(moving) == 1:
            step = abs(moving[0][1])
            first = offset + min(0, moving[0][1] * (known[0] - 1))
            return range(first, first + step * (known[0] - 1) + 1, step)
        if prod(known) <= LARGEST_GRID:
            grids = np.ix_(*(np.arange(c) * s for c, (_, s) in zip(known, moving, strict=True)))
            return tuple(np.unique(sum(grids, np.asarray(offset))).tolist())
    first = last = offset
    for axis, step in moving:
        reach = (axis.extent - 1) * step
        first, last = (first, last + reach) if step > 0 else (first + reach, last)
    return Span(first, last)


def _enumerated_access(
    index: Dim,
    guards: list[tuple[IndexCompare, bool]],
    outer: list[tuple[int, Axis]],
    inner: list[Axis],
) -> Access | None:
    """The access found by evaluating the index everywhere; all sizes known."""
    known = {a.name for _, a in outer} | {a.name for a in inner}
    dims = [index, *(d for g, _ in guards for d in (g.a, g.b))]
    extents = [a.extent for a in inner]
    if any(_names(d) - known for d in dims) or not all(isinstance(e, int) for e in extents):
        return None
    period = lcm(1, *(_period(d) for d in dims)) if outer else 1
    length = 2 * period if outer else 1
    if outer:
        extent = outer[0][1].extent
        if not isinstance(extent, int):
            return None if guards else _enumerate(index, guards, outer, inner, period, length)
        length = max(length, extent)
    return _enumerate(index, guards, outer, inner, period, length)


def _enumerate(
    index: Dim,
    guards: list[tuple[IndexCompare, bool]],
    outer: list[tuple[int, Axis]],
    inner: list[Axis],
    period: int,
    length: int,
) -> Access | None:
    counts = [length, *(a.extent for a in inner if isinstance(a.extent, int))]
    if prod(counts) > LARGEST_GRID:
        return None
    grids = np.ix_(*(np.arange(c) for c in counts))
    names = [outer[0][1].name if outer else "", *(a.name for a in inner)]
    bindings = dict(zip(names, grids, strict=True))
    values = np.broadcast_to(evaluate(index, bindings), counts).reshape(length, -1)
    taken = np.ones(counts, bool)
    for guard, truth in guards:
        a, b = evaluate(guard.a, bindings), evaluate(guard.b, bindings)
        taken = taken & (_COMPARE[guard.op](a, b) == truth)
    taken = taken.reshape(length, -1)
    if values.shape[1] == 1 and taken.all():  # one position each, as in reshaping: all at once
        found: Any = values
        moves = np.unique(values[period:] - values[:-period])
        advance = int(moves[0]) if len(moves) == 1 else None if len(moves) else 0
    else:
        found = [np.unique(row[keep]) for row, keep in zip(values, taken, strict=True)]
        advance = _advance(found, period)
    if advance is None:
        return None
    taps = tuple(_sequence(f) for f in found[:period])
    return Access(outer[0][0] if outer else None, advance, taps)


_COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _advance(found: list[Any], period: int) -> int | None:
    """By how much the positions move on after a period, if they do so everywhere alike."""
    pairs = list(zip(found, found[period:], strict=False))
    moves = {int(b[0] - a[0]) for a, b in pairs if len(a) and len(b)}
    if len(moves) > 1:
        return None
    advance = moves.pop() if moves else 0
    alike = all(len(a) == len(b) and bool(np.all(a + advance == b)) for a, b in pairs)
    return advance if alike else None


def _sequence(positions: Any) -> Sequence[int]:
    """A range where the positions are evenly spaced."""
    values: list[int] = positions.tolist()
    if len(values) < 2:
        return tuple(values)
    spaced = range(values[0], values[-1] + 1, values[1] - values[0])
    return spaced if len(spaced) == len(values) and list(spaced) == values else tuple(values)


def _period(value: Dim) -> int:
    """A period of the floors inside: floor((a*o + b) / c) repeats, shifted, every c."""
    if isinstance(value, int):
        return 1
    return lcm(1, *(_atom_period(atom) for monomial, _ in value.terms for atom, _ in monomial))


def _atom_period(atom: Any) -> int:
    if isinstance(atom, Floor) and isinstance(atom.denominator, int):
        return atom.denominator * _period(atom.numerator)
    if isinstance(atom, Extremum):
        return lcm(1, *(_period(a) for a in atom.arguments))
    return 1
