"""The schedule that runs anything: output elements side by side, reductions in registers.

Vectors run along the blocked axis of the output, or along its last axis where it is plain.
The loops around are shared out among the threads, but for the innermost one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    Read,
    Reduce,
    arithmetic,
    walk,
)
from convdsl.kernel.expr import (
    reads as reads_of,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.cpu.filters import packing_cycles
from convdsl.schedules.emission import (
    Emitter,
    View,
    bounds_tests,
    depends_on_lane,
    extent_of,
    lane_stride,
    lane_symbol,
)
from convdsl.schedules.frame import Frame
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, substitute, symbols_of

_BORDER = 3  # positions at either end of an axis that may have code of their own
_WIDE = 16  # positions there that may be left to a loop of their own

_AGAIN = 2  # gathers of each element that packing must save
_SHORTEST = 3  # rows of at least a third of a vector are vectors, in part

Segment: TypeAlias = "tuple[int, int]"
Windows: TypeAlias = "list[tuple[Dim, int]]"
Places: TypeAlias = "list[dict[str, Dim]]"  # of output elements, or of vectors of them


@dataclass(frozen=True, slots=True)
class Cut:
    """How the output is walked: vectors of `lanes` along `axis` (None: scalars), `width` of them
    side by side where the steps of a reduction are to be hidden behind each other."""

    axis: Axis | None
    lanes: int
    width: int
    layouts: dict[str, Layout]

    def packs(self, task: Task) -> dict[str, Pack]:
        """What is packed in every call."""
        given = ((o.var.name, o.layout) for o in task.operands if o.layout is not None)
        return {name: self.layouts[name] for name, at in given if at != self.layouts[name]}


def cut(task: Task, target: Target) -> Cut:
    """Vectors where they pay, scalars otherwise."""
    lanes, reads = target.lanes(task.element), task.reads
    if task.layout.axis is not None:
        axis, lanes = task.axes[task.layout.axis], task.layout.block
    else:
        axis = task.axes[-1] if task.axes else None
    if axis is not None and lanes > 1:
        layouts = {o.var.name: operand_layout(o, reads, axis, lanes) for o in task.operands}
        plain = task.layout.axis is None
        if not plain or extent_of(axis) * _SHORTEST >= lanes:
            made = Cut(axis, lanes, target.vector_registers // 4, layouts)
            layouts |= _in_vectors(task, made)
            if extent_of(axis) >= lanes or not plain or not _gathers(task, made):
                return made
    layouts = {o.var.name: operand_layout(o, reads, None, 1) for o in task.operands}
    return Cut(None, 1, 1, layouts)


def cost(task: Task, target: Target) -> float:
    """Cycles: an operation and a read a lane, gathers lane by lane."""
    chosen = cut(task, target)
    elements = float(task.layout.size)
    work = sum((arithmetic(stage.body) for stage in task.stages), 0)
    assert isinstance(work, int)
    lanes = 1 if chosen.axis is None else chosen.lanes / 2
    packing = packing_cycles(task, chosen.packs(task))
    return elements * ((work + 1) / lanes + _gathers(task, chosen)) + packing


def _in_vectors(task: Task, chosen: Cut) -> dict[str, Layout]:
    """Plain operands that are worth packing in vectors of channels: those that windows gather
    again and again. None of a task that is plain itself."""
    found: dict[str, Layout] = {}
    for operand in task.operands if task.layout.axis == 1 else ():
        name, layout = operand.var.name, operand.layout
        reads = [read for read in task.reads if read.tensor.name == name]
        if layout is None or layout.axis is not None or len(layout.shape) != len(task.axes):
            continue
        own = all(r.index[1] == task.axes[1].i for r in reads)
        if own and layout.shape[1] == extent_of(task.axes[1]):
            gathered = task.layout.size * _gathers(task, chosen, name)
            packed = Layout(layout.shape, 1, chosen.lanes)
            if gathered > _AGAIN * packed.size:
                found[name] = packed
    return found


def _gathers(task: Task, chosen: Cut, name: str | None = None) -> int:
    """How many reads are gathered for one output element; those of one operand, if it is named."""
    if chosen.axis is None:
        return 0
    at = {chosen.axis.name: Axis("block", 1 << 30).i * chosen.lanes + lane_symbol(chosen.lanes)}
    own = (chosen.axis.i, extent_of(chosen.axis))  # who moves along so does not leave

    def gathered(read: Read) -> bool:
        if name not in (None, read.tensor.name):
            return False
        index = [substitute(d, at) for d in read.index]
        stride = lane_stride(chosen.layouts[read.tensor.name].offset(index))
        places = zip(read.index, read.tensor.type.sizes, index, strict=True)
        moved = ((d, size) for d, size, i in places if depends_on_lane(i))
        tested = read.outside is not None and any(place != own for place in moved)
        return stride not in (0, 1) or tested

    count = sum(map(gathered, task.reads))
    for reduce in (e for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)):
        again = prod(map(extent_of, reduce.axes)) - 1
        count += again * sum(map(gathered, reads_of(reduce.body)))
    return count


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Vectors or scalars, as the cut says, place by place."""
    chosen = cut(task, target)
    frame = Frame.open(task, name, chosen.lanes, chosen.layouts, chosen.packs(task))
    b, views = frame.b, frame.views
    walk = _Walk(b, segments_of(task))
    if chosen.axis is None:

        def element(places: Places) -> None:
            (at,) = places
            emit_chain(Emitter(b, views, 1), task, at, at)

        walk.loops(task.axes, element)
    else:
        _vector_loops(walk, task, chosen, views)
    return frame.finish()


