"""Strided gathers taken apart: every so many positions of an output a convolution of stride one.

What a strided convolution sends back to its input, or a transposed one makes, is at position
U i + f a sum over every U-th tap only, which ones follows from f (`kernel.preimage`). At a fixed f,
a phase, indices without floors are left, and a part of the filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import lcm, prod

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Expr,
    Literal,
    Read,
    Reduce,
    Stage,
    TensorVar,
    reads,
    reindex,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import as_stored, coefficient, depends, unguarded
from convdsl.schedules.emission import decide, extent_of
from convdsl.schedules.task import Operand, Output, Task
from convdsl.tensor import Dim, TensorType, ceil_div, substitute, symbols_of
from convdsl.tensor.dim import Floor, terms_of


@dataclass(frozen=True, slots=True)
class Part:
    """Of a tensor that is read only in part: along each axis where it begins, and how far apart
    the elements are. `whole` is its shape."""

    whole: tuple[int, ...]
    starts: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the tasks that a strided one consists of; the parts that it reads of operands, which
    in `task` are tensors of their own."""

    task: Task
    parts: Mapping[str, Part]


def phases_of(task: Task, most: int) -> tuple[Phase, ...]:
    """The task as phases; none where it has no strides, where there would be more than `most`, or
    where it cannot be taken apart."""
    strides = _strides(task.root)
    if task.ending is not None or prod(strides) == 1 or prod(strides) > most:
        return ()
    found: list[Phase] = []
    for phase in product(*map(range, strides)):
        if any(f >= extent_of(axis) for f, axis in zip(phase, task.axes, strict=True)):
            continue
        made = _at(task, strides, phase)
        if made is None:
            return ()
        found.append(made)
    return tuple(found)


def _strides(stage: Stage) -> tuple[int, ...]:
    """For each axis the number of phases: by what it is divided in sums of products."""
    found = {axis.name: 1 for axis in stage.axes}
    sums = [node for node in walk(stage.body) if isinstance(node, Reduce)]
    if len(sums) != 1 or sums[0].op != "sum":
        return tuple(found.values())
    for read in reads(sums[0]):
        for index in read.index[2:]:
            for floor in floors_of(index):
                names = {s.name for s in symbols_of(floor.numerator)} & found.keys()
                if len(names) == 1 and isinstance(floor.denominator, int):
                    (name,) = names
                    found[name] = lcm(found[name], floor.denominator)
    return tuple(found.values())


def floors_of(index: Dim) -> Iterator[Floor]:
    """All floors in an index, those within others too."""
    for monomial, _ in terms_of(index):
        for atom, _ in monomial:
            if isinstance(atom, Floor):
                yield atom
                yield from floors_of(atom.numerator)


def _at(task: Task, strides: Sequence[int], phase: Sequence[int]) -> Phase | None:
    """The task at the positions of one phase."""
    axes: list[Axis] = []
    places: dict[str, Dim] = {}
    for axis, stride, first in zip(task.axes, strides, phase, strict=True):
        own = Axis(axis.name, ceil_div(extent_of(axis) - first, stride))
        axes.append(own)
        if stride > 1:
            places[axis.name] = (0 if own.extent == 1 else own.i * stride) + first
    stages: list[Stage] = []
    parts: dict[str, Part] = {}
    for stage in task.stages:
        body = reindex(stage.body, places)
        if stage is task.root:
            made = _reduced(body, tuple(axes), parts)
            if made is None:
                return None
            body = made
        stages.append(Stage(stage.target, tuple(axes), body))
    at = tuple(places.get(axis.name, axis.i) for axis in task.axes)
    own = replace(
        task,
        stages=tuple(stages),
        outputs=tuple(Output(o.var, o.layout, at) for o in task.outputs),
        layout=replace(task.layout, shape=tuple(extent_of(axis) for axis in axes)),
    )
    names = {read.tensor.name: read.tensor for read in own.reads}
    kept = (o for o in task.operands if o.var.name in names)
    return Phase(replace(own, operands=tuple(map(_part_of(names, parts), kept))), parts)


def _reduced(body: Expr, axes: tuple[Axis, ...], parts: dict[str, Part]) -> Expr | None:
    """The body with its sum over those taps alone that a phase meets; zero for it where there are
    none."""
    (reduce,) = (node for node in walk(body) if isinstance(node, Reduce))
    made = _sum(reduce, axes, parts)
    if made is None:
        return None
    return transform(body, lambda node: made if node == reduce else None)


