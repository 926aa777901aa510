"""Gradients of filters: sums over all positions, a tile of channels by channels in registers.

For each tap a tile of (vectors of `a`'s channels) x (channels of `b`) is added up over a band of
positions, few enough for what is read there to stay in the first-level cache while all taps pass
over it; borders are bounds of the loops over positions. What the tile holds then goes into memory
laid out [share][v / lanes][c][taps..][lane], and a second kernel (`shares`) adds up the shares,
turns that into rows and runs the epilogue. How positions are split into shares follows from shapes
alone.

Where every channel meets its own alone (depthwise), `b` is loaded in vectors, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Binary, Buffer, Get, IndexTest, Load, Registers, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.correlation import Correlation, Place, Positions, match_correlations
from convdsl.schedules.cpu import shares
from convdsl.schedules.cpu.filters import packing_cycles
from convdsl.schedules.cpu.tiles import split
from convdsl.schedules.emission import View, extent_of
from convdsl.schedules.task import Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, ceil_div, dim_max, dim_min, evaluate, floor_div
from convdsl.tensor.records import record

_UNITS = 32  # independent pieces of work that give a team enough to share out
_LEAST = 256  # positions that a share should have
_BAND = 1 / 2  # of the first-level cache: for what a band reads
_FEW_TAPS = 4  # up to here a share should stay in the second-level cache
_IN_FLIGHT = 8  # multiply-adds that hide each other's latency


@record
class _Rows:
    """`count` blocks of `block` channels of `b` from `first` on; in each, at offset `start`,
    `times` tiles of `width` channels, side by side."""

    first: int
    count: int
    block: int
    pieces: tuple[tuple[int, int, int], ...]


@record
class _Way:
    """How a correlation is run. Tiles are `blocks` vectors by `width` channels, `slots` of them
    side by side where one would wait for itself; bands hold `images` whole images, or `size`
    positions of the first axis."""

    found: Correlation
    lanes: int
    pack: Layout | None  # of `a`, where it does not lie in vectors
    blocks: int
    width: int
    slots: int
    loops: tuple[Positions, ...]
    images: int
    size: int
    shares: int
    cycles: float

    @property
    def in_vectors(self) -> bool:
        """Whether each channel meets its own alone."""
        return self.found.groups > 1 and self.found.per_group == self.found.channels == 1

    @property
    def chunks(self) -> int:
        """Bands of an image."""
        return -(-self.loops[0].extent // self.size)

    @property
    def bands(self) -> int:
        return -(-self.found.images // self.images) * self.chunks

    @property
    def bands_of_share(self) -> int:
        return -(-self.bands // self.shares)

    @property
    def rows(self) -> int:
        """Channels of `b` that a vector of `a` meets; of some groups in it, those of all."""
        return _rows(self.found, self.lanes)

    @property
    def partial(self) -> Layout:
        """Of what the shares write."""
        found = self.found
        taps = (space.taps for space in found.space)
        return Layout((self.shares, extent_of(found.v), self.rows, *taps), 1, self.lanes)

    def first_row(self, block: Dim) -> Dim:
        """The first channel of `b` that a vector of `a` meets."""
        found = self.found
        if found.groups == 1:
            return 0
        first = found.first_channel(block * self.lanes)
        return dim_min(first, found.b.tensor.type.sizes[1] - self.rows)


def _rows(found: Correlation, lanes: int) -> int:
    if found.groups == 1 or found.per_group % lanes == 0:
        return found.channels
    if found.per_group == found.channels == 1:
        return 1
    total, most = extent_of(found.v), 0
    for first in range(0, total, lanes):
        last = min(first + lanes, total) - 1
        groups = last // found.per_group - first // found.per_group + 1
        most = max(most, groups * found.channels)
    return most


def best_way(task: Task, target: Target) -> _Way | None:
    """The cheaper factor to load in vectors; None where the task is no such sum."""
    if task.ending is not None:
        return None
    ways = (_way(task, target, found) for found in match_correlations(task.root))
    return min((way for way in ways if way is not None), key=lambda w: w.cycles, default=None)


def _way(task: Task, target: Target, found: Correlation) -> _Way | None:
    lanes = target.lanes(found.reduce.dtype)
    layout = task.operand(found.a.tensor.name).layout
    if layout is not None and layout.axis == 1:
        lanes = layout.block
    if lanes < 2:
        return None
    blocked = Layout(found.a.tensor.type.sizes, 1, lanes)
    pack = None if layout == blocked else blocked
    vectors = found.groups > 1 and found.per_group == found.channels == 1
    other = task.operand(found.b.tensor.name).layout
    if vectors and (other is None or other.axis != 1 or other.block != lanes):
        return None
    each = target.registers(lanes, found.reduce.dtype)
    blocks, width = _tile(found, lanes, target.vector_registers // each, other)
    slots = max(1, -(-_IN_FLIGHT // (blocks * width)))
    loops = _merged(found.space)
    images, size = _band(found, loops, lanes, blocks, target)
    count = -(-extent_of(found.v) // lanes)
    units = -(-count // blocks) * -(-_rows(found, lanes) // max(width, lanes))
    tiles = -(-count // blocks) * -(-_rows(found, lanes) // width)
    work = _reached(found) * tiles * _tile_cycles(blocks, width) * each
    elements = prod(extent_of(axis) for axis in task.axes)
    way = _Way(found, lanes, pack, blocks, width, slots, loops, images, size, 1, 0.0)
    parts = _shares(way, units, target)
    cycles = work + shares.CYCLES * elements * (1 + parts / lanes)
    if pack is not None:
        cycles += packing_cycles(task, {found.a.tensor.name: pack})
    return _Way(found, lanes, pack, blocks, width, slots, loops, images, size, parts, cycles)


def _tile(found: Correlation, lanes: int, registers: int, other: Layout | None) -> tuple[int, int]:
    """(vectors, channels) of the tile that takes the fewest cycles; of equals the larger one, and
    then the one with fewer vectors, each of which is read from a place of its own."""
    count, rows = -(-extent_of(found.v) // lanes), _rows(found, lanes)
    if found.groups > 1:
        own = found.per_group // lanes if found.per_group % lanes == 0 else 1
        count = max(own, 1)
    tiles_at: list[tuple[float, int, int, int]] = []
    for width in range(1, min(rows, 16) + 1):
        if not _divides(width, rows, other):
            continue
        for blocks in range(1, min(count, 8) + 1):
            if blocks * width + blocks + 1 > registers or (found.groups > 1 and count % blocks):
                continue
            tiles = -(-count // blocks) * -(-rows // width)
            cycles = tiles * _tile_cycles(blocks, width)
            tiles_at.append((round(cycles, 3), -blocks * width, blocks, width))
    *_, blocks, width = min(tiles_at)
    return blocks, width


def _divides(width: int, rows: int, other: Layout | None) -> bool:
    """Whether tiles so wide never reach from one block of channels into the next."""
    if other is None or other.axis != 1:
        return True
    return other.block % width == 0 or width == rows <= other.block


def _tile_cycles(blocks: int, width: int) -> float:
    """Cycles for one position: two multiply-adds a cycle, or two loads; and the loop."""
    return max(blocks * width / 2, (blocks + width) / 2, 1.0) + 0.5


def _range(s: Positions, tap: Dim) -> tuple[Dim, Dim]:
    """From where to where a tap takes positions from inside both factors."""
    low: Dim = 0
    past: Dim = s.extent
    for place in (s.a, s.b):
        if place.leaves:
            before = tap * place.shift + place.start
            low = dim_max(low, ceil_div(-before, place.step))
            past = dim_min(past, floor_div(place.extent - 1 - before, place.step) + 1)
    return low, past


def _reached(found: Correlation) -> int:
    """Pairs of a position and a tap that lie inside both factors."""
    total = found.images
    for s in found.space:
        ranges = (_range(s, tap) for tap in range(s.taps))
        total *= sum(max(0, evaluate(past - low, {})) for low, past in ranges)
    return total


def _merged(space: Sequence[Positions]) -> tuple[Positions, ...]:
    """The axes to walk; as one where both factors are read from end to end."""
    if not all(s.whole for s in space):
        return tuple(space)
    total = prod(s.extent for s in space)
    place = Place(1, 0, 0, total, leaves=False)
    return (Positions(Axis("position", total), None, place, place),)


def _band(
    found: Correlation, loops: Sequence[Positions], lanes: int, blocks: int, target: Target
) -> tuple[int, int]:
    """(images, positions of the first axis) whose elements stay in the first-level cache."""
    strides = prod(max(s.a.step, s.b.step) for s in loops)
    line = lanes * found.reduce.dtype.bytes
    room = max(32, int(target.caches.l1_bytes * _BAND) // (line * (blocks + strides)))
    image = prod(s.extent for s in loops)
    if image <= room:
        return min(found.images, max(1, room // image)), loops[0].extent
    return 1, max(1, min(loops[0].extent, room // (image // loops[0].extent)))


def _shares(way: _Way, units: int, target: Target) -> int:
    """Into how many shares the bands are split."""
    found = way.found
    wanted = -(-_UNITS // units)
    if found.taps <= _FEW_TAPS:
        a, b = found.a.tensor.type, found.b.tensor.type
        moved = (prod(a.sizes) + prod(b.sizes)) * a.dtype.bytes
        wanted = max(wanted, -(-2 * moved // target.caches.l2_bytes))
    wanted = max(1, min(wanted, way.bands, found.positions // _LEAST))
    each = -(-way.bands // wanted)
    return -(-way.bands // each)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all tiles, of packing, and of the second kernel."""
    chosen = best_way(task, target)
    return None if chosen is None else chosen.cycles


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """The kernel that adds up shares, and the one that makes rows of them."""
    chosen = best_way(task, target)
    assert chosen is not None
    found = chosen.found
    packs = {} if chosen.pack is None else {found.a.tensor.name: chosen.pack}
    b, views, arguments = shares.opened(found, task, name, chosen.partial, packs)
    _Kernel(b, chosen, views).all()
    index = (found.v.i, _row(chosen), *(0 if s.tap is None else s.tap.i for s in found.space))
    own = Scratch(shares.PARTIAL, found.reduce.dtype, chosen.partial.size)
    last = shares.finished(task, found.reduce, chosen.partial, index, name, target)
    return Scheduled.one(b.kernel(), arguments).then(last, own)