def _vector_loops(walk: _Walk, task: Task, chosen: Cut, views: dict[str, View]) -> None:
    """Whole vectors, then what is left of the axis."""
    b, axis, lanes = walk.b, chosen.axis, chosen.lanes
    assert axis is not None
    lane = lane_symbol(lanes)

    plain = task.layout.axis is None
    sums = None if plain else _only_reduction(task.root.body)
    width = 1 if sums is None else chosen.width

    def vectors(places: Places, start: int, block: Dim | None, valid: int | None) -> None:
        emitter = Emitter(b, views, lanes, valid)
        firsts = [start + (at["block"] if block is None else block) * lanes for at in places]
        bound = [{**at, axis.name: first + lane} for at, first in zip(places, firsts, strict=True)]
        known = [] if sums is None else emitter.reductions(sums, bound)
        for number, (at, first) in enumerate(zip(bound, firsts, strict=True)):
            if sums is not None:
                emitter = Emitter(b, views, lanes, valid, ((sums, known[number]),))
            emit_chain(emitter, task, at, {**at, axis.name: first}, valid if plain else None)

    others = tuple(a for a in task.axes if a is not axis)
    for start, stop in choice_segments(task, axis) if plain else [(0, extent_of(axis))]:
        whole, rest = divmod(stop - start, lanes)
        if whole:
            block = Axis("block", whole)
            order = (*others, block) if plain else (*others[:1], block, *others[1:])
            walk.loops(order, partial(vectors, start=start, block=None, valid=None), width)
        if rest:
            walk.loops(others, partial(vectors, start=start, block=whole, valid=rest), width)


