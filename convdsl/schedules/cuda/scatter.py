"""Reductions by position: threads that have positions for themselves add what belongs there.

    y[j, d] = sum over i with ids[i] = j of v[i, d], in ascending order of i

A thread has a vector along d of some of the positions j. It looks at all i, several at a time, and
its neighbours, which have other vectors of the same positions, look at the same ones. So nothing
is added by two, and the order is the one that is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis
from convdsl.kernel.scatter import match_scatter
from convdsl.schedules.cuda.costs import moved_bytes, nanoseconds
from convdsl.schedules.cuda.frame import block_of, each, unravelled
from convdsl.schedules.emission import extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.passes import Passes, Sums, mentions
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min

LANES = 4
_THREADS = 1 << 16
"""That look at all terms: enough for any card, and no more, since each looks at all of them."""

_TOGETHER = 8
"""Terms that a thread looks at at a time, so that their loads wait together."""

_LOOK = 0.05
"""Of a step: what one term takes where the cache has its position."""


def plan(task: Task) -> Sums | None:
    """None where the task is anything but a reduction by position."""
    (stage, *more) = task.stages
    found = match_scatter(stage.body)
    if more or found is None or task.ending is not None or task.earlier:
        return None
    (place,) = (axis for axis in task.axes if axis.name == found.place)
    number = len(task.axes) - 1 if task.layout.axis is None else task.layout.axis
    along = task.axes[number]
    if along is place or extent_of(along) % LANES or mentions(found.index, along):
        rest = tuple(axis for axis in task.axes if axis is not place)
        return Sums(found, place, None, 1, rest, _ranges(place, rest, 1))
    rest = tuple(axis for axis in task.axes if axis not in (place, along))
    ranges = _ranges(place, rest, extent_of(along) // LANES)
    return Sums(found, place, along, LANES, rest, ranges)


def _ranges(place: Axis, rest: Sequence[Axis], vectors: int) -> int:
    others = math.prod(map(extent_of, rest)) * vectors
    return max(1, min(extent_of(place), _THREADS // others))


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: every thread looks at all terms; the values are read once."""
    chosen = plan(task)
    if chosen is None:
        return None
    terms = math.prod(map(extent_of, chosen.sum.axes))
    threads = chosen.ranges * chosen.vectors * math.prod(map(extent_of, chosen.rest))
    return nanoseconds(target, moved_bytes(task), terms * threads / 4, terms * _LOOK)


def emit(task: Task, name: str, target: CudaTarget) -> Scheduled:
    """Threads over vectors, which lie side by side, within ranges of positions."""
    chosen = plan(task)
    assert chosen is not None
    layouts = {
        o.var.name: operand_layout(o, task.reads, chosen.along, chosen.lanes) for o in task.operands
    }
    frame = Frame.open(task, name, chosen.lanes, layouts)
    passes = Passes(frame.b, task, chosen, frame.views)
    extents = [chosen.ranges, *map(extent_of, chosen.rest), chosen.vectors]
    total, whole = math.prod(extents), extent_of(chosen.place)
    with each(frame.b, total, block_of(target, total)) as number:
        part, *rest, vector = unravelled(number, extents)
        at: dict[str, Dim] = {a.name: i for a, i in zip(chosen.rest, rest, strict=True)}
        size = -(-whole // chosen.ranges)
        places = (dim_min(part * size, whole), dim_min(part * size + size, whole))
        passes.one_pass(at, [vector * chosen.lanes], chosen.lanes, None, places, _TOGETHER)
    return frame.finish()


def scatter(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule(
        "scatter",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
