"""Axes of a task that every tensor lies along as one, taken as one.

Filters [K, C, 3, 3] have three elements in a row; an update of them reads and writes all of it at
its own position, so that it may as well be a row of K C 9. What is merged is the shape of what a
task reads and writes, never an element's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from convdsl.ir.classify import is_in_place
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Read,
    Reduce,
    Stage,
    TensorVar,
    indices_of,
    reindex,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import depends
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, TensorType
from convdsl.tensor.records import record


@record
class _Pair:
    """Two neighbouring axes of a task that may be one."""

    x: Axis
    y: Axis
    merged: Axis


@lru_cache(maxsize=64)
def merged(task: Task) -> Task:
    """The same task over fewer axes, the last ones first; itself where none can be merged. It is
    kept: several schedules ask, one after the other."""
    if task.ending is not None or any(stage.axes != task.axes for stage in task.stages):
        return task
    task = _moving_along(task)
    position = len(task.axes) - 1
    while position > 0:
        made = _merge(task, position)
        task = task if made is None else made
        position -= 1
    return task


def without_single_terms(task: Task) -> Task:
    """The task without reduced axes of extent 1, such as the taps of a 1x1 convolution: what is
    read moves along the axes of the task alone then, and these may be merged."""

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        kept = tuple(axis for axis in node.axes if axis.extent != 1)
        if not kept or kept == node.axes:
            return None
        zeros: dict[str, Dim] = {axis.name: 0 for axis in node.axes if axis.extent == 1}
        return replace(node, axes=kept, body=reindex(node.body, zeros))

    stages = (replace(stage, body=transform(stage.body, rule)) for stage in task.stages)
    return replace(task, stages=tuple(stages))


def _moving_along(task: Task) -> Task:
    """The task with every read of a tensor of its own shape along all axes: an axis of extent 1 may
    have been left out."""

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Read) or not is_in_place(node, task.axes):
            return None
        return Read(node.tensor, tuple(axis.i for axis in task.axes))

    stages = (replace(stage, body=transform(stage.body, rule)) for stage in task.stages)
    return replace(task, stages=tuple(stages))


def _merge(task: Task, at: int) -> Task | None:
    """Axes `at` - 1 and `at` as one, if everything lies along them so."""
    x, y = task.axes[at - 1 : at + 1]
    pair = _Pair(x, y, Axis(x.name, extent_of(x) * extent_of(y)))
    made = {stage.target.name for stage in task.stages}
    places = dict.fromkeys(made, at - 1)  # of each tensor: the first of two axes to merge
    layouts = {o.var.name: o.layout for o in (*task.operands, *task.outputs)}
    if any(depends(place, axis) for place in _places_asked(task) for axis in (x, y)):
        return None  # where an element stands is part of what is computed
    for read in task.reads:
        if any(isinstance(node, Reduce) and y in node.axes for node in walk(task.root.body)):
            return None
        found = _place(read, pair)
        if found is None or places.setdefault(read.tensor.name, found) != found:
            return None
    for name, layout in layouts.items():
        if layout is not None and layout.axis is not None and _touches(layout, places[name]):
            return None
    if task.layout.axis is not None and _touches(task.layout, at - 1):
        return None
    return _with(task, pair, at, places)


def _places_asked(task: Task) -> Iterator[Dim]:
    """Indices that are values, or are compared."""
    for stage in task.stages:
        for node in walk(stage.body):
            if isinstance(node, IndexValue | IndexCompare):
                yield from indices_of(node)


def _place(read: Read, pair: _Pair) -> int | None:
    """The first of the two neighbouring axes of a tensor that the pair runs along; -1 where it
    moves neither; None where it cannot be one."""
    moved = [any(depends(d, axis) for axis in (pair.x, pair.y)) for d in read.index]
    if not any(moved):
        return -1
    at = moved.index(True)
    if sum(moved) != 2 or not moved[at + 1]:
        return None
    sizes = read.tensor.type.sizes[at : at + 2]
    own = read.index[at + 1] == pair.y.i and sizes[1] == extent_of(pair.y)
    rest = read.index[at] - pair.x.i
    if read.outside is not None and (rest != 0 or sizes[0] != extent_of(pair.x)):
        return None  # the pair itself never leaves
    return at if own and not depends(rest, pair.x) and not depends(rest, pair.y) else None


def _touches(layout: Layout, at: int) -> bool:
    return at >= 0 and layout.axis in (at, at + 1)


def _with(task: Task, pair: _Pair, at: int, places: Mapping[str, int]) -> Task:
    def var(old: TensorVar) -> TensorVar:
        place = places[old.name]
        return old if place < 0 else TensorVar(old.name, _type(old.type, place))

    def layout(old: Layout, name: str) -> Layout:
        place = places[name]
        return old if place < 0 else _layout(old, place)

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Read):
            return None
        place = places[node.tensor.name]
        if place < 0:
            return None
        rest: Dim = node.index[place] - pair.x.i
        one = pair.merged.i + rest * extent_of(pair.y)
        index = (*node.index[:place], one, *node.index[place + 2 :])
        return Read(var(node.tensor), index, node.outside)

    axes = (*task.axes[: at - 1], pair.merged, *task.axes[at + 1 :])
    return replace(
        task,
        stages=tuple(Stage(var(s.target), axes, transform(s.body, rule)) for s in task.stages),
        operands=tuple(
            replace(o, var=var(o.var), layout=o.layout and layout(o.layout, o.var.name))
            for o in task.operands
        ),
        outputs=tuple(
            replace(o, var=var(o.var), layout=layout(o.layout, o.var.name)) for o in task.outputs
        ),
        layout=_layout(task.layout, at - 1),
    )


def _type(type: TensorType, at: int) -> TensorType:
    return TensorType(type.dtype, _sizes(type.sizes, at))


def _layout(layout: Layout, at: int) -> Layout:
    axis = layout.axis
    moved = axis - 1 if axis is not None and axis > at else axis
    return replace(layout, shape=_sizes(layout.shape, at), axis=moved)


def _sizes(sizes: tuple[int, ...], at: int) -> tuple[int, ...]:
    return (*sizes[:at], sizes[at] * sizes[at + 1], *sizes[at + 2 :])
