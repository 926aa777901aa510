"""What a convolution to few channels is made of, and the tile that makes it in the fewest cycles.

Vectors of channels would be filled in part: 3 lanes of 16. So vectors run along rows of planes, as
the output lies, and filter elements are broadcast. A transposed convolution, whose positions along
an axis of stride U meet other taps in U phases, makes all phases of a piece of a row at a time, and
weaves them in the end: U vectors of sums are U vectors of neighbouring outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import prod

from convdsl.kernel.expr import Reduce, Stage, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.direct_plan import STREAMS
from convdsl.schedules.cpu.memory import FROM_MEMORY
from convdsl.schedules.cpu.tiles import FROM_SECOND, NEAR, evenly
from convdsl.schedules.emission import extent_of
from convdsl.schedules.merging import merged, without_single_terms
from convdsl.schedules.phases import Part, phases_of, strides_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, ceil_div, substitute
from convdsl.tensor.records import record

_MOST = 8  # phases of an axis: each has code of its own
_STEP = 0.25  # cycles that a channel takes besides
_LATENCY = 4  # cycles from a multiply-add to the next one of the same sum
_APART = 1.5  # lines that a vector of a row lies in, most beginning anywhere
_COPY = 0.25  # cycles of an element that is brought to where rows have borders
_TURN = 0.5  # and of one that was blocked
_FILTERS_STAY = 0.4  # of the second-level cache: for what is read again and again
_UNITS = 8  # of work at least: a team shares them out evenly
_FEW_TILES = 4  # of a strip: each begins on other pages, which are waited for
_SWEEPS = 4  # tiles of channels that meet a row, for bringing it near to be a part of the work
_STAYS = 0.25  # of the second-level cache: inputs of a strip that all channels meet

Numbers = tuple[int, ...]  # of a phase, one for each axis of space


@record
class Taps:
    """What the positions of one phase sum: a convolution whose filters are a part of the array."""

    conv: Convolution
    part: Part | None

    def filter(self, at: Mapping[str, Dim]) -> list[Dim]:
        """Where in the whole array a filter element stands."""
        index = [substitute(d, at) for d in self.conv.w.index]
        if self.part is None:
            return index
        steps = zip(self.part.starts, self.part.steps, index, strict=True)
        return [start + step * place for start, step, place in steps]

    def shift(self, tap: int) -> int:
        """How far along the rows from a position its tap reads."""
        space = self.conv.space[-1]
        at = {space.out.name: 0} | ({} if space.tap is None else {space.tap.name: tap})
        place = substitute(self.conv.x.index[-1], at)
        assert isinstance(place, int)
        return place


@record
class Planar:
    """y[U i + f] = sum over c, r of x[i S + r D - P] w[..]: the phases f of a convolution to few
    channels, None where no tap meets them. `outs` are the extents of space, `strides` its U."""

    reduce: Reduce
    strides: Numbers
    outs: Numbers
    phases: Mapping[Numbers, Taps | None]

    @property
    def met(self) -> list[Taps]:
        """The phases that sum anything."""
        return [taps for taps in self.phases.values() if taps is not None]

    @property
    def conv(self) -> Convolution:
        """One of them; all have the same input, channels and steps."""
        return self.met[0].conv

    def low(self, axis: int) -> int:
        """The first place along an axis of space that position 0 of the phases reads."""
        return min(-taps.conv.space[axis].pad for taps in self.met)

    def high(self, axis: int) -> int:
        """The last one."""
        return max(_reach(taps.conv.space[axis]) for taps in self.met)

    def count(self, axis: int, phase: int = 0) -> int:
        """Positions of a phase."""
        found = ceil_div(self.outs[axis] - phase, self.strides[axis])
        assert isinstance(found, int)
        return max(0, found)

    @property
    def inside(self) -> bool:
        """Whether all that is read is there."""
        return all(space.inside for taps in self.met for space in taps.conv.space)

    def across(self, outer: Numbers) -> list[Taps | None]:
        """The phases of a row, where those of the other axes are given."""
        return [self.phases.get((*outer, f)) for f in range(self.strides[-1])]

    @property
    def rows(self) -> Iterator[Numbers]:
        """The phases of the axes but the last."""
        return product(*map(range, self.strides[:-1]))


def _reach(space: Space) -> int:
    return (space.taps - 1) * space.dilation - space.pad


@lru_cache(maxsize=256)
def match_planar(stage: Stage) -> Planar | None:
    """The phases of a stage that is a convolution, in steps of one along the rows."""
    sizes = stage.target.type.sizes
    if len(sizes) < 3:
        return None
    sums = [node for node in walk(stage.body) if isinstance(node, Reduce)]
    strides = strides_of(stage)
    if len(sums) != 1 or max(strides) > _MOST or strides[:2] != (1, 1):
        return None
    if prod(strides) == 1:
        found: dict[Numbers, Taps | None] = {(0,) * len(sizes[2:]): _taps(stage, None)}
    else:
        task = Task("", (stage,), (), (), Layout(sizes))
        numbers = product(*(range(min(u, n)) for u, n in zip(strides, sizes, strict=True)))
        found = {}
        for number, phase in zip(numbers, phases_of(task, alike=False), strict=False):
            root = phase.task.root
            empty = not any(isinstance(node, Reduce) for node in walk(root.body))
            found[number[2:]] = made = _taps(root, phase.parts)
            if made is None and not empty:
                return None
    met = [taps for taps in found.values() if taps is not None]
    if not met or any(taps.conv.space[-1].stride > 1 for taps in met):
        return None
    return Planar(sums[0], strides[2:], sizes[2:], found)


def _taps(stage: Stage, parts: Mapping[str, tuple[Part, ...]] | None) -> Taps | None:
    conv = match_convolution(stage)
    if conv is None or (parts and conv.x.tensor.name in parts):
        return None
    part = (parts or {}).get(conv.w.tensor.name)
    return Taps(conv, None if part is None else part[0])


@record
class Tile:
    """`channels` of outputs of one group x `vectors` of positions x the phases of a row, in
    registers."""

    channels: int
    vectors: int


@record
class Way:
    """How a task runs: tiles along rows; `band` rows of the last but one axis at a time, whose
    inputs are brought side by side with borders of zeros (`held`), or are read as they lie. Axes
    of the task that lie as one are one."""

    task: Task
    planar: Planar
    lanes: int
    tile: Tile
    held: bool
    turned: bool  # brought there from blocks of channels
    band: int
    strip: int  # vectors of a row at a time

    @property
    def vectors(self) -> int:
        """Of the positions of a row, in one phase."""
        return -(-self.planar.count(-1) // self.lanes)

    @property
    def before(self) -> int:
        """Vectors ahead of a strip, for what its first positions read before it."""
        return -(-max(0, -self.planar.low(-1)) // self.lanes)

    @property
    def pitch(self) -> int:
        """Elements from one row that is held to the next; no multiple of a page, or channels would
        meet in few sets of the cache."""
        after = -(-max(0, self.planar.high(-1)) // self.lanes)
        return (self.before + self.strip + after) * self.lanes

    def span(self, axis: int) -> int:
        """Places along an axis that are held for a position, or for a band of them."""
        planar = self.planar
        own = planar.high(axis) - planar.low(axis) + 1
        last = axis == len(planar.outs) - 2
        return own + (self.band - 1) * planar.conv.space[axis].stride if last else own

    @property
    def channel(self) -> int:
        """Elements from one channel that is held to the next."""
        rows = prod(self.span(axis) for axis in range(len(self.planar.outs) - 1))
        size = rows * self.pitch
        return size + self.lanes if size % _PAGE == 0 else size

    @property
    def channels(self) -> int:
        """Channels that are held: whole blocks where the input is blocked."""
        own = self.planar.conv.groups * self.planar.conv.channels_in
        return -(-own // self.lanes) * self.lanes if self.turned else own


_PAGE = 1024  # elements of a page of 4 KB


def plan(task: Task, target: Target) -> Way | None:
    """None for anything but a convolution to channels that lie plain."""
    if task.ending is not None or task.layout.axis is not None or len(task.reducing) != 1:
        return None
    if task.root is not task.stages[0] or any(o.layout.axis is not None for o in task.outputs):
        return None
    task = merged(without_single_terms(task))
    planar = match_planar(task.root)
    if planar is None:
        return None
    lanes = target.lanes(planar.reduce.dtype)
    x, w = (task.operand(read.tensor.name).layout for read in (planar.conv.x, planar.conv.w))
    if x is None or lanes < 2 or lanes & (lanes - 1) or (w is not None and w.axis is not None):
        return None
    if x.axis is not None and (x.axis != 1 or x.block != lanes):
        return None
    turned = x.axis is not None
    _, tile = _best(planar, target, lanes)
    strip = -(-planar.count(-1) // lanes)
    way = Way(task, planar, lanes, tile, turned or not planar.inside, turned, 1, strip)
    if way.held:
        return _cut(way, target)
    return replace(_shared(way, target), held=_meets_many_rows(way))


def _meets_many_rows(way: Way) -> bool:
    """Whether inputs that could be read as they lie are rows of more channels than a processor
    sees coming, and each element is met by several tiles of channels: a strip of all of them is
    brought near then."""
    conv = way.planar.conv
    many = conv.groups == 1 and conv.channels_in >= STREAMS
    return many and conv.taps == 1 and conv.channels_out > way.tile.channels * _SWEEPS


def _shared(way: Way, target: Target) -> Way:
    """Strips of rows, where there is little else that a team could share out; none longer than the
    inputs that the next tile of channels finds near."""
    planar = way.planar
    others = extent_of(way.task.axes[0]) * planar.conv.groups
    others *= prod(planar.count(axis) for axis in range(len(planar.outs) - 1))
    most = -(-way.vectors // way.tile.vectors)
    strips = min(max(-(-_UNITS // others), -(-most // _met_again(way, target))), most)
    return replace(way, strip=-(-most // strips) * way.tile.vectors)


def _met_again(way: Way, target: Target) -> int:
    """How many tiles along a row to meet before the same inputs are met for other channels: their
    inputs stay in the first-level cache, or, where these would be a few of many channels, in a
    part of the second. All of them where one tile has all channels."""
    planar, caches = way.planar, target.caches
    if way.tile.channels >= planar.conv.channels_out:
        return -(-way.vectors // way.tile.vectors)
    vector = way.lanes * planar.reduce.dtype.bytes
    each = planar.conv.channels_in * way.tile.vectors * vector
    near = int(caches.l1_bytes * NEAR) // each
    return near if near >= _FEW_TILES else max(_FEW_TILES, int(caches.l2_bytes * _STAYS) // each)


def _cut(way: Way, target: Target) -> Way:
    """As many rows at a time as stay in half of the second-level cache; where one row is too long,
    strips of it."""
    room = target.caches.l2_bytes // 2 // way.planar.reduce.dtype.bytes
    while way.strip > way.tile.vectors and way.channels * way.channel > room:
        way = replace(way, strip=-(-way.strip // 2 // way.tile.vectors) * way.tile.vectors)
    if len(way.planar.outs) < 2:
        return way
    rows = way.planar.count(-2)
    others = extent_of(way.task.axes[0]) * prod(way.planar.outs[:-2])
    most = max(1, min(rows, rows * others // _UNITS))
    while way.band < most:
        more = replace(way, band=min(2 * way.band, most))
        if more.channels * more.channel > room:
            break
        way = more
    return way


def _tiles(planar: Planar, target: Target, lanes: int) -> Iterator[tuple[float, Tile]]:
    """Tiles that fit the registers, and cycles of each input channel and row of taps, of all groups
    together."""
    channels, vectors = planar.conv.channels_out, -(-planar.count(-1) // lanes)
    across = next(row for row in map(planar.across, planar.rows) if any(row))
    met = [taps for taps in across if taps is not None]
    counts = [taps.conv.space[-1].taps for taps in met]
    vector = lanes * planar.reduce.dtype.bytes
    shifts = len({taps.shift(tap) for taps, n in zip(met, counts, strict=True) for tap in range(n)})
    for k in range(1, channels + 1):
        for q in range(1, vectors + 1):
            if k * q * planar.strides[-1] + q + 1 > target.vector_registers and (k, q) != (1, 1):
                break
            cycles = sum(
                many
                * each
                * (
                    _STEP
                    + max(
                        own * wide * sum(counts) / 2,
                        (wide * shifts * _APART + own * sum(counts)) / 2,
                        _LATENCY * max(counts),
                        wide * vector / FROM_SECOND * (k < channels and shifts == 1),
                    )
                )
                for own, many in evenly(channels, k)
                for wide, each in evenly(vectors, q)
            )
            yield (
                cycles * planar.conv.groups,
                Tile(evenly(channels, k)[0][0], evenly(vectors, q)[0][0]),
            )


def _best(planar: Planar, target: Target, lanes: int) -> tuple[float, Tile]:
    return min(_tiles(planar, target, lanes), key=lambda made: made[0])


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all tiles, of bringing the inputs near, and of the stores."""
    way = plan(task, target)
    if way is None:
        return None
    task, planar, n = way.task, way.planar, extent_of(task.axes[0])
    cycles, _ = _best(planar, target, way.lanes)
    sums = 0
    for row in planar.rows:
        met = [taps for taps in planar.across(row) if taps is not None]
        places = prod(planar.count(axis, f) for axis, f in enumerate(row))
        taps = prod(space.taps for space in met[0].conv.space[:-1]) if met else 0
        sums += places * taps * planar.conv.channels_in
    stored = task.layout.size * planar.strides[-1] / way.lanes
    strips = -(-way.vectors // way.strip)
    bands = -(-planar.count(-2) // way.band) if len(planar.outs) > 1 else 1
    pieces = n * strips * bands * prod(planar.count(axis) for axis in range(len(planar.outs) - 2))
    done = n * sums * cycles + stored
    filters = task.operand(planar.conv.w.tensor.name).var.type
    away = prod(filters.sizes) * filters.dtype.bytes
    if away > target.caches.l2_bytes * _FILTERS_STAY:  # all of them are met in each piece
        done += pieces * away / FROM_MEMORY
    if not way.held:
        return done
    each = _TURN if way.turned else _COPY
    return done + pieces * way.channels * way.channel * each
