"""The register tile of a direct convolution, how its operands are packed, and what it costs."""

from __future__ import annotations

from math import gcd, prod

from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.endings import may_end
from convdsl.schedules.cpu.filters import FilterPack, channels_layout, packing_cycles
from convdsl.schedules.cpu.memory import FAR
from convdsl.schedules.cpu.runs import (
    Columns,
    columns_of,
)
from convdsl.schedules.cpu.sweeps import LINE_BYTES, Limits
from convdsl.schedules.cpu.tiles import Tile, choose_tile, covered_cycles, tile_count
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Pack, Task

_LOOP = 3.0  # cycles that the channels of a block and a tap take besides
_SHORT_LOOP = 5.0  # the same where these are fewer than a vector has lanes: it ends at once
_STORE = 4.0  # cycles that an accumulator takes before and after its sum
_TORN = 1.25  # cycles of storing an element by itself
_PLACES = 4  # of groups within a block: so many have code of their own, with stores of vectors
_SETS = 64  # of the first-level cache: a page of lines, whatever its size
_SHARE = 0.5  # of the second-level cache, beyond which a map is not found there by the next sweep
_ASKED = 1.5  # cycles of a line that a tile asks for, in a loop of its own
_MOST_DIVIDING = 5  # blocks of a tile that has a few positions, too
STREAMS = 24  # channels of one tap, each a row by itself: more than a processor sees coming
_PAGE = 4096
_WORTH_NEAR = 0.9  # as the next, of one tap and a map far away
_WORTH_ONE_TAP = 2.0  # as the next, of one tap
_WORTH_PACKING = 2.5  # cycles of multiply-adds for each element of the input, beside .6 of packing


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
    leave no blocks over: all positions would be swept for a few of them; nor do groups, which would
    each have a few. Where no tile of several blocks divides them (91, 43, 17), one of single blocks
    would meet inputs twice as often."""
    block = task.layout.block
    blocks = -(-conv.channels_out // block)
    outer, columns = columns_of(conv, input_layout(conv, task, target))
    rows = outer[-1].outs if outer else 1
    large = filter_bytes(conv, task) > Limits.of(target).stay
    divides = any(blocks % few == 0 for few in range(2, _MOST_DIVIDING + 1))
    must_divide = (divides or large) if conv.groups > 1 else (divides and large)
    must_divide = must_divide and not torn(conv, task)
    # A tile that fills all registers halved the speed of a strided 1x1 convolution.
    spare = conv.taps == 1
    each = target.registers(block, conv.reduce.dtype)
    wide, depth = columns.space.outs, filter_depth(conv, task, target)
    return choose_tile(target, blocks, wide, must_divide, rows, spare, each, depth=depth)


def filter_depth(conv: Convolution, task: Task, target: Target) -> int:
    """Vectors of filters of a block that all tiles meet. Of large ones those of a panel, which
    stay near where the taps are few."""
    registers = target.registers(task.layout.block, conv.reduce.dtype)
    if filter_bytes(conv, task) > Limits.of(target).stay:
        return min(task.layout.block, conv.channels_in) * conv.taps * registers
    return conv.channels_in * conv.taps * registers


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
    outer, columns = columns_of(conv, input_layout(conv, task, target))
    tile = tile_for(conv, task, target)
    rows, wide = outer[-1].outs if outer else 1, columns.space.outs
    own = -(-conv.channels_out // task.layout.block)
    each = conv.groups * extent_of(conv.n)
    for space in outer[:-1]:
        each *= space.outs
    panels = conv.taps * -(-conv.channels_in // task.layout.block)
    loop = _LOOP if conv.channels_in >= task.layout.block else _SHORT_LOOP
    cycles = each * tile_count(tile, own, wide, rows) * panels * loop
    cycles += each * own * wide * rows * _STORE
    cycles += packing_cycles(task, packs_for(conv, task, filter_pack(conv, task, tile), target))
    if torn(conv, task) and places(conv, task) == 1:
        cycles += task.layout.size * _TORN
    steps = each * conv.channels_in * conv.taps
    steps *= target.registers(task.layout.block, conv.reduce.dtype)
    depth = filter_depth(conv, task, target)
    cycles += _skipping_cycles(conv, task, target, tile)
    return steps * covered_cycles(target, tile, own, wide, rows, depth) + cycles


def _skipping_cycles(conv: Convolution, task: Task, target: Target, tile: Tile) -> float:
    """Of waiting for inputs of one tap that are read in steps: every tile of channels meets all of
    them, each brings a line along of which the rest is not wanted, and none is asked for ahead.
    Steps of several taps want all of a line, but where filters are large, so that tiles of
    channels are met one after the other, those of a plain input come from afar for each."""
    if all(s.stride == 1 for s in conv.space):
        return 0.0
    given = input_layout(conv, task, target)
    if conv.taps > 1:
        far = prod(conv.x.tensor.type.sizes[1:]) * conv.x.dtype.bytes
        near = far <= target.caches.l2_bytes * _SHARE
        packed = given is None or given.axis is not None
        if near or packed or conv.groups > 1 or filter_bytes(conv, task) <= Limits.of(target).stay:
            return 0.0
        sweeps = -(-conv.channels_out // (task.layout.block * tile.blocks))
        return extent_of(conv.n) * sweeps * far / FAR / 2  # rows are asked for ahead
    if given is not None and given.axis is None:
        rows, wide = prod(s.outs for s in conv.space[:-1]), conv.space[-1].outs
        tiles = -(-conv.channels_out // (task.layout.block * tile.blocks)) * -(
            -wide // tile.columns
        )
        asked = extent_of(conv.n) * conv.groups * rows * tiles * conv.channels_in * _ASKED
    else:
        asked = 0.0
    line = max(LINE_BYTES, task.layout.block * conv.x.dtype.bytes)
    blocks = -(-conv.channels_in // task.layout.block)
    touched = prod(s.outs for s in conv.space) * blocks * line
    if touched < target.caches.l2_bytes * _SHARE:
        return asked
    sweeps = -(-conv.channels_out // (task.layout.block * tile.blocks))
    return asked + conv.groups * extent_of(conv.n) * sweeps * touched / FAR


def input_layout(conv: Convolution, task: Task, target: Target) -> Layout | None:
    """How the input is read: as it lies, or packed in vectors of channels where it is plain, fills
    them, and is read so often that it pays. A tile touches a line for each channel of a plain
    input, and for each position of a packed one: a few for all channels of a vector. Where there
    is one tap the next tile finds the same lines, if the first-level cache has room for them;
    of more channels than a processor sees coming they are waited for."""
    given = task.operand(conv.x.tensor.name).layout
    packed = channels_layout(task, conv.x)
    if given is None or packed is None or given.axis is not None:
        return given
    strides = prod(space.stride for space in conv.space)
    cycles = conv.channels_out * conv.taps / strides / (2 * task.layout.block)
    full = conv.channels_in >= task.layout.block
    if conv.taps > 1:
        return packed if full and cycles >= _WORTH_PACKING else given
    many = conv.channels_in >= STREAMS or _crowded(conv, target)
    least = _WORTH_NEAR if _lies_far(conv, target) else _WORTH_ONE_TAP
    return packed if full and many and cycles >= least else given


def _lies_far(conv: Convolution, target: Target) -> bool:
    """Whether a map is beyond the second-level cache, each channel on pages of its own."""
    apart = prod(conv.x.tensor.type.sizes[2:]) * conv.x.dtype.bytes
    return apart >= _PAGE and apart * conv.channels_in > target.caches.l2_bytes


def _crowded(conv: Convolution, target: Target) -> bool:
    """Whether the lines of as many channels of a plain input meet in few sets of the first-level
    cache: where maps are a multiple of large powers of two apart, or channels are many."""
    apart = prod(conv.x.tensor.type.sizes[2:]) * conv.x.dtype.bytes
    sets = {i * apart // LINE_BYTES % _SETS for i in range(conv.channels_in)}
    ways = target.caches.l1_bytes / (LINE_BYTES * _SETS)
    return conv.channels_in >= len(sets) * ways / 2


def packs_for(
    conv: Convolution, task: Task, filters: FilterPack, target: Target
) -> dict[str, Pack]:
    """What is packed: the filters, and maybe the input."""
    packs: dict[str, Pack] = {conv.w.tensor.name: filters}
    layout = input_layout(conv, task, target)
    given = task.operand(conv.x.tensor.name).layout
    return packs if layout is None or layout == given else {**packs, conv.x.tensor.name: layout}


def filter_pack(conv: Convolution, task: Task, tile: Tile) -> FilterPack:
    """How the filters are packed for a tile."""
    lanes = task.layout.block
    shape = (conv.channels_out, conv.channels_in, *(space.taps for space in conv.space))
    repeats = prod(map(extent_of, task.over))
    outer, panel = (conv.groups,), min(lanes, conv.channels_in)
    return FilterPack(shape, lanes, tile.blocks, panel, outer, conv.order, repeats=repeats)
