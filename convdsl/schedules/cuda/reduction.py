"""Reductions over many positions, as `totals` shares them out: one kernel, or one for the shares
and a reduction of what these have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorVar, transform
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, IndexTest, Kernel, Lane, Value
from convdsl.schedules.accumulators import Accumulators
from convdsl.schedules.chain import declare_outputs, emit_stages, store_outputs
from convdsl.schedules.cuda.costs import moved_bytes, nanoseconds
from convdsl.schedules.cuda.frame import guarded, unravelled
from convdsl.schedules.cuda.generic import generic
from convdsl.schedules.cuda.meeting import by_halves, in_warps, warps_memory
from convdsl.schedules.cuda.totals import Way, plan_totals
from convdsl.schedules.cuda.vectors import vectors
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.task import (
    Arguments,
    Operand,
    Pack,
    Schedule,
    Scheduled,
    Scratch,
    Task,
)
from convdsl.schedules.totals import match_totals
from convdsl.tensor import Dim, TensorType, dim_min

_SHARED = 32 << 10
"""Bytes that a block may take, so that several stay on a multiprocessor."""


def plan(task: Task) -> Way | None:
    """How the task is walked; None where it is no reduction by itself."""
    totals = match_totals(task, WARP)
    return None if totals is None else plan_totals(totals, task)


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: every term met once, by as many threads as there are; two kernels for shares."""
    way = plan(task)
    if way is None:
        return None
    shared = prod(map(extent_of, way.tile))
    accesses = way.results * way.positions * shared * max(len(way.totals.inner_reads), 1)
    launches = 1 if way.shares == 1 else 2
    return nanoseconds(target, moved_bytes(task), accesses, way.turns, launches)


def emit(task: Task, name: str, target: CudaTarget) -> Scheduled:
    """One kernel, or the one of shares and those that combine what these have found."""
    way = plan(task)
    assert way is not None
    if way.shares == 1:
        return Scheduled((_Walk(task, way, name).kernel(),))
    first = _Walk(task, way, f"{name}_shares").kernel()
    late = _late(task, way)
    ways = (reduction(target), vectors(target), generic(target))
    offers = [(schedule.cost(late), schedule) for schedule in ways]
    chosen = min((o for o in offers if o[0] is not None), key=lambda offer: offer[0] or 0.0)[1]
    rest = chosen.emit(late, f"{name}_sums")
    own = (Scratch(v.name, v.type.dtype, prod(v.type.sizes)) for v in _partials(task, way))
    return Scheduled((first,)).then(rest, *own)


# What shares have found


def _partials(task: Task, way: Way) -> list[TensorVar]:
    """What shares find, as tensors: whole vectors of results of one share side by side, or what
    all shares have found for a single one."""
    inner = [*map(extent_of, way.tile), *map(extent_of, way.others)]
    shape = (way.shares, *inner, way.vectors * way.lanes) if way.kept else (*inner, way.shares)
    name = "partial"
    while any(operand.var.name.startswith(name) for operand in task.operands):
        name += "_"
    return [
        TensorVar(f"{name}{number}", TensorType(reduce.dtype, shape))
        for number, reduce in enumerate(way.totals.reduces)
    ]


def _late(task: Task, way: Way) -> Task:
    """The stages after the reductions, and these over what the shares have found."""
    totals, share = way.totals, Axis("share", way.shares)
    kept: list[Dim] = [axis.i for axis in (*way.tile, *way.others)]
    index = (share.i, *kept, way.axis.i) if way.kept else (*kept, share.i)
    partials = _partials(task, way)
    reads = {r: Read(v, index) for r, v in zip(totals.reduces, partials, strict=True)}

    def rule(node: Expr) -> Expr | None:
        return Reduce(node.op, (share,), reads[node]) if isinstance(node, Reduce) else None

    stages = tuple(Stage(s.target, s.axes, transform(s.body, rule)) for s in totals.stages)
    outer = {read.tensor.name for read in totals.outer_reads}
    operands = (
        *(Operand(var, Layout(var.type.sizes)) for var in partials),
        *(o for o in task.operands if o.var.name in outer),
    )
    return Task(task.op, stages, operands, totals.outputs, totals.layout)


# The kernel that meets all positions


