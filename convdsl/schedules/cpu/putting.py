"""What is put at positions that are data: in the place where it belongs, one term after the other.

    y[q, d] = x[q, d]; then for each i in order y[ids[i], d] = v[i, d], or combined with it

A thread has a share of the axes beside the places for itself: as much as stays in its cache while
all places of it are met, first with what was there and then with what goes over it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, arithmetic
from convdsl.kernel.nodes import Binary, Buffer, Const, IndexTest, Load, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.puts import Put, match_put
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record

_SHARE = 0.5  # of the second-level cache: beside it lie values, positions and what was there
_SHARES = 4  # parts that the work is cut into where the axes around give fewer
_PASSED = 4.0  # cycles for looking at one position
_ALONE = 2.0  # and for putting one element by itself, or a vector
_VECTOR = 1.0  # cycles of a vector that is read and written in order

At: TypeAlias = "dict[str, Dim]"
Ranges: TypeAlias = "Mapping[str, tuple[Dim, int]]"
"""Of axes by name, outermost first: where they begin, and how many positions they have."""


@record
class Plan:
    """`apart` of the inner axes are walked by shares, the next one in tiles of `tile` positions;
    a share has all of what is behind it."""

    put: Put
    lanes: int
    apart: int
    tile: int

    @property
    def whole(self) -> tuple[Axis, ...]:
        """The axes that shares are made of: all before the places, and inner ones."""
        return (*self.put.outer, *self.put.inner[: self.apart])

    @property
    def tiled(self) -> Axis | None:
        return self.put.inner[self.apart] if self.put.inner else None

    @property
    def pieces(self) -> list[tuple[int, int, int]]:
        """Of the axis in tiles: how many tiles, from where on, of how many positions."""
        if self.tiled is None:
            return [(1, 0, 1)]
        tiles, rest = divmod(extent_of(self.tiled), self.tile)
        found = [(tiles, 0, self.tile), (1, tiles * self.tile, rest)]
        return [piece for piece in found if piece[0] and piece[2]]


def plan(task: Task, target: Target) -> Plan | None:
    """None where the task puts nothing, or not into plain memory."""
    put = match_put(task)
    lanes = target.lanes(task.element)
    if put is None or len(task.outputs) != 1 or task.layout.axis is not None:
        return None
    dtype = task.outputs[0].var.type.dtype
    if task.outputs[0].at is not None or dtype.computed is not dtype:
        return None
    if not put.inner:
        return Plan(put, lanes, 0, 1)
    room = int(target.caches.l2_bytes * _SHARE) // dtype.bytes
    places = prod(map(extent_of, put.places))
    apart = 0
    while apart < len(put.inner) - 1 and places * _behind(put, apart) > room:
        apart += 1
    return Plan(put, lanes, apart, _tile(put, apart, room // (places * _behind(put, apart)), lanes))


def _behind(put: Put, apart: int) -> int:
    """Elements of a place at one position of the inner axis number `apart`."""
    return prod(map(extent_of, put.inner[apart + 1 :]))


def _tile(put: Put, apart: int, room: int, lanes: int) -> int:
    """Positions of a tile that stays in the cache, by the shape alone; whole vectors of the last
    axis."""
    extent = extent_of(put.inner[apart])
    around = prod(map(extent_of, (*put.outer, *put.inner[:apart])))
    wanted = min(room, -(-extent * around // _SHARES), extent)
    if apart == len(put.inner) - 1:
        wanted = max(lanes, wanted // lanes * lanes)
    return max(1, min(wanted, extent))


def cost(task: Task, target: Target) -> float | None:
    """Cycles: what is there copied in vectors, each position looked at, each value put."""
    chosen = plan(task, target)
    if chosen is None:
        return None
    put, lanes = chosen.put, chosen.lanes
    own, work = arithmetic(put.own), arithmetic(put.value)
    assert isinstance(own, int)
    assert isinstance(work, int)
    copied = task.layout.size / lanes * (_VECTOR * (2 if put.late else 1) + own)
    terms = prod(map(extent_of, put.terms))
    around = float(prod(map(extent_of, put.outer)))
    wide = prod(map(extent_of, put.inner))
    if put.row:
        shares = sum(count for count, _, _ in chosen.pieces)
        passed = shares * prod(map(extent_of, put.inner[: chosen.apart])) * _PASSED
        return copied + terms * around * (passed + -(-wide // lanes) * (_ALONE + work))
    return copied + terms * around * wide * (_PASSED + _ALONE + work)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: every share by itself."""
    chosen = plan(task, target)
    assert chosen is not None
    frame = Frame.open(task, name, chosen.lanes)
    _Shares(frame.b, chosen, frame.views, task).all()
    return frame.finish()


