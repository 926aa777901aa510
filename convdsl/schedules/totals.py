"""Finds reductions of whole axes: sums, maxima or minima over the same positions."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from convdsl.kernel.expr import Axis, Read, Reduce, Stage, children, indices_of, reads, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.scatter import match_scatter
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Ending, Output, Task
from convdsl.tensor import DType, symbols_of
from convdsl.tensor.records import record

OPERATIONS = frozenset(["sum", "max", "min"])
RUN = 64  # terms that a near accumulator takes before it is added into a far one
MANY = 64  # positions from which on a reduction is worth loops of its own


@record
class Totals:
    """`reduces` over the axes `over`, at each position of the axes `kept`, of what `front` makes
    of the operands at all positions; then `stages` over the axes kept. What `front_outputs` and
    `outputs` name leaves."""

    front: tuple[Stage, ...]
    front_axes: tuple[Axis, ...]
    front_outputs: tuple[Output, ...]
    reduces: tuple[Reduce, ...]
    over: tuple[Axis, ...]
    kept: tuple[Axis, ...]
    stages: tuple[Stage, ...]
    outputs: tuple[Output, ...]
    layout: Layout  # of what has the axes kept

    @property
    def positions(self) -> int:
        """Terms of each result."""
        return prod(extent_of(axis) for axis in self.over)

    @property
    def inner_reads(self) -> list[Read]:
        """Reads of operands at every position."""
        made = {stage.target.name for stage in self.front}
        bodies = (*(stage.body for stage in self.front), *(r.body for r in self.reduces))
        return [r for body in bodies for r in reads(body) if r.tensor.name not in made]

    @property
    def outer_reads(self) -> list[Read]:
        """Reads of operands at the positions kept, outside the reductions."""
        made = {stage.target.name for stage in self.stages}
        bodies = [stage.body for stage in self.stages]
        found: list[Read] = []
        while bodies:
            e = bodies.pop()
            if isinstance(e, Read) and e.tensor.name not in made:
                found.append(e)
            elif e not in self.reduces:
                bodies += children(e)
        return found


def match_totals(task: Task, least: int = MANY) -> Totals | None:
    """A task as such a reduction, or None: sums, maxima or minima over the same axes, of no fewer
    positions than `least`, each term from one position of every operand that has them."""
    found = {e: None for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)}
    if task.ending is not None:
        if found:
            return None
        return _ended(task, task.ending, least)
    reduces = tuple(found)
    if len({reduce.axes for reduce in reduces}) != 1:
        return None
    over = reduces[0].axes
    if not _moves_along(reduces, {axis.name for axis in (*task.axes, *over)}):
        return None
    totals = Totals((), (), (), reduces, over, task.axes, task.stages, task.outputs, task.layout)
    weights = {operand.var.name for operand in task.operands if operand.static}
    return totals if _is_plain(totals, weights) and totals.positions >= least else None


def _moves_along(reduces: Collection[Reduce], axes: Collection[str]) -> bool:
    """Whether terms are told by these axes alone: what stands in a Pick moves with what it picks,
    which is known only where it is met."""
    terms = (e for reduce in reduces for e in walk(reduce.body))
    return all(s.name in axes for e in terms for d in indices_of(e) for s in symbols_of(d))


def _ended(task: Task, ending: Ending, least: int) -> Totals | None:
    """A task of maps that ends in reductions of what they make."""
    over = ending.reduces[0].axes
    totals = Totals(
        task.stages,
        task.axes,
        task.outputs,
        ending.reduces,
        over,
        ending.axes,
        ending.stages,
        ending.outputs,
        ending.outputs[0].layout,
    )
    return totals if _is_plain(totals, set()) and totals.positions >= least else None


def _is_plain(totals: Totals, weights: Collection[str]) -> bool:
    """No contraction, none of whose operands has all axes, or a weight only; no reduction of
    reductions, and no sum by position, whose order is promised."""
    for reduce in totals.reduces:
        counted = reduce.dtype is DType.I64  # positions and counts: exact in any order
        if reduce.op not in OPERATIONS or not (reduce.dtype.is_float or counted):
            return False
        if any(isinstance(e, Reduce) for e in walk(reduce.body)) or match_scatter(reduce):
            return False
    if totals.front:
        return True
    wide = {axis.name for axis in (*totals.kept, *totals.over) if axis.extent != 1}
    read = [r for r in totals.inner_reads if r.tensor.name not in weights]
    return any(wide <= {s.name for i in r.index for s in symbols_of(i)} for r in read)