class _Walk:
    """A kernel under construction: its buffers, and where a thread is."""

    def __init__(self, task: Task, way: Way, name: str) -> None:
        self.task = task
        self.way = way
        self.totals = way.totals
        self.finishes = way.shares == 1
        self.b = Builder(name, way.totals.reduces[0].dtype, way.lanes)
        self.views: dict[str, View] = {}
        self.arguments: list[tuple[str, Pack | None]] = []
        self.partials: list[Buffer] = []
        self._declare()

    def _declare(self) -> None:
        totals, b = self.totals, self.b
        wanted = totals.inner_reads + (totals.outer_reads if self.finishes else [])
        names = {read.tensor.name for read in wanted}
        for operand in self.task.operands:
            name, dtype = operand.var.name, operand.var.type.dtype
            if name in names:
                layout = self.way.layouts[name]
                self.views[name] = View(b.buffer(name, dtype, layout.size), layout)
                self.arguments.append((name, layout if operand.static else None))
        outputs = (*totals.front_outputs, *(totals.outputs if self.finishes else ()))
        self.views |= declare_outputs(b, outputs)
        self.arguments += [(output.var.name, None) for output in outputs]
        for var in () if self.finishes else _partials(self.task, self.way):
            size = prod(var.type.sizes)
            self.partials.append(b.buffer(var.name, var.type.dtype, size, written=True))
            self.arguments.append((var.name, None))

    def kernel(self) -> tuple[Kernel, Arguments]:
        """The whole of it."""
        b, way = self.b, self.way
        with b.blocks(("share", "block"), (way.shares, way.blocks)) as (share, block):
            memory = self.memory()
            names, extents = ("unit", "member"), (way.units, way.team)
            if way.kept:
                names, extents = names[::-1], extents[::-1]
            with b.threads(names, extents) as counters:
                member, unit = counters if way.kept else counters[::-1]
                number = block * way.units + unit
                ragged = way.results % way.units > 0
                own = dim_min(number, way.results - 1) if ragged else number
                self.exists = IndexTest("lt", number, way.results)
                self.thread(share, own, unit, member, memory)
        return b.kernel(), tuple(self.arguments)

    def thread(
        self, share: Dim, own: Dim, unit: Dim, member: Dim, memory: Sequence[Buffer]
    ) -> None:
        """What one thread does for the result that it has, or for one that exists."""
        b, way = self.b, self.way
        near = Accumulators.of(b, self.totals.reduces, len(self.tiles), way.lanes)
        far = near
        if way.runs > 1:
            far = Accumulators.of(b, self.totals.reduces, len(self.tiles), way.lanes)
            far.clear()
        at = self.place(own)
        start = share * way.chunk + member
        turns = -(-way.turns // way.runs)
        with b.serial("run", way.runs) as run:
            near.clear()
            with b.serial("turn", turns) as turn:
                self.turn(at, start + (run * turns + turn) * way.side * way.team, member, near)
            if way.runs > 1:
                for slot in range(len(self.tiles)):
                    far.take(slot, near.values(slot))
        values = self.met(far, memory, unit, member)
        with guarded(b, IndexTest("eq", member, 0), self.exists):
            if self.finishes:
                self.finish(at, values)
            else:
                self.hand_on(share, own, values)

    @property
    def tiles(self) -> list[dict[str, Dim]]:
        """Where results that a thread sums side by side stand, along their own axes."""
        names = [axis.name for axis in self.way.tile]
        ranges = (range(extent_of(axis)) for axis in self.way.tile)
        return [dict(zip(names, place, strict=True)) for place in product(*ranges)]

    def place(self, number: Dim) -> dict[str, Dim]:
        """The axes kept, at a vector of results; the vectors' own axis at its first position."""
        way = self.way
        *outer, vector = unravelled(number, [*map(extent_of, way.others), way.vectors])
        at: dict[str, Dim] = {a.name: i for a, i in zip(way.others, outer, strict=True)}
        at |= {a.name: 0 for a in self.totals.front_axes if a.extent == 1 and a.name not in at}
        if way.kept:
            at[way.axis.name] = vector * way.lanes
        return at

    # Terms

    def turn(self, at: Mapping[str, Dim], first: Dim, member: Dim, near: Accumulators) -> None:
        """Some positions, a team apart; without tests where none of the block's is the last."""
        b, way = self.b, self.way
        places = [first + side * way.team for side in range(way.side)]
        if way.positions == way.shares * way.chunk:
            for place in places:
                self.position(at, place, near)
            return
        past = first - member + way.side * way.team
        whole = IndexTest("le", past, way.positions)
        if decide(whole) is not False:
            with b.when(whole):
                for place in places:
                    self.position(at, place, near)
        with b.when(IndexTest("gt", past, way.positions)):
            for place in places:
                inside = IndexTest("lt", place, way.positions)
                if decide(inside) is not False:
                    with guarded(b, inside):
                        self.position(at, place, near)

    def position(self, at: Mapping[str, Dim], number: Dim, near: Accumulators) -> None:
        """The terms of one position for all results side by side."""
        b, way, totals = self.b, self.way, self.totals
        found = zip(way.loops, unravelled(number, way.extents), strict=True)
        first = {**at, **{axis.name: place for axis, place in found}}
        if not way.kept:
            first[way.axis.name] = first[way.axis.name] * way.lanes
        ends = {way.axis.name: extent_of(way.axis)} if way.kept and way.lanes > 1 else {}
        emitter = Emitter(b, self.views, way.lanes, loaded={}, ends=ends)
        for slot, tile in enumerate(self.tiles):
            start = {**first, **tile}
            here = {**start, way.axis.name: start[way.axis.name] + lane_symbol(way.lanes)}
            held = emit_stages(emitter, totals.front, totals.front_outputs, here, self.task.ended)
            near.add(slot, emitter.holding(held), here, None)
            with guarded(b, *([self.exists] if totals.front_outputs else [])):
                store_outputs(emitter, totals.front_outputs, totals.front_axes, held, start)

    # Meeting

    @property
    def together(self) -> int:
        """Results of a thread that meet those of others at a time."""
        way = self.way
        bytes = way.team * way.units * way.lanes * max(r.dtype.bytes for r in self.totals.reduces)
        return max(1, min(len(self.tiles), _SHARED // bytes))

    def memory(self) -> list[Buffer]:
        """Shared memory, for each reduction."""
        way, reduces = self.way, self.totals.reduces
        if not way.kept:
            return warps_memory(self.b, reduces, way.team, way.units)
        size = way.team * way.units * way.lanes * self.together
        return [self.b.shared("met", size, reduce.dtype, 16) for reduce in reduces[:1]]

    def met(
        self, far: Accumulators, memory: Sequence[Buffer], unit: Dim, member: Dim
    ) -> list[list[Value]]:
        """For each result side by side the totals of all reductions; all threads come here."""
        way, b, reduces = self.way, self.b, self.totals.reduces
        if not way.kept:
            found: list[list[Value]] = []
            for slot in range(len(self.tiles)):
                if slot and way.team > WARP:
                    b.barrier()
                own = in_warps(b, reduces, far.values(slot), memory, way.team, unit, member)
                found.append(own)
            return found
        by_reduce: list[list[Value]] = []
        for number, reduce in enumerate(reduces):
            values = [far.values(slot)[number] for slot in range(len(self.tiles))]
            totals: list[Value] = []
            for start in range(0, len(values), self.together):
                if (start or number) and way.team > 1:
                    b.barrier()
                some = values[start : start + self.together]
                totals += by_halves(
                    b, reduce.op, some, memory[0], way.team, way.units, unit, member
                )
            by_reduce.append(totals)
        return [list(values) for values in zip(*by_reduce, strict=True)]

    # Results

    def finish(self, at: Mapping[str, Dim], values: Sequence[Sequence[Value]]) -> None:
        """The stages after the reductions, one result after the other, and what leaves."""
        b, way, totals = self.b, self.way, self.totals
        for tile, found in zip(self.tiles, values, strict=True):
            for lane in range(way.lanes if way.kept else 1):
                here = {**at, **tile}
                tests: list[IndexTest] = []
                if way.kept:
                    here[way.axis.name] = here[way.axis.name] + lane
                    tests = [IndexTest("lt", here[way.axis.name], extent_of(way.axis))]
                    if decide(tests[0]) is False:
                        break  # lanes of the filling
                ones = [Lane(v, lane) if v.type.lanes > 1 else v for v in found]
                known = tuple(zip(totals.reduces, ones, strict=True))
                with guarded(b, *tests):
                    emitter = Emitter(b, self.views, 1, known=known)
                    held = emit_stages(emitter, totals.stages, totals.outputs, here)
                    store_outputs(emitter, totals.outputs, totals.kept, held, here)

    def hand_on(self, share: Dim, own: Dim, values: Sequence[Sequence[Value]]) -> None:
        """What a share has found, to where `_partials` says."""
        way = self.way
        for slot, found in enumerate(values):
            place = slot * way.results + own
            if way.kept:
                place = (share * len(self.tiles) * way.results + place) * way.lanes
            else:
                place = place * way.shares + share
            for buffer, value in zip(self.partials, found, strict=True):
                self.b.store(buffer, place, value)


def reduction(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule(
        "reduction",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
