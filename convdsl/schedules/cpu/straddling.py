"""Convolutions of groups so wide that a vector of outputs straddles few of them.

Vectors of outputs lie over the bounds of groups that are no multiple of a vector, 21 channels of 32
groups say. For channel c of its group a lane takes that of one of the few groups that its vector
straddles: one element of each is broadcast, and lanes choose. Where the bounds are is a mask, made
once for each vector, so that one code serves all (cpu.grouped unrolls its moves, for narrow ones).
"""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.nodes import (
    Compare,
    IndexAsValue,
    Load,
    Registers,
    Select,
    Splat,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, match_convolution
from convdsl.schedules.cpu.epilogue import Draft, open_draft
from convdsl.schedules.cpu.filters import packing_cycles
from convdsl.schedules.cpu.group_tiles import GroupTile, filter_pack
from convdsl.schedules.cpu.runs import runs_of
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, DType, dim_min, floor_div
from convdsl.tensor.records import record

_MOST = 8  # groups of a vector: each but the first has a mask, of which processors hold seven
_COLUMNS = 14  # of a tile


def straddled(conv: Convolution, block: int) -> int:
    """Most groups that a vector of outputs meets."""
    if block % conv.channels_out == 0:
        return min(block // conv.channels_out, conv.groups)
    return min((block - 2) // conv.channels_out + 2, conv.groups)


def applies(task: Task) -> Convolution | None:
    """Blocked output; groups that fill no whole vectors, and of which a vector meets few."""
    conv = match_convolution(task.root)
    block = task.layout.block
    if conv is None or task.ending is not None or task.layout.axis != 1 or block < 2:
        return None
    if len(task.reducing) > 1 or task.operand(conv.x.tensor.name).layout is None:
        return None
    if conv.groups == 1 or conv.channels_out % block == 0 or conv.reduce.dtype is not DType.F32:
        return None
    alone = conv.channels_in == conv.channels_out == 1
    return conv if straddled(conv, block) <= _MOST and not alone else None


def cost(task: Task, target: Target) -> float | None:
    """For each product a broadcast a group, two a cycle, and choices between them."""
    conv = applies(task)
    if conv is None:
        return None
    block = task.layout.block
    groups = straddled(conv, block)
    each = 0.5 * groups + 0.25 * (groups - 1)
    vectors = task.layout.size / block * target.registers(block, conv.reduce.dtype)
    packing = packing_cycles(task, {conv.w.tensor.name: filter_pack(conv, task)})
    return vectors * conv.taps * conv.channels_in * each + packing


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Rows of tiles; images, vectors of outputs and rows are shared out."""
    conv = applies(task)
    assert conv is not None
    lanes, pack = task.layout.block, filter_pack(conv, task)
    draft = open_draft(task, name, conv.reduce, lanes, conv.k, {conv.w.tensor.name: pack})
    outer = conv.space[:-1]
    names = ["n", "kb", *(space.out.name for space in outer), *(axis.name for axis in task.over)]
    extents = [extent_of(conv.n), task.layout.blocks, *(space.outs for space in outer)]
    extents += map(extent_of, task.over)
    most = min(_COLUMNS, target.vector_registers - straddled(conv, lanes) - 2)
    tiles = -(-conv.space[-1].outs // most)
    runs = runs_of(conv.space[-1], -(-conv.space[-1].outs // tiles))
    with draft.b.parallel(names, extents) as places:
        at = dict(zip(names, places, strict=True))
        groups = _groups(conv, draft, at["kb"] * lanes)
        masks = _masks(conv, draft, groups[0], at["kb"] * lanes)
        for run in runs:
            with draft.b.serial("tile", run.count) as tile:
                start = run.start + tile * run.width
                _Tile(draft, conv, pack, at, run, start, groups, masks).all()
    return draft.finish()


def _groups(conv: Convolution, draft: Draft, first: Dim) -> list[Dim]:
    """The groups that the lanes from an output channel on belong to."""
    group = floor_div(first, conv.channels_out)
    count = straddled(conv, draft.b.lanes)
    return [dim_min(group + further, conv.groups - 1) for further in range(count)]


def _masks(conv: Convolution, draft: Draft, group: Dim, first: Dim) -> list[Var]:
    """For each group but the first, which lanes belong to it or to a later one."""
    one, all_lanes = ValueType(DType.F32), ValueType(DType.F32, draft.b.lanes)
    lane = IndexAsValue(0, 1, all_lanes)
    found: list[Var] = []
    for further in range(1, straddled(conv, draft.b.lanes)):
        start = (group + further) * conv.channels_out - first
        bound = Splat(IndexAsValue(start, 0, one), all_lanes)
        found.append(draft.b.let(Compare("ge", lane, bound), "later"))
    return found


@record
class _Tile(GroupTile):
    """Channels are a loop: one code serves all."""

    groups: Sequence[Dim]
    masks: Sequence[Var]

    def sweep(self, acc: Registers, taps: Sequence[Dim], reach: Sequence[int]) -> None:
        with self.draft.b.serial("c", self.conv.channels_in) as c:
            self.products(acc, taps, reach, c)

    def input(self, places: Sequence[Dim], c: Dim) -> Value:
        draft, conv = self.draft, self.conv
        x, type = draft.views[conv.x.tensor.name], ValueType(DType.F32, draft.b.lanes)
        found: Value | None = None
        for number, group in enumerate(self.groups):
            channel = group * conv.channels_in + c
            where = x.layout.offset([self.at["n"], channel, *places])
            value = Splat(Load(x.buffer, where, ValueType(DType.F32)), type)
            found = value if found is None else Select(self.masks[number - 1], value, found)
        assert found is not None
        return found


def straddling(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "straddling",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
