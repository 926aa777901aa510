"""Reductions over many positions: what they are made of, and how their positions are walked.

Vectors run along an axis on which what is read lies side by side: one that is kept, then each
lane is a result, or one that is reduced, then the lanes are combined in the end. The other
reduced axes are loops, those of the largest steps outermost.

Where few results are wanted, the positions of each are split into shares. How many follows from
shapes alone, never from threads, and partial results are combined in a fixed order. Within a
share near accumulators take so many terms each, and are added into far ones: so that the error of
a sum of n terms in f32 grows as their logarithm, not as n, as long as shares keep up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from convdsl.kernel.expr import Axis, Read, arithmetic
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.emission import depends_on_lane, extent_of, lane_stride, lane_symbol
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.task import Task
from convdsl.schedules.totals import RUN, Totals
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record

PIECE = 512  # positions of an innermost loop; longer ones are cut
_UNITS = 32  # independent pieces of work that give a team enough to share out
_ACROSS = 10  # cycles in which the lanes of a vector are combined
_SUMS = 8  # accumulators side by side
_LEAST = 256  # vectors that a share should have


@record
class Loop:
    """One loop over positions; `axis` is bound to its counter, or to that in vectors."""

    axis: Axis
    extent: int


@record
class Way:
    """Vectors of `lanes` along `axis`, `several` registers each; loops over the reduced positions,
    outermost first.

    Where the axis is a reduced one whose extent is no multiple of the lanes, its last positions
    (`rest` of them) are walked by the loops `last`.
    """

    totals: Totals
    axis: Axis
    lanes: int
    loops: tuple[Loop, ...]
    last: tuple[Loop, ...]
    shares: int
    slots: int  # accumulators side by side
    layouts: Mapping[str, Layout]
    several: int = 1

    @property
    def kept(self) -> bool:
        """Whether each lane is a result of its own."""
        return self.axis in self.totals.kept

    @property
    def whole(self) -> int:
        return extent_of(self.axis) // self.lanes

    @property
    def rest(self) -> int:
        return extent_of(self.axis) % self.lanes

    @property
    def others(self) -> tuple[Axis, ...]:
        """The axes kept that are walked one by one."""
        return tuple(axis for axis in self.totals.kept if axis != self.axis)

    @property
    def blocks(self) -> int:
        """Vectors of results at one position of the others."""
        return self.whole + (self.rest > 0) if self.kept else 1

    @property
    def vectors(self) -> int:
        """Vectors of terms of a result, or of a vector of results."""
        rest = prod(loop.extent for loop in self.last) if self.rest and not self.kept else 0
        return prod(loop.extent for loop in self.loops) + rest

    @property
    def units(self) -> int:
        """Vectors of results, or single ones: what is split into shares."""
        return prod(extent_of(axis) for axis in self.others) * self.blocks


def plan_totals(totals: Totals, task: Task, target: Target) -> Way | None:
    """Vectors along the axis that wastes the fewest lanes, a kept one among equals."""
    best: tuple[float, Way] | None = None
    for axis in (*totals.kept, *totals.over):
        plan = _along(axis, totals, task, target)
        if plan is None:
            continue
        used = extent_of(axis) / (-(-extent_of(axis) // plan.lanes) * plan.lanes)
        plan = _wider(plan, task, target) or plan
        if best is None or used > best[0]:
            best = used, plan
    return None if best is None else best[1]


def _wider(plan: Way, task: Task, target: Target) -> Way | None:
    """Several vectors of a kept axis as one, so that a row of what is summed is met once, or in
    whole lines, and not once for each vector; as many as leave registers for two sums of each."""
    most = _SUMS // (2 * len(plan.totals.reduces))
    if not plan.kept or plan.totals.layout.axis is not None or most < 2:
        return None
    several = min(most, 2 if plan.blocks == 2 else 4)
    return _along(plan.axis, plan.totals, task, target, several) if plan.blocks > 1 else None


def _along(axis: Axis, totals: Totals, task: Task, target: Target, several: int = 1) -> Way | None:
    """Vectors along this axis, if all reads and stores allow it and one read is side by side."""
    kept = axis in totals.kept
    lanes = max(target.lanes(reduce.dtype) for reduce in totals.reduces)
    if kept and totals.layout.axis is not None:
        if totals.kept[totals.layout.axis] != axis:
            return None
        lanes = totals.layout.block
    if lanes < 2 or extent_of(axis) == 1:
        return None
    lanes *= several
    layouts = {o.var.name: operand_layout(o, task.reads, axis, lanes) for o in task.operands}
    at = {axis.name: Axis("block", 1 << 30).i * lanes + lane_symbol(lanes)}
    stored = [(output.layout, totals.front_axes) for output in totals.front_outputs]
    stored += [(output.layout, totals.kept) for output in totals.outputs] if kept else []
    for layout, axes in stored:
        where = layout.offset([at.get(a.name, a.i) for a in axes])
        if lane_stride(where) != 1:
            return None
    beside: Read | None = None
    for read in totals.inner_reads:
        index = [substitute(d, at) for d in read.index]
        stride = lane_stride(layouts[read.tensor.name].offset(index))
        tested = read.outside is not None and any(map(depends_on_lane, index))
        if stride not in (0, 1) or tested:
            return None
        beside = read if stride == 1 and beside is None else beside
    if beside is None:
        return None
    steps = _steps(beside, layouts[beside.tensor.name], axis, lanes, totals.over)
    ordered = sorted(totals.over, key=lambda a: (a.extent != 1, -steps[a.name]))
    whole = extent_of(axis) // lanes
    loops = tuple(Loop(a, whole if a == axis else extent_of(a)) for a in ordered)
    last = tuple(loop for loop in loops if loop.axis != axis)
    slots = max(2, min(_SUMS // (len(totals.reduces) * several), loops[-1].extent))
    plan = Way(totals, axis, lanes, loops, last, 1, slots, layouts, several)
    return _split(plan)


def _steps(
    read: Read, layout: Layout, axis: Axis, lanes: int, over: tuple[Axis, ...]
) -> dict[str, int]:
    """How far a step along each axis moves the read, in elements; along `axis` a whole vector."""

    def offset(name: str, position: int) -> Dim:
        at = {a.name: (position if a.name == name else 0) for a in over} | {
            axis.name: position * lanes if axis.name == name else 0
        }
        return layout.offset([substitute(d, at) for d in read.index])

    steps: dict[str, int] = {}
    for a in over:
        moved = offset(a.name, 1) - offset(a.name, 0)
        steps[a.name] = abs(moved) if isinstance(moved, int) else 0
    return steps


def _split(plan: Way) -> Way:
    """As many shares as give a team enough to do, and as keep far accumulators short."""
    vectors = plan.vectors
    shares = 1
    if plan.units < _UNITS:
        shares = max(1, min(-(-_UNITS // plan.units), vectors // _LEAST))
    shares = max(shares, -(-vectors // (plan.slots * RUN * RUN)))
    most = max(rounds_of(plan.loops), rounds_of(plan.last))
    return replace(plan, shares=max(1, min(shares, most)))


def cut(loops: tuple[Loop, ...]) -> tuple[tuple[Loop, ...], int]:
    """(loops that are walked as one, positions of the innermost): an innermost loop that is too
    long is cut into pieces, whose number is the last loop then."""
    if not loops:
        return (), 1
    *outer, inner = loops
    if inner.extent <= PIECE:
        return tuple(outer), inner.extent
    return (*outer, Loop(Axis("piece", 0), -(-inner.extent // PIECE))), inner.extent


def rounds_of(loops: tuple[Loop, ...]) -> int:
    """How often the innermost loop runs."""
    outer, _ = cut(loops)
    return prod(loop.extent for loop in outer)


def cycles(plan: Way) -> float:
    """An operation and a read for each vector of terms, and what combines lanes."""
    totals = plan.totals
    bodies = (*(s.body for s in totals.front), *(r.body for r in totals.reduces))
    work = sum((arithmetic(body) for body in bodies), len(totals.reduces))
    assert isinstance(work, int)
    results = prod(extent_of(axis) for axis in totals.kept)
    vectors = results * totals.positions / plan.lanes * plan.several
    across = 0 if plan.kept else results * len(totals.reduces) * _ACROSS
    return vectors * (work + 1) * 0.75 + across
