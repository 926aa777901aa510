"""Reductions across rows that lie pages apart: rows are added into a strip in the cache.

    for r: near[q] = near[q] + x[r, q]        q along a strip of the row

What `reduction` holds in registers is 128 bytes of each row, so that memory is read in pieces of
two lines, each in a page of its own. A strip is a few pages long and is read as it lies, four rows
at a time. Sums are made in the same way: near ones take so many terms each, and are added into far
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod

from convdsl.kernel import nodes
from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Reduce
from convdsl.kernel.nodes import Buffer, Const, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.cpu.totals import Way, cycles, plan_totals
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.totals import RUN, Totals, match_totals
from convdsl.tensor import Dim, dim_min, floor_div
from convdsl.tensor.records import record

_LEAST = 3072  # bytes of a row: less is read in as long pieces by registers
_STRIP = 1.0  # of the first-level cache, for what is summed of all reductions
_SHORTEST = 2048  # bytes of a strip: shorter ones are pieces as well
_ROWS = 4  # that are met at a time: each is a stream from memory
_TOGETHER = 4  # vectors that are met in one body of a loop
_APART = 0.6  # of the cycles of pieces of rows, where all of them come from memory


@record
class Columns:
    """Vectors of `lanes` along `axis`, which is kept, `strip` of them in a strip."""

    totals: Totals
    axis: Axis
    lanes: int
    strip: int
    way: Way

    @property
    def others(self) -> tuple[Axis, ...]:
        return self.way.others

    @property
    def rounds(self) -> int:
        """Rows that each strip meets."""
        return prod(loop.extent for loop in self.way.loops)


@lru_cache(maxsize=4096)
def plan(task: Task, target: Target) -> Columns | None:
    """None where rows are near each other, short, or in the second-level cache already."""
    totals = match_totals(task)
    if totals is None or totals.front or totals.layout.axis is not None:
        return None
    way = plan_totals(totals, task, target)
    if way is None or not way.kept or way.shares > 1 or any(o.static for o in task.operands):
        return None
    axis, element = way.axis, max(reduce.dtype.bytes for reduce in totals.reduces)
    lanes = way.lanes // way.several
    row = extent_of(axis) * element
    afar = any(layout.size * element > target.caches.l2_bytes for layout in way.layouts.values())
    if row < _LEAST or not afar:
        return None
    room = int(target.caches.l1_bytes * _STRIP) // (2 * len(totals.reduces) * element)
    strips = -(-extent_of(axis) // room)
    strip = -(-extent_of(axis) // (strips * lanes))
    return (
        Columns(totals, axis, lanes, strip, way) if strip * lanes * element >= _SHORTEST else None
    )


def cost(task: Task, target: Target) -> float | None:
    """Cycles: a share of what pieces of rows take."""
    made = plan(merged(task), target)
    return None if made is None else cycles(made.way) * _APART


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: strips in parallel."""
    task = merged(task)
    made = plan(task, target)
    assert made is not None
    frame = Frame.open(task, name, made.lanes, made.way.layouts)
    reduces, b = made.totals.reduces, frame.b

    def sums(kind: str) -> list[Buffer]:
        elements = made.strip * made.lanes
        return [b.private(f"{kind}{n}", elements, r.dtype) for n, r in enumerate(reduces)]

    near = sums("near")
    far = sums("far") if made.rounds > RUN else near
    _Strips(b, frame.views, task, made, near, far).all()
    return frame.finish(near if far is near else [*near, *far])