def _row(way: _Way) -> Dim:
    """Where among the rows of its vector the result of an output position lies."""
    found = way.found
    own = 0 if found.c is None else found.c.i
    if found.groups == 1 or way.in_vectors or found.per_group % way.lanes == 0:
        return own
    first = way.first_row(floor_div(found.v.i, way.lanes))
    return found.first_channel(found.v.i) + own - first


class _Kernel:
    """Emits the kernel that meets all positions."""

    def __init__(self, b: Builder, way: _Way, views: Mapping[str, View]) -> None:
        self.b = b
        self.way = way
        self.found = way.found
        self.a, self.other = (views[x.tensor.name] for x in (way.found.a, way.found.b))
        self.partial = views[shares.PARTIAL]

    def all(self) -> None:
        """Whole tiles of vectors and of channels, and what is left of either."""
        way = self.way
        count = -(-extent_of(self.found.v) // way.lanes)
        for blocks, times in split(count, way.blocks):
            first = 0 if blocks == way.blocks else count - blocks
            for rows in self.rows():
                self.region(first, times, blocks, rows)

    def rows(self) -> Iterator[_Rows]:
        """The channels of `b`: where they lie in blocks, block by block."""
        width, total = self.way.width, self.way.rows
        block = width
        if self.other.layout.axis == 1 and self.found.groups == 1:
            block = self.other.layout.block
        whole, rest = divmod(total, block)
        if whole:
            yield _Rows(0, whole, block, ((0, block // width, width),))
        if rest:
            pieces = [(0, rest // width, width)] if rest >= width else []
            pieces += [(rest - rest % width, 1, rest % width)] if rest % width else []
            yield _Rows(whole * block, 1, block, tuple(pieces))

    def region(self, first: int, times: int, blocks: int, rows: _Rows) -> None:
        """All shares of some tiles of vectors and blocks of channels, in parallel."""
        b, way = self.b, self.way
        extents = (way.shares, times, rows.count)
        with b.parallel(("share", "vt", "rows"), extents) as (share, vt, row):
            block = first + vt * blocks
            start = rows.first + row * rows.block
            bands = share * way.bands_of_share
            past = dim_min(bands + way.bands_of_share, way.bands)
            at = _Tile(share, block, blocks, start, bands, past)
            if self.found.taps == 1:
                for offset, count, width in rows.pieces:
                    with b.serial("piece", count) as piece:
                        self.held(at.on(start + offset + piece * width), width)
                return
            with b.serial("band", past, bands) as band:
                for offset, count, width in rows.pieces:
                    with b.serial("piece", count) as piece:
                        self.band(at.on(start + offset + piece * width), width, band)

    def held(self, at: _Tile, width: int) -> None:
        """The sums of a tile over all bands of its share, in registers all the while."""
        acc = self.b.registers(at.blocks * width * self.way.slots)
        self.b.zero(acc)
        with self.b.serial("band", at.past, at.first) as band:
            self.sweep(at, width, acc, band, [0] * len(self.found.space))
        for number, value in enumerate(self.totals(acc, at.blocks * width)):
            self.b.store(*self.place(at, width, number, [0] * len(self.found.space)), value)

    def band(self, at: _Tile, width: int, band: Dim) -> None:
        """For each tap the sums of a tile over one band, added to those of the bands before."""
        b, way = self.b, self.way
        acc = b.registers(at.blocks * width * way.slots)
        with ExitStack() as stack:
            taps = [stack.enter_context(b.serial("r", s.taps)) for s in self.found.space]
            b.zero(acc)
            self.sweep(at, width, acc, band, taps)
            totals = self.totals(acc, at.blocks * width)
            places = [self.place(at, width, number, taps) for number in range(len(totals))]
            if way.bands_of_share == 1:
                for where, value in zip(places, totals, strict=True):
                    b.store(*where, value)
                return
            with b.when(IndexTest("eq", band, at.first)):
                for where, value in zip(places, totals, strict=True):
                    b.store(*where, value)
            type = ValueType(self.found.reduce.dtype, way.lanes)
            with b.when(IndexTest("gt", band, at.first)):
                for where, value in zip(places, totals, strict=True):
                    b.store(*where, Binary("add", Load(*where, type), value))

    def place(self, at: _Tile, width: int, number: int, taps: Sequence[Dim]) -> tuple[Buffer, Dim]:
        """Where the sums of one accumulator go."""
        i, j = divmod(number, width)
        index = [at.share, (at.block + i) * self.way.lanes, at.row + j, *taps]
        return self.partial.buffer, self.partial.layout.offset(index)

    def totals(self, acc: Registers, count: int) -> list[Value]:
        """What the slots hold together."""
        if self.way.slots == 1:
            return [Get(acc, number) for number in range(count)]
        found: list[Value] = []
        for number in range(count):
            parts: list[Value] = [Get(acc, s * count + number) for s in range(self.way.slots)]
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=False)
                odd = parts[len(parts) // 2 * 2 :]
                parts = [Binary("add", x, y) for x, y in pairs] + odd
            found.append(self.b.let(parts[0], "sum"))
        return found

    def sweep(self, at: _Tile, width: int, acc: Registers, band: Dim, taps: Sequence[Dim]) -> None:
        """All positions of a band that a tap takes from inside both factors."""
        b, way = self.b, self.way
        group = floor_div(band, way.chunks)
        low, past = self.ranges(taps)
        if way.chunks > 1:
            first = (band - group * way.chunks) * way.size
            low[0] = dim_max(low[0], first)
            past[0] = dim_min(past[0], first + way.size)
        images = (group * way.images, dim_min((group + 1) * way.images, self.found.images))
        with ExitStack() as stack:
            n = stack.enter_context(b.serial("n", images[1], images[0]))
            outer = [
                stack.enter_context(b.serial(s.axis.name, stop, start))
                for s, start, stop in zip(way.loops[:-1], low, past, strict=False)
            ]
            self.row(at, width, acc, [n, *outer], taps, (low[-1], past[-1]))

    def ranges(self, taps: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
        """From where to where each axis is walked."""
        found = [_range(s, tap) for s, tap in zip(self.way.loops, taps, strict=False)]
        return [low for low, _ in found], [past for _, past in found]

    def row(
        self,
        at: _Tile,
        width: int,
        acc: Registers,
        outer: Sequence[Dim],
        taps: Sequence[Dim],
        between: tuple[Dim, Dim],
    ) -> None:
        """The positions of the innermost axis, on one slot after the other."""
        b, slots = self.b, self.way.slots
        (start, stop), name = between, self.way.loops[-1].axis.name
        if slots == 1:
            with b.serial(name, stop, start) as p:
                self.position(at, width, acc, 0, [*outer, p], taps)
            return
        tiles = floor_div(dim_max(stop - start, 0), slots)
        with b.serial("tile", tiles) as tile:
            for slot in range(slots):
                self.position(at, width, acc, slot, [*outer, start + tile * slots + slot], taps)
        with b.serial("left", stop, start + tiles * slots) as p:
            self.position(at, width, acc, 0, [*outer, p], taps)

    def position(
        self,
        at: _Tile,
        width: int,
        acc: Registers,
        slot: int,
        where: Sequence[Dim],
        taps: Sequence[Dim],
    ) -> None:
        """acc[i, j] += a[i] * b[j] at one position."""
        b, way = self.b, self.way
        n, *positions = where
        ours = self.spatial([s.a for s in way.loops], positions, taps)
        theirs = self.spatial([s.b for s in way.loops], positions, taps)
        base = slot * at.blocks * width
        vectors = [
            b.load(self.a.buffer, self.a.layout.offset([n, (at.block + i) * way.lanes, *ours]))
            for i in range(at.blocks)
        ]
        if way.in_vectors:
            for i, vector in enumerate(vectors):
                place = [n, (at.block + i) * way.lanes, *theirs]
                other = b.load(self.other.buffer, self.other.layout.offset(place))
                b.accumulate(acc, base + i, vector, other)
            return
        first = way.first_row(at.block)
        for j in range(width):
            place = [n, first + at.row + j, *theirs]
            value = b.splat(self.other.buffer, self.other.layout.offset(place))
            for i, vector in enumerate(vectors):
                b.accumulate(acc, base + i * width + j, value, vector)

    def spatial(
        self, places: Sequence[Place], positions: Sequence[Dim], taps: Sequence[Dim]
    ) -> list[Dim]:
        """A factor's index at a position and a tap; of axes that are walked as one the last."""
        found = [
            p * place.step + tap * place.shift + place.start
            for place, p, tap in zip(places, positions, taps, strict=False)
        ]
        return [0] * (len(self.found.space) - len(found)) + found


@record
class _Tile:
    """A register tile at its place: its share and that's bands, vectors, first channel of `b`."""

    share: Dim
    block: Dim
    blocks: int
    row: Dim
    first: Dim
    past: Dim

    def on(self, row: Dim) -> _Tile:
        return _Tile(self.share, self.block, self.blocks, row, self.first, self.past)


def correlation(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "correlation",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
