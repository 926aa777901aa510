"""What is put at positions that are data: in the place where it belongs, one term after the other.

    y[q, d] = x[q, d]; then for each i in order y[ids[i], d] = v[i, d], or combined with it

A thread has a share of the result for itself, as much as stays in its cache while it is met first
with what was there and then with what goes over it: of whole rows some places, as pieces of rows
would lie on a page each; of single elements all places, and a part of the axes beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from typing import TypeAlias

from convdsl.ir.classify import is_in_place
from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Pick,
    Read,
    Reduce,
    TensorVar,
    arithmetic,
    reads,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Binary, Buffer, IndexTest, Load, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.puts import Put, match_put
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, TensorType, substitute
from convdsl.tensor.records import record

_SHARE = 0.5  # of the second-level cache: beside it lie values, positions and what was there
_SHARES = 4  # parts that the work is cut into where the axes around give fewer
_PASSED = 4.0  # cycles for looking at one position
_ALONE = 2.0  # and for putting one element by itself, or a vector
_VECTOR = 1.0  # cycles of a vector that is read and written in order
_LOOKING = 0.25  # of the time that rows are put in, at the most, for terms of other shares

At: TypeAlias = "dict[str, Dim]"
Ranges: TypeAlias = "Mapping[str, tuple[Dim, int]]"
"""Of axes by name, outermost first: where they begin, and how many positions they have."""


@record
class Plan:
    """A share has `rows` places, and all inner axes of them; or all places, and of the inner axes
    number `apart` a tile of `tile` positions, one of each before it, and all of what is behind."""

    put: Put
    lanes: int
    rows: int | None = None
    apart: int = 0
    tile: int = 1

    @property
    def whole(self) -> tuple[Axis, ...]:
        """The axes that shares are made of: all before the places, and inner ones."""
        return (*self.put.outer, *self.put.inner[: self.apart])

    @property
    def tiled(self) -> Axis | None:
        """The inner axis in tiles."""
        return None if self.rows is not None else self.put.inner[self.apart]

    @property
    def pieces(self) -> list[tuple[int, int, int]]:
        """Of the places or the axis in tiles: how many shares, from where on, of how many."""
        size = self.tile if self.rows is None else self.rows
        extent = self.put.many if self.tiled is None else extent_of(self.tiled)
        shares, rest = divmod(extent, size)
        found = [(shares, 0, size), (1, shares * size, rest)]
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
    room = int(target.caches.l2_bytes * _SHARE) // dtype.bytes
    if put.row:
        return Plan(put, lanes, rows=_rows(put, room, lanes))
    apart = 0
    while apart < len(put.inner) - 1 and put.many * _behind(put, apart) > room:
        apart += 1
    tile = _tile(put, apart, room // (put.many * _behind(put, apart)), lanes)
    return Plan(put, lanes, apart=apart, tile=tile)


def _behind(put: Put, apart: int) -> int:
    """Elements of a place at one position of the inner axis number `apart`."""
    return prod(map(extent_of, put.inner[apart + 1 :]))


def _rows(put: Put, room: int, lanes: int) -> int:
    """Places of a share that stays in the cache. Every share looks at all terms, which is not to
    take long beside what is copied and put."""
    wide = prod(map(extent_of, put.inner))
    around = prod(map(extent_of, put.outer))
    wanted = max(-(-put.many * wide // room), -(-_SHARES // around))
    terms = max(1, prod(map(extent_of, put.terms)))
    own = -(-wide // lanes) * _ALONE + put.many * wide / lanes * _VECTOR / terms
    shares = min(wanted, max(1, int(_LOOKING * own / _PASSED)), put.many)
    return -(-put.many // max(shares, 1))


def _tile(put: Put, apart: int, room: int, lanes: int) -> int:
    """Positions of a tile that stays in the cache, by the shape alone; whole vectors of the last
    axis."""
    extent = extent_of(put.inner[apart])
    around = prod(map(extent_of, (*put.outer, *put.inner[:apart])))
    wanted = min(room, -(-extent * around // _SHARES), extent)
    if apart == len(put.inner) - 1 and wanted < extent:
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
    copied = task.layout.size / lanes * (_VECTOR + own)
    terms = prod(map(extent_of, put.terms))
    around = float(prod(map(extent_of, put.outer)))
    wide = prod(map(extent_of, put.inner))
    if put.row:
        shares = sum(count for count, _, _ in chosen.pieces)
        return copied + terms * around * (shares * _PASSED + -(-wide // lanes) * (_ALONE + work))
    return copied + terms * around * wide * (_PASSED + _ALONE + work)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: every share by itself."""
    chosen = plan(task, target)
    assert chosen is not None
    frame = Frame.open(task, name, chosen.lanes)
    copied = _Copied.of(chosen.put, task, frame.views)
    _Shares(frame.b, chosen, frame.views, task, copied).all()
    return frame.finish()