@record
class _Strips:
    """The kernel under construction. `near` and `far` are the same memory where no strip meets more
    rows than near sums take."""

    b: Builder
    views: Mapping[str, View]
    task: Task
    plan: Columns
    near: Sequence[Buffer]
    far: Sequence[Buffer]

    def all(self) -> None:
        """Strips of the same length, then the last one."""
        plan = self.plan
        vectors, rest = divmod(extent_of(plan.axis), plan.lanes)
        strips, left = divmod(vectors, plan.strip)
        self.strips(strips, 0, plan.strip, 0)
        self.strips(1, strips * plan.strip, left, rest)

    def strips(self, count: int, start: int, vectors: int, rest: int) -> None:
        """`count` of them from a vector on, and of the last vector `rest` lanes if not all."""
        plan, b = self.plan, self.b
        if not count or not vectors + rest:
            return
        names, extents = [a.name for a in plan.others], [extent_of(a) for a in plan.others]
        with b.parallel([*names, "strip"], [*extents, count]) as (*others, strip):
            at = dict(zip(names, others, strict=True))
            first = (start + strip * vectors) * plan.lanes
            self.clear(self.far, vectors, rest)
            if self.far is self.near:
                self.rows(at, first, 0, plan.rounds, vectors, rest)
            else:
                with b.serial("run", -(-plan.rounds // RUN)) as run:
                    self.clear(self.near, vectors, rest)
                    past = dim_min((run + 1) * RUN, plan.rounds)
                    self.rows(at, first, run * RUN, past, vectors, rest)
                    self.along(vectors, rest, self.take)
            self.along(vectors, rest, lambda v, valid: self.leave(at, first, v, valid))

    def along(self, vectors: int, rest: int, body: Callable[[Dim, int | None], None]) -> None:
        """The vectors of a strip, several in the body of a loop."""
        several, left = divmod(vectors, _TOGETHER)
        with self.b.serial("several", several) as group:
            for number in range(_TOGETHER if several else 0):
                body((group * _TOGETHER + number) * self.plan.lanes, None)
        for number in range(vectors - left, vectors):
            body(number * self.plan.lanes, None)
        if rest:
            body(vectors * self.plan.lanes, rest)

    def clear(self, sums: Sequence[Buffer], vectors: int, rest: int) -> None:
        pairs = list(zip(self.plan.totals.reduces, sums, strict=True))

        def body(v: Dim, _: int | None) -> None:
            for reduce, buffer in pairs:
                neutral = REDUCTIONS[reduce.op].neutral(reduce.dtype)
                self.b.store(buffer, v, Const(neutral, self.type(reduce)))

        self.along(vectors, rest, body)

    def rows(
        self, at: Mapping[str, Dim], first: Dim, start: Dim, past: Dim, vectors: int, rest: int
    ) -> None:
        """The rows from `start` to `past`, a few at a time, added to near sums."""

        def meet(numbers: Sequence[Dim]) -> None:
            places = [{**at, **self.row(number)} for number in numbers]
            self.along(vectors, rest, lambda v, valid: self.add(places, first + v, v, valid))

        fours = floor_div(past - start, _ROWS)
        with self.b.serial("rows", fours) as four:
            meet([start + four * _ROWS + row for row in range(_ROWS)])
        with self.b.serial("row", past, start + fours * _ROWS) as number:
            meet([number])

    def row(self, number: Dim) -> dict[str, Dim]:
        """Where the reduced axes stand in a row."""
        found: dict[str, Dim] = {}
        for loop in reversed(self.plan.way.loops):
            above = floor_div(number, loop.extent)
            found[loop.axis.name] = number - above * loop.extent
            number = above
        return found

    def add(self, rows: Sequence[Mapping[str, Dim]], place: Dim, v: Dim, valid: int | None) -> None:
        """A vector of each row to the sums at `v`."""
        plan, b = self.plan, self.b
        at = {plan.axis.name: place + lane_symbol(plan.lanes)}
        emitter = Emitter(b, self.views, plan.lanes, valid, loaded={})
        for reduce, buffer in zip(plan.totals.reduces, self.near, strict=True):
            terms = [self.term(emitter, reduce, {**row, **at}) for row in rows]
            while len(terms) > 1:
                pairs = zip(terms[::2], terms[1::2], strict=True)
                terms = [b.let(self.combined(reduce, *pair), reduce.op) for pair in pairs]
            b.store(buffer, v, self.combined(reduce, b.load(buffer, v), terms[0]))

    def term(self, emitter: Emitter, reduce: Reduce, at: Mapping[str, Dim]) -> Value:
        value = emitter.emit(reduce.body, at)
        return value if value.type == self.type(reduce) else nodes.Cast(value, self.type(reduce))

    def combined(self, reduce: Reduce, a: Value, b: Value) -> Value:
        return nodes.Binary(REDUCTIONS[reduce.op].combine, a, b)

    def take(self, v: Dim, _: int | None) -> None:
        """Near sums into far ones."""
        for reduce, near, far in zip(self.plan.totals.reduces, self.near, self.far, strict=True):
            b = self.b
            b.store(far, v, self.combined(reduce, b.load(far, v), b.load(near, v)))

    def leave(self, at: Mapping[str, Dim], first: Dim, v: Dim, valid: int | None) -> None:
        """The stages after the reductions, and what leaves."""
        plan, totals, b = self.plan, self.plan.totals, self.b
        pairs = zip(totals.reduces, self.far, strict=True)
        known = tuple((reduce, b.load(buffer, v)) for reduce, buffer in pairs)
        start = {**at, plan.axis.name: first + v}
        place = {**at, plan.axis.name: first + v + lane_symbol(plan.lanes)}
        emitter = Emitter(b, self.views, plan.lanes, valid, known)
        held = emit_stages(emitter, totals.stages, totals.outputs, place)
        store_outputs(emitter, totals.outputs, totals.kept, held, start, valid)

    def type(self, reduce: Reduce) -> ValueType:
        return ValueType(reduce.dtype, self.plan.lanes)


def columns(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "columns",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
