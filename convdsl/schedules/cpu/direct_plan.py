"""The register tile of a direct convolution, how its operands are packed, and what it costs."""

from __future__ import annotations

from math import gcd, prod

from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.endings import may_end
from convdsl.schedules.cpu.filters import FilterPack, channels_layout, packing_cycles
from convdsl.schedules.cpu.runs import (
    Columns,
    columns_of,
)
from convdsl.schedules.cpu.sweeps import Limits
from convdsl.schedules.cpu.tiles import Tile, choose_tile, swept_cycles
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Pack, Task

_TORN = 1.25  # cycles of storing an element by itself
_PLACES = 4  # of groups within a block: so many have code of their own, with stores of vectors
_WORTH_PACKING = 4  # cycles of multiply-adds for each element of the input, beside .6 of packing it


def applies(task: Task) -> Convolution | None:
    """Blocked output. Groups that fill no whole vectors have no ending."""
    conv = match_convolution(task.root)
    if conv is None or task.layout.axis != 1 or not may_end(task, conv.n, conv.k):
        return None
    if len(task.reducing) > 1 or task.layout.block < 2:
        return None
    return None if torn(conv, task) and task.ending is not None else conv


def torn(conv: Convolution, task: Task) -> bool:
    """Whether groups begin within a block of the output: each has vectors of its own, which are
    stored in two parts where few groups begin at different places, and else lane by lane."""
    return conv.groups > 1 and conv.channels_out % task.layout.block > 0


def places(conv: Convolution, task: Task) -> int:
    """How many groups in a row have code of their own, because they begin at different places of
    a block; 1 where there are too many such."""
    block = task.layout.block
    apart = min(block // gcd(conv.channels_out, block), conv.groups)
    return apart if torn(conv, task) and apart <= _PLACES else 1


def tile_for(conv: Convolution, task: Task, target: Target) -> Tile:
    """The register tile. On a narrow map its columns may be those of several rows. Large filters
    leave no blocks over: all positions would be swept for a few of them."""
    block = task.layout.block
    blocks = -(-conv.channels_out // block)
    outer, columns = columns_of(conv, input_layout(conv, task))
    rows = outer[-1].outs if outer else 1
    large = filter_bytes(conv, task) > Limits.of(target).stay
    must_divide = (conv.groups > 1 or large) and not torn(conv, task)
    # A tile that fills all registers halved the speed of a strided 1x1 convolution.
    spare = conv.taps == 1
    each = target.registers(block, conv.reduce.dtype)
    wide, depth = columns.space.outs, filter_depth(conv, task, target)
    return choose_tile(target, blocks, wide, must_divide, rows, spare, each, depth=depth)


def filter_depth(conv: Convolution, task: Task, target: Target) -> int:
    """Vectors of filters of a block that all tiles meet. Of large ones panels, which stay near."""
    if filter_bytes(conv, task) > Limits.of(target).stay:
        return 0
    return conv.channels_in * conv.taps * target.registers(task.layout.block, conv.reduce.dtype)


def filter_bytes(conv: Convolution, task: Task) -> int:
    """Of the filters of one group."""
    channels = -(-conv.channels_out // task.layout.block) * task.layout.block
    return channels * conv.channels_in * conv.taps * conv.reduce.dtype.bytes


def patch_rows(outer: tuple[Space, ...], columns: Columns, tile: Tile) -> int:
    """Whole rows that one tile covers; 0 where tiles are pieces of a row."""
    rows = tile.columns // columns.space.outs
    return rows if outer and rows >= 2 else 0


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all register tiles, and of packing in every call."""
    conv = applies(task)
    if conv is None:
        return None
    if not task.outputs and filter_bytes(conv, task) > Limits.of(target).stay:
        return None  # sums would have nowhere to wait in
    outer, columns = columns_of(conv, input_layout(conv, task))
    tile = tile_for(conv, task, target)
    rows = extent_of(conv.n)
    for space in outer:
        rows *= space.outs
    own = -(-conv.channels_out // task.layout.block)
    work = rows * conv.channels_in * conv.taps
    tiles = conv.groups * -(-own // tile.blocks) * max(1.0, columns.space.outs / tile.columns)
    cycles = packing_cycles(task, packs_for(conv, task, filter_pack(conv, task, tile)))
    if torn(conv, task) and places(conv, task) == 1:
        cycles += task.layout.size * _TORN
    work *= target.registers(task.layout.block, conv.reduce.dtype)
    wide, depth = min(tile.columns, columns.space.outs), filter_depth(conv, task, target)
    return work * tiles * swept_cycles(target, tile.blocks, wide, depth) + cycles


def input_layout(conv: Convolution, task: Task) -> Layout | None:
    """How the input is read: as it lies, or packed in vectors of channels where it is plain, fills
    them, and is read so often that it pays. A tile touches a line for each channel of a plain
    input, and for each position of a packed one: a few for all channels of a vector. Where there
    is one tap the next tile finds the same lines."""
    given = task.operand(conv.x.tensor.name).layout
    packed = channels_layout(task, conv.x)
    if given is None or packed is None or given.axis is not None:
        return given
    strides = prod(space.stride for space in conv.space)
    cycles = conv.channels_out * conv.taps / strides / (2 * task.layout.block)
    full = conv.channels_in >= task.layout.block and conv.taps > 1
    return packed if full and cycles >= _WORTH_PACKING else given


def packs_for(conv: Convolution, task: Task, filters: FilterPack) -> dict[str, Pack]:
    """What is packed: the filters, and maybe the input."""
    packs: dict[str, Pack] = {conv.w.tensor.name: filters}
    layout = input_layout(conv, task)
    given = task.operand(conv.x.tensor.name).layout
    return packs if layout is None or layout == given else {**packs, conv.x.tensor.name: layout}


def filter_pack(conv: Convolution, task: Task, tile: Tile) -> FilterPack:
    """How the filters are packed for a tile."""
    lanes = task.layout.block
    shape = (conv.channels_out, conv.channels_in, *(space.taps for space in conv.space))
    repeats = prod(map(extent_of, task.over))
    outer, panel = (conv.groups,), min(lanes, conv.channels_in)
    return FilterPack(shape, lanes, tile.blocks, panel, outer, conv.order, repeats=repeats)