@record
class _Copied:
    """What lies in the result before the first term, by its number in the order of memory."""

    own: Expr
    axis: Axis
    views: Mapping[str, View]

    @staticmethod
    def of(put: Put, task: Task, views: Mapping[str, View]) -> _Copied | None:
        """None where anything of it depends on where it stands, or lies otherwise."""
        axes, found = put.stage.axes, [*reads(put.own)]
        placed = IndexValue | IndexCompare | Reduce | Pick
        if any(isinstance(node, placed) for node in walk(put.own)):
            return None
        sizes = tuple(map(extent_of, axes))
        layouts = [task.outputs[0].layout, *(views[read.tensor.name].layout for read in found)]
        if any(layout != Layout(sizes) for layout in layouts):
            return None
        if not all(is_in_place(read, axes) for read in found):
            return None
        axis = Axis("element", prod(sizes))

        def rule(node: Expr) -> Expr | None:
            if not isinstance(node, Read):
                return None
            type = TensorType(node.dtype, (prod(sizes),))
            return Read(TensorVar(node.tensor.name, type), (axis.i,))

        flat = Layout((prod(sizes),))
        seen = {name: replace(view, layout=flat) for name, view in views.items()}
        return _Copied(transform(put.own, rule), axis, seen)


@record
class _Shares:
    b: Builder
    plan: Plan
    views: Mapping[str, View]
    task: Task
    copied: _Copied | None

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
        for shares, first, size in self.plan.pieces:
            extents = [*map(extent_of, whole), shares]
            with self.b.parallel([*names, "share"], extents) as (*outer, share):
                at, start = dict(zip(names, outer, strict=True)), first + share * size
                if tiled is None:
                    self.rows(at, start, size)
                else:
                    self.tile(at, {tiled.name: (start, size)})

    def rows(self, at: At, start: Dim, size: int) -> None:
        """Some places, with all that lies there: what is there, then each term in order."""
        inside = {axis.name: (0, extent_of(axis)) for axis in self.put.inner}
        if self.copied is None:
            with self.b.serial("place", start + size, start) as place:
                self.vectors({**at, **self.put.place(place)}, inside, self.begin)
        else:
            wide = _behind(self.put, -1)
            self.copy(self.first(at) + start * wide, size * wide)
        with self.terms() as terms, self.reached(at, terms, start, size) as place:

            def over(emitter: Emitter, here: At, valid: int | None) -> None:
                self.one(emitter, here, terms, valid)

            self.vectors({**at, **self.put.place(place)}, inside, over)

    def tile(self, at: At, tile: Ranges) -> None:
        """All places, with a part of what lies there."""
        inner = self.put.inner[self.plan.apart :]
        inside = {axis.name: tile.get(axis.name, (0, extent_of(axis))) for axis in inner}
        places: Ranges = {axis.name: (0, extent_of(axis)) for axis in self.put.places} | inside
        if self.copied is None:
            self.vectors(at, places, self.begin)
        else:
            self.copy_tile(at, *inside[inner[0].name])
        with self.terms() as terms, ExitStack() as loops:
            here = {**at}
            for name, (start, size) in inside.items():
                loop = self.b.serial(name, start + size, start)
                here[name] = loops.enter_context(loop)
            place = loops.enter_context(self.reached(here, terms, 0, self.put.many))
            here |= self.put.place(place)
            self.one(Emitter(self.b, self.views, 1, loaded={}), here, terms, None)

    def first(self, at: At) -> Dim:
        """Where the first of all places lies."""
        behind = (*self.put.places, *self.put.inner)
        return self.offset({**{axis.name: 0 for axis in behind}, **at})

    def copy_tile(self, at: At, start: Dim, size: int) -> None:
        """What is there in a tile: one run where it is whole, otherwise one of every place."""
        apart, wide = self.plan.apart, _behind(self.put, -1)
        length = size * _behind(self.put, apart)
        if length == wide:
            self.copy(self.first(at), self.put.many * wide)
            return
        with self.b.serial("place", self.put.many) as place:
            self.copy(self.first(at) + place * wide + start * _behind(self.put, apart), length)

    def copy(self, first: Dim, length: int) -> None:
        """So many elements of what is there, in the order of memory."""
        assert self.copied is not None
        copied, name = self.copied, self.copied.axis.name

        def one(emitter: Emitter, here: At, valid: int | None) -> None:
            emitter = replace(emitter, views=copied.views)
            place = first + here[name]
            value = emitter.emit(copied.own, {name: place})
            start = substitute(place, {str(lane_symbol(self.plan.lanes)): 0})
            self.b.store(self.buffer, start, value, valid)

        self.vectors({}, {name: (0, length)}, one)

    def begin(self, emitter: Emitter, here: At, valid: int | None) -> None:
        """What is there before the first term."""
        self.store(here, emitter.emit(self.put.own, here), valid)

    @contextmanager
    def terms(self) -> Generator[dict[str, Dim]]:
        """Each term in order."""
        with ExitStack() as loops:
            yield {
                axis.name: loops.enter_context(self.b.serial(axis.name, extent_of(axis)))
                for axis in self.put.terms
            }

    @contextmanager
    def reached(self, at: At, terms: Mapping[str, Dim], start: Dim, size: int) -> Generator[Dim]:
        """The place that a term says; nothing happens where it is none of these."""
        emitter = Emitter(self.b, self.views, 1, loaded={})
        index = emitter.emit(self.put.index, self.put.bound(at, terms))
        place = self.b.index(index, self.put.many, "place", beyond=True)
        after = start + size
        with self.b.when(IndexTest("ge", place, start)), self.b.when(IndexTest("lt", place, after)):
            yield place

    def one(
        self,
        emitter: Emitter,
        here: At,
        terms: Mapping[str, Dim],
        valid: int | None,
    ) -> None:
        """The value of a term, alone or combined with what it meets."""
        value = emitter.emit(self.put.value, self.put.bound(here, terms))
        if self.put.reduction is not None:
            value = self.combined(self.there(emitter, here, valid), value)
        self.store(here, value, valid)

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
