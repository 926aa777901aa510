"""Windows that overlap, one axis after the other.

    y[p, q] = max over r, s of x[p U + r, q V + s]

is the maximum along q of maxima along p, which all windows beside each other share: V R + S terms
of each output instead of R S. Sums likewise; what is done with them comes at the end.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from convdsl.kernel.expr import (
    Axis,
    Expr,
    Read,
    Reduce,
    Stage,
    TensorVar,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import depends
from convdsl.schedules.cpu import generic, reduction
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Operand, Output, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import TensorType
from convdsl.tensor.records import record

_TRIP = 8.0  # cycles of a vector that waits in memory from one part to the next


@record
class Parted:
    """A task as one that reduces windows along one axis, into memory that lies as `layout` says,
    and one that does the rest."""

    first: Task
    rest: Task

    @property
    def between(self) -> Output:
        return self.first.outputs[0]


def parted(task: Task, place: int) -> Parted | None:
    """Windows along dimension `place` of what is read first; None where these are none, or where
    no term is saved: a map that is one window has no others to share with."""
    reduces = [e for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)]
    if len(set(reduces)) != 1 or task.ending is not None or task.earlier:
        return None
    reduce = reduces[0]
    read = reduce.body
    if not isinstance(read, Read) or reduce.op not in ("max", "min", "sum"):
        return None
    neutral = REDUCTIONS[reduce.op].neutral(read.dtype)
    exact = reduce.dtype is read.dtype and read.outside in (None, neutral)
    if not exact or len(reduce.axes) < 2 or sum(r == read for r in task.reads) != 1:
        return None
    taps = [axis for axis in reduce.axes if depends(read.index[place], axis)]
    own = [axis for axis in task.axes if depends(read.index[place], axis)]
    others = [index for d, index in enumerate(read.index) if d != place]
    moved = any(depends(index, axis) for index in others for axis in (*taps, *own))
    if len(taps) != 1 or len(own) != 1 or moved or len(read.index) != len(task.axes):
        return None
    made = _parts(task, reduce, read, place, (own[0], taps[0]))
    left = prod(map(extent_of, reduce.axes)) // extent_of(taps[0])
    outputs, between = prod(map(extent_of, task.axes)), made.between.layout.size
    saves = between * extent_of(taps[0]) + outputs * left < outputs * left * extent_of(taps[0])
    return made if saves else None


def _parts(task: Task, reduce: Reduce, read: Read, place: int, axes: tuple[Axis, Axis]) -> Parted:
    own, tap = axes
    shape = read.tensor.type.sizes
    shape = (*shape[:place], extent_of(own), *shape[place + 1 :])
    walked = tuple(own if d == place else Axis(f"w{d}", size) for d, size in enumerate(shape))
    at = tuple(read.index[d] if d == place else axis.i for d, axis in enumerate(walked))
    name = f"windows{len(reduce.axes)}"
    made = TensorVar(name, TensorType(reduce.dtype, shape))
    body = Reduce(reduce.op, (tap,), Read(read.tensor, at, read.outside))
    layout = Layout(shape, task.layout.axis, task.layout.block)
    output = Output(made, layout)
    operand = task.operand(read.tensor.name)
    first = Task(task.op, (Stage(made, walked, body),), (operand,), (output,), layout)
    index = tuple(own.i if d == place else i for d, i in enumerate(read.index))
    left = tuple(axis for axis in reduce.axes if axis != tap)
    late = Reduce(reduce.op, left, Read(made, index, read.outside))

    def rule(node: Expr) -> Expr | None:
        return late if node == reduce else None

    stages = tuple(replace(stage, body=transform(stage.body, rule)) for stage in task.stages)
    rest = replace(task, stages=stages, operands=(Operand(made, layout),))
    names = {r.tensor.name for r in rest.reads}
    kept = tuple(o for o in task.operands if o.var.name in names)
    return Parted(first, replace(rest, operands=(*kept, Operand(made, layout))))


def _best(task: Task, target: Target) -> tuple[float, Parted] | None:
    """The cheapest order of the axes, with its cycles."""
    found: tuple[float, Parted] | None = None
    for place in range(len(task.axes)):
        way = parted(task, place)
        if way is not None:
            trip = _TRIP * way.between.layout.size / target.lanes(task.element)
            cycles = generic.cost(way.first, target) + _rest(way, target)[0] + trip
            if found is None or cycles < found[0]:
                found = cycles, way
    return found


def _rest(way: Parted, target: Target) -> tuple[float, bool]:
    """The cycles of what follows, and whether it is parted again."""
    whole, again = generic.cost(way.rest, target), cost(way.rest, target)
    return (whole, False) if again is None or whole <= again else (again, True)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all parts; None where windows have one axis. Terms are counted as the generic
    schedule counts them, and cost what they do for whoever would take whole windows."""
    found = _best(task, target)
    if found is None:
        return None
    whole = generic.cost(task, target)
    least = reduction.cost(task, target)
    return found[0] * (1 if least is None else min(least / whole, 1))


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """The first axis, then the others, in the same way or as they are."""
    found = _best(task, target)
    assert found is not None
    (_, way) = found
    first = generic.emit(way.first, f"{name}_{way.between.var.name}", target)
    follow = emit if _rest(way, target)[1] else generic.emit
    rest = follow(way.rest, name, target)
    own = Scratch(way.between.var.name, way.between.var.type.dtype, way.between.layout.size)
    return first.then(rest, own)


def separable(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "separable",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
