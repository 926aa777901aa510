"""Reductions by position: every value is combined where it belongs, in order.

    y[j, d] = sum over i with ids[i] = j of v[i, d], in ascending order of i

A thread has some of the vectors along d, and of the positions j, for itself: it passes once over
all i and adds what falls to it. So the order of the terms is the one that is written, whoever runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convdsl.kernel.expr import Axis, arithmetic
from convdsl.kernel.scatter import match_scatter
from convdsl.kernel.target import Target
from convdsl.schedules.emission import extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.passes import Passes, Sums, mentions
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import dim_min
from convdsl.tensor.records import record

_SHARES = 4  # parts that the work is cut into where the other axes give fewer
_SIDE_BY_SIDE = 4  # vectors that one pass over the positions adds
_PASSED = 4.0  # cycles for looking at one position


def plan(task: Task, target: Target) -> Sums | None:
    """None where the task is anything but a sum by position."""
    (stage, *more) = task.stages
    found = match_scatter(stage.body)
    if more or found is None:
        return None
    (place,) = (axis for axis in task.axes if axis.name == found.place)
    along, lanes = task.axes[-1], target.lanes(task.element)
    if task.layout.axis is not None:
        along, lanes = task.axes[task.layout.axis], task.layout.block
    narrow = extent_of(along) < lanes and task.layout.axis is None
    if along is place or lanes == 1 or narrow or mentions(found.index, along):
        rest = tuple(axis for axis in task.axes if axis is not place)
        return Sums(found, place, None, 1, rest, _ranges(place, rest, 1))
    rest = tuple(axis for axis in task.axes if axis not in (place, along))
    blocks = -(-extent_of(along) // (lanes * _SIDE_BY_SIDE))
    return Sums(found, place, along, lanes, rest, _ranges(place, rest, blocks))


def _width(plan: Sums) -> int:
    """Vectors that one pass adds."""
    return min(_SIDE_BY_SIDE, max(plan.vectors, 1))


def _ranges(place: Axis, rest: Sequence[Axis], blocks: int) -> int:
    """By the shape alone: results and shares do not depend on threads."""
    others = math.prod(map(extent_of, rest)) * blocks
    return max(1, min(extent_of(place), _SHARES // max(others, 1)))


def cost(task: Task, target: Target) -> float | None:
    """Cycles: looking at each position once for every pass, and adding each value once."""
    chosen = plan(task, target)
    if chosen is None:
        return None
    terms = float(math.prod(map(extent_of, chosen.sum.axes)))
    others = math.prod(map(extent_of, chosen.rest))
    vectors = 1 if chosen.along is None else -(-extent_of(chosen.along) // chosen.lanes)
    passes = chosen.ranges * others * -(-vectors // _width(chosen))
    work = arithmetic(chosen.sum.value)
    assert isinstance(work, int)
    added = terms * others * vectors * (work + 2)
    return terms * passes * _PASSED + added + task.layout.size / chosen.lanes


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: each share of the output passes over all positions, in their order."""
    chosen = plan(task, target)
    assert chosen is not None
    reads, along = task.reads, chosen.along
    layouts = {o.var.name: operand_layout(o, reads, along, chosen.lanes) for o in task.operands}
    frame = Frame.open(task, name, chosen.lanes, layouts)
    _Shares(Passes(frame.b, task, chosen, frame.views)).all()
    return frame.finish()


@record
class _Shares:
    """The shares of the output: one pass for each."""

    passes: Passes

    @property
    def plan(self) -> Sums:
        return self.passes.plan

    def all(self) -> None:
        plan = self.plan
        if plan.along is None:
            self.share(1, 0, 1, 1)
            return
        tiles, over = divmod(plan.vectors, _width(plan))
        self.share(tiles, 0, _width(plan), plan.lanes)
        self.share(1, tiles * _width(plan), over, plan.lanes)
        rest = extent_of(plan.along) - plan.vectors * plan.lanes
        if rest and self.passes.task.layout.axis is not None:  # the filling may be written
            self.share(1, plan.vectors, 1, plan.lanes, rest)
        elif rest:
            self.share(rest, plan.vectors * plan.lanes, 1, 1)

    def share(
        self, tiles: int, first: int, width: int, lanes: int, valid: int | None = None
    ) -> None:
        """`tiles` times `width` vectors of `lanes` from number `first` on, for all the rest."""
        if not tiles or not width:
            return
        plan, names = self.plan, [axis.name for axis in self.plan.rest]
        extents = [extent_of(axis) for axis in plan.rest]
        with self.passes.b.parallel([*names, "tile", "range"], [*extents, tiles, plan.ranges]) as (
            *rest,
            tile,
            number,
        ):
            at = dict(zip(names, rest, strict=True))
            firsts = [(first + tile * width + k) * lanes for k in range(width)]
            whole = extent_of(plan.place)
            size = -(-whole // plan.ranges)
            start = number * size
            self.passes.one_pass(at, firsts, lanes, valid, (start, dim_min(start + size, whole)))


def scatter(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "scatter",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