def _sum(reduce: Reduce, axes: tuple[Axis, ...], parts: dict[str, Part]) -> Expr | None:
    term, guards = unguarded(reduce.body)
    decided = [decide(guard) for guard in guards]
    if False in decided:
        return Literal(0.0, reduce.dtype)
    factors = (term.a, term.b) if isinstance(term, Binary) and term.op == "mul" else ()
    if None in decided or not factors:
        return None
    counts = {axis.name: extent_of(axis) for axis in reduce.axes}
    stored = tuple(map(as_stored, factors))
    for factor in stored:
        if not isinstance(factor, Read):
            return None
        for place, extent in zip(factor.index, factor.tensor.type.sizes, strict=True):
            for name, count in _inside(place, extent, axes, reduce.axes):
                counts[name] = min(counts[name], count)
    if min(counts.values()) <= 0:
        return Literal(0.0, reduce.dtype)
    left = tuple(Axis(name, count) for name, count in counts.items() if count > 1)
    taps: dict[str, Dim] = dict.fromkeys(counts, 0) | {axis.name: axis.i for axis in left}
    made: list[Expr] = []
    for factor in stored:
        read = _taken(reindex(factor, taps), axes, left, parts)
        made.append(read if read.dtype is reduce.dtype else Cast(read, reduce.dtype))
    return Reduce("sum", left or (Axis(reduce.axes[0].name, 1),), Binary("mul", *made))


def _inside(
    place: Dim, extent: int, axes: Sequence[Axis], summed: Sequence[Axis]
) -> Iterator[tuple[str, int]]:
    """How far the tap that alone moves an index can go before it leaves the tensor."""
    if any(depends(place, axis) for axis in axes):
        return
    moving = [axis for axis in summed if depends(place, axis)]
    if not moving and isinstance(place, int) and not 0 <= place < extent:
        yield summed[0].name, 0
    if len(moving) == 1:
        (tap,) = moving
        step = coefficient(place, tap)
        start = substitute(place, {tap.name: 0})
        if step is not None and step > 0 and isinstance(start, int) and start >= 0:
            yield tap.name, -(-(extent - start) // step)


def _taken(
    read: Expr, axes: Sequence[Axis], summed: Sequence[Axis], parts: dict[str, Part]
) -> Expr:
    """A read of a part of a tensor that taps alone choose, as a read of all of a smaller one."""
    assert isinstance(read, Read)
    sizes = read.tensor.type.sizes
    shape, starts, steps, index = list(sizes), [0] * len(sizes), [1] * len(sizes), list(read.index)
    for at, place in enumerate(read.index):
        if any(depends(place, axis) for axis in axes):
            continue
        moving = [axis for axis in summed if depends(place, axis)]
        if isinstance(place, int) and sizes[at] > 1:
            starts[at], shape[at], index[at] = place, 1, 0
        elif len(moving) == 1:
            (tap,) = moving
            step, start = coefficient(place, tap), substitute(place, {tap.name: 0})
            if step is not None and step > 0 and isinstance(start, int):
                starts[at], steps[at], index[at] = start, step, tap.i
                shape[at] = extent_of(tap)
    if tuple(shape) == sizes:
        return read
    parts[read.tensor.name] = Part(sizes, tuple(starts), tuple(steps))
    type = TensorType(read.tensor.type.dtype, tuple(shape))
    return Read(TensorVar(read.tensor.name, type), tuple(index), _beyond(read, parts))


def _beyond(read: Read, parts: Mapping[str, Part]) -> float | int | bool | None:
    """Taps are cut to those inside, and nothing else moves a part beyond its end."""
    return None if read.tensor.name in parts else read.outside


def _part_of(
    names: Mapping[str, TensorVar], parts: Mapping[str, Part]
) -> Callable[[Operand], Operand]:
    """An operand of a phase: those that are read in part lie plain, once they are packed."""

    def taken(operand: Operand) -> Operand:
        var = names[operand.var.name]
        if var.name not in parts:
            return operand
        return Operand(var, None if operand.static else Layout(var.type.sizes))

    return taken
