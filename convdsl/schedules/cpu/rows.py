"""Softmax, normalisation, their gradients: whatever reduces rows and then computes along them.

A row, or a vector of rows side by side, is met in passes while it is in the cache: each makes what
the reductions behind it are of, reduces that, and keeps what later ones read in memory of its own.
Neighbouring dimensions along which everything lies as along one are one. What a row has one value
of (a logarithm of its sum, a reciprocal root) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from convdsl.kernel.expr import Axis, Expr, reads
from convdsl.kernel.nodes import Buffer, Load, ReduceLanes, Splat, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.accumulators import Accumulators
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.cpu.rounds import Position, Rounds
from convdsl.schedules.cpu.rows_ahead import Ahead
from convdsl.schedules.cpu.rows_plan import Pass, Way, cost, hoisted, operations, passes_of, plan
from convdsl.schedules.cpu.together import written_out
from convdsl.schedules.cpu.totals import Loop
from convdsl.schedules.emission import Emitter, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.joins import Part
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.totals import RUN
from convdsl.tensor import Dim

_HEAVY = 8  # operations of a term from which on fewer of them stand side by side


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
        work = sum(map(operations, (*bodies, *(r.body for r in self.reduces))))
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
            for e in (e for body in bodies for e in hoisted(body, way, part)):
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
