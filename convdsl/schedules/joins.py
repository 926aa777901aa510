"""Finds tasks that walk one space together: a softmax, a normalisation, their gradients.

All of them stand on the axes of one tensor. Some reduce the same axes of it, each term from one
position of everything that has them; others compute what has all axes. Each reads what others have
made at its own position alone, so that whoever has all positions of a row needs nothing else.

A dimension of the tensor may be several of the space: where channels are normalised in groups of
eight, channel 8 g + j is number j of group g.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TypeAlias

from convdsl.kernel.expr import Axis, Read, reads
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.emission import extent_of
from convdsl.schedules.inlining import inlined
from convdsl.schedules.task import Task
from convdsl.schedules.totals import Totals, match_totals
from convdsl.tensor import Dim, substitute, symbols_of
from convdsl.tensor.records import record

Terms: TypeAlias = tuple[tuple[int, int], ...]
"""A position as a sum over dimensions of the space, each times a number."""


@record
class Part:
    """One of the tasks. `dims`: for each of its axes, and those that it reduces, the dimensions of
    the space that it runs along; none where it has but one position. `totals` where it reduces.
    """

    task: Task
    dims: Mapping[str, Terms]
    totals: Totals | None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those that it has and those that it reduces."""
        return self.task.axes if self.totals is None else (*self.totals.kept, *self.totals.over)

    def at(self, place: Mapping[int, Dim]) -> dict[str, Dim]:
        """Where its axes stand at a place of the space."""
        return {
            name: sum((place.get(d, 0) * step for d, step in terms), start=0)
            for name, terms in self.dims.items()
        }

    def along(self, dim: int) -> Axis | None:
        """The axis that takes a step with each one along a dimension."""
        return next((axis for axis in self.axes if (dim, 1) in self.dims[axis.name]), None)


@record
class Join:
    """Parts in order over a space of `shape`; `over` are the dimensions that are reduced.

    `digits`: for each dimension of the tensors that have all of it, its dimensions of the space.
    """

    shape: tuple[int, ...]
    over: tuple[int, ...]
    parts: tuple[Part, ...]
    beside: Read  # of the largest operand that has all dimensions
    digits: tuple[tuple[int, ...], ...]

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(d for d in range(len(self.shape)) if d not in self.over)

    @property
    def whole(self) -> tuple[int, ...]:
        """The sizes of what has all dimensions."""
        return self.beside.tensor.type.sizes

    @property
    def split(self) -> bool:
        """Whether a dimension of the tensor is several of the space."""
        return len(self.shape) > len(self.digits)


def match_join(task: Task) -> Join | None:
    """A task and its earlier ones as such parts, or None."""
    tasks = inlined((*task.earlier, task))
    found = [match_totals(t, 1) if t.reducing else None for t in tasks]
    wide = [r for t in found if t is not None for r in t.inner_reads]
    if not wide or any(t.ending is not None for t in tasks):
        return None
    beside = max(wide, key=lambda r: prod(r.tensor.type.sizes))
    space = _space(found, beside.tensor.type.sizes)
    parts: list[Part] = []
    over: tuple[int, ...] | None = None
    for own, totals in zip(tasks, found, strict=True):
        part = _part(own, totals, space)
        if part is None or (own.reducing and totals is None):
            return None
        if totals is not None:
            reduced = tuple(sorted(d for a in totals.over for d, _ in part.dims[a.name]))
            if over not in (None, reduced) or not reduced:
                return None
            over = reduced
        parts.append(part)
    assert over is not None
    join = Join(space.shape, over, tuple(parts), beside, space.digits)
    return join if all(_at_own_place(part, join) for part in parts) else None


@record
class _Space:
    """For each dimension of a tensor the extents that it is split into, the last one fastest."""

    extents: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(extent for own in self.extents for extent in own)

    @property
    def whole(self) -> tuple[int, ...]:
        return tuple(map(prod, self.extents))

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        numbers = iter(range(len(self.shape)))
        return tuple(tuple(next(numbers) for _ in own) for own in self.extents)

    def terms(self, d: int) -> Terms:
        """A position along a dimension of the tensor."""
        own, numbers = self.extents[d], self.digits[d]
        pairs = ((number, prod(own[place + 1 :])) for place, number in enumerate(numbers))
        return tuple(pair for pair in pairs if self.shape[pair[0]] > 1)


