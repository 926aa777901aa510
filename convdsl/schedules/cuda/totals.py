"""How reductions over many positions are shared out among blocks and threads.

The threads of a block are a rectangle: `units` of them along results, `team` along positions.
Where what is read lies side by side along a kept axis (channels), neighbours in a warp belong to
neighbouring vectors of results; where it lies side by side along a reduced one (a row), they share
its positions. Each thread takes every `team`-th position of its block's share.

Where there are few results, positions are cut into shares, each for a block of its own; another
kernel combines what they found. How many follows from shapes alone, and everything is added in a
fixed order, so that results are the same in each run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from convdsl.kernel.cuda_target import WARP
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.cuda.frame import along, stride_along
from convdsl.schedules.emission import extent_of, lane_stride
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.powers import power_from, power_to
from convdsl.schedules.task import Task
from convdsl.schedules.totals import RUN, Totals
from convdsl.tensor import Dim, substitute, symbols_of
from convdsl.tensor.records import record

LANES = 4
_TEAM = 256  # threads of a block, at most
_TILE = 16  # results that a thread may sum side by side
_BLOCKS = 512  # that keep the multiprocessors of any card busy
_LEAST = 8  # positions that are worth a thread
_SIDE = 4  # positions that a turn of a thread's loop takes


@record
class Way:
    """`lanes` along `axis`. A thread sums all results along the axes `tile` side by side; `others`
    are the axes kept besides. `loops` are the reduced axes in the order in which they lie, the last
    one in vectors where `axis` is it. `chunk` positions make a share."""

    totals: Totals
    axis: Axis
    lanes: int
    others: tuple[Axis, ...]
    tile: tuple[Axis, ...]
    loops: tuple[Axis, ...]
    units: int
    team: int
    chunk: int
    layouts: Mapping[str, Layout]

    @property
    def side(self) -> int:
        """Positions that a turn of a thread's loop takes, so that their loads wait together."""
        return 1 if self.tile else min(_SIDE, -(-self.positions // self.team))

    @property
    def turns(self) -> int:
        """Of a thread's loop."""
        return self.chunk // (self.team * self.side)

    @property
    def runs(self) -> int:
        """Near sums that a thread adds up, none of more than `RUN` terms."""
        return -(-self.turns * self.side // RUN)

    @property
    def kept(self) -> bool:
        """Whether lanes are results of their own."""
        return self.axis in self.totals.kept

    @property
    def vectors(self) -> int:
        """Vectors of results along the axis."""
        return -(-extent_of(self.axis) // self.lanes) if self.kept else 1

    @property
    def results(self) -> int:
        """Vectors of results, those side by side counted once."""
        return prod(map(extent_of, self.others)) * self.vectors

    @property
    def extents(self) -> tuple[int, ...]:
        """Of the loops, the axis in vectors."""
        return tuple(
            extent_of(axis) // (self.lanes if axis == self.axis else 1) for axis in self.loops
        )

    @property
    def positions(self) -> int:
        """Vectors of terms of each result."""
        return prod(self.extents)

    @property
    def shares(self) -> int:
        return -(-self.positions // self.chunk)

    @property
    def blocks(self) -> int:
        """Of a share."""
        return -(-self.results // self.units)


def plan_totals(totals: Totals, task: Task) -> Way | None:
    """Along the axis on which the largest operand lies side by side, in vectors if all reads allow
    it."""
    axes = (*totals.kept, *totals.over)
    wide = sorted(totals.inner_reads, key=lambda r: -prod(r.tensor.type.sizes))
    for read in wide:
        layout = task.operand(read.tensor.name).layout or Layout(read.tensor.type.sizes)
        for axis in axes:
            if extent_of(axis) > 1 and coefficient(layout.offset(read.index), axis) == 1:
                return _along(axis, totals, task, read)
    return None


def _along(axis: Axis, totals: Totals, task: Task, beside: Read) -> Way:
    kept = axis in totals.kept
    channels = kept and totals.layout.axis is not None and totals.kept[totals.layout.axis] == axis
    block = totals.layout.block if channels else LANES
    layouts = {o.var.name: operand_layout(o, task.reads, axis, block) for o in task.operands}
    strides = [stride_along(r, layouts[r.tensor.name], axis, LANES) for r in totals.inner_reads]
    whole = extent_of(axis) % LANES == 0 or (kept and _is_filled(totals, layouts, axis))
    stored = all(_stored(o.layout, totals.front_axes, axis) for o in totals.front_outputs)
    lanes = LANES if whole and stored and all(s in (0, 1) for s in strides) else 1
    if lanes == 1:
        layouts = {o.var.name: operand_layout(o, task.reads, None, 1) for o in task.operands}
    steps = _steps(beside, layouts[beside.tensor.name], totals.over)
    loops = tuple(sorted(totals.over, key=lambda a: (-steps[a.name], a == axis)))
    tile = _tile(totals, axis)
    others = tuple(a for a in totals.kept if a != axis and a not in tile)
    return _shared_out(Way(totals, axis, lanes, others, tile, loops, 1, 1, 1, layouts))


def _is_filled(totals: Totals, layouts: Mapping[str, Layout], axis: Axis) -> bool:
    """Whether everything that moves along an axis has whole vectors of it, filling included."""
    for read in totals.inner_reads:
        for place, index in enumerate(read.index):
            if any(s.name == axis.name for s in symbols_of(index)):
                layout = layouts[read.tensor.name]
                if layout.axis != place or layout.block % LANES or index != axis.i:
                    return False
    return all(output.layout.axis is not None for output in totals.front_outputs)


def _stored(layout: Layout, axes: tuple[Axis, ...], axis: Axis) -> bool:
    """Whether lanes lie side by side where they are stored."""
    at = {axis.name: along(axis, LANES)}
    return lane_stride(layout.offset([at.get(a.name, a.i) for a in axes])) == 1


def _steps(read: Read, layout: Layout, over: tuple[Axis, ...]) -> dict[str, int]:
    """How far a step along each axis moves the read, in elements."""
    start: dict[str, Dim] = {axis.name: 0 for axis in over}

    def offset(at: Mapping[str, Dim]) -> Dim:
        return layout.offset([substitute(d, at) for d in read.index])

    steps: dict[str, int] = {}
    for axis in over:
        moved = offset({**start, axis.name: 1}) - offset(start) if extent_of(axis) > 1 else 0
        steps[axis.name] = abs(moved) if isinstance(moved, int) else 0
    return steps


def _tile(totals: Totals, axis: Axis) -> tuple[Axis, ...]:
    """The axes kept along which results share what is read: taps of a filter's gradient."""
    if totals.front:
        return ()
    found: list[Axis] = []
    for other in totals.kept:
        moved = [
            any(s.name == other.name for d in read.index for s in symbols_of(d))
            for read in totals.inner_reads
        ]
        small = prod(map(extent_of, (*found, other))) <= _TILE
        if other != axis and extent_of(other) > 1 and small and not all(moved):
            found.append(other)
    return tuple(found)


def _shared_out(way: Way) -> Way:
    """Threads and shares: as many as give every multiprocessor something to do, none of them with
    less than a few positions, none with more than near and far sums keep exact."""
    positions = way.positions
    if way.kept:
        units = min(power_from(way.vectors), WARP)
        team = min(_TEAM // units, power_to(positions // _LEAST))
    else:
        team = min(_TEAM, max(WARP, power_to(positions // _LEAST)))
        units = max(1, min(_TEAM // team, power_to(way.results)))
    blocks = -(-way.results // units)
    shares = 1
    if blocks < _BLOCKS:
        shares = max(1, min(-(-_BLOCKS // blocks), positions // (team * _LEAST * 4)))
    shares = max(shares, -(-positions // (team * RUN * RUN)))
    way = replace(way, units=units, team=team)
    turn = team * way.side
    chunk = -(-positions // (shares * turn)) * turn
    if chunk > team * RUN:
        chunk = -(-chunk // (team * RUN)) * team * RUN
    return replace(way, chunk=chunk)
