"""What is met row by row, which way vectors run, and what that takes.

Neighbouring dimensions along which everything lies as along one are one. What has one value in a
row is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    IndexCompare,
    IndexValue,
    Read,
    Unary,
    arithmetic,
    children,
    reads,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.softmax_rows import Weights, divided_once, weights_of
from convdsl.schedules.cpu.together import vectors_together
from convdsl.schedules.emission import lane_stride, lane_symbol
from convdsl.schedules.joins import Join, Part, match_join
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, floor_div, substitute
from convdsl.tensor.records import record

_SMALL = 1 << 14  # elements of a space that one core is done with before others are awake
_UNITS = 8  # rows, or vectors of rows, that give a team enough to share out
_CYCLES = 0.75  # of an operation on a vector, or a read
_SIDE = 128  # vectors of the rows that are met side by side
_LONGER = 1.2  # times the vectors of a row that is filled up


@record
class Way:
    """Vectors of `lanes` along the dimensions `group`, neighbours that are kept or reduced, as
    along one of `extent`. Each is so many of the processor's `together`. `weights`: of softmax."""

    join: Join
    group: tuple[int, ...]
    lanes: int
    together: int = 1
    weights: Weights | None = None

    @property
    def kept(self) -> bool:
        """Whether lanes are rows of their own."""
        return self.group[0] in self.join.kept

    @property
    def extent(self) -> int:
        return prod(self.join.shape[d] for d in self.group)

    @property
    def whole(self) -> int:
        """Vectors."""
        return self.extent // self.lanes

    @property
    def rest(self) -> int:
        return self.extent % self.lanes

    @property
    def others(self) -> tuple[int, ...]:
        """The kept dimensions that are walked one by one."""
        return tuple(d for d in self.join.kept if d not in self.group)

    @property
    def outer(self) -> tuple[int, ...]:
        """The reduced ones."""
        return tuple(d for d in self.join.over if d not in self.group)

    @property
    def vectors(self) -> int:
        """Of a row, or of rows side by side."""
        own = 1 if self.kept else -(-self.extent // self.lanes)
        return own * prod(self.join.shape[d] for d in self.outer)

    @property
    def units(self) -> int:
        rows = prod(self.join.shape[d] for d in self.others)
        return rows * (-(-self.extent // self.lanes) if self.kept else 1)

    @property
    def side(self) -> int:
        """Rows that are met side by side: while one waits for what its lanes come to, others go on.
        Lanes that are rows of their own wait for nothing."""
        if self.kept or not self.others:
            return 1
        return max(
            1, min(_SIDE // (self.vectors * self.together), 4, self.join.shape[self.others[-1]])
        )

    def spread(self, position: Dim) -> dict[int, Dim]:
        """The dimensions of the group at a position of all of them as one."""
        found: dict[int, Dim] = {}
        for d in reversed(self.group[1:]):
            above = floor_div(position, self.join.shape[d])
            found[d] = position - above * self.join.shape[d]
            position = above
        return {**found, self.group[0]: position}


@record
class Pass:
    """Parts that are met together: what computes, and what reduces that, if anything."""

    made: tuple[Part, ...]
    reduced: Part | None


def passes_of(join: Join) -> list[Pass]:
    """The parts in order, each reduction the end of a pass."""
    found: list[Pass] = []
    made: list[Part] = []
    for part in join.parts:
        if part.totals is None:
            made.append(part)
        else:
            found.append(Pass(tuple(made), part))
            made = []
    return [*found, Pass(tuple(made), None)] if made else found


def plan(task: Task, target: Target) -> Way | None:
    """None where the task is no such thing, or does not lie so."""
    join = match_join(task) if task.earlier else None
    if join is None or join.split:
        return None
    weights = weights_of(join)
    if weights is not None:
        join = divided_once(join, weights)
    if len(passes_of(join)) < 2:
        return None  # a map that ends in sums is met once as it is
    layouts = [o.layout for t in (*task.earlier, task) for o in (*t.operands, *t.outputs)]
    if any(layout is not None and layout.axis is not None for layout in layouts):
        return None
    made = [stage.target.type.dtype for part in join.parts for stage in part.task.stages]
    lanes = min(target.lanes(dtype.computed) for dtype in made)
    if lanes < 2:
        return None
    for group in _groups(join):
        way = Way(join, group, lanes, weights=weights)
        if _is_straight(way, task):
            way = _together(way)
            return way if _fits(way, task, target) else None
    return None


def _together(way: Way) -> Way:
    """With as many vectors in one as are computed together, if a row is not much longer by that."""
    bodies = [s.body for part in way.join.parts for s in part.task.stages]
    many, vectors = vectors_together(bodies), -(-way.extent // way.lanes)
    while many > 1 and -(-vectors // many) * many > _LONGER * vectors:
        many //= 2
    return replace(way, lanes=way.lanes * many, together=many)


def _groups(join: Join) -> Iterator[tuple[int, ...]]:
    """The last dimensions that are reduced, or kept, alike; then the last of them alone."""
    last = len(join.shape) - 1
    while last > 0 and join.shape[last] == 1:
        last -= 1
    first = last
    while first > 0 and (
        join.shape[first - 1] == 1 or (first - 1 in join.over) == (last in join.over)
    ):
        first -= 1
    whole = tuple(d for d in range(first, last + 1) if join.shape[d] > 1 or d == last)
    alike = all((d in join.over) == (last in join.over) for d in whole)
    if len(whole) > 1 and alike:
        yield whole
    yield (last,)


def _is_straight(way: Way, task: Task) -> bool:
    """Whether all that moves along the group moves lane by lane."""
    lane = Axis("vector", 1 << 30).i * way.lanes + lane_symbol(way.lanes)
    join = way.join
    rest = {d: Axis(f"d{d}", join.shape[d]).i for d in range(len(join.shape))}
    place = {**rest, **way.spread(lane)}
    made = {stage.target.name for part in join.parts for stage in part.task.stages}
    for part in join.parts:
        at = part.at(place)
        nodes = [node for stage in part.task.stages for node in walk(stage.body)]
        if len(way.group) > 1 and any(isinstance(n, IndexValue | IndexCompare) for n in nodes):
            return False
        for read in (node for node in nodes if isinstance(node, Read)):
            if read.tensor.name in made:
                continue
            offset = _layout(task, read).offset([substitute(d, at) for d in read.index])
            if read.outside is not None or lane_stride(offset) not in (0, 1):
                return False
        if part.totals is None or way.kept:
            offsets = [output.offset(at, part.task.axes) for output in part.task.outputs]
            if any(lane_stride(offset) != 1 for offset in offsets):
                return False
    return True


def _layout(task: Task, read: Read) -> Layout:
    return task.operand(read.tensor.name).layout or Layout(read.tensor.type.sizes)


def _fits(way: Way, task: Task, target: Target) -> bool:
    """Whether what is met again stays in the second-level cache, and a team has enough to do."""
    wide = {r.tensor.name: r.tensor.type for r in task.reads}
    wide |= {s.target.name: s.target.type for p in way.join.parts for s in p.task.stages}
    bytes = sum(t.dtype.bytes for t in wide.values() if t.sizes == way.join.shape)
    if way.vectors * way.lanes * bytes > target.caches.l2_bytes:
        return False
    return way.units >= _UNITS or prod(way.join.shape) <= _SMALL


def cost(task: Task, target: Target) -> float | None:
    """Cycles: an operation or a read for each vector of every pass."""
    way = plan(task, target)
    if way is None:
        return None
    work = 0
    for part in way.join.parts:
        bodies = [stage.body for stage in part.task.stages]
        if part.totals is not None:
            bodies = [reduce.body for reduce in part.totals.reduces]
        for body in bodies:
            counted = arithmetic(body)
            assert isinstance(counted, int)
            work += counted + 1 - sum(operations(e) for e in hoisted(body, way, part))
    return way.units * way.vectors * way.together * work * _CYCLES


def operations(e: Expr) -> int:
    """Of one element."""
    counted = arithmetic(e)
    assert isinstance(counted, int)
    return counted


def hoisted(body: Expr, way: Way, part: Part) -> list[Expr]:
    """The largest parts of an expression that have one value in a row."""
    narrow = {
        stage.target.name
        for other in way.join.parts
        if other.totals is not None
        for stage in other.task.stages
    }
    found: list[Expr] = []
    pending = [body]
    while pending:
        e = pending.pop()
        own = list(reads(e))
        one = own and all(read.tensor.name in narrow for read in own)
        plain = not any(isinstance(node, IndexValue | IndexCompare) for node in walk(e))
        if isinstance(e, Unary | Binary) and one and plain:
            found.append(e)
        else:
            pending += children(e)
    return list(dict.fromkeys(found))