@record
class _Shares:
    b: Builder
    plan: Plan
    views: Mapping[str, View]
    task: Task

    @property
    def buffer(self) -> Buffer:
        return self.views[self.put.stage.target.name].buffer

    @property
    def put(self) -> Put:
        return self.plan.put

    def all(self) -> None:
        """Every share on its own."""
        whole, tiled = self.plan.whole, self.plan.tiled
        names = [axis.name for axis in whole]
        for tiles, first, size in self.plan.pieces:
            extents = [*map(extent_of, whole), tiles]
            with self.b.parallel([*names, "tile"], extents) as (*outer, tile):
                at = dict(zip(names, outer, strict=True))
                self.share(at, {} if tiled is None else {tiled.name: (first + tile * size, size)})

    def share(self, at: At, tile: Ranges) -> None:
        """What is there, then each term in order, and what was there where that joins late."""
        put = self.put
        inner = put.inner[self.plan.apart :]
        inside = {axis.name: tile.get(axis.name, (0, extent_of(axis))) for axis in inner}
        places: Ranges = {axis.name: (0, extent_of(axis)) for axis in put.places} | inside

        def begin(emitter: Emitter, here: At, valid: int | None) -> None:
            value = self.neutral(emitter) if put.late else emitter.emit(put.own, here)
            self.store(here, value, valid)

        def end(emitter: Emitter, here: At, valid: int | None) -> None:
            found = self.there(emitter, here, valid)
            self.store(here, self.combined(emitter.emit(put.own, here), found), valid)

        self.vectors(at, places, begin)
        self.terms(at, inside)
        if put.late:
            self.vectors(at, places, end)

    def terms(self, at: At, inside: Ranges) -> None:
        """Each value where it belongs."""
        with ExitStack() as loops:
            terms = {
                axis.name: loops.enter_context(self.b.serial(axis.name, extent_of(axis)))
                for axis in self.put.terms
            }
            if self.put.row:
                with self.reached(at, terms) as place:

                    def over(emitter: Emitter, here: At, valid: int | None) -> None:
                        self.one(emitter, here, terms, place, valid)

                    self.vectors(at, inside, over)
                return

            here = {**at}
            for name, (start, size) in inside.items():
                loop = self.b.serial(name, start + size, start)
                here[name] = loops.enter_context(loop)
            with self.reached(here, terms) as place:
                self.one(Emitter(self.b, self.views, 1, loaded={}), here, terms, place, None)

    @contextmanager
    def reached(self, at: At, terms: Mapping[str, Dim]) -> Generator[Dim]:
        """The place that a term says; nothing happens where there is none."""
        emitter = Emitter(self.b, self.views, 1, loaded={})
        index = emitter.emit(self.put.index, self.put.bound(at, terms))
        extent = prod(map(extent_of, self.put.places))
        place = self.b.index(index, extent, "place", beyond=True)
        with self.b.when(IndexTest("ge", place, 0)), self.b.when(IndexTest("lt", place, extent)):
            yield place

    def one(
        self,
        emitter: Emitter,
        here: At,
        terms: Mapping[str, Dim],
        place: Dim,
        valid: int | None,
    ) -> None:
        """The value of a term, alone or combined with what it meets."""
        here = {**here, **self.put.place(place)}
        value = emitter.emit(self.put.value, self.put.bound(here, terms))
        if self.put.reduction is not None:
            value = self.combined(self.there(emitter, here, valid), value)
        self.store(here, value, valid)

    def neutral(self, emitter: Emitter) -> Value:
        """What a combination starts from."""
        assert self.put.reduction is not None
        dtype = self.buffer.dtype
        return Const(REDUCTIONS[self.put.reduction].neutral(dtype), emitter.type(dtype))

    def combined(self, a: Value, b: Value) -> Value:
        assert self.put.reduction is not None
        return Binary(REDUCTIONS[self.put.reduction].combine, a, b)

    def there(self, emitter: Emitter, here: At, valid: int | None) -> Value:
        """What lies at a place by now."""
        type = ValueType(self.buffer.dtype, emitter.lanes)
        return self.b.let(Load(self.buffer, self.offset(here), type, valid=valid))

    def store(self, here: At, value: Value, valid: int | None) -> None:
        self.b.store(self.buffer, self.offset(here), value, valid)

    def offset(self, here: At) -> Dim:
        """Of the first lane."""
        (output,) = self.task.outputs
        lane = {str(lane_symbol(self.plan.lanes)): 0}
        first = {name: substitute(index, lane) for name, index in here.items()}
        return output.offset(first, self.task.axes)

    def vectors(
        self,
        at: At,
        ranges: Ranges,
        body: Callable[[Emitter, At, int | None], None],
    ) -> None:
        """All positions of some axes, the last of which are all of the last axis of the result in
        order: vectors along it."""
        *outer, last = ranges or [""]
        lane = lane_symbol(self.plan.lanes)
        with ExitStack() as loops:
            here = {**at}
            for name in outer:
                start, size = ranges[name]
                loop = self.b.serial(name, start + size, start)
                here[name] = loops.enter_context(loop)
            if not ranges:
                body(Emitter(self.b, self.views, 1, loaded={}), here, None)
                return
            start, size = ranges[last]
            whole, rest = divmod(size, self.plan.lanes)
            start = start + lane
            with self.b.serial("block", whole) as block:
                here[last] = start + block * self.plan.lanes
                body(Emitter(self.b, self.views, self.plan.lanes), here, None)
            if rest:
                here[last] = start + whole * self.plan.lanes
                body(Emitter(self.b, self.views, self.plan.lanes, rest), here, rest)


def putting(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "putting",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        joins=True,
    )
