"""Strided gathers taken apart: every so many positions of an output a convolution of stride one.

What a strided convolution sends back to its input, or a transposed one makes, is at position
U i + f a sum over every U-th tap only, which ones follows from f (`kernel.preimage`). At a fixed f,
a phase, indices without floors are left, and a part of the filters. Phases side by side that read
the same positions may be one task over all of them: there are few kinds, however large U is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import lcm, prod
from typing import TypeAlias

from convdsl.kernel.counting import decide
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
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Operand, Output, Task
from convdsl.tensor import Dim, TensorType, ceil_div, substitute, symbols_of
from convdsl.tensor.dim import Floor, terms_of
from convdsl.tensor.records import record

Numbers: TypeAlias = "tuple[int, ...]"  # of a phase, one for each axis


@record
class Part:
    """Of a tensor that is read only in part: along each axis where it begins, and how far apart
    the elements are. `whole` is its shape."""

    whole: tuple[int, ...]
    starts: tuple[int, ...]
    steps: tuple[int, ...]


@record
class Phase:
    """One of the tasks that a strided one consists of, or several as one (`Task.over`); the parts
    that each of these reads of operands, which in `task` are tensors of their own."""

    task: Task
    parts: Mapping[str, tuple[Part, ...]]


def phases_of(task: Task, *, alike: bool) -> tuple[Phase, ...]:
    """The task as phases, `alike` ones as one; none where it has no strides, or where it cannot be
    taken apart."""
    strides = strides_of(task.root)
    if task.ending is not None or prod(strides) == 1:
        return ()
    kinds: dict[object, dict[Numbers, Phase]] = {}
    for phase in product(*map(range, strides)):
        if any(f >= extent_of(axis) for f, axis in zip(phase, task.axes, strict=True)):
            continue
        made = _at(task, strides, phase)
        if made is None:
            return ()
        kind = _kind(made) if alike else phase
        kinds.setdefault(kind, {})[phase] = made
    return tuple(
        _together(task, strides, box, members)
        for members in kinds.values()
        for box in _boxes(list(members))
    )


def _kind(phase: Phase) -> object:
    """What phases have in common that read the same, but for other filters as many."""
    sums = [node for node in walk(phase.task.root.body) if isinstance(node, Reduce)]
    steps = tuple((name, part.steps) for name, (part,) in phase.parts.items())
    return (tuple(sums), phase.task.axes, steps)


def _boxes(members: list[Numbers]) -> Iterator[tuple[range, ...]]:
    """Numbers of phases as few products of ranges."""
    if not members or not members[0]:
        yield ()
        return
    rests: dict[int, list[Numbers]] = {}
    for first, *rest in members:
        rests.setdefault(first, []).append(tuple(rest))
    start = min(rests)
    for first in sorted(rests):
        if first + 1 in rests and rests[first + 1] == rests[first]:
            continue
        for box in _boxes(rests[first]):
            yield (range(start, first + 1), *box)
        start = min((other for other in rests if other > first), default=first)


def _together(
    task: Task, strides: Sequence[int], box: tuple[range, ...], members: Mapping[Numbers, Phase]
) -> Phase:
    """The phases of a box as one."""
    phases = [members[numbers] for numbers in product(*box)]
    if len(phases) == 1:
        return phases[0]
    over = [Axis(f"{axis.name}_phase", len(own)) for axis, own in zip(task.axes, box, strict=True)]
    first = tuple(own.start for own in box)
    places = tuple(
        own.start + axis.i if len(own) > 1 else own.start
        for own, axis in zip(box, over, strict=True)
    )
    made = _at(task, strides, first, places)
    assert made is not None
    parts = {name: tuple(phase.parts[name][0] for phase in phases) for name in made.parts}
    return Phase(replace(made.task, over=tuple(axis for axis in over if axis.extent != 1)), parts)


def strides_of(stage: Stage) -> tuple[int, ...]:
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


def _at(
    task: Task, strides: Sequence[int], phase: Numbers, others: Sequence[Dim] = ()
) -> Phase | None:
    """The task at the positions of one phase. All but the sum is that of the `others`, if they
    are given: of phases with the same sums."""
    axes: list[Axis] = []
    summed: dict[str, Dim] = {}
    places: dict[str, Dim] = {}
    for axis, stride, first, other in zip(task.axes, strides, phase, others or phase, strict=True):
        own = Axis(axis.name, ceil_div(extent_of(axis) - first, stride))
        axes.append(own)
        if stride > 1:
            steps = 0 if own.extent == 1 else own.i * stride
            summed[axis.name], places[axis.name] = steps + first, steps + other
    stages: list[Stage] = []
    parts: dict[str, Part] = {}
    for stage in task.stages:
        body = reindex(stage.body, places)
        if stage is task.root:
            made = _reduced(stage.body, summed, tuple(axes), parts)
            if made is None:
                return None
            body = _with_sum(body, made)
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
    operands = tuple(map(_part_of(names, parts), kept))
    return Phase(replace(own, operands=operands), {name: (part,) for name, part in parts.items()})


def _reduced(
    body: Expr, places: Mapping[str, Dim], axes: tuple[Axis, ...], parts: dict[str, Part]
) -> Expr | None:
    """The body's sum over those taps alone that a phase meets; zero for it where there are none."""
    (reduce,) = (node for node in walk(reindex(body, places)) if isinstance(node, Reduce))
    return _sum(reduce, axes, parts)


def _with_sum(body: Expr, made: Expr) -> Expr:
    """The body with another sum."""
    (reduce,) = (node for node in walk(body) if isinstance(node, Reduce))
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
