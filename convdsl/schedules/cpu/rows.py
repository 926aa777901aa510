"""Softmax, normalisation, their gradients: whatever reduces rows and then computes along them.

A row, or a vector of rows side by side, is met in passes while it is in the cache: each makes what
the reductions behind it are of, reduces that, and keeps what later ones read in memory of its own.
Neighbouring dimensions along which everything lies as along one are one. What a row has one value
of (a logarithm of its sum, a reciprocal root) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from convdsl.kernel.nodes import Buffer, Load, ReduceLanes, Splat, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.accumulators import Accumulators
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.cpu.rounds import Position, Rounds
from convdsl.schedules.cpu.rows_ahead import Ahead
from convdsl.schedules.cpu.softmax_rows import Weights, divided_once, weights_of
from convdsl.schedules.cpu.together import vectors_together, written_out
from convdsl.schedules.cpu.totals import Loop
from convdsl.schedules.emission import Emitter, lane_stride, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.joins import Join, Part, match_join
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.totals import RUN
from convdsl.tensor import Dim, floor_div, substitute
from convdsl.tensor.records import record

_SMALL = 1 << 14  # elements of a space that one core is done with before others are awake
_UNITS = 8  # rows, or vectors of rows, that give a team enough to share out
_CYCLES = 0.75  # of an operation on a vector, or a read
_SIDE = 128  # vectors of the rows that are met side by side
_LONGER = 1.2  # times the vectors of a row that is filled up
_HEAVY = 8  # operations of a term from which on fewer of them stand side by side


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
            work += counted + 1 - sum(_operations(e) for e in _hoisted(body, way, part))
    return way.units * way.vectors * way.together * work * _CYCLES


def _operations(e: Expr) -> int:
    counted = arithmetic(e)
    assert isinstance(counted, int)
    return counted


def _hoisted(body: Expr, way: Way, part: Part) -> list[Expr]:
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


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel."""
    way = plan(task, target)
    assert way is not None
    return _Rows(task, way, name, target).scheduled()


class _Rows:
    """The kernel under construction, and what is known of a row."""

    def __init__(self, task: Task, way: Way, name: str, target: Target) -> None:
        self.way = way
        outputs = [o for t in (*task.earlier, task) for o in t.outputs]
        self.frame = Frame.open(task, name, way.lanes, outputs=outputs)
        self.b, self.views = self.frame.b, self.frame.views
        self.passes = passes_of(way.join)
        self.kept = self._kept()
        first, last = self.passes[0], self.passes[-1]
        first_parts = (*first.made, *(() if first.reduced is None else (first.reduced,)))
        self.ahead = Ahead.of(way.join, first_parts, last.made, target)

    def _kept(self) -> dict[str, Buffer]:
        """Memory for what one pass makes and another one reads, by its name."""
        found: dict[str, Buffer] = {}
        for number, own in enumerate(self.passes):
            later = {name for other in self.passes[number + 1 :] for name in _names_read(other)}
            for part in own.made:
                for target in (stage.target for stage in part.task.stages):
                    if target.name in later:
                        size = self.way.vectors * self.way.lanes * self.way.side
                        name = f"kept{len(found)}"
                        found[target.name] = self.b.private(name, size, target.type.dtype)
        return found

    def scheduled(self) -> Scheduled:
        """All rows in parallel, or vectors of them; one that is not whole by itself."""
        b, way = self.b, self.way
        names = [f"d{d}" for d in way.others]
        extents = [way.join.shape[d] for d in way.others]
        if way.kept:
            for count, start, valid in (
                (way.whole, 0, None),
                (min(way.rest, 1), way.whole, way.rest),
            ):
                if count:
                    with b.parallel([*names, "vector"], [*extents, count]) as (*found, vector):
                        at = dict(zip(way.others, found, strict=True))
                        first = (start + vector) * way.lanes
                        place = {**at, **way.spread(first)}
                        self.meet([_Row(self, place, 0, first, valid)])
        elif not names:
            with b.parallel(["row"], [1]):
                self.meet([_Row(self, {})])
        else:
            whole, rest = divmod(extents[-1], way.side)
            for count, first, many in ((whole, 0, way.side), (1, whole * way.side, rest)):
                if not count or not many:
                    continue
                with b.parallel(names, [*extents[:-1], count]) as found:
                    at = dict(zip(way.others, found, strict=True))
                    last = way.others[-1]
                    places = [{**at, last: first + at[last] * many + n} for n in range(many)]
                    self.meet([_Row(self, place, n) for n, place in enumerate(places)])
        return self.frame.finish(self.kept.values())

    def meet(self, rows: Sequence[_Row]) -> None:
        """All passes of a few rows, each pass of all before the next."""
        for own in self.passes:
            for row in rows:
                _Walk(self, own, row).all()


