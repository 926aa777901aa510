"""Finds what is put at positions that are data: the last value that reaches a place, or all that do
combined with what was there.

    which[q] = the last i with ids[i] = q              total[q] = all v[i] with ids[i] = q, combined
    y[q, d] = which[q] >= 0 ? v[which[q], d] : x[q, d]       y[q, d] = x[q, d] + total[q, d]

Whoever has a share of y for itself needs neither of the first: what is there comes first, and then
each value in order goes where it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from convdsl.ir.places import digits, row_major
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Pick,
    Read,
    Select,
    Stage,
    indices_of,
    reads,
    walk,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.scatter import Scatter, match_scatter
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, DType, symbols_of
from convdsl.tensor.records import record


@record
class Put:
    """The parts of a task and of the reduction by position before it.

    The axes of the result are `outer`, `places` and `inner`, in this order; a place is a position
    along `places` as one row-major number. `value` is what a term puts there, over these axes and
    the terms', at a place that `index` says; `own` is what lies there before the first term, and
    `reduction`, one of `scalar.REDUCTIONS`, combines the two, one term after the other (None: the
    value stays). `aliases`: the axes of the reduction by those of the result. `number`: the terms
    as one axis, in `value`.
    """

    stage: Stage
    terms: tuple[Axis, ...]
    outer: tuple[Axis, ...]
    places: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    index: Expr
    value: Expr
    own: Expr
    reduction: str | None
    aliases: Mapping[str, str]
    number: Axis | None = None

    @property
    def many(self) -> int:
        """How many places there are."""
        return prod(map(extent_of, self.places))

    @property
    def row(self) -> bool:
        """Whether a term puts one row of all inner axes at one place."""
        known = {s.name for e in walk(self.index) for d in indices_of(e) for s in symbols_of(d)}
        inside = {axis.name for axis in self.inner}
        return not any(self.aliases.get(name) in inside for name in known)

    def bound(self, at: Mapping[str, Dim], terms: Mapping[str, Dim]) -> dict[str, Dim]:
        """All axes of `index` and `value`, where the axes of the result and the terms stand."""
        found = {**at, **terms}
        found |= {name: at[own] for name, own in self.aliases.items() if own in at}
        if self.number is not None:
            own = [terms[term.name] for term in self.terms]
            found[self.number.name] = row_major(own, list(map(extent_of, self.terms)))
        return found

    def place(self, number: Dim) -> dict[str, Dim]:
        """The axes of a place."""
        own = digits(number, list(map(extent_of, self.places)))
        return {axis.name: at for axis, at in zip(self.places, own, strict=True)}


def match_put(task: Task) -> Put | None:
    """A task and the one before it as such, or None."""
    if len(task.earlier) != 1 or task.ending is not None or len(task.stages) != 1:
        return None
    (before,), (stage,) = task.earlier, task.stages
    found = match_scatter(before.stages[0].body)
    if len(before.stages) != 1 or before.outputs or before.earlier or found is None:
        return None
    made = before.stages[0]
    seen = {read for read in reads(stage.body) if read.tensor == made.target}
    if len(seen) != 1:
        return None
    (read,) = seen
    axes = _axes(made, read, found, stage.axes)
    if axes is None:
        return None
    put = _last(stage, read, found, axes)
    return _combined(stage, read, found, axes) if put is None else put


@record
class _Axes:
    """Of a result: before those of a place, these, and the others; and the names that they have in
    the reduction."""

    outer: tuple[Axis, ...]
    places: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    aliases: Mapping[str, str]


def _axes(made: Stage, read: Read, found: Scatter, axes: Sequence[Axis]) -> _Axes | None:
    """None where the reduction is read elsewhere than where its reader stands."""
    by_index = {axis.i: axis for axis in axes}
    aliases: dict[str, str] = {}
    places: tuple[Axis, ...] = ()
    for own, index in zip(made.axes, read.index, strict=True):
        if own.name == found.place:
            names = {s.name for s in symbols_of(index)}
            places = tuple(axis for axis in axes if axis.name in names)
            extents = list(map(extent_of, places))
            if index != row_major([axis.i for axis in places], extents):
                return None
            continue
        beside = by_index.get(index)
        if beside is None or extent_of(beside) != extent_of(own):
            return None
        aliases[own.name] = beside.name
    if not places:
        return None
    first = list(axes).index(places[0])
    if tuple(axes[first : first + len(places)]) != places:
        return None
    outer, inner = tuple(axes[:first]), tuple(axes[first + len(places) :])
    if any(axis.name in aliases.values() for axis in places):
        return None
    return _Axes(outer, places, inner, aliases)


def _last(stage: Stage, read: Read, found: Scatter, axes: _Axes) -> Put | None:
    """The value of the last term, where there is one."""
    match stage.body:
        case Select(
            condition=Compare(op="ge", a=asked, b=Literal(value=0)),
            yes=Pick(axis=number, index=index, body=value, from_end=False, outside=None),
            no=own,
        ) if asked == read and index == read and found.op == "max":
            terms = [term.i for term in found.axes]
            every = row_major(terms, list(map(extent_of, found.axes)))
            if found.value != IndexValue(every, DType.I64) or _mentions(own, number, read):
                return None
            if any(part == read for part in reads(value)):
                return None
            return _put(stage, found, axes, value, own, number)
        case _:
            return None


def _combined(stage: Stage, read: Read, found: Scatter, axes: _Axes) -> Put | None:
    """All of them, combined with what is there."""
    match stage.body:
        case Binary(op=op, a=own, b=total) if total == read:
            if op != REDUCTIONS[found.op].combine or any(part == read for part in reads(own)):
                return None
            if stage.target.type.dtype is not read.dtype:
                return None
            return _put(stage, found, axes, found.value, own)
        case _:
            return None


def _put(
    stage: Stage,
    found: Scatter,
    axes: _Axes,
    value: Expr,
    own: Expr,
    number: Axis | None = None,
) -> Put:
    return Put(
        stage=stage,
        terms=found.axes,
        outer=axes.outer,
        places=axes.places,
        inner=axes.inner,
        index=found.index,
        value=value,
        own=own,
        reduction=found.op if number is None else None,
        aliases=axes.aliases,
        number=number,
    )


def _mentions(e: Expr, axis: Axis, read: Read) -> bool:
    """Whether an expression depends on an axis, or reads what is read."""
    found = (s.name for node in walk(e) for d in indices_of(node) for s in symbols_of(d))
    return axis.name in found or any(part == read for part in reads(e))
