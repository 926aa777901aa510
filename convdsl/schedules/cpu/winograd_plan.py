"""Which form a Winograd convolution takes, and what it should cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, match_convolution
from convdsl.schedules.cpu.filters import (
    FilterPack,
    channels_layout,
    channels_packs,
    packing_cycles,
)
from convdsl.schedules.cpu.memory import FAR, FROM_MEMORY, NEARBY, beside
from convdsl.schedules.cpu.tiles import NEAR, Tile, choose_tile, split, tile_cycles
from convdsl.schedules.cpu.winograd_filters import WinogradPack
from convdsl.schedules.steps import Steps
from convdsl.schedules.task import Task
from convdsl.schedules.winograd_tiling import Tiling, tilings
from convdsl.tensor import DType
from convdsl.tensor.records import record

Cut: TypeAlias = "Callable[[Convolution], Iterator[Tiling]]"
"""The tilings that are tried: of Winograd's forms, or others."""


@record
class Plan:
    """How one convolution is run: blocks of `block` tiles, in a register tile of output channels x
    tiles. `apart`: inputs are transformed by a kernel of their own, once, and lie in the arena;
    else in every one of the `parts` that the output channels are cut into."""

    conv: Convolution
    tiling: Tiling
    tile: Tile
    lanes: int
    block: int
    apart: bool
    parts: int
    cycles: float
    late: bool = False  # filters are known in calls only
    rows: bool = False  # who needs filters transforms them, a row of products at a time

    @property
    def blocks(self) -> int:
        return -(-self.tiling.count // self.block)

    @property
    def pack(self) -> WinogradPack:
        conv = self.conv
        return WinogradPack(
            (conv.channels_out, conv.channels_in, *(s.taps for s in conv.space)),
            tuple(line.form.m for line in self.tiling.lines),
            tuple(s.flip for s in conv.space),
            self.lanes,
            self.tile.blocks,
            (conv.groups,),
            conv.order,
        )

    @property
    def read(self) -> WinogradPack | FilterPack:
        """The filters as the products, or what transforms them, read them."""
        return self.pack.plain if self.late or self.rows else self.pack

    @property
    def held(self) -> float:
        """Cycles that bytes are worth which are held beyond the filters as they are written: those
        of fetching them once more."""
        return 4 * (self.read.size - self.pack.plain.size) / FROM_MEMORY

    @property
    def before(self) -> bool:
        """Whether a kernel transforms all filters, in each call."""
        return self.late and not self.rows

    @property
    def vectors(self) -> int:
        """Of the outputs of a group."""
        return -(-self.conv.channels_out // self.lanes)

    @property
    def ahead(self) -> bool:
        """Whether filters are asked for before it is their turn: those that do not stay."""
        return not self.rows and self.pack.size * 4 > 1 << 18

    @property
    def channels(self) -> int:
        """Of the inputs, in whole vectors."""
        return -(-self.conv.channels_in // self.lanes) * self.lanes


@lru_cache(maxsize=512)
def plan(task: Task, target: Target, cut: Cut = tilings) -> Plan | None:
    """The cheapest, or the same form with rows of filters where that holds enough less; None where
    none applies."""
    found = list(plans(task, target, cut))
    best = min(found, key=lambda made: made.cycles, default=None)
    if best is None:
        return None
    limit = min(best.cycles * (1 + _GIVEN), best.cycles + best.held)
    rows = (made for made in found if made.rows and made.tiling == best.tiling)
    near = [made for made in rows if made.cycles <= limit]
    return min(near, key=lambda made: made.cycles, default=best)


def plans(task: Task, target: Target, cut: Cut = tilings) -> Iterator[Plan]:
    """All that apply."""
    conv = match_convolution(task.root)
    if conv is not None and _applies(task, conv, target):
        for tiling in cut(conv):
            yield from _plans(task, conv, tiling, target)


def _applies(task: Task, conv: Convolution, target: Target) -> bool:
    """Vectors of f32 across channels of both, strides of one."""
    lanes = task.layout.block
    if task.layout.axis != 1 or lanes != target.lanes(DType.F32) or lanes < 2:
        return False
    if channels_layout(task, conv.x) is None:
        return False
    if len(task.reducing) > 1 or task.ending or task.read_again(conv.w.tensor.name):
        return False
    return suits(conv, lanes)


def suits(conv: Convolution, lanes: int) -> bool:
    """Whether a convolution is one that has forms, wherever its operands lie."""
    dtypes = {conv.reduce.dtype, conv.x.dtype, conv.w.dtype}
    ragged = conv.channels_out % lanes or conv.channels_in % lanes
    if dtypes != {DType.F32} or (conv.groups > 1 and ragged):
        return False
    return all(s.stride == 1 for s in conv.space)


_TILES = (6, 12, 24, 36, 48, 72, 96)  # about how many tiles a block has
_ALL = 128  # so many may be one block, where there are no more


def _plans(task: Task, conv: Convolution, tiling: Tiling, target: Target) -> Iterator[Plan]:
    lanes, total = task.layout.block, tiling.count
    for wanted in (*_TILES, *([_ALL] if total <= _ALL else [])):
        blocks = -(-total // wanted)
        block = -(-total // blocks)
        own, depth = -(-conv.channels_out // lanes), conv.channels_in
        tile = choose_tile(target, own, block, conv.groups > 1, depth=depth)
        for apart in (False, True):
            made = Plan(conv, tiling, tile, lanes, block, apart, 1, 0.0)
            if not apart:
                units = conv.groups * blocks
                most = -(-made.vectors // tile.blocks)
                made = replace(made, parts=min(most, -(-_UNITS // units)))
            made = replace(made, late=not task.operand(conv.w.tensor.name).static)
            packs = {conv.w.tensor.name: made.pack.plain, **channels_packs(task, conv.x)}
            packing = packing_cycles(task, packs)
            for rows in (False, True) if apart and blocks == 1 and made.pack.has_rows else (False,):
                made = replace(made, rows=rows)
                filters = _row_cycles(made) if rows else made.late * _filter_cycles(made, target)
                yield replace(made, cycles=_cycles(made, target) + packing + filters)
        if blocks == 1:
            return


_GIVEN = 1 / 5  # of a convolution's time, at most, for holding filters as they are written
_UNITS = 8  # independent pieces of work that give a team enough to share out
_L2_SHARE = (
    0.75  # of the second-level cache, for what one piece of work goes through again and again
)
_STREAMED = (
    1.1  # cycles of a product whose filters come from the second-level cache, to those that stay
)
_NEAR_BY = 0.6  # of a transform's cycles, where nothing goes to memory
_STORE = 4.0  # cycles that an accumulator takes before and after its sum
_OPERATION, _LINE = 3.0, 3.0  # cycles of two operations, and of a vector that a transform makes


def _cycles(made: Plan, target: Target) -> float:
    """Those of the stages; those of the products, block by block, beside the traffic of filters and
    tiles that the second-level cache does not hold. The constants are those of a Zen 5 with cold
    filters; memory that is slower would favour direct sums, which hide it better."""
    stages = transform_cycles(made.conv, made.tiling, made.lanes, made.parts)
    sums = _product_cycles(made, target)
    first, later = _traffic(made, target)
    products = beside(sums, first) + (made.blocks - 1) * beside(sums, later)
    return stages + products + _away(made, target)


def _product_cycles(made: Plan, target: Target) -> float:
    """Of one block of tiles, all channels."""
    conv, total = made.conv, 0.0
    for blocks, tiles in split(made.vectors, made.tile.blocks):
        near = 4 * conv.channels_in * blocks * made.lanes <= target.caches.l1_bytes * NEAR
        for columns, groups in split(made.block, made.tile.columns):
            each = (
                conv.channels_in * tile_cycles(target, blocks, columns) * (1 if near else _STREAMED)
            )
            total += tiles * groups * (each + _STORE * blocks * columns)
    return conv.groups * made.tiling.products * total


def _traffic(made: Plan, target: Target) -> tuple[float, float]:
    """Cycles in which filters and tiles come from memory for the first block, and from beyond the
    second-level cache for a later one."""
    conv, tiling = made.conv, made.tiling
    room = target.caches.l2_bytes * _L2_SHARE
    v = 4 * tiling.products * made.block * made.channels
    m = 4 * tiling.products * made.block * made.tile.blocks * made.lanes
    filters = 4 * made.read.size if made.rows else 4 * made.pack.size
    sweeps = conv.groups * -(-made.vectors // made.tile.blocks)
    tiles = sweeps * v / FAR if v + m > room else 0.0
    again = filters / FAR if filters + v + m > room else 0.0
    return filters / (FAR if made.before else FROM_MEMORY) + tiles, again + tiles


def _away(made: Plan, target: Target) -> float:
    """Of inputs that are transformed for all blocks before the first one is met, and are gone to
    memory by then: fetched, written, and fetched again."""
    moved = 4 * made.conv.groups * made.tiling.products * made.tiling.count * made.channels
    far = made.apart and moved > target.caches.l2_bytes * NEARBY
    return 3 * moved / FROM_MEMORY if far else 0.0


def _filter_cycles(made: Plan, target: Target) -> float:
    """Of transforming filters in calls. What the second-level cache does not hold goes to memory,
    which is fetched before it is written."""
    each = filter_cycles(made.tiling)
    written = 4 * made.pack.size
    moved = 2 * written / FROM_MEMORY if written > target.caches.l2_bytes else 0.0
    return max(made.conv.groups * made.vectors * made.conv.channels_in * each, moved)


def _row_cycles(made: Plan) -> float:
    """Of transforming filters for every block of tiles anew."""
    each = made.conv.channels_in * filter_cycles(made.tiling) * _NEAR_BY
    return made.conv.groups * made.vectors * made.blocks * each


def filter_cycles(tiling: Tiling) -> float:
    """Of transforming a vector of filters."""
    return steps_cycles(tuple(line.form.filters for line in tiling.active), tiling.products)


def transform_cycles(conv: Convolution, tiling: Tiling, lanes: int, parts: int = 1) -> float:
    """Of transforming all inputs so many times, and all outputs: operations, and vectors that come
    from the second-level cache or go there."""
    forms = [line.form for line in tiling.active]
    vectors_in, vectors_out = (
        conv.groups * -(-channels // lanes) for channels in (conv.channels_in, conv.channels_out)
    )
    each_in = steps_cycles(tuple(form.inputs for form in forms), tiling.products)
    each_out = steps_cycles(tuple(form.outputs for form in forms), tiling.products)
    return tiling.count * (vectors_in * parts * each_in + vectors_out * each_out)


def steps_cycles(matrices: Sequence[Steps], lines: int) -> float:
    """Of transforming a vector of every input of a tile to so many `lines`: along one axis nothing
    is put aside in between."""
    if len(matrices) == 1:
        return _OPERATION * matrices[0].operations / 4 + _LINE * lines
    first, last = matrices
    work = first.operations * last.inputs + last.operations * len(first.results)
    return _OPERATION * work / 2 + _LINE * lines