class _Row:
    """One row, or `valid` ones side by side from position `start` of the group on, where these are
    `number` of those that are met together; and what is known of it."""

    def __init__(
        self,
        rows: _Rows,
        place: Mapping[int, Dim],
        number: int = 0,
        start: Dim = 0,
        valid: int | None = None,
    ) -> None:
        self.place, self.start, self.valid = place, start, valid
        self.first = number * rows.way.vectors  # of its vectors, in memory that is kept
        self.narrow: dict[str, Value] = {}


def _names_read(own: Pass) -> set[str]:
    parts = (*own.made, *([] if own.reduced is None else [own.reduced]))
    return {r.tensor.name for p in parts for s in p.task.stages for r in reads(s.body)}


class _Walk:
    """One pass over a row, or over rows side by side."""

    def __init__(self, rows: _Rows, own: Pass, row: _Row) -> None:
        self.rows, self.own, self.row = rows, own, row
        self.start, self.valid = row.start, row.valid
        self.way, self.b = rows.way, rows.b
        self.reduces = (
            () if own.reduced is None or own.reduced.totals is None else own.reduced.totals.reduces
        )
        bodies = [s.body for part in own.made for s in part.task.stages]
        work = sum(map(_operations, (*bodies, *(r.body for r in self.reduces))))
        most = max(2, 8 // max(1, len(self.reduces)))
        most = most if work < _HEAVY else max(2, most // 2)
        alone = written_out((*bodies, *(r.body for r in self.reduces)))
        most = 1 if alone and rows.way.together > 1 else max(1, most // rows.way.together)
        self.outer = [
            Loop(Axis(f"d{d}", rows.way.join.shape[d]), rows.way.join.shape[d])
            for d in rows.way.outer
        ]
        group = [] if self.way.kept else [Loop(Axis("vector", self.way.whole), self.way.whole)]
        self.loops = (*self.outer, *group)
        inner = self.loops[-1].extent if self.loops else 1
        self.slots = max(1, min(most, inner))
        self.near = self.accumulators(self.slots)

    def accumulators(self, slots: int) -> Accumulators:
        passing = [] if self.way.weights is None else [self.way.weights.largest]
        return Accumulators.of(self.b, self.reduces, slots, self.way.lanes, passing)

    def all(self) -> None:
        """The positions, then what follows from the totals."""
        way = self.way
        self.known = self.hoisted()
        if way.vectors <= RUN * self.slots:
            self.near.clear()
            self.positions(lambda: None, lambda: None)
            totals = self.near
        else:
            totals = self.accumulators(1)
            totals.clear()
            self.positions(self.near.clear, lambda: totals.take(0, self.near.totals()))
        if self.own.reduced is not None:
            self.finish(self.own.reduced, totals)

    def positions(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """All of them, those of vectors that are not whole behind the others."""
        ways: list[tuple[tuple[Loop, ...], int | None]] = [(self.loops, None)]
        if self.way.rest and not self.way.kept:
            ways.append((tuple(self.outer), self.way.rest))
        for loops, rest in ways:
            rounds = Rounds(self.b, loops, self.slots)

            def position(at: Position, slot: int, rest: int | None = rest) -> None:
                self.position(at, slot, rest)

            rounds.walk(0, rounds.count, rounds.count, position, begin, end)

    def place(self, position: Dim | None) -> dict[int, Dim]:
        """The row, and a position of the group if that is reduced; without lanes."""
        return {**self.row.place, **({} if position is None else self.way.spread(position))}

    def hoisted(self) -> tuple[tuple[Expr, Value], ...]:
        """What has one value in a row, computed before its positions."""
        way, b = self.way, self.b
        found: dict[Expr, Value] = {}
        parts = (*self.own.made, *([] if self.own.reduced is None else [self.own.reduced]))
        for part in parts:
            bodies = [s.body for s in part.task.stages] if part.totals is None else []
            bodies += [reduce.body for reduce in (part.totals.reduces if part.totals else ())]
            for e in (e for body in bodies for e in _hoisted(body, way, part)):
                lanes = way.lanes if way.kept else 1
                emitter = Emitter(b, self.rows.views, lanes, self.valid, held=self.row.narrow)
                value = b.let(emitter.emit(e, part.at(self.across(self.place(None), self.start))))
                found[e] = self.splat(value)
        return tuple(found.items())

    def splat(self, value: Value) -> Value:
        """In every lane."""
        lanes = self.way.lanes
        if value.type.lanes == lanes:
            return value
        return self.b.let(Splat(value, ValueType(value.type.dtype, lanes)))

    def across(self, place: Mapping[int, Dim], first: Dim) -> dict[int, Dim]:
        """With lanes, if these are rows."""
        way = self.way
        if not way.kept:
            return {**place}
        return {**place, **way.spread(first + lane_symbol(way.lanes))}

    def position(self, at: Position, slot: int, rest: int | None) -> None:
        """One vector: what is made there, and its terms."""
        way, b, rows = self.way, self.b, self.rows
        number: Dim = 0
        for d in way.outer:
            number = number * way.join.shape[d] + at[f"d{d}"]
        outer = {d: at[f"d{d}"] for d in way.outer}
        if way.kept:
            first, valid = self.start, self.valid
        else:
            vector = way.whole if rest else at["vector"]
            number = number * -(-way.extent // way.lanes) + vector
            first, valid = vector * way.lanes, rest
        number = number + self.row.first
        place = {**self.row.place, **outer, **way.spread(first)}
        here = {**place, **way.spread(first + lane_symbol(way.lanes))}
        held: dict[str, Value] = {name: self.splat(v) for name, v in self.row.narrow.items()}
        for name in sorted(_names_read(self.own) & rows.kept.keys() - self.makes()):
            buffer = rows.kept[name]
            type = ValueType(buffer.dtype, way.lanes)
            held[name] = b.let(Load(buffer, number * way.lanes, type), name)
        emitter = Emitter(
            b, rows.views, way.lanes, valid, self.known, loaded={}, held=held, within=True
        )
        for part in self.own.made:
            task = part.task
            later = [stage.target.name for stage in task.stages] * 2
            made = emit_stages(emitter, task.stages, task.outputs, part.at(here), later)
            emitter = emitter.holding(made)
            store_outputs(emitter, task.outputs, task.axes, made, part.at(place), valid)
            for name in made.keys() & rows.kept.keys():
                b.store(rows.kept[name], number * way.lanes, made[name])
        if self.own is rows.passes[1] and not way.kept:
            self.ask_ahead(place, rest)
        if self.own.reduced is not None:
            counted = None if way.kept else rest
            self.near.add(slot, emitter, self.own.reduced.at(here), counted)

    def ask_ahead(self, place: Mapping[int, Dim], rest: int | None) -> None:
        """While this computes, for what the same place of the next rows is read from, and for where
        that of this one is written."""
        b, way, ahead, views = self.b, self.way, self.rows.ahead, self.rows.views
        count = way.lanes if rest is None else rest
        if self.own is not self.rows.passes[-1]:
            ahead.ask_for_outputs(b, views, place, count)
        if way.others:
            last = way.others[-1]
            ahead.ask_for_rows(b, views, {**place, last: place[last] + way.side}, count)

    def makes(self) -> set[str]:
        """Names of what this pass makes itself."""
        return {stage.target.name for part in self.own.made for stage in part.task.stages}

    def finish(self, part: Part, far: Accumulators) -> None:
        """The stages after the reductions, and what leaves of them."""
        way, b, rows, task = self.way, self.b, self.rows, part.task
        values, lanes = far.totals(), way.lanes
        if not way.kept:
            pairs = zip(self.reduces, values, strict=True)
            values, lanes = [b.let(ReduceLanes(r.op, v), r.op) for r, v in pairs], 1
        known = tuple(zip(self.reduces, values, strict=True))
        emitter = Emitter(b, rows.views, lanes, self.valid, known, held=self.row.narrow)
        place = self.place(None)
        at = part.at(self.across(place, self.start))
        later = [stage.target.name for stage in task.stages] * 2
        held = emit_stages(emitter, task.stages, task.outputs, at, later)
        store_outputs(emitter, task.outputs, task.axes, held, part.at(place), self.valid)
        self.row.narrow |= held


def rows(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "rows",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        joins=True,
    )