def _only_reduction(body: Expr) -> Reduce | None:
    """The only reduction of a body: several places of it may run side by side."""
    found = [node for node in walk(body) if isinstance(node, Reduce)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class _Walk:
    """Loops over output axes, cut where reads begin and cease to leave their tensors."""

    b: Builder
    segments: Mapping[str, Sequence[Segment]]

    def loops(
        self, order: tuple[Axis, ...], body: Callable[[Places], None], width: int = 1
    ) -> None:
        """All but the innermost axis in parallel; `width` places along that one at a time."""
        outer, inner = order[:-1], order[-1:]
        if len(order) == 1 and extent_of(order[0]) > 1:
            outer, inner = order, ()
        for region in product(*map(self.pieces, outer)):
            extents = [stop - start for start, stop in region]
            with self.b.parallel([a.name for a in outer], extents) as indices:
                at = {
                    a.name: i + start
                    for a, i, (start, _) in zip(outer, indices, region, strict=True)
                }
                if not inner:
                    body([at])
                    continue
                for segment in self.pieces(inner[0]):
                    self.row(at, inner[0].name, segment, width, body)

    def row(
        self,
        at: dict[str, Dim],
        name: str,
        segment: Segment,
        width: int,
        body: Callable[[Places], None],
    ) -> None:
        """Places side by side, as many as there are; what is left over goes together."""
        start, stop = segment
        tiles, rest = divmod(stop - start, width)
        if tiles:
            low, high = (start, stop) if width == 1 else (0, tiles)
            with self.b.serial(name, high, low) as i:
                first = i if width == 1 else start + i * width
                body([{**at, name: first + j} for j in range(width)])
        if rest:
            body([{**at, name: stop - rest + j} for j in range(rest)])

    def pieces(self, axis: Axis) -> Sequence[Segment]:
        return self.segments.get(axis.name, [(0, extent_of(axis))])


def segments_of(task: Task) -> dict[str, list[Segment]]:
    """For each output axis the pieces that have code of their own: where windows leave the input,
    and where what is chosen changes."""
    found = border_segments(task.axes, task.reads)
    for axis in task.axes:
        starts = {start for start, _ in found.get(axis.name, ())}
        starts |= {start for start, _ in choice_segments(task, axis)}
        if len(starts) > 1:
            ends = [*sorted(starts)[1:], extent_of(axis)]
            found[axis.name] = list(zip(sorted(starts), ends, strict=True))
    return found


def choice_segments(task: Task, axis: Axis) -> list[Segment]:
    """An axis cut where tests of its position alone change their outcome: parts that are joined are
    copied one by one, not chosen between for each element."""
    extent, starts = extent_of(axis), {0}
    for test in (e for s in task.stages for e in walk(s.body) if isinstance(e, IndexCompare)):
        bound = first_beyond(test.a - test.b, axis)
        if bound is not None:
            starts |= (
                {bound + (test.op in ("le", "gt"))} if test.op in _ORDERED else {bound, bound + 1}
            )
    cuts = [*sorted(s for s in starts if 0 <= s < extent), extent]
    return list(pairwise(cuts))


_ORDERED = ("lt", "le", "gt", "ge")


def first_beyond(difference: Dim, axis: Axis) -> int | None:
    """The position from which on `axis.i - position` is not negative, where that is what the
    difference is."""
    rest = difference - axis.i
    return -rest if isinstance(rest, int) else None


def border_segments(axes: tuple[Axis, ...], reads: list[Read]) -> dict[str, list[Segment]]:
    """For each output axis that windows run along: the positions at either end, one by one, whose
    windows leave the input, and all those in between, which then need no tests."""
    found: dict[str, list[Segment]] = {}
    for axis in axes:
        windows = [
            (index, extent_of(Axis("", extent)))
            for read in reads
            if read.outside is not None
            for index, extent in zip(read.index, read.tensor.type.shape, strict=True)
            if any(s.name == axis.name for s in symbols_of(index))
        ]
        extent = extent_of(axis)

        def inside(position: int, name: str = axis.name, windows: Windows = windows) -> bool:
            return not any(
                bounds_tests(substitute(index, {name: position}), size) for index, size in windows
            )

        ends = range(min(_WIDE, extent - 1) + 1)
        first = next((i for i in ends if inside(i)), None)
        last = next((extent - 1 - i for i in ends if inside(extent - 1 - i)), None)
        if windows and first is not None and last is not None and last > first + 1:
            before, after = _ends(0, first), _ends(last + 1, extent)
            if before or after:
                found[axis.name] = [*before, (first, last + 1), *after]
    return found


def _ends(start: int, stop: int) -> list[Segment]:
    """Positions at an end: few have code of their own, many share a loop."""
    if stop - start > _BORDER:
        return [(start, stop)]
    return [(i, i + 1) for i in range(start, stop)]


def generic(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "generic",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
