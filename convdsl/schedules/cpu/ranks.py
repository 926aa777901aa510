"""The first few along an axis, or all in order: keys in vectors, sorted by networks.

Lanes are rows of their own, or shares of one row, which are merged in the end. Where many positions
are searched for few, the best so far wait in order, and what no lane wants any more is passed over:
a vector with a key before the `bound` is kept until there are enough of them to be sorted and
merged. Nothing depends on values but how often that happens: n log k comparisons at most. A few
stand in a line of registers, along which every vector goes: no branch, no memory, n k comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import log2, prod

from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Binary,
    Compare,
    Const,
    Get,
    IndexAsValue,
    IndexTest,
    ReduceLanes,
    Registers,
    Select,
    Splat,
    Value,
    ValueType,
)
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.network import Network, Row, merged
from convdsl.schedules.emission import Emitter, extent_of, lane_stride, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.keys import Key, Keys
from convdsl.schedules.powers import power_from
from convdsl.schedules.selection import Selection, match_selection, placed, put
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, DType, substitute
from convdsl.tensor.records import record

_TOGETHER = 4  # vectors that are looked at before a branch
_BATCH = 16  # vectors that are sorted together, at least
_WORTH = 2  # batches from which on it pays to pass over what nobody wants
_GATHERED = 1.5  # cycles for a lane that is loaded by itself
_MADE = 4.0  # cycles for a vector of keys
_EXCHANGE = 2.4  # cycles for a comparison of two vectors of keys, without instructions for it
_LOOKED = 4.0  # cycles for asking whether anybody wants a vector
_KEPT = 25.0  # and for one that somebody wants: a branch that nobody foresees
_PUT = 8.0  # cycles for an element that leaves


@record
class Way:
    """`lanes` along dimension `dim` of the space: a kept one, or the one that is searched. The
    first `best` vectors are kept; `batch` are sorted together, of all where that is 0. `line`: so
    many stand in registers instead, and nothing is sorted."""

    selection: Selection
    dim: int
    lanes: int
    words: int
    width: int
    best: int
    batch: int
    line: int = 0

    @property
    def shared(self) -> bool:
        """Whether lanes have shares of one row."""
        return self.dim == self.selection.dim

    @property
    def vectors(self) -> int:
        """Of keys, in a row or in the rows side by side."""
        extent = self.selection.extent
        return -(-extent // self.lanes) if self.shared else extent

    @property
    def others(self) -> tuple[int, ...]:
        """The kept dimensions that are walked one by one."""
        return tuple(d for d in self.selection.kept if d != self.dim)

    @property
    def units(self) -> int:
        """Rows, or vectors of rows."""
        axes = self.selection.axes
        rows = prod(extent_of(axes[d]) for d in self.others)
        return rows if self.shared else rows * -(-extent_of(axes[self.dim]) // self.lanes)


def plan(task: Task, target: Target) -> Way | None:
    """The way that takes the fewest cycles; None where the task is no selection."""
    selection = match_selection(task)
    if selection is None:
        return None
    lanes, words = target.lanes(DType.I64), selection.bits // 32
    registers = target.vector_registers // (2 * words)
    width = 1 << max(registers.bit_length() - 1, 1)
    ways = [
        way
        for d in range(len(selection.axes))
        for way in _ways(Way(selection, d, lanes, words, width, 1, 0))
    ]
    return min(ways, key=lambda way: _cycles(way, task))


def _ways(way: Way) -> Iterator[Way]:
    """With what is wanted sorted in memory, or in a line of as many registers as may be."""
    wanted = min(way.selection.wanted, way.vectors)
    best = power_from(wanted)
    batch = max(best, _BATCH)
    batch = batch if way.vectors > _WORTH * batch else 0
    yield replace(way, best=best, batch=batch)
    if wanted <= way.width:
        yield replace(way, best=best, line=wanted)


def _cycles(way: Way, task: Task) -> float:
    """Keys are made and looked at once, those that may matter sorted, and merged among lanes."""
    stride = _stride(way, task)
    load = 1.0 if stride in (0, 1) else _GATHERED * way.lanes
    made = way.vectors * (_MADE + load)
    exchange = _EXCHANGE * (1 if way.words == 1 else 3)
    made += _line_cycles(way, exchange) if way.line else _sorting_cycles(way, exchange)
    if way.shared:
        made += log2(way.lanes) * way.best * (2 + log2(way.best) / 2) * exchange
    rows = 1 if way.shared else way.lanes
    return way.units * (made + rows * way.selection.wanted * _PUT)


def _line_cycles(way: Way, exchange: float) -> float:
    """Every vector is compared with all that stand there."""
    return way.vectors * way.line * exchange


def _sorting_cycles(way: Way, exchange: float) -> float:
    """Of those vectors that may matter, in batches that are full or not."""
    levels = log2(max(way.batch or way.vectors, 1)) + 1
    sorting = exchange * levels * (levels + 1) / 4
    if not way.batch:
        return way.vectors * sorting
    kept = way.best * way.lanes * (1 + log2(max(1, way.vectors / way.best / way.lanes)))
    kept = min(max(kept, way.batch), way.vectors)
    return way.vectors * _LOOKED + kept * (_KEPT + sorting)


def _stride(way: Way, task: Task) -> int | None:
    """How far apart the lanes of what is ranked lie."""
    selection = way.selection
    axis = selection.axes[way.dim]
    at = {axis.name: lane_symbol(way.lanes)}
    ranked = {t.name for t in (r.tensor for r in task.reads)}
    strides = {
        lane_stride(_layout(task, read.tensor.name).offset([substitute(i, at) for i in read.index]))
        for read in task.earlier[0].reads
        if read.tensor.name in ranked
    }
    return max(strides, key=lambda s: 2 if s is None else abs(s), default=0)


def _layout(task: Task, name: str) -> Layout:
    operand = task.operand(name)
    return operand.layout or Layout(operand.var.type.sizes)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of the best way."""
    way = plan(task, target)
    return None if way is None else _cycles(way, task)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: every row, or vector of rows, by itself."""
    way = plan(task, target)
    assert way is not None
    return _Ranking(task, way, name).scheduled()


class _Ranking:
    """The kernel under construction, and what it works in."""

    def __init__(self, task: Task, way: Way, name: str) -> None:
        self.way = way
        self.frame = Frame.open(task, name, way.lanes, outputs=way.selection.outputs)
        self.b = b = self.frame.b
        self.keys = Keys(b, way.lanes, way.words)
        everything = max(way.best, 0 if way.batch or way.line else way.vectors)
        self.best = Row.private(self.keys, "best", everything)
        self.batch = Row.private(self.keys, "batch", way.batch) if way.batch else self.best
        self.count: Registers | None = None
        if way.batch:
            self.count = b.registers(1, ValueType(DType.I64), "count")
            self.bound = [b.registers(1, self.keys.type, f"bound{w}") for w in range(way.words)]
        self.line: list[Registers] = []
        if way.line:
            self.line = [
                b.registers(way.line, self.keys.type, f"line{w}") for w in range(way.words)
            ]

    def scheduled(self) -> Scheduled:
        """All rows in parallel."""
        axes, b, way = self.way.selection.axes, self.b, self.way
        names = [axes[d].name for d in way.others]
        extents = [extent_of(axes[d]) for d in way.others]
        if way.shared:
            with b.parallel(names or ["row"], extents or [1]) as found:
                self.unit(dict(zip(way.others, found, strict=False)), None)
        else:
            whole, rest = divmod(extent_of(axes[way.dim]), way.lanes)
            for count, start, valid in ((whole, 0, None), (min(rest, 1), whole, rest)):
                if count:
                    with b.parallel([*names, "vector"], [*extents, count]) as (*found, vector):
                        at = dict(zip(way.others, found, strict=True))
                        self.unit({**at, way.dim: (start + vector) * way.lanes}, valid)
        rows = {buffer.name: buffer for row in (self.best, self.batch) for buffer in row.buffers}
        return self.frame.finish(rows.values())

    def unit(self, at: Mapping[int, Dim], valid: int | None) -> None:
        """One row, or the rows of one vector of which so many are `valid`."""
        way, network = self.way, Network(self.best, self.way.vectors, self.way.width)
        if way.line:
            self.pass_along(at, valid)
        elif way.batch:
            self.search(at, valid)
        else:
            whole, rest = self.whole
            with self.b.serial("number", whole) as number:
                self.best.store(number, self.key(at, number, valid))
            if rest:
                self.best.store(whole, self.key(at, whole, rest))
            network.sort()
            self.best.fill(way.vectors, way.best)
        if way.shared:
            self.merge_lanes()
            self.put_row(at)
        else:
            self.put_rows(at, valid)

    @property
    def whole(self) -> tuple[int, int]:
        """Vectors of keys of which all lanes exist, and the lanes of one more."""
        way = self.way
        return divmod(way.selection.extent, way.lanes) if way.shared else (way.vectors, 0)

    def key(self, at: Mapping[int, Dim], number: Dim, valid: int | None) -> Key:
        """A vector of keys."""
        way, ranks, type = self.way, self.way.selection.ranks, self.keys.type
        lane = lane_symbol(way.lanes)
        place = {d: index + lane if d == way.dim else index for d, index in at.items()}
        place[way.selection.dim] = number * way.lanes + lane if way.shared else number
        bound = placed(way.selection.axes, place)
        x = Emitter(self.b, self.frame.views, way.lanes, valid).emit(ranks.value, bound)
        if way.shared:
            position = IndexAsValue(number * way.lanes, 1, type)
        else:
            position = IndexAsValue(number, 0, type)
        key = self.keys.of(self.b.let(x), position, largest=ranks.largest)
        if not way.shared or valid is None:
            return key
        exists = Compare("lt", IndexAsValue(0, 1, type), Const(valid, type))
        pairs = zip(key, self.keys.last, strict=True)
        return tuple(self.b.let(Select(exists, word, last), "key") for word, last in pairs)

    # A few, in a line

    def pass_along(self, at: Mapping[int, Dim], valid: int | None) -> None:
        """Every vector meets those that stand there, and what is higher goes on to the next."""
        way, b = self.way, self.b
        for place in range(way.line):
            self.stand(place, self.keys.last)
        together = _TOGETHER if way.line == 1 else 1
        whole, rest = self.whole
        turns, left = divmod(whole, together)
        with b.serial("turn", turns) as turn:
            self.meet_line([self.key(at, turn * together + i, valid) for i in range(together)])
        last = [self.key(at, turns * together + i, valid) for i in range(left)]
        self.meet_line([*last, *([self.key(at, whole, rest)] if rest else [])])
        for place in range(way.line):
            self.best.store(place, self.standing(place))
        self.best.fill(way.line, way.best)

    def meet_line(self, found: Sequence[Key]) -> None:
        """Several at once meet a line of one: what waits for it is the lowest of them alone."""
        keys, way = self.keys, self.way
        if way.line == 1 and found:
            found = [reduce(keys.lower, found)]
        for key in found:
            for place in range(way.line - 1):
                low, key = keys.exchanged(self.standing(place), key)
                self.stand(place, low)
            self.stand(way.line - 1, keys.lower(self.standing(way.line - 1), key))

    def standing(self, place: int) -> Key:
        return tuple(self.b.let(Get(words, place), "standing") for words in self.line)

    def stand(self, place: int, key: Key) -> None:
        for words, word in zip(self.line, key, strict=True):
            self.b.set(words, place, word)

    # Few of many

    def search(self, at: Mapping[int, Dim], valid: int | None) -> None:
        """Pass over all, and keep the best in order."""
        way, b = self.way, self.b
        self.best.fill(0, way.best)
        self.begin()
        for registers, word in zip(self.bound, self.keys.last, strict=True):
            b.set(registers, 0, word)
        whole, rest = self.whole
        turns, left = divmod(whole, _TOGETHER)
        with b.serial("turn", turns) as turn:
            numbers = [turn * _TOGETHER + i for i in range(_TOGETHER)]
            self.look([self.key(at, number, valid) for number in numbers])
        last = [self.key(at, turns * _TOGETHER + i, valid) for i in range(left)]
        self.look([*last, *([self.key(at, whole, rest)] if rest else [])])
        self.settle()

    def begin(self) -> None:
        """Nothing waits to be sorted."""
        assert self.count is not None
        self.b.set(self.count, 0, Const(0, self.count.type))

    def look(self, found: Sequence[Key]) -> None:
        """Keep those vectors that have a key before the bound."""
        if not found:
            return
        assert self.count is not None
        b, keys, way = self.b, self.keys, self.way
        bound = tuple(b.let(Get(registers, 0), "bound") for registers in self.bound)
        first = found[0]
        for key in found[1:]:
            first = keys.lower(first, key)
        some = b.index(b.let(keys.any_before(first, bound)), 2, "some")
        with b.when(IndexTest("ge", some, 1)):
            for key in found:
                self.batch.store(b.index(Get(self.count, 0), way.batch, "next"), key)
                more = Binary("add", Get(self.count, 0), keys.any_before(key, bound))
                b.set(self.count, 0, more)
            waiting = b.index(Get(self.count, 0), way.batch + 1, "waiting")
            with b.when(IndexTest("gt", waiting, way.batch - _TOGETHER - 1)):
                self.settle()
                self.begin()

    def settle(self) -> None:
        """Merge what waits into the best, and lower the bound."""
        assert self.count is not None
        b, way = self.b, self.way
        self.batch.fill(b.index(Get(self.count, 0), way.batch + 1, "waiting"), way.batch)
        Network(self.batch, way.batch, way.width).sort()
        self.meet()
        Network(self.best, way.best, way.width).merge(way.best // 2)
        wanted = min(way.selection.wanted, way.best)
        bound = self.best.load(wanted - 1)
        if way.shared and way.words == 1 and way.lanes > 1:
            # In every lane so many come no later than there: as many as are wanted, in all.
            enough = self.best.load(-(-way.selection.wanted // way.lanes) - 1)[0]
            worst = b.let(ReduceLanes("max", enough), "worst")
            bound = (b.let(Binary("min", bound[0], Splat(worst, self.keys.type)), "bound"),)
        for registers, word in zip(self.bound, bound, strict=True):
            b.set(registers, 0, word)

    def meet(self) -> None:
        """The lower ones of the best and of the batch, which is met from its end."""
        way, keys = self.way, self.keys
        with self.b.serial("i", way.best) as i:
            here, there = self.best.load(i), self.batch.load(way.best - 1 - i)
            self.best.store(i, keys.lower(here, there))

    # Lanes that have shares of one row

    def merge_lanes(self) -> None:
        """The best of pairs of lanes, then of pairs of these, as one. A row of keys goes on from
        lane to lane as long as it must become longer; from then on all lanes have the same."""
        way, distance, spread = self.way, 1, 1
        while distance < way.lanes:
            longer = way.best * spread < way.selection.wanted
            self.merge_pairs(distance, spread, longer=longer)
            spread = 2 * spread if longer else spread
            distance *= 2

    def merge_pairs(self, distance: int, spread: int, *, longer: bool) -> None:
        """Rows over `spread` lanes, as one of the first half of their keys, or of all of them where
        that is `longer`."""
        b, best, lanes = self.b, self.best, self.way.lanes
        turned = [lane ^ distance ^ (spread - 1) for lane in range(lanes)]
        upper = [longer and bool(lane & spread) for lane in range(lanes)]

        def met(key: Key, other: Key) -> Key:
            low, high = self.keys.exchanged(key, self.keys.shuffled(other, turned))
            key, stride = self.keys.blended(low, high, upper) if longer else low, spread // 2
            while stride:
                swapped = self.keys.shuffled(key, [lane ^ stride for lane in range(lanes)])
                low, high = self.keys.exchanged(key, swapped)
                key = self.keys.blended(low, high, [bool(n & stride) for n in range(lanes)])
                stride //= 2
            return key

        size = self.way.best
        if size <= self.way.width:
            found = [best.load(i) for i in range(size)]
            found = [met(key, found[size - 1 - i]) for i, key in enumerate(found)]
            for i, key in enumerate(merged(self.keys, found, size)):
                best.store(i, key)
            return
        with b.serial("i", size // 2) as i:
            here, there = best.load(i), best.load(size - 1 - i)
            best.store(i, met(here, there))
            best.store(size - 1 - i, met(there, here))
        Network(best, size, self.way.width).merge(size // 2)

    # What leaves

    def put_row(self, at: Mapping[int, Dim]) -> None:
        """The keys of one row, one by one."""
        way = self.way
        for lane in range(way.lanes):
            count = min(way.best, way.selection.wanted - lane * way.best)
            if count > 0:
                with self.b.serial("put", count) as i:
                    position = self.keys.position(self.best.lane(i, lane))
                    self.put(at, lane * way.best + i, self.b.let(position, "position"))

    def put_rows(self, at: Mapping[int, Dim], valid: int | None) -> None:
        """Those of rows side by side: in vectors where what leaves lies so."""
        way, b = self.way, self.b
        with b.serial("put", way.selection.wanted) as i:
            if self.is_straight(at):
                position = b.let(self.keys.position(self.best.load(i)), "position")
                self.put(at, i, position, valid)
                return
            for number in range(way.lanes if valid is None else valid):
                position = b.let(self.keys.position(self.best.lane(i, number)), "position")
                self.put({**at, way.dim: at[way.dim] + number}, i, position)

    def is_straight(self, at: Mapping[int, Dim]) -> bool:
        """Whether lanes of all that leaves lie side by side."""
        way = self.way
        place = {**at, way.selection.dim: 0, way.dim: at[way.dim] + lane_symbol(way.lanes)}
        offsets = (
            output.offset(placed(task.axes, place), task.axes)
            for task in way.selection.leaving
            for output in task.outputs
        )
        return way.lanes > 1 and all(lane_stride(offset) == 1 for offset in offsets)

    def put(
        self, at: Mapping[int, Dim], number: Dim, position: Value, valid: int | None = None
    ) -> None:
        """What belongs to a place in the order."""
        selection = self.way.selection
        emitter = Emitter(self.b, self.frame.views, position.type.lanes, valid)
        put(emitter, selection, {**at, selection.dim: number}, self.way.dim, position)


def ranks(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "ranks",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        joins=True,
    )
