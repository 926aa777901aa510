"""By which form a correlation is run with fewer products, and what that should cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import prod

from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.correlation import Correlation, match_correlations
from convdsl.schedules.correlation_tiling import Cut, cuts
from convdsl.schedules.cpu import shares
from convdsl.schedules.cpu.filters import packing_cycles
from convdsl.schedules.cpu.memory import FAR, FROM_MEMORY, NEARBY, beside
from convdsl.schedules.cpu.tiles import Tile, split, tile_cycles
from convdsl.schedules.cpu.winograd_plan import steps_cycles
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Task
from convdsl.schedules.winograd_tiling import Tiling
from convdsl.tensor import DType
from convdsl.tensor.records import record


@record
class Plan:
    """How one correlation is run. A piece of the parallel work has `part` vectors of channels of
    either factor and one of the `shares` of the tiles, a block of `block` tiles after the other;
    its register tile is of vectors of a's channels by channels of b. `packs`: of factors that do
    not lie in vectors."""

    found: Correlation
    cut: Cut
    lanes: int
    packs: tuple[tuple[str, Layout], ...]
    tile: Tile
    part: tuple[int, int]
    block: int
    shares: int
    cycles: float

    @property
    def vectors(self) -> tuple[int, int]:
        """Of the channels of a group."""
        return _vectors(self.found, self.lanes)

    @property
    def parts(self) -> tuple[int, int]:
        """Of either factor."""
        (a, b), (own, other) = self.vectors, self.part
        return -(-a // own), -(-b // other)

    @property
    def products(self) -> int:
        """Of a tile, for each pair of channels."""
        return self.cut.a.products

    @property
    def blocks(self) -> int:
        return -(-self.cut.a.count // self.block)

    @property
    def blocks_of_share(self) -> int:
        return -(-self.blocks // self.shares)

    @property
    def partial(self) -> Layout:
        """Of what the shares write."""
        found = self.found
        taps = (space.taps for space in found.space)
        return Layout((self.shares, extent_of(found.v), found.channels, *taps), 1, self.lanes)

    @property
    def said(self) -> str:
        """The form, and what errors it makes."""
        return self.cut.a.said


def _vectors(found: Correlation, lanes: int) -> tuple[int, int]:
    return -(-found.per_group // lanes), -(-found.channels // lanes)


@lru_cache(maxsize=512)
def plan(task: Task, target: Target) -> Plan | None:
    """The cheapest; None where none applies."""
    return min(plans(task, target), key=lambda found: found.cycles, default=None)


def plans(task: Task, target: Target) -> Iterator[Plan]:
    """All that apply."""
    if task.ending is not None:
        return
    lanes = target.lanes(DType.F32)
    for found in match_correlations(task.root):
        packs = _packs(task, found, lanes)
        if packs is None or not _suits(found, lanes):
            continue
        for cut in cuts(found):
            yield from _plans(task, target, found, cut, packs)


def _packs(task: Task, found: Correlation, lanes: int) -> tuple[tuple[str, Layout], ...] | None:
    """What brings both factors into vectors of channels; None where it cannot be done."""
    made: dict[str, Layout] = {}
    for tensor in (found.a.tensor, found.b.tensor):
        given, wanted = task.operand(tensor.name).layout, Layout(tensor.type.sizes, 1, lanes)
        if given is None or (given.axis is not None and given != wanted):
            return None
        if given != wanted:
            made[tensor.name] = wanted
    return tuple(made.items())


def _suits(found: Correlation, lanes: int) -> bool:
    """Whether it is one of f32, whose groups fill vectors."""
    if {found.reduce.dtype, found.a.dtype, found.b.dtype} != {DType.F32} or lanes < 2:
        return False
    return found.groups == 1 or not (found.per_group % lanes or found.channels % lanes)


_TILES = (16, 32, 48, 64, 96, 128, 192, 256)  # about how many tiles a block has
_SUMS = (0.25, 0.5, 1.0, 2.0)  # second-level caches: what the sums of a piece take at the most
_UNITS = 16  # independent pieces of work that give a team enough to share out
_LEAST = 128  # tiles that a share should have, beside those that are made of its sums
_L2_SHARE = 0.75  # of the second-level cache, for what a piece goes through again and again
_TAIL = 1.03  # a tile that leaves vectors over must be this much better
_STORE = 4.0  # cycles that an accumulator takes before and after its sum


def _plans(
    task: Task,
    target: Target,
    found: Correlation,
    cut: Cut,
    packs: tuple[tuple[str, Layout], ...],
) -> Iterator[Plan]:
    lanes, total = target.lanes(DType.F32), cut.a.count
    tile = _tile(target, found, lanes)
    packing = packing_cycles(task, dict(packs))
    rows = shares.CYCLES * prod(extent_of(axis) for axis in task.axes)
    room = [int(target.caches.l2_bytes * size) for size in _SUMS]
    for part in dict.fromkeys(_part(found, cut, lanes, tile, size) for size in room):
        made = Plan(found, cut, lanes, packs, tile, part, total, 1, 0.0)
        units = found.groups * prod(made.parts)
        wanted = max(1, min(-(-_UNITS // units), total // _LEAST))
        for most in _TILES:
            each = -(-total // (wanted * most))
            block = -(-total // (wanted * each))
            parts = -(-total // (block * each))
            made = replace(made, block=block, shares=parts)
            cycles = _cycles(made, target) + packing + rows * (1 + parts / lanes)
            yield replace(made, cycles=cycles)
            if each == 1:
                break


def _tile(target: Target, found: Correlation, lanes: int) -> Tile:
    """The register tile that takes the fewest cycles, the larger one of equals, and one that leaves
    no vectors over rather than one that does. Its channels of b are a part of a vector."""
    vectors, _ = _vectors(found, lanes)
    tiles: list[tuple[float, int, Tile]] = []
    for columns in (2**n for n in range(lanes.bit_length()) if lanes % 2**n == 0):
        for blocks in range(1, min(vectors, 8) + 1):
            if blocks * columns + blocks + 1 <= target.vector_registers:
                tile = Tile(blocks, columns)
                cycles = _step_cycles(target, found, tile, lanes)
                cycles *= _TAIL if vectors % blocks else 1.0
                tiles.append((round(cycles, 3), -blocks * columns, tile))
    return min(tiles, key=lambda at: at[:2])[2]


def _step_cycles(target: Target, found: Correlation, tile: Tile, lanes: int) -> float:
    """Of one tile of positions and one product, all channels of a group."""
    vectors, _ = _vectors(found, lanes)
    columns = -(-found.channels // tile.columns)
    each = (
        n * tile_cycles(target, blocks, tile.columns) for blocks, n in split(vectors, tile.blocks)
    )
    return columns * sum(each)


def _part(found: Correlation, cut: Cut, lanes: int, tile: Tile, most: int) -> tuple[int, int]:
    """Vectors of either factor whose sums take at most so many bytes."""
    a, b = _vectors(found, lanes)
    while 4 * cut.a.products * a * b * lanes**2 > most and (a > tile.blocks or b > 1):
        if a > tile.blocks and a >= b:
            a = -(-a // (2 * tile.blocks)) * tile.blocks
        else:
            b = -(-b // 2)
    return a, b


def _cycles(made: Plan, target: Target) -> float:
    """Those of transforms, beside the traffic of both maps; those of products, beside that of a
    block's tiles and of sums where the second-level cache does not hold them; and the last
    transform, of the sums of every share."""
    found, cut, lanes = made.found, made.cut, made.lanes
    (a, b), (own, other), (times_b, times_a) = made.vectors, made.part, made.parts
    first, second, last = (steps_cycles(m, made.products) for m in cut.matrices)
    transforms = cut.a.count * (a * times_a * first + b * times_b * second)
    maps = 4 * lanes * (a * times_a * _area(cut.a) + b * times_b * _area(cut.b))
    columns = -(-found.channels // made.tile.columns) * made.tile.columns
    sums = made.products * cut.a.count * _step_cycles(target, found, made.tile, lanes)
    sums += made.products * made.blocks * a * columns * _STORE
    tiles = 4 * made.products * made.block * lanes * (own + other)
    held = 4 * made.products * lanes**2 * own * other
    moved, l2 = (tiles + held) * prod(made.parts) * made.blocks, target.caches.l2_bytes
    traffic = 2 * moved / FAR if tiles + held > l2 * _L2_SHARE else 0.0
    away = 3 * moved / FROM_MEMORY if tiles + held > l2 * NEARBY else 0.0
    ends = made.shares * a * found.channels * last
    made_of = beside(transforms, maps / FROM_MEMORY) + beside(sums, traffic) + away
    return found.groups * (made_of + ends)


def _area(tiling: Tiling) -> int:
    """Positions of all maps."""
    return tiling.images * prod(line.space.extent for line in tiling.lines)
