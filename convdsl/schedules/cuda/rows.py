"""Softmax, normalisation, their gradients: whatever reduces rows and then computes along them.

Everything that is read of a row is read once and held in registers by the team of threads that
meets it, each every so many positions; their totals meet by shuffles and shared memory, and the
threads go on with what they hold. Rows are held where that takes a few vectors of each thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from convdsl.kernel import nodes
from convdsl.kernel.builder import Builder
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.expr import Axis, Read, Reduce, TensorVar, reads
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, Const, IndexTest, Lane, Select, Splat, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.schedules.chain import declare_outputs, emit_stages, store_outputs
from convdsl.schedules.cuda.costs import nanoseconds
from convdsl.schedules.cuda.frame import along, guarded, stride_along, unravelled
from convdsl.schedules.cuda.meeting import by_halves, combined, in_warps, warps_memory
from convdsl.schedules.emission import Emitter, View, lane_stride, lane_symbol
from convdsl.schedules.joins import Join, Part, match_join
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.powers import power_from
from convdsl.schedules.task import Output, Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min
from convdsl.tensor.records import record

LANES = 4
_HELD = 40
"""Registers of 32 bits that a thread may hold of a row, of the 64 that leave room for two blocks of
512: ptxas keeps to that, and spills where more are held."""

_BLOCK = 256
_MOST = 512  # threads of a team


@record
class Way:
    """`lanes` along dimension `dim` of the space, kept or reduced; a block is `units` results by a
    team, each thread with `slots` vectors of its row."""

    join: Join
    dim: int
    lanes: int
    units: int
    team: int
    layouts: Mapping[str, Layout]

    @property
    def kept(self) -> bool:
        """Whether lanes are rows of their own."""
        return self.dim in self.join.kept

    def _vectors(self, d: int) -> int:
        return -(-self.join.shape[d] // (self.lanes if d == self.dim else 1))

    @property
    def loops(self) -> tuple[int, ...]:
        """The reduced dimensions, the one that lies side by side last."""
        return tuple(sorted(self.join.over, key=lambda d: (d == self.dim, d)))

    @property
    def others(self) -> tuple[int, ...]:
        """The kept ones, likewise."""
        return tuple(sorted(self.join.kept, key=lambda d: (d == self.dim, d)))

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(map(self._vectors, self.loops))

    @property
    def positions(self) -> int:
        """Vectors of a row."""
        return prod(self.extents)

    @property
    def results(self) -> int:
        """Rows, those side by side counted once."""
        return prod(map(self._vectors, self.others))

    @property
    def result_extents(self) -> tuple[int, ...]:
        return tuple(map(self._vectors, self.others))

    @property
    def slots(self) -> int:
        return -(-self.positions // self.team)


def plan(task: Task) -> Way | None:
    """None where the task is no such thing, or rows are too long to be held."""
    if not task.earlier:
        return None
    join = match_join(task)
    if join is None:
        return None
    dim = _side_by_side(task, join)
    if dim is None:
        return None
    way = _along(task, join, dim)
    return None if way is None else _shared_out(way)


def _side_by_side(task: Task, join: Join) -> int | None:
    """The dimension along which the largest operand lies side by side."""
    made = {s.target.name for p in join.parts for s in p.task.stages}
    found = [r for r in task.reads if r.tensor.type.sizes == join.whole]
    for read in found:
        if read.tensor.name not in made:
            layout = task.operand(read.tensor.name).layout or Layout(join.whole)
            if layout.axis is not None and join.whole[layout.axis] > 1:
                return join.digits[layout.axis][-1]
            wide = [d for d, extent in enumerate(join.shape) if extent > 1]
            return wide[-1] if wide else None
    return None


def _along(task: Task, join: Join, dim: int) -> Way | None:
    """In vectors, if everything lies so that they can be read and stored."""
    layouts = {o.var.name: o.layout or Layout(o.var.type.sizes) for o in task.operands}
    whole = join.shape[dim] % LANES == 0
    if whole and all(_is_straight(part, layouts, dim) for part in join.parts):
        blocked = dict(layouts)
        for part in join.parts:
            axis = part.along(dim)
            for operand in task.operands:
                if operand.static and axis is not None:
                    own = operand_layout(operand, list(_reads(part)), axis, LANES)
                    if own.axis is not None:
                        blocked[operand.var.name] = own
        return Way(join, dim, LANES, 1, 1, blocked)
    return Way(join, dim, 1, 1, 1, layouts)


def _reads(part: Part) -> list[Read]:
    return [read for stage in part.task.stages for read in reads(stage.body)]


def _is_straight(part: Part, layouts: Mapping[str, Layout], dim: int) -> bool:
    """Whether all that moves along a dimension moves lane by lane."""
    axis = part.along(dim)
    if axis is None:
        return True
    at = {axis.name: along(axis, LANES)}
    own = (read for read in _reads(part) if read.tensor.name in layouts)
    if any(stride_along(r, layouts[r.tensor.name], axis, LANES) not in (0, 1) for r in own):
        return False
    names = [a.name for a in part.task.axes]
    return part.totals is not None or all(
        lane_stride(o.layout.offset([at.get(n, Axis(n, 1).i) for n in names])) == 1
        for o in part.task.outputs
    )


def _shared_out(way: Way) -> Way | None:
    """The fewest threads that can hold a row; several rows to a block where they are few."""
    live = _live(way.join)
    least = WARP
    units = 1
    if way.kept:
        units = min(8, power_from(way.results))
        least = 1
    team = least
    while team < _MOST // units and -(-way.positions // team) * way.lanes * live > _HELD // 2:
        team *= 2
    way = replace(way, team=team)
    if way.slots * way.lanes * live > _HELD:
        return None
    if not way.kept:
        units = max(1, _BLOCK // team)
        while units > 1 and units > way.results:
            units //= 2
    return replace(way, units=units)


def _live(join: Join) -> int:
    """Registers of 32 bits that a position takes from part to part: whatever has all dimensions,
    read or made, and more than one part needs."""
    wide: list[TensorVar] = []
    for part in join.parts:
        own = {stage.target for stage in part.task.stages} | {r.tensor for r in _reads(part)}
        wide += (var for var in own if var.type.sizes == join.whole)
    held = {var for var in wide if wide.count(var) > 1}
    return max(1, sum(max(1, var.type.dtype.bytes // 4) for var in held))


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: everything read once and written once, in one kernel."""
    way = plan(task)
    if way is None:
        return None
    outputs = [o for t in (*task.earlier, task) for o in t.outputs]
    moved = sum(prod(v.type.sizes) * v.type.dtype.bytes for v in (o.var for o in task.operands))
    moved += sum(o.layout.held * o.var.type.dtype.bytes for o in outputs)
    accesses = way.results * way.positions * (len(task.reads) + len(outputs))
    return nanoseconds(target, moved, accesses, 1)


