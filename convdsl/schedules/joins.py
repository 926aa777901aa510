"""Finds tasks that walk one space together: a softmax, a normalisation, their gradients.

All of them stand on the axes of one tensor. Some reduce the same axes of it, each term from one
position of everything that has them; others compute what has all axes. Each reads what others have
made at its own position alone, so that whoever has all positions of a row needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from convdsl.kernel.expr import Axis, Read, reads
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Task
from convdsl.schedules.totals import Totals, match_totals
from convdsl.tensor import Dim, symbols_of


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tasks. `dims`: for each of its axes, and those that it reduces, the dimension of
    the space that it runs along, or None where it has but one position. `totals` where it reduces.
    """

    task: Task
    dims: Mapping[str, int | None]
    totals: Totals | None

    def at(self, place: Mapping[int, Dim]) -> dict[str, Dim]:
        """Where its axes stand at a place of the space."""
        return {name: 0 if d is None else place.get(d, 0) for name, d in self.dims.items()}


@dataclass(frozen=True, slots=True)
class Join:
    """Parts in order over a space of `shape`; `over` are the dimensions that are reduced."""

    shape: tuple[int, ...]
    over: tuple[int, ...]
    parts: tuple[Part, ...]
    beside: Read  # of the largest operand that has all dimensions

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(d for d in range(len(self.shape)) if d not in self.over)


def match_join(task: Task) -> Join | None:
    """A task and its earlier ones as such parts, or None."""
    tasks = (*task.earlier, task)
    found = [match_totals(t, 1) if t.reducing else None for t in tasks]
    wide = [r for t in found if t is not None for r in t.inner_reads]
    if not wide or any(t.ending is not None for t in tasks):
        return None
    beside = max(wide, key=lambda r: prod(r.tensor.type.sizes))
    shape = beside.tensor.type.sizes
    parts: list[Part] = []
    over: tuple[int, ...] | None = None
    for own, totals in zip(tasks, found, strict=True):
        part = _part(own, totals, shape)
        if part is None or (own.reducing and totals is None):
            return None
        if totals is not None:
            reduced = tuple(sorted(d for a in totals.over if (d := part.dims[a.name]) is not None))
            if over not in (None, reduced) or not reduced:
                return None
            over = reduced
        parts.append(part)
    assert over is not None
    join = Join(shape, over, tuple(parts), beside)
    return join if all(_at_own_place(part, join) for part in parts) else None


def _part(task: Task, totals: Totals | None, shape: tuple[int, ...]) -> Part | None:
    """The dimensions of a task's axes: as they are where it has all, else as its reads say."""
    if totals is None:
        if tuple(map(extent_of, task.axes)) != shape:
            return None
        return Part(task, {a.name: _wide(d, shape) for d, a in enumerate(task.axes)}, None)
    axes = {axis.name: axis for axis in (*totals.kept, *totals.over)}
    for read in totals.inner_reads:
        if read.tensor.type.sizes == shape and read.outside is None:
            dims = _dims(read, axes)
            if dims is not None:
                return Part(task, dims, totals)
    return None


def _dims(read: Read, axes: Mapping[str, Axis]) -> dict[str, int | None] | None:
    """The dimension that each axis runs along where a tensor is read at one position of all."""
    found: dict[str, int | None] = {}
    for d, (index, extent) in enumerate(zip(read.index, read.tensor.type.sizes, strict=True)):
        names = [s.name for s in symbols_of(index)]
        if extent == 1 and index == 0:
            continue
        if len(names) != 1 or names[0] in found or names[0] not in axes:
            return None
        axis = axes[names[0]]
        if index != axis.i or extent_of(axis) != extent:
            return None
        found[axis.name] = d if extent > 1 else None
    rest = [name for name in axes if name not in found]
    if any(extent_of(axes[name]) > 1 for name in rest):
        return None
    return found | dict.fromkeys(rest)


def _wide(d: int, shape: tuple[int, ...]) -> int | None:
    return d if shape[d] > 1 else None


def _at_own_place(part: Part, join: Join) -> bool:
    """Whether a part reads what others have made nowhere but where it stands."""
    makers = {s.target.name: p for p in join.parts for s in p.task.stages}
    for stage in part.task.stages:
        for read in reads(stage.body):
            maker = makers.get(read.tensor.name)
            if maker is None:
                continue
            for index, axis in zip(read.index, maker.task.axes, strict=True):
                dim = maker.dims[axis.name]
                own = [n for n, d in part.dims.items() if d is not None and d == dim]
                if dim is None:
                    continue
                if not own or index != Axis(own[0], join.shape[dim]).i:
                    return False
    return True