def _space(found: Sequence[Totals | None], whole: tuple[int, ...]) -> _Space:
    """The space that all reductions walk: dimensions are split as any of them walks them."""
    extents: list[tuple[int, ...]] = [(extent,) for extent in whole]
    for totals in found:
        if totals is None:
            continue
        axes = {axis.name: axis for axis in (*totals.kept, *totals.over)}
        for read in totals.inner_reads:
            if read.tensor.type.sizes != whole:
                continue
            for d, index in enumerate(read.index):
                split = _digits(index, axes, whole[d])
                if split is not None and len(split) > len(extents[d]):
                    extents[d] = tuple(extent_of(axis) for axis in split)
    return _Space(tuple(extents))


def _digits(index: Dim, axes: Mapping[str, Axis], extent: int) -> tuple[Axis, ...] | None:
    """The axes of which an index is the row-major place, those of one position left out."""
    own = [axes[s.name] for s in symbols_of(index) if s.name in axes]
    wide = {axis: coefficient(index, axis) or 0 for axis in own if extent_of(axis) > 1}
    found = sorted(wide, key=lambda axis: -wide[axis])
    step = 1
    for axis in reversed(found):
        if wide[axis] != step:
            return None
        step *= extent_of(axis)
    rest = substitute(index, dict.fromkeys((axis.name for axis in own), 0))
    return tuple(found) if step == extent and rest == 0 else None


def _part(task: Task, totals: Totals | None, space: _Space) -> Part | None:
    """The dimensions of a task's axes: as they are where it has all, else as its reads say."""
    if totals is None:
        if tuple(map(extent_of, task.axes)) != space.whole:
            return None
        return Part(task, {a.name: space.terms(d) for d, a in enumerate(task.axes)}, None)
    axes = {axis.name: axis for axis in (*totals.kept, *totals.over)}
    for read in totals.inner_reads:
        if read.tensor.type.sizes == space.whole and read.outside is None:
            dims = _dims(read, axes, space)
            if dims is not None:
                return Part(task, dims, totals)
    return None


def _dims(read: Read, axes: Mapping[str, Axis], space: _Space) -> dict[str, Terms] | None:
    """The dimensions that each axis runs along where a tensor is read at one position of all."""
    found: dict[str, Terms] = {}
    for d, index in enumerate(read.index):
        own = _digits(index, axes, space.whole[d])
        if own is None:
            return None
        terms = space.terms(d)
        if len(own) == 1 and own[0].name not in found:
            found[own[0].name] = terms
            continue
        if len(own) != len(terms):
            return None
        for axis, (number, _) in zip(own, terms, strict=True):
            if axis.name in found or extent_of(axis) != space.shape[number]:
                return None
            found[axis.name] = ((number, 1),)
    rest = [name for name in axes if name not in found]
    if any(extent_of(axes[name]) > 1 for name in rest):
        return None
    return found | dict.fromkeys(rest, ())


def _at_own_place(part: Part, join: Join) -> bool:
    """Whether a part reads what others have made nowhere but where it stands."""
    makers = {s.target.name: p for p in join.parts for s in p.task.stages}
    place: dict[int, Dim] = {
        d: Axis(f"p{d}", extent).i for d, extent in enumerate(join.shape) if extent > 1
    }
    own = part.at(place)
    return all(
        substitute(index, own) == there
        for read, maker in _made(part, makers)
        for index, there in zip(read.index, _axes_at(maker, place), strict=True)
    )


def _made(part: Part, makers: Mapping[str, Part]) -> Iterator[tuple[Read, Part]]:
    """What a part reads of others' results, with who makes it."""
    for stage in part.task.stages:
        for read in reads(stage.body):
            if read.tensor.name in makers:
                yield read, makers[read.tensor.name]


def _axes_at(maker: Part, place: Mapping[int, Dim]) -> list[Dim]:
    """Where the axes of what a part makes stand."""
    at = maker.at(place)
    return [at[axis.name] for axis in maker.task.axes]