def emit(task: Task, name: str) -> Scheduled:
    """One kernel."""
    way = plan(task)
    assert way is not None
    return _Rows(task, way, name).scheduled()


class _Rows:
    """The kernel under construction, and what a thread holds."""

    def __init__(self, task: Task, way: Way, name: str) -> None:
        self.task = task
        self.way = way
        self.b = Builder(name, task.element, way.lanes)
        self.views: dict[str, View] = {}
        self.arguments: list[tuple[str, Pack | None]] = []
        self.loaded: dict[tuple[str, Dim], nodes.Var] = {}
        self.narrow: dict[str, Value] = {}  # what has the kept dimensions
        stages = [stage for part in way.join.parts for stage in part.task.stages]
        self.read = {read.tensor.name for stage in stages for read in reads(stage.body)}
        self.wide: list[dict[str, Value]] = [{} for _ in range(way.slots)]
        for operand in task.operands:
            name, dtype = operand.var.name, operand.var.type.dtype
            layout = way.layouts[name]
            self.views[name] = View(self.b.buffer(name, dtype, layout.size), layout)
            self.arguments.append((name, layout if operand.static else None))
        outputs = [o for t in (*task.earlier, task) for o in t.outputs]
        self.views |= declare_outputs(self.b, outputs)
        self.arguments += [(output.var.name, None) for output in outputs]

    def scheduled(self) -> Scheduled:
        """The parts one after the other, by every team."""
        b, way = self.b, self.way
        with b.blocks(("block",), (-(-way.results // way.units),)) as (block,):
            memory = [self.memory(part) for part in way.join.parts]
            names, extents = ("unit", "member"), (way.units, way.team)
            if way.kept:
                names, extents = names[::-1], extents[::-1]
            with b.threads(names, extents) as counters:
                self.member, self.unit = counters if way.kept else counters[::-1]
                number = block * way.units + self.unit
                self.exists = IndexTest("lt", number, way.results)
                self.row = self.place(dim_min(number, way.results - 1))
                for part, own in zip(way.join.parts, memory, strict=True):
                    if part.totals is None:
                        self.compute(part)
                    else:
                        self.reduce(part, part.totals.reduces, own)
        return Scheduled.one(b.kernel(), self.arguments)

    def memory(self, part: Part) -> list[Buffer]:
        """Shared memory that the reductions of a part meet in."""
        way = self.way
        reduces = () if part.totals is None else part.totals.reduces
        if not way.kept:
            return warps_memory(self.b, reduces, way.team, way.units)
        size = way.team * way.units * way.lanes
        return [self.b.shared("met", size, r.dtype, 16) for r in reduces if way.team > 1]

    # Places

    def place(self, number: Dim) -> dict[int, Dim]:
        """The kept dimensions at a row, the vectors' own at its first position."""
        way = self.way
        found = dict(zip(way.others, unravelled(number, way.result_extents), strict=True))
        if way.kept:
            found[way.dim] = found[way.dim] * way.lanes
        return found

    def position(self, slot: int, *, clamped: bool) -> dict[int, Dim]:
        """All dimensions at a slot; `clamped` to one that exists, where threads have less than
        others."""
        way = self.way
        number = slot * way.team + self.member
        if clamped:
            number = dim_min(number, way.positions - 1)
        found = dict(zip(way.loops, unravelled(number, way.extents), strict=True))
        if not way.kept:
            found[way.dim] = found[way.dim] * way.lanes
        return {**self.row, **found}

    def inside(self, slot: int) -> IndexTest:
        """Whether a slot of this thread is a position."""
        return IndexTest("lt", slot * self.way.team + self.member, self.way.positions)

    def lanes_at(self, place: Mapping[int, Dim]) -> dict[int, Dim]:
        """With the lanes."""
        own = self.way.dim
        return (
            {**place, own: place[own] + lane_symbol(self.way.lanes)} if own in place else {**place}
        )

    def emitter(self, slot: int) -> Emitter:
        """Of vectors, at a slot."""
        lanes = self.way.lanes
        spread = {
            name: value
            if value.type.lanes == lanes
            else Splat(value, ValueType(value.type.dtype, lanes))
            for name, value in self.narrow.items()
        }
        held = {**spread, **self.wide[slot]}
        return Emitter(self.b, self.views, lanes, loaded=self.loaded, held=held)

    # Parts

    def compute(self, part: Part) -> None:
        """What has all dimensions, at every slot; held, and stored where it leaves."""
        task = part.task
        later = [stage.target.name for stage in task.stages] * 2
        for slot in range(self.way.slots):
            place = self.position(slot, clamped=True)
            emitter = self.emitter(slot)
            at = part.at(self.lanes_at(place))
            held = emit_stages(emitter, task.stages, task.outputs, at, later)
            self.wide[slot] |= held
            if task.outputs:
                first = part.at(self.position(slot, clamped=False))
                with guarded(self.b, self.inside(slot), self.exists):
                    store_outputs(emitter, task.outputs, task.axes, held, first)

    def reduce(self, part: Part, reduces: Sequence[Reduce], memory: Sequence[Buffer]) -> None:
        """Totals of a row, and what follows from them."""
        way, b = self.way, self.b
        parts = [self.own(part, reduce) for reduce in reduces]
        if way.kept:
            totals: list[Value] = []
            for number, (reduce, value) in enumerate(zip(reduces, parts, strict=True)):
                own = memory[number] if memory else None
                totals.append(self.halved(reduce, value, own))
        else:
            totals = in_warps(b, reduces, parts, memory, way.team, self.unit, self.member)
        lanes = way.lanes if way.kept else 1
        known = tuple(zip(reduces, totals, strict=True))
        emitter = Emitter(b, self.views, lanes, known=known, held=self.narrow)
        task = part.task
        at = part.at(self.lanes_at(self.row) if way.kept else self.row)
        later = [stage.target.name for stage in task.stages] * 2
        inner = [stage for stage in task.stages if stage.target.name in self.read]
        self.narrow |= emit_stages(emitter, inner, task.outputs, at, later)
        if task.outputs:
            ending = [stage for stage in task.stages if stage not in inner]
            with guarded(b, IndexTest("eq", self.member, 0), self.exists):
                emitter = emitter.holding(self.narrow)
                held = emit_stages(emitter, ending, task.outputs, at)
                self.leave(part, task.outputs, {**self.narrow, **held})

    def own(self, part: Part, reduce: Reduce) -> Value:
        """What a thread finds in its slots."""
        b, type = self.b, ValueType(reduce.dtype, self.way.lanes)
        total: Value | None = None
        for slot in range(self.way.slots):
            at = part.at(self.lanes_at(self.position(slot, clamped=True)))
            value = self.emitter(slot).emit(reduce.body, at)
            if reduce.body.dtype is not reduce.dtype:
                value = nodes.Cast(value, type)
            if (slot + 1) * self.way.team > self.way.positions:
                neutral = Const(REDUCTIONS[reduce.op].neutral(reduce.dtype), type)
                value = Select(self.inside(slot), value, neutral)
            value = b.let(value, reduce.op)
            total = value if total is None else b.let(combined(reduce.op, total, value), reduce.op)
        assert total is not None
        return total

    def halved(self, reduce: Reduce, value: Value, memory: Buffer | None) -> Value:
        way = self.way
        if memory is None:
            return value
        (total,) = by_halves(
            self.b, reduce.op, [value], memory, way.team, way.units, self.unit, self.member
        )
        return total

    def leave(self, part: Part, outputs: Sequence[Output], held: Mapping[str, Value]) -> None:
        """Store what has the kept dimensions alone: by the thread that has read what lay there, if
        an output is to lie over an operand."""
        b, way = self.b, self.way
        for output in outputs:
            value, buffer = held[output.var.name], self.views[output.var.name].buffer
            where = output.offset(part.at(self.row), part.task.axes)
            lanes = output.offset(part.at(self.lanes_at(self.row)), part.task.axes)
            if not way.kept or way.lanes == 1 or lane_stride(lanes) == 1:
                b.store(buffer, where, value)
                continue
            for lane in range(way.lanes):
                place = {**self.row, way.dim: self.row[way.dim] + lane}
                where = output.offset(part.at(place), part.task.axes)
                b.store(buffer, where, Lane(value, lane))


def rows(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule(
        "rows",
        lambda task: cost(task, target),
        emit,
        joins=True,
    )
