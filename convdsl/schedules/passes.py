"""Sums by position in passes: who has some positions for itself looks at all terms in their order,
and adds what falls to it. So the order of the terms is the one that is written, whoever runs.

    y[j, d] = sum over i with ids[i] = j of v[i, d], in ascending order of i
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Expr, indices_of, walk
from convdsl.kernel.nodes import Binary, Buffer, Const, IndexTest, Load, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.scatter import Scatter
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, symbols_of
from convdsl.tensor.records import record


@record
class Sums:
    """The output's axes by their parts in the sum. Vectors of `lanes` run along `along` (scalars
    where that is None); `rest` are the others but the place, which is cut in `ranges`."""

    sum: Scatter
    place: Axis
    along: Axis | None
    lanes: int
    rest: tuple[Axis, ...]
    ranges: int

    @property
    def vectors(self) -> int:
        """Whole ones along their axis."""
        return 1 if self.along is None else extent_of(self.along) // self.lanes


def mentions(e: Expr, axis: Axis) -> bool:
    """Whether an expression depends on where an axis stands."""
    found = (s.name for node in walk(e) for d in indices_of(node) for s in symbols_of(d))
    return axis.name in found


@record
class Passes:
    """Passes over all positions, each for a share of the output that nobody else writes."""

    b: Builder
    task: Task
    plan: Sums
    views: Mapping[str, View]

    def one_pass(
        self,
        at: Mapping[str, Dim],
        firsts: Sequence[Dim],
        lanes: int,
        valid: int | None,
        places: tuple[Dim, Dim],
        together: int = 1,
    ) -> None:
        """What a combination starts from at the places start .. stop, then what belongs there, one
        term after the other; so many are looked at `together`."""
        b, plan = self.b, self.plan
        start, stop = places
        type = ValueType(plan.sum.value.dtype, lanes)
        start_value = REDUCTIONS[plan.sum.op].neutral(plan.sum.value.dtype)
        with b.serial("place", stop, start) as place:
            for first in firsts:
                b.store(*self.element(at, place, first), Const(start_value, type))
        with ExitStack() as loops:
            terms: dict[str, Dim] = {**at}
            *outer, last = plan.sum.axes
            for axis in outer:
                terms[axis.name] = loops.enter_context(b.serial(axis.name, extent_of(axis)))
            turns, rest = divmod(extent_of(last), together)
            with b.serial(last.name, turns) as turn:
                each = [{**terms, last.name: turn * together + k} for k in range(together)]
                self._terms(each, firsts, lanes, valid, places)
            if rest:
                each = [{**terms, last.name: turns * together + k} for k in range(rest)]
                self._terms(each, firsts, lanes, valid, places)

    def _terms(
        self,
        terms: Sequence[Mapping[str, Dim]],
        firsts: Sequence[Dim],
        lanes: int,
        valid: int | None,
        places: tuple[Dim, Dim],
    ) -> None:
        """Some terms in their order, after all have been looked at."""
        b, plan = self.b, self.plan
        scalar = Emitter(b, self.views, 1)
        vectors = Emitter(b, self.views, lanes, valid)
        type = ValueType(plan.sum.value.dtype, lanes)
        combine = REDUCTIONS[plan.sum.op].combine
        found = [scalar.emit(plan.sum.index, self.along(here, firsts[0])) for here in terms]
        extent, name = extent_of(plan.place), plan.place.name
        indices = [b.index(value, extent, name, beyond=True) for value in found]
        for here, place in zip(terms, indices, strict=True):
            with (
                b.when(IndexTest("ge", place, places[0])),
                b.when(IndexTest("lt", place, places[1])),
            ):
                for first in firsts:
                    at = self.along(here, first + lane_symbol(lanes))
                    value = vectors.emit(plan.sum.value, at)
                    buffer, where = self.element(here, place, first)
                    b.store(buffer, where, Binary(combine, Load(buffer, where, type), value))

    def along(self, at: Mapping[str, Dim], position: Dim) -> dict[str, Dim]:
        """With the axis of the vectors bound as well."""
        return {**at, self.plan.along.name: position} if self.plan.along else {**at}

    def element(self, at: Mapping[str, Dim], place: Dim, first: Dim) -> tuple[Buffer, Dim]:
        (output,) = self.task.outputs
        bound = {**self.along(at, first), self.plan.place.name: place}
        index = [bound[axis.name] for axis in self.task.axes]
        view = self.views[output.var.name]
        return view.buffer, view.layout.offset(index)
