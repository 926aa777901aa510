"""The schedule that runs anything: output elements side by side, reductions in registers.

Vectors run along the blocked axis of the output, or along its last axis where it is plain.
The loops around are shared out among the threads, but for the innermost one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import (
    Axis,
    Expr,
    Pick,
    Read,
    Reduce,
    arithmetic,
    indices_of,
    walk,
)
from convdsl.kernel.expr import (
    reads as reads_of,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Value
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.cpu.filters import packing_cycles
from convdsl.schedules.cpu.segments import Segment, Stretch, segments_of, stretches
from convdsl.schedules.cpu.together import vectors_together
from convdsl.schedules.emission import (
    Emitter,
    View,
    depends_on_lane,
    extent_of,
    lane_stride,
    lane_symbol,
)
from convdsl.schedules.frame import Frame
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, substitute, symbols_of
from convdsl.tensor.records import record

_AGAIN = 2  # gathers of each element that packing must save
SHORTEST = 3  # rows of at least a third of a vector are vectors, in part

Picked: TypeAlias = "tuple[tuple[Pick, tuple[Value, Dim]], ...]"  # and where they lie
Places: TypeAlias = "list[dict[str, Dim]]"  # of output elements, or of vectors of them


@record
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

    def frame(self, task: Task, name: str) -> Frame:
        """A kernel whose operands lie as chosen, and are packed where that is not how they come."""
        return Frame.open(task, name, self.lanes, self.layouts, self.packs(task))


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
        if not plain or extent_of(axis) * SHORTEST >= lanes:
            made = Cut(axis, lanes, target.vector_registers // 4, layouts)
            layouts |= _in_vectors(task, made)
            one_by_one = any(_price(read, task, made) == 1 for read in task.reads)
            if extent_of(axis) >= lanes or not plain or not one_by_one:
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


def _gathers(task: Task, chosen: Cut, name: str | None = None) -> float:
    """How many reads are gathered for one output element; those of one operand, if it is named."""

    def price(read: Read) -> float:
        return 0 if name not in (None, read.tensor.name) else _price(read, task, chosen)

    count = sum(map(price, task.reads))
    for reduce in (e for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)):
        again = prod(map(extent_of, reduce.axes)) - 1
        count += again * sum(map(price, reads_of(reduce.body)))
    return count


def _price(read: Read, task: Task, chosen: Cut) -> float:
    """Of a read in vectors, beside picking each lane by itself: nothing where it is a vector; where
    rows are read in short steps (`schedules.spans`) a load for each vector that is passed, and half
    a cycle for each shuffle."""
    if chosen.axis is None:
        return 0
    at = {chosen.axis.name: Axis("block", 1 << 30).i * chosen.lanes + lane_symbol(chosen.lanes)}
    own = (chosen.axis.i, extent_of(chosen.axis))  # who moves along so does not leave
    index = [substitute(d, at) for d in read.index]
    places = zip(read.index, read.tensor.type.sizes, index, strict=True)
    moved = ((d, size) for d, size, i in places if depends_on_lane(i))
    leaves = read.outside is not None and any(place != own for place in moved)
    if leaves and task.layout.axis is not None:  # of rows that is known but near their ends
        return 1
    stride = lane_stride(chosen.layouts[read.tensor.name].offset(index))
    if stride is None:
        return 1
    return 0 if stride in (0, 1) else min(1, (1.5 * abs(stride) - 0.5) / chosen.lanes)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Vectors or scalars, as the cut says, place by place."""
    chosen = cut(task, target)
    frame = chosen.frame(task, name)
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
    plain = task.layout.axis is None
    sums = None if plain else _only_reduction(task.root.body)
    width = 1 if sums is None else chosen.width

    picks = [pick for stage in task.stages for pick in _picked_once(stage.body, task, axis)]

    def vectors(
        places: Places,
        start: int,
        block: Dim | None,
        valid: int | None,
        lanes: int = lanes,
        picked: Picked = (),
    ) -> None:
        emitter = Emitter(b, views, lanes, valid, spans=True, picked=picked)
        lane = lane_symbol(lanes)
        firsts = [start + (at["block"] if block is None else block) * lanes for at in places]
        bound = [{**at, axis.name: first + lane} for at, first in zip(places, firsts, strict=True)]
        known = [] if sums is None else emitter.reductions(sums, bound)
        for number, (at, first) in enumerate(zip(bound, firsts, strict=True)):
            if sums is not None:
                emitter = Emitter(b, views, lanes, valid, ((sums, known[number]),), spans=True)
            emit_chain(emitter, task, at, {**at, axis.name: first}, valid if plain else None)

    others = tuple(a for a in task.axes if a is not axis)
    pieces = stretches(task, axis, lanes) if plain else []
    wide = [
        (part, many * lanes) for piece in pieces for part, many in _together(task, chosen, piece)
    ]

    def row(places: Places) -> None:
        emitter = Emitter(b, views, 1)
        picked = tuple((pick, emitter.place(pick, places[0])) for pick in picks)
        for piece, lanes in wide:
            with b.serial("block", piece.blocks) as block:
                vectors(places, piece.start, block, piece.valid, lanes, picked)

    if plain and others:
        walk.loops((*others, Axis("row", 1)), row)
    for piece, many in wide if not others else []:
        how = {"start": piece.start, "block": None, "valid": piece.valid, "lanes": many}
        walk.loops((Axis("block", piece.blocks),), partial(vectors, **how))
    whole, rest = (0, 0) if plain else divmod(extent_of(axis), lanes)
    if whole:
        order = (*others[:1], Axis("block", whole), *others[1:])
        walk.loops(order, partial(vectors, start=0, block=None, valid=None), width)
    if rest:
        walk.loops(others, partial(vectors, start=0, block=whole, valid=rest), width)


def _picked_once(body: Expr, task: Task, axis: Axis) -> Iterator[Pick]:
    """Picks of a body whose place is the same all along an axis, and an operand says."""
    given = {operand.var.name for operand in task.operands}
    own = {a.name for a in task.axes if a != axis}
    for node in walk(body):
        if isinstance(node, Pick):
            parts = list(walk(node.index))
            moved = {s.name for e in parts for d in indices_of(e) for s in symbols_of(d)}
            read = all(e.tensor.name in given for e in parts if isinstance(e, Read))
            if moved <= own and read and not any(isinstance(e, Reduce | Pick) for e in parts):
                yield node


def _together(task: Task, chosen: Cut, piece: Stretch) -> list[tuple[Stretch, int]]:
    """A piece of a row in vectors that are computed together, and in single ones what is left; how
    many at a time."""
    bodies = [stage.body for stage in task.stages]
    reduces = any(isinstance(node, Reduce | Pick) for body in bodies for node in walk(body))
    many = 1 if reduces or piece.valid or _gathers(task, chosen) else vectors_together(bodies)
    blocks, rest = divmod(piece.blocks, many)
    done = piece.start + blocks * many * chosen.lanes
    found = [(Stretch(piece.start, blocks), many)] if blocks and many > 1 else []
    if many == 1:
        return [(piece, 1)]
    return [*found, *([(Stretch(done, rest), 1)] if rest else [])]


def _only_reduction(body: Expr) -> Reduce | None:
    """The only reduction of a body: several places of it may run side by side. None of one within
    bounds or at a position that is data, which are not known before."""
    found = [node for node in walk(body) if isinstance(node, Reduce)]
    picked = any(isinstance(e, Reduce) for p in walk(body) if isinstance(p, Pick) for e in walk(p))
    return found[0] if len(found) == 1 and not picked else None


@record
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


def generic(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "generic",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
