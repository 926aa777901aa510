"""Maps that read along another axis than they write: by way of tiles in shared memory.

    y[.., b, a] = f(x[.., a, b])

Neighbours read what lies side by side in x, leave it in shared memory, and take from there what
belongs side by side in y. A row of a tile is one element longer than it is wide, so that a column
of it lies in as many banks as a row does. Along either side several axes may make one run, as long
as they lie so: the positions of a map beside its channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

from convdsl.kernel.counting import OPPOSITE, decide
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Select, children, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import IndexTest, Load, ValueType
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.cuda.costs import moved_bytes, nanoseconds, reads_of_an_element
from convdsl.schedules.cuda.frame import guarded, unravelled
from convdsl.schedules.emission import Emitter, extent_of, index_tests
from convdsl.schedules.frame import Frame
from convdsl.schedules.phases import floors_of
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record

_ROWS = 8  # of a tile that the threads of a block take at a time
_LEAST = 8  # positions of a run; of fewer most of a tile would be empty


@record
class Way:
    """`reads` lie side by side along the axes `inner`, what is written along `outer`, the last of
    each fastest; `others` are the rest. `bound` says where the axes of the task stand by these,
    `guards` for each read under which tests it happens."""

    bound: Mapping[str, Dim]
    reads: tuple[Read, ...]
    guards: tuple[tuple[IndexTest, ...], ...]
    inner: tuple[Axis, ...]
    outer: tuple[Axis, ...]
    others: tuple[Axis, ...]

    @property
    def sides(self) -> tuple[int, int]:
        """Positions of the run that is written along, and of the one that is read along."""
        return prod(map(extent_of, self.outer)), prod(map(extent_of, self.inner))

    @property
    def extents(self) -> tuple[int, ...]:
        """Of the tiles."""
        tiles = (-(-side // WARP) for side in self.sides)
        return (*map(extent_of, self.others), *tiles)


def plan(task: Task) -> Way | None:
    """None where no operand lies across."""
    if task.ending is not None or not task.axes or len(task.outputs) != 1:
        return None
    if any(isinstance(e, Reduce) for stage in task.stages for e in walk(stage.body)):
        return None
    (output,) = task.outputs
    bound, axes = _digits(task)
    written = _steps(output.offset(bound, task.axes), axes)
    across: dict[Read, Mapping[str, int]] = {}
    for read in dict.fromkeys(task.reads):
        layout = task.operand(read.tensor.name).layout or Layout(read.tensor.type.sizes)
        steps = _steps(layout.offset([substitute(d, bound) for d in read.index]), axes)
        if written and steps and _first(steps, axes) not in (None, _first(written, axes)):
            across[read] = steps
    if not across or not written or _first(written, axes) is None:
        return None
    steps = next(iter(across.values()))
    inner, outer = _runs(steps, written, axes)
    reads = tuple(read for read, own in across.items() if own == steps)
    guards = [set(_guards(task, read)) for read in reads]
    if any(len(found) > 1 for found in guards):
        return None
    others = tuple(axis for axis in axes if axis not in (*inner, *outer))
    way = Way(bound, reads, tuple(found.pop() for found in guards), inner, outer, others)
    return way if min(way.sides) >= _LEAST else None


def _guards(task: Task, read: Read) -> Iterator[tuple[IndexTest, ...]]:
    """Of each place where something is read the tests of indices around it."""
    waiting: list[tuple[Expr, tuple[IndexTest, ...]]] = [(s.body, ()) for s in task.stages]
    while waiting:
        e, tests = waiting.pop()
        if e == read:
            yield tests
        known = index_tests(e.condition) if isinstance(e, Select) else None
        if isinstance(e, Select) and known is not None:
            no = tuple(replace(test, op=OPPOSITE[test.op]) for test in known)
            waiting += [(e.yes, (*tests, *known)), (e.no, (*tests, *no) if len(no) == 1 else tests)]
        else:
            waiting += [(part, tests) for part in children(e)]


def _digits(task: Task) -> tuple[dict[str, Dim], tuple[Axis, ...]]:
    """Axes as digits of several where reads take them apart, as they do of what was flattened."""
    bound: dict[str, Dim] = {}
    axes: list[Axis] = []
    floors = [f for read in task.reads for index in read.index for f in floors_of(index)]
    for axis in task.axes:
        divisors = {f.denominator for f in floors if f.numerator == axis.i}
        steps = [1, *sorted(d for d in divisors if isinstance(d, int)), extent_of(axis)]
        if len(steps) == 2 or any(large % small for small, large in pairwise(steps)):
            axes.append(axis)
            bound[axis.name] = axis.i
            continue
        place: Dim = 0
        for small, large in reversed(list(pairwise(steps))):
            digit = Axis(f"{axis.name}{small}", large // small)
            axes.append(digit)
            place = place + (digit.i * small if extent_of(digit) > 1 else 0)
        bound[axis.name] = place
    return bound, tuple(axes)


def _steps(offset: Dim, axes: Sequence[Axis]) -> dict[str, int] | None:
    """How far a step along each axis moves an offset, if it is the same everywhere."""
    found = {axis.name: coefficient(offset, axis) for axis in axes if extent_of(axis) > 1}
    return None if None in found.values() else {n: s for n, s in found.items() if s is not None}


def _first(steps: Mapping[str, int], axes: Sequence[Axis]) -> Axis | None:
    return next((axis for axis in axes if steps.get(axis.name) == 1), None)


def _runs(
    read: Mapping[str, int], written: Mapping[str, int], axes: Sequence[Axis]
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The axes of both runs, each grown until it fills a warp or meets the other."""
    first, last = _first(read, axes), _first(written, axes)
    assert first is not None
    assert last is not None
    inner, outer = [first], [last]
    grown = True
    while grown:
        grown = False
        for run, steps in ((outer, written), (inner, read)):
            length = prod(map(extent_of, run))
            found = [a for a in axes if steps.get(a.name) == length and a not in (*inner, *outer)]
            if length < WARP and found:
                run.insert(0, found[0])
                grown = True
    return tuple(inner), tuple(outer)


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: whole tiles, each element through shared memory once more."""
    way = plan(task)
    if way is None:
        return None
    elements = prod(way.extents) * WARP * WARP
    accesses = elements * (reads_of_an_element(task) + 2 * len(way.reads) + 1)
    return nanoseconds(target, moved_bytes(task), accesses)


def emit(task: Task, name: str) -> Scheduled:
    """A block for each tile."""
    way = plan(task)
    assert way is not None
    frame = Frame.open(task, name)
    b, pitch = frame.b, WARP + 1
    with b.blocks(("block",), (prod(way.extents),)) as (block,):
        tiles = [b.shared("tile", WARP * pitch, read.dtype) for read in way.reads]
        with b.threads(("row", "column"), (_ROWS, WARP)) as (row, column):
            *others, over, under = unravelled(block, way.extents)
            base: dict[str, Dim] = {a.name: i for a, i in zip(way.others, others, strict=True)}

            def at(far: Dim, near: Dim) -> dict[str, Dim]:
                """Where the axes stand at a place of the runs."""
                found = {**base}
                for run, place in ((way.outer, far), (way.inner, near)):
                    digits = unravelled(place, [extent_of(axis) for axis in run])
                    found |= {axis.name: i for axis, i in zip(run, digits, strict=True)}
                return {name: substitute(place, found) for name, place in way.bound.items()}

            for step in range(0, WARP, _ROWS):
                far, near = over * WARP + row + step, under * WARP + column
                tests = _inside(way, far, near)
                if any(decide(test) is False for test in tests):
                    continue
                with guarded(b, *tests):
                    emitter = Emitter(b, frame.views, 1)
                    here = at(far, near)
                    for tile, read, known in zip(tiles, way.reads, way.guards, strict=True):
                        own = (
                            IndexTest(t.op, substitute(t.a, here), substitute(t.b, here))
                            for t in known
                        )
                        value = emitter.emit(read, here, tuple(own))
                        b.store(tile, (row + step) * pitch + column, value)
            b.barrier()
            for step in range(0, WARP, _ROWS):
                far, near = over * WARP + column, under * WARP + row + step
                tests = _inside(way, far, near)
                if any(decide(test) is False for test in tests):
                    continue
                with guarded(b, *tests):
                    known = tuple(
                        (read, b.let(Load(tile, column * pitch + row + step, _type(read))))
                        for tile, read in zip(tiles, way.reads, strict=True)
                    )
                    here = at(far, near)
                    emit_chain(Emitter(b, frame.views, 1, known=known), task, here, here)
    return frame.finish()


def _type(read: Read) -> ValueType:
    return ValueType(read.dtype)


def _inside(way: Way, far: Dim, near: Dim) -> tuple[IndexTest, IndexTest]:
    sides = way.sides
    return IndexTest("lt", far, sides[0]), IndexTest("lt", near, sides[1])


def transposed(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule("transposed", lambda task: cost(task, target), emit)
