"""A contraction as a matrix product for each batch, its axes in the order that they are walked in.

    sums[batch][row, column] = sum over depth of a[batch][row, depth] b[batch][column, depth]

Rows are the positions of several axes, one after the other, and so are columns and depths: of a
convolution the pixels, the filters, and the taps with their channels; of a gradient of filters
filters, taps with channels, and pixels. Nothing is copied out for that: a factor is read where an
index says (`factor`). The last axis of each run may be filled up to a multiple of four, so that
four neighbours in memory are four neighbours in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis, Read, Reduce, Stage
from convdsl.kernel.layout import Layout
from convdsl.kernel.mma import TF32
from convdsl.schedules.contraction import (
    Contraction,
    coefficient,
    depends,
    find_contraction,
)
from convdsl.schedules.cuda.tile import form_of
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.schedules.task import Output, Task
from convdsl.tensor import Dim, DType, Symbol, floor_div, substitute
from convdsl.tensor.dim import Floor, terms_of
from convdsl.tensor.records import record


@record
class Run:
    """Axes whose positions are numbered together, the last axis fastest and filled up to a multiple
    of `step`."""

    axes: tuple[Axis, ...]
    step: int = 1

    @property
    def extents(self) -> tuple[int, ...]:
        """Positions along each axis, filling included."""
        extents = [extent_of(axis) for axis in self.axes]
        if extents:
            extents[-1] = -(-extents[-1] // self.step) * self.step
        return tuple(extents)

    @property
    def size(self) -> int:
        return prod(self.extents)

    @property
    def ragged(self) -> bool:
        """Whether some positions are filling."""
        return bool(self.axes) and self.extents[-1] != extent_of(self.axes[-1])

    def place(self, number: Dim) -> dict[str, Dim]:
        """The axes at a position."""
        found: dict[str, Dim] = {}
        inner = 1
        for axis, extent in zip(reversed(self.axes), reversed(self.extents), strict=True):
            here = floor_div(number, inner)
            if axis != self.axes[0]:
                here = here - floor_div(number, inner * extent) * extent
            found[axis.name] = here
            inner *= extent
        return found

    def number(self, place: Mapping[str, Dim]) -> Dim:
        """The position where the axes are at a place."""
        found: Dim = 0
        for axis, extent in zip(self.axes, self.extents, strict=True):
            found = found * extent + place[axis.name]
        return found

    def with_last(self, axis: Axis | None, step: int = 1) -> Run:
        """The same positions, those of one axis side by side."""
        if axis is None:
            return replace(self, step=step)
        return Run((*(other for other in self.axes if other != axis), axis), step)


@record
class Gemm:
    """See above. `where` says where the axes of the task are, by those of the runs."""

    reduce: Reduce
    a: Read
    b: Read
    batch: Run
    rows: Run
    columns: Run
    depth: Run
    where: Mapping[str, Dim]

    @property
    def products(self) -> int:
        """Of two elements, those with filling included."""
        return self.batch.size * self.rows.size * self.columns.size * self.depth.size

    def at(self, *places: Mapping[str, Dim]) -> dict[str, Dim]:
        """The axes of the task, by the axes of the runs."""
        known = {name: index for place in places for name, index in place.items()}
        return {name: substitute(index, known) for name, index in self.where.items()}


def rounded_factors(target: CudaTarget) -> Callable[[Stage], Mapping[str, DType]]:
    """What a stage reads as factors of products of f32 that the tensor units compute in fewer bits,
    and the type whose numbers they multiply."""
    form, _ = form_of(target, DType.F32, DType.F32)

    def rounded(stage: Stage) -> Mapping[str, DType]:
        found = None if form is None else find_contraction(stage)
        if form is None or found is None or found.guards or found.alone:
            return {}
        if found.reduce.dtype is not DType.F32 or not {"a", "b"} <= _alone(found):
            return {}
        dtype = DType.TF32 if form is TF32 else form.dtype
        return dict.fromkeys((found.a.tensor.name, found.b.tensor.name), dtype)

    return rounded


@lru_cache(maxsize=512)
def match_gemm(task: Task) -> Gemm | None:
    """The matrix products that a task is, in f32: vectors of what leaves run along the columns."""
    if task.ending is not None or len(task.reducing) != 1:
        return None
    found = find_contraction(task.root, stored=True)
    if found is None or found.guards or found.alone or found.reduce.dtype is not DType.F32:
        return None
    where: dict[str, Dim] = {
        axis.name: 0 if extent_of(axis) == 1 else axis.i for axis in task.root.axes
    }
    axes: list[Axis] = []
    a, b = found.a, found.b
    for axis in (*found.batch, *found.m, *found.n):
        outputs = _groups(axis, a, b) if axis in found.batch else 0
        if not outputs:
            axes.append(axis)
            continue
        group, own, where[axis.name] = _apart(axis, outputs)
        a, b = (_moved(read, axis, where[axis.name]) for read in (a, b))
        axes += [group, own]
    order = [axis.name for axis in task.root.axes]
    axes.sort(key=lambda axis: _rank(axis, order))
    vector = _vector_axis(task, where)
    if vector is not None and _moves(a, vector) and not _moves(b, vector):
        a, b = b, a
    runs = {key: Run(tuple(x for x in axes if _key(a, b, x) == key)) for key in ("ab", "a", "b")}
    columns = runs["b"]
    if vector in columns.axes:
        columns = columns.with_last(vector)
    return Gemm(found.reduce, a, b, runs["ab"], runs["a"], columns, Run(found.k), where)


def _apart(axis: Axis, outputs: int) -> tuple[Axis, Axis, Dim]:
    """The groups of an axis, the part within one, and where the axis is by both."""
    group = Axis(f"{axis.name}_group", extent_of(axis) // outputs)
    own = Axis(f"{axis.name}_own", outputs)
    return group, own, group.i * outputs + own.i


def _alone(found: Contraction) -> set[str]:
    """The factors that some axis moves alone, those taken apart that move one in steps: of one
    image a transposed convolution has no other."""
    keys = {key for key, axes in (("a", found.m), ("b", found.n)) if axes}
    for axis in found.batch:
        outputs = _groups(axis, found.a, found.b)
        if outputs:
            group, own, at = _apart(axis, outputs)
            a, b = (_moved(read, axis, at) for read in (found.a, found.b))
            keys |= {_key(a, b, part) for part in (group, own)}
    return keys


def _key(a: Read, b: Read, axis: Axis) -> str:
    return "a" * _moves(a, axis) + "b" * _moves(b, axis)


def _rank(axis: Axis, order: list[str]) -> tuple[int, int]:
    """As in the output; the group of an axis before its own part."""
    for part, end in enumerate(("_group", "_own")):
        if axis.name.removesuffix(end) in order and axis.name not in order:
            return order.index(axis.name.removesuffix(end)), part
    return order.index(axis.name), 0


def _moves(read: Read, axis: Axis) -> bool:
    return any(depends(index, axis) for index in read.index)


def _moved(read: Read, axis: Axis, to: Dim) -> Read:
    return replace(read, index=tuple(substitute(d, {axis.name: to}) for d in read.index))


def _groups(axis: Axis, a: Read, b: Read) -> int:
    """By what an axis is divided where it moves one factor only in such steps: the outputs of a
    group. 0 where it moves both otherwise."""
    for read in (a, b):
        for index in read.index:
            for floor in _floors(index):
                outputs, extent = floor.denominator, extent_of(axis)
                if floor.numerator != axis.i or not isinstance(outputs, int) or extent % outputs:
                    continue
                own = Axis(f"{axis.name}_own", outputs)
                split = Axis(f"{axis.name}_group", extent // outputs).i * outputs + own.i
                if not all(_moves(_moved(r, axis, split), own) for r in (a, b)):
                    return outputs
    return 0


def _floors(index: Dim) -> Iterator[Floor]:
    for monomial, _ in terms_of(index):
        for atom, _ in monomial:
            if isinstance(atom, Floor):
                yield atom


def _vector_axis(task: Task, where: Mapping[str, Dim]) -> Axis | None:
    """The axis that what leaves lies along: channels, or the last one."""
    axes = task.root.axes
    axis = axes[task.layout.axis] if task.layout.axis is not None else None
    if axis is None:
        axis = next((x for x in reversed(axes) if extent_of(x) > 1), None)
    if axis is None or extent_of(axis) == 1:
        return None
    symbols = [atom for m, _ in terms_of(where[axis.name]) for atom, _ in m]
    own = [s for s in symbols if isinstance(s, Symbol) and not s.name.endswith("_group")]
    return Axis(own[0].name, _highest(own[0]) + 1) if own else None


def _highest(found: Symbol) -> int:
    assert found.maximum is not None
    return found.maximum


# How a factor lies


def offset(read: Read, layout: Layout | None) -> Dim:
    """Where in its buffer a factor is read."""
    return (layout or Layout(read.tensor.type.sizes)).offset(read.index)


def unit_axis(read: Read, layout: Layout | None, axes: tuple[Axis, ...]) -> Axis | None:
    """That of the axes along which neighbours lie side by side."""
    at = offset(read, layout)
    return next((axis for axis in axes if coefficient(at, axis) == 1), None)


def vector_width(read: Read, layout: Layout | None, axis: Axis, most: int) -> int:
    """How many neighbours along an axis may be copied together: `most`, a half of that, and so on.
    Each such group must begin at a multiple of its size, and lie inside the tensor or outside as a
    whole, but for what is filling."""
    at, own = offset(read, layout), layout or Layout(read.tensor.type.sizes)
    rest = substitute(at, {axis.name: 0})
    inside = read.outside is None or all(
        index == axis.i or not depends(index, axis) or not bounds_tests(index, extent)
        for index, extent in zip(read.index, read.tensor.type.sizes, strict=True)
    )
    if not inside:
        return 1
    width = most
    while width > 1:
        steps = all(isinstance(c, int) and c % width == 0 for _, c in terms_of(rest))
        filled = -(-extent_of(axis) // width) * width
        room = extent_of(axis) % width == 0 or (
            own.axis is not None
            and own.blocks == 1
            and own.block >= filled
            and read.index[own.axis] == axis.i
        )
        if steps and room:
            break
        width //= 2
    return width


# How what leaves lies


def in_vectors(task: Task, gemm: Gemm, lanes: int) -> bool:
    """Whether neighbouring columns are neighbours in all that leaves: what lies beyond the last one
    is filling there too."""
    run = gemm.columns
    if not run.axes or run.extents[-1] % lanes:
        return False
    last = run.axes[-1]
    for output in task.outputs:
        if coefficient(_where(output, task, gemm), last) != 1:
            return False
        if run.ragged and not _fills(output, task, gemm):
            return False
    return True


def as_stored(task: Task, gemm: Gemm) -> tuple[Axis, ...]:
    """The axes of all sums, those whose neighbours lie nearest to each other in memory last."""
    at = _where(task.outputs[0], task, gemm)
    axes = (*gemm.batch.axes, *gemm.rows.axes, *gemm.columns.axes)
    return tuple(sorted(axes, key=lambda axis: -(coefficient(at, axis) or 0)))


def _where(output: Output, task: Task, gemm: Gemm) -> Dim:
    """Where a sum leaves to, by the axes of the runs."""
    place = {axis.name: axis.i for axis in task.axes}
    return substitute(output.offset(place, task.axes), dict(gemm.where))


def _fills(output: Output, task: Task, gemm: Gemm) -> bool:
    """Whether the last columns are all channels of an output, filled up as they are there."""
    layout, run = output.layout, gemm.columns
    if layout.axis is None or output.at is not None:
        return False
    channels = gemm.where[task.axes[layout.axis].name]
    return channels == run.axes[-1].i and layout.block >= run.extents[-1]
