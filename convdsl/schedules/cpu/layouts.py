"""How values lie between kernels on a processor.

Axis 1 is blocked by as many channels as a vector has lanes of f32. Elements of other sizes are
blocked alike, and their vectors take more or fewer registers: a cast moves nothing, and one wide
value in a network leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from math import prod

from convdsl.ir.classify import is_in_place
from convdsl.kernel.expr import Expr, Pick, Read, Reduce, Stage, axes_over, reads, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import coefficient, depends, match_convolution
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.generic import SHORTEST
from convdsl.schedules.cpu.grouped import grouped
from convdsl.schedules.cpu.memory import FAR
from convdsl.schedules.cpu.phases import phases
from convdsl.schedules.cpu.planar import planar
from convdsl.schedules.cpu.planar_plan import match_planar
from convdsl.schedules.cpu.spectral import spectral
from convdsl.schedules.cpu.straddling import straddling
from convdsl.schedules.cpu.transpose import transpose
from convdsl.schedules.cpu.unfolded import unfolding
from convdsl.schedules.cpu.winograd import winograd
from convdsl.schedules.emission import extent_of
from convdsl.schedules.layouts import Operands, has_channels_inside
from convdsl.schedules.task import Operand, Output, Schedule, Task
from convdsl.tensor import DType, symbols_of

_PICKED = 6  # cycles of a lane that is picked, to those of an element that is brought into a block
_FEW = 2  # at most one lane of so many would hold a channel
_RAGGED = 0.7  # or of several blocks so many: 10 channels in vectors of 8
_LESS_DOUBT = 1.2  # how much faster those may be
_DOUBT = (
    1.5  # how much faster tiles of one block may be than they are priced: two broadcasts a cycle
)
_ACROSS = (winograd, spectral, direct, depthwise, grouped, straddling, phases)
"""Schedules of convolutions in blocks of channels."""

_KEPT = 0.5  # of the second-level cache: what was written last is found there
_MOVED = 3  # times that what it has not kept moves: fetched, written, and read


def layout_of(stage: Stage, operands: Operands, known: Collection[str], target: Target) -> Layout:
    """Blocked along axis 1, or plain, as suits those schedules that are known by name."""
    shape, block = stage.target.type.sizes, target.lanes(DType.F32)
    plain = Layout(shape)
    if len(shape) < 3 or block == 1:
        return plain
    if _is_of_rows(stage, operands, block) or _is_of_planes(stage, operands, known, target):
        return plain
    if has_channels_inside(stage, operands, block) or _is_sampled(stage, block):
        return Layout(shape, 1, block)
    return plain


def _is_sampled(stage: Stage, block: int) -> bool:
    """Whether elements at positions, or between bounds, that are data, the same for all channels,
    are reduced in vectors of these: plain, each lane would be picked by itself, again and again.
    Fewer channels than a vector holds are worth it where that takes longer than filling maps up."""
    axis = stage.axes[1]
    channels = extent_of(axis)
    for pick, reduce in _reduced(stage.body):
        alike = not any(depends(d, axis) for read in reads(pick.index) for d in read.index)
        planes = [read for read in reads(pick.body) if read.tensor.type.rank > 2]
        along = [read.tensor for read in planes if read.index[1] == axis.i]
        if not alike or not along:
            continue
        if channels >= block:
            return True
        sizes = (stage.target.type.sizes, *(tensor.type.sizes for tensor in along))
        filled = sum(prod(shape) // channels * block for shape in sizes)
        picked = prod(stage.target.type.sizes) * prod(map(extent_of, reduce.axes))
        if picked * (channels - 1) / channels * _PICKED > filled:
            return True
    return False


def _reduced(body: Expr) -> Iterator[tuple[Pick, Reduce]]:
    """Positions that are data within a reduction, or around one."""
    for node in walk(body):
        found = walk(node.body) if isinstance(node, Reduce | Pick) else ()
        for inner in found:
            if isinstance(node, Reduce) and isinstance(inner, Pick):
                yield inner, node
            elif isinstance(node, Pick) and isinstance(inner, Reduce):
                yield node, inner


def _is_of_planes(stage: Stage, operands: Operands, known: Collection[str], target: Target) -> bool:
    """Whether a convolution to so few channels that half of a vector holds them, of all groups or
    of each, or to a few more than fill vectors, takes less time in vectors along rows of planes; or
    one of planes in groups that end within vectors."""
    sizes, block = stage.target.type.sizes, target.lanes(DType.F32)
    planar_stage = match_planar(stage) if sizes[-1] >= block else None
    if planar_stage is None:
        return False
    own = planar_stage.conv.channels_out
    blocks, conv = -(-sizes[1] // block), planar_stage.conv
    sums = own > 1 or conv.channels_in > 1  # of several channels: not depthwise
    few = sizes[1] * _FEW <= block or (sums and own <= block // _FEW)
    ragged = blocks > 1 and sizes[1] <= blocks * block * _RAGGED
    lying = operands.get(conv.x.tensor.name)
    torn = conv.groups > 1 < own and own % block and (lying is None or lying.axis is None)
    if not few and not ragged and not torn:
        return False
    along = _least(stage, operands, Layout(sizes), known, target, (planar,))
    across = _least(stage, operands, Layout(sizes, 1, block), known, target, _ACROSS)
    doubt = _DOUBT if few else _LESS_DOUBT
    return along is not None and (across is None or along * doubt < across)


def is_handed_out_plain(
    stage: Stage, operands: Operands, known: Collection[str], target: Target
) -> bool:
    """Whether a convolution takes less time in vectors along the rows of planes than in blocks of
    channels, all of which are turned into planes afterwards: of few channels each, which is to say
    few multiply-adds for what is written, turning them takes longer than they do. So it does for
    what is computed of a plain map element by element, beside one value for each of its planes."""
    sizes, block = stage.target.type.sizes, target.lanes(DType.F32)
    if len(sizes) < 3 or block == 1:
        return False
    if not any(isinstance(e, Reduce) for e in walk(stage.body)):
        return _is_along_planes(stage, operands, block)
    found = match_convolution(stage)
    planes = match_planar(stage)
    conv = found if planes is None else planes.conv
    if conv is None or conv.channels_in * conv.channels_out == 1:
        return False  # depthwise: of one channel each
    lying = operands.get(conv.x.tensor.name)
    if lying is not None and lying.axis is not None:
        return False  # blocks would be turned before the sums instead of behind them
    plain, blocked = Layout(sizes), Layout(sizes, 1, block)
    along = _least(stage, operands, plain, known, target, (planar, unfolding))
    across = _least(stage, operands, blocked, known, target, (*_ACROSS, unfolding))
    if along is None or across is None:
        return False
    return along * _LESS_DOUBT < across + _turned_cycles(stage, blocked, target)


def _is_along_planes(stage: Stage, operands: Operands, block: int) -> bool:
    """Whether maps of the whole size lie plain and are read where they are written, all else has
    one value for a plane, and planes fill a vector."""
    found, space = list(reads(stage.body)), stage.axes[2:]
    maps = [read for read in found if is_in_place(read, stage.axes)]
    lying = (operands.get(read.tensor.name) for read in maps)
    plain = bool(maps) and all(layout is None or layout.axis is None for layout in lying)
    others = (index for read in found if read not in maps for index in read.index)
    alike = not any(depends(index, axis) for index in others for axis in space)
    return plain and alike and prod(map(extent_of, space)) >= block


def _least(
    stage: Stage,
    operands: Operands,
    layout: Layout,
    known: Collection[str],
    target: Target,
    ways: Iterable[Callable[[Target], Schedule]],
) -> float | None:
    """Cycles of the cheapest of some schedules, of those that are known, if one applies."""
    task = _alone(stage, operands, layout)
    there = (schedule for schedule in (way(target) for way in ways) if schedule.name in known)
    bids = (schedule.cost(task) for schedule in there)
    return min((cycles for cycles in bids if cycles is not None), default=None)


def _turned_cycles(stage: Stage, blocked: Layout, target: Target) -> float:
    """Cycles of the copy of what lies in blocks to where it lies plain; what the second-level cache
    has not kept is written, which fetches it first, and read again."""
    made = stage.target
    read = Read(made, tuple(axis.i for axis in axes_over(made.type.shape)))
    axes = axes_over(made.type.shape)
    into = replace(made, name="handed_out")
    plain = Layout(made.type.sizes)
    given, output = Operand(made, blocked), Output(into, plain)
    task = Task("copy", (Stage(into, axes, read),), (given,), (output,), plain)
    cycles = transpose(target).cost(task) or float(plain.size)
    size = blocked.size * made.type.dtype.bytes
    away = max(0, size - target.caches.l2_bytes * _KEPT)
    return cycles + _MOVED * away / FAR


def _alone(stage: Stage, operands: Operands, layout: Layout) -> Task:
    """A stage as a task, of which the inputs of the model lie plain."""
    read = {r.tensor.name: r.tensor for r in reads(stage.body)}
    lying = {name: operands.get(name) or Layout(x.type.sizes) for name, x in read.items()}
    given = (Operand(x, lying[name] if name in operands else None) for name, x in read.items())
    return Task("", (stage,), tuple(given), (Output(stage.target, layout),), layout)


def _is_of_rows(stage: Stage, operands: Operands, lanes: int) -> bool:
    """Whether elements of something plain are moved, or windows of it reduced, and nothing else is
    read, to rows that fill a vector in part: vectors run along these, and nobody packs channels."""
    found, last = list(reads(stage.body)), stage.axes[-1]
    if len(found) != 1 or not found[0].index or extent_of(last) * SHORTEST < lanes:
        return False
    layout = operands.get(found[0].tensor.name)
    if layout is not None and layout.axis is not None:
        return False
    own, step = found[0].index[-1], coefficient(found[0].index[-1], last)
    if isinstance(stage.body, Read):
        return {symbol.name for symbol in symbols_of(own)} == {last.name}
    pools = any(isinstance(node, Reduce) and any(reads(node)) for node in walk(stage.body))
    return pools and step is not None and 0 < step <= lanes
