"""Depthwise convolution: every channel by itself, lanes across channels.

A tile of columns is held in registers across the taps. Each input element of a row is loaded
once and meets every tap that it belongs to. Of wide filters so many taps at a time, and where all
of these reach the whole tile, in a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from math import prod

from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Get, Registers
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.endings import Sums, may_end
from convdsl.schedules.cpu.epilogue import Draft, Sum, open_draft
from convdsl.schedules.cpu.filters import (
    FilterPack,
    channels_layout,
    channels_packs,
    packing_cycles,
)
from convdsl.schedules.cpu.runs import Reach, Run, runs_of, taps_inside
from convdsl.schedules.emission import View, extent_of, lane_symbol
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim


def applies(task: Task) -> Convolution | None:
    """Vectors of channels; one input and one output channel a group."""
    conv = match_convolution(task.root)
    if conv is None or task.layout.axis != 1 or task.layout.block < 2:
        return None
    if channels_layout(task, conv.x) is None or conv.channels_in != 1 or conv.channels_out != 1:
        return None
    if len(task.reducing) > 1 or not may_end(task, conv.n, conv.k):
        return None
    if conv.w.tensor.type.sizes != (extent_of(conv.k), 1, *(s.taps for s in conv.space)):
        return None
    return conv


def taps_for(conv: Convolution, task: Task, target: Target) -> int:
    """Taps of a row that are met at a time: their filters take half of the registers at most."""
    taps = conv.space[-1].taps
    return -(-taps // -(-taps // max(1, vectors_of(conv, task, target) // 2)))


def vectors_of(conv: Convolution, task: Task, target: Target) -> int:
    """How many of them the registers hold."""
    return target.vector_registers // target.registers(task.layout.block, conv.reduce.dtype)


def width_for(conv: Convolution, task: Task, target: Target) -> int:
    """Columns of the tile: accumulators, filters and an input element in registers."""
    space = conv.space[-1]
    room = vectors_of(conv, task, target) - taps_for(conv, task, target) - 2
    most = max(1, min(room, 14))
    tiles = -(-space.outs // most)
    return -(-space.outs // tiles)


def cost(task: Task, target: Target) -> float | None:
    """Two multiply-adds a cycle, of taps that reach the input, and what a vector costs besides."""
    conv = applies(task)
    if conv is None:
        return None
    block = task.layout.block
    elements = task.layout.size / block * target.registers(block, conv.reduce.dtype)
    met = prod(_met(space) for space in conv.space)
    return elements * (0.5 * met + _BESIDES) + packing_cycles(task, packs_for(conv, task))


_BESIDES = 2.25  # cycles of a vector: it is loaded, goes through the epilogue and is stored


def _met(space: Space) -> float:
    """How many taps of an axis reach the input, on average."""
    total = 0
    for at in range(space.outs):
        start, stop = taps_inside(space, at)
        assert isinstance(start, int)
        assert isinstance(stop, int)
        total += max(0, stop - start)
    return total / space.outs


def filter_layout(conv: Convolution, task: Task) -> Layout:
    """[K / lanes][1][taps...][lane]"""
    return Layout(conv.w.tensor.type.sizes, 0, task.layout.block)


def filter_pack(conv: Convolution, task: Task) -> Pack:
    """The same, or of a task that is repeated so many of them."""
    layout = filter_layout(conv, task)
    if not task.over:
        return layout
    repeats = prod(map(extent_of, task.over))
    return FilterPack(layout.shape, layout.block, 1, 1, repeats=repeats)


def packs_for(conv: Convolution, task: Task) -> dict[str, Pack]:
    """How the filters are packed, and the input where it is plain."""
    filters = {conv.w.tensor.name: filter_pack(conv, task)}
    return {**filters, **channels_packs(task, conv.x)}


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Rows of tiles; all rows and blocks of channels are shared out."""
    conv = applies(task)
    assert conv is not None
    pack, lanes = filter_layout(conv, task), task.layout.block
    draft = open_draft(task, name, conv.reduce, lanes, conv.k, packs_for(conv, task))
    filters = View(draft.packed[conv.w.tensor.name], pack)
    outer = conv.space[:-1]
    names = ["n", "kb", *(space.out.name for space in outer), *(axis.name for axis in task.over)]
    extents = [extent_of(conv.n), task.layout.blocks, *(space.outs for space in outer)]
    extents += map(extent_of, task.over)
    runs = runs_of(conv.space[-1], width_for(conv, task, target))
    together = taps_for(conv, task, target)
    sums = None
    if task.ending is not None:  # a piece for each row of an image
        sums = Sums.of(draft.b, task.ending, conv.n, conv.k, prod(s.outs for s in outer), 1)
    with draft.b.parallel(names, extents) as (n, kb, *others):
        at, rows = dict(zip(names, (n, kb, *others), strict=True)), others[: len(outer)]
        if sums is not None:
            sums.far.clear()
        for run in runs:
            with draft.b.serial("tile", run.count) as tile:
                start = run.start + tile * run.width
                _tile(draft, conv, filters, at, run, start, together, sums)
        if sums is not None:
            piece: Dim = 0
            for space, row in zip(outer, rows, strict=True):
                piece = piece * space.outs + row
            sums.end_piece(n, piece, kb * lanes, 1)
    if sums is None:
        return draft.finish()
    return sums.combined(task, draft.finish(sums.buffers), name, target)


def _tile(
    draft: Draft,
    conv: Convolution,
    w: View,
    at: dict[str, Dim],
    run: Run,
    column: Dim,
    together: int,
    sums: Sums | None,
) -> None:
    acc = draft.registers(run.width)
    draft.b.zero(acc)
    with ExitStack() as stack:
        taps: list[Dim] = []
        for space in conv.space[:-1]:
            start, stop = taps_inside(space, at[space.out.name])
            taps.append(stack.enter_context(draft.b.serial("r", stop, start)))
        for start, count, loops in _chunks(run, together):
            with draft.b.serial("chunk", loops) as chunk:
                first = start + chunk * count
                _row(draft, conv, w, at, run, column, acc, taps, first, run.reach[start:][:count])
    first = at["kb"] * draft.b.lanes
    found: list[Sum] = []
    for j in range(run.width):
        bound = {axis.name: at[axis.name] for axis in draft.task.over}
        bound |= {space.out.name: at[space.out.name] for space in conv.space[:-1]}
        bound |= {conv.n.name: at["n"], conv.space[-1].out.name: column + j}
        bound[conv.k.name] = first + lane_symbol(draft.b.lanes)
        found.append(Sum(bound, first, Get(acc, j)))
    made = draft.store_all(found, {})
    if sums is not None:
        sums.near.clear()
        for own, emitter in zip(found, made, strict=True):
            sums.add(0, emitter, own.at)
        sums.end_tile(1)


def _chunks(run: Run, together: int) -> Iterator[tuple[int, int, int]]:
    """(first tap, taps of a chunk, chunks): a row of taps in chunks. Neighbours that reach all of
    the tile share their code."""
    taps, whole = len(run.reach), tuple(range(run.width))
    chunks = [run.reach[start : start + together] for start in range(0, taps, together)]
    start = 0
    for reach, group in groupby(chunks):
        alike = list(group)
        shared = all(positions == whole for positions in reach)
        for _ in range(1 if shared else len(alike)):
            if any(reach):
                yield start, len(reach), len(alike) if shared else 1
            start += len(reach) * (len(alike) if shared else 1)


def _row(
    draft: Draft,
    conv: Convolution,
    w: View,
    at: dict[str, Dim],
    run: Run,
    column: Dim,
    acc: Registers,
    row_taps: list[Dim],
    first: Dim,
    reaches: Reach,
) -> None:
    """Some taps of a row, from `first` on: each input column once, for all (column, tap) pairs that
    meet there."""
    b, last = draft.b, conv.space[-1]
    x, channel = draft.view(conv.x.tensor.name), at["kb"] * b.lanes
    rows = [
        at[s.out.name] * s.stride + tap * s.dilation - s.pad
        for s, tap in zip(conv.space[:-1], row_taps, strict=True)
    ]
    outer = [s.of_filter(tap) for s, tap in zip(conv.space[:-1], row_taps, strict=True)]
    own = draft.repeat(at) * w.layout.size
    places = [[channel, 0, *outer, last.of_filter(first + tap)] for tap in range(len(reaches))]
    filters = [b.load(w.buffer, own + w.layout.offset(place)) for place in places]
    meetings: dict[int, list[tuple[int, int]]] = {}
    for tap, reach in enumerate(reaches):
        for j in reach:
            meetings.setdefault(j * last.stride + tap * last.dilation, []).append((j, tap))
    for shift in sorted(meetings):
        position = column * last.stride + first * last.dilation + shift - last.pad
        value = b.load(x.buffer, x.layout.offset([at["n"], channel, *rows, position]))
        for j, tap in meetings[shift]:
            b.accumulate(acc, j, value, filters[tap])


def depthwise(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "depthwise",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
