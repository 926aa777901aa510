"""Direct convolution in blocked layouts: a register tile held across all input channels and taps.

Borders are met by variants of the tile, not by halos: rows of taps outside the input are cut
off by the bounds of the tap loop, and a tile at the left or right edge is emitted once more
with only the columns that each tap can reach. The inner loop never tests anything.
1 x 1 convolutions of stride 1 run over rows and columns as one axis: a matrix product.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis
from convdsl.kernel.nodes import Get, Registers, Value, Var
from convdsl.schedules.cpu.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.epilogue import Frame, open_frame
from convdsl.schedules.cpu.tiles import FilterPack, Tile, choose_tile, tile_cycles
from convdsl.schedules.emission import extent_of, lane_symbol
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, ceil_div, dim_max, dim_min, floor_div

_L2_SHARE = 512 << 10  # bytes of filters that may stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Columns:
    """The axis along which the tile runs: the last spatial one, or all of them as one."""

    space: Space
    merged: tuple[Axis, ...]  # the axes it stands for

    def bind(self, column: Dim) -> dict[str, Dim]:
        """Positions on the real axes of a position on this one."""
        at: dict[str, Dim] = {}
        for axis in reversed(self.merged[1:]):
            at[axis.name] = column - floor_div(column, extent_of(axis)) * extent_of(axis)
            column = floor_div(column, extent_of(axis))
        return at | {self.merged[0].name: column}


@dataclass(frozen=True, slots=True)
class Run:
    """Tiles of equal width side by side that can share their code."""

    start: int
    count: int
    width: int
    reach: tuple[tuple[int, ...], ...]  # for each tap, the columns of the tile that it reaches
    interior: bool  # every tap reaches every column


def applies(task: Task) -> Convolution | None:
    """Blocked output; one group, or groups that fill whole vectors."""
    conv = match_convolution(task)
    if conv is None or task.output.axis != 1:
        return None
    block = task.output.block
    if block < 2 or (conv.groups > 1 and conv.channels_out % block):
        return None
    return conv


def columns_of(conv: Convolution, task: Task) -> tuple[tuple[Space, ...], Columns]:
    """(outer spatial axes, the axis of the tile)."""
    x = task.operand(conv.x.tensor.name).layout
    flat = all(
        s.taps == 1 and s.stride == 1 and s.pad == 0 and s.outs == s.extent for s in conv.space
    )
    if flat and x is not None and x.axis == 1:
        merged = tuple(s.out for s in conv.space)
        total = 1
        for s in conv.space:
            total *= s.outs
        axis = Axis("column", total)
        return (), Columns(Space(axis, None, total, 1, 1, 0), merged)
    return conv.space[:-1], Columns(conv.space[-1], (conv.space[-1].out,))


def tile_for(conv: Convolution, task: Task) -> Tile:
    block = task.output.block
    blocks = -(-conv.channels_out // block)
    _, columns = columns_of(conv, task)
    return choose_tile(task.target, blocks, columns.space.outs, must_divide=conv.groups > 1)


def cost(task: Task) -> float | None:
    conv = applies(task)
    if conv is None:
        return None
    outer, columns = columns_of(conv, task)
    tile = tile_for(conv, task)
    rows = extent_of(conv.n)
    for space in outer:
        rows *= space.outs
    blocks = -(-extent_of(conv.k) // task.output.block)
    work = rows * conv.channels_in * conv.taps
    tiles = (-(-blocks // tile.blocks)) * (-(-columns.space.outs // tile.columns))
    return work * tiles * tile_cycles(tile.blocks, tile.columns)


def runs_of(space: Space, width: int) -> list[Run]:
    """The tiles of one row, those with the same reach together."""
    tiles: list[tuple[int, int, tuple[tuple[int, ...], ...]]] = []
    for start in range(0, space.outs, width):
        here = min(width, space.outs - start)
        reach = tuple(
            tuple(
                j
                for j in range(here)
                if 0 <= (start + j) * space.stride + tap * space.dilation - space.pad < space.extent
            )
            for tap in range(space.taps)
        )
        tiles.append((start, here, reach))
    runs: list[Run] = []
    for (here, reach), group in groupby(tiles, key=lambda t: (t[1], t[2])):
        members = list(group)
        interior = all(len(columns) == here for columns in reach)
        if interior:
            runs.append(Run(members[0][0], len(members), here, reach, True))
        else:
            runs += [Run(start, 1, here, reach, False) for start, _, _ in members]
    return runs


def emit(task: Task, name: str) -> Scheduled:
    conv = applies(task)
    assert conv is not None
    tile = tile_for(conv, task)
    lanes = task.output.block
    shape = (
        extent_of(conv.k),
        conv.channels_in,
        *(space.taps for space in conv.space),
    )
    pack = FilterPack(shape, lanes, tile.blocks, lanes)
    frame = open_frame(task, name, lanes, {conv.w.tensor.name: pack})
    emitter = _Direct(task, conv, tile, pack, frame)
    blocks = pack.blocks if conv.groups == 1 else conv.channels_out // lanes
    whole, rest = divmod(blocks, tile.blocks)
    if whole:
        emitter.tiles(0, whole, tile.blocks)
    if rest:
        emitter.tiles(whole * tile.blocks, 1, rest)
    return frame.finish()


class _Direct:
    """Emits one direct convolution."""

    def __init__(
        self, task: Task, conv: Convolution, tile: Tile, pack: FilterPack, frame: Frame
    ) -> None:
        self.task = task
        self.conv = conv
        self.tile = tile
        self.pack = pack
        self.frame = frame
        self.b: Builder = frame.b
        self.lanes = pack.lanes
        self.outer, self.columns = columns_of(conv, task)

    def tiles(self, first_block: int, count: int, blocks: int) -> None:
        """All positions of `count` tiles of `blocks` blocks each, in parallel."""
        conv = self.conv
        runs = runs_of(self.columns.space, self.tile.columns)
        axes = [("n", extent_of(conv.n)), ("g", conv.groups)]
        axes += [(s.out.name, s.outs) for s in self.outer]
        weights = self.pack.size * self.task.stage.target.type.dtype.bytes
        # Filters that stay in cache are swept for each position; larger ones are each read once
        # while the positions are swept.
        position = len(axes) + 1 if weights <= _L2_SHARE else 2
        if not self.outer and all(run.interior for run in runs):
            for run in runs:  # one long row: its tiles are shared out among the threads
                with self.parallel([*axes, ("tile", run.count)], count, position) as at:
                    column = run.start + at["tile"] * run.width
                    self.one_tile(at, run, column, first_block, blocks)
            return
        with self.parallel(axes, count, min(position, len(axes))) as at:
            for run in runs:
                with self.b.serial("tile", run.count) as tile:
                    self.one_tile(at, run, run.start + tile * run.width, first_block, blocks)

    @contextmanager
    def parallel(
        self, axes: list[tuple[str, int]], count: int, position: int
    ) -> Generator[dict[str, Dim]]:
        """Parallel loops over the axes, with that over `count` tiles of channels put among them."""
        order = [*axes[:position], ("kt", count), *axes[position:]]
        names = [name for name, _ in order]
        with self.b.parallel(names, [extent for _, extent in order]) as indices:
            yield dict(zip(names, indices, strict=True))

    def one_tile(
        self, at: dict[str, Dim], run: Run, column: Dim, first_block: int, blocks: int
    ) -> None:
        """Accumulate one register tile and store it through the epilogue."""
        per_group = self.conv.channels_out // self.lanes if self.conv.groups > 1 else 0
        block = at["g"] * per_group + first_block + at["kt"] * blocks
        acc = self.frame.registers(blocks * run.width)
        self.b.zero(acc)
        rows = {space.out.name: at[space.out.name] for space in self.outer}
        with self.b.serial("cb", self.pack.c_blocks) as cb, self.row_taps(rows) as taps:
            if run.interior:
                with self.b.serial("s", self.columns.space.taps) as s:
                    every = tuple(range(run.width))
                    self.inner(at, acc, block, blocks, cb, taps, s, column, every)
            else:
                for s, reach in enumerate(run.reach):
                    if reach:
                        self.inner(at, acc, block, blocks, cb, taps, s, column, reach)
        self.store(at, acc, block, blocks, column, run.width)

    @contextmanager
    def row_taps(self, rows: dict[str, Dim]) -> Generator[list[Dim]]:
        """Loops over the taps of the outer axes, cut to those inside the input."""
        with ExitStack() as stack:
            taps: list[Dim] = []
            for space in self.outer:
                start: Dim = 0
                stop: Dim = space.taps
                if not space.inside:
                    low = space.pad - rows[space.out.name] * space.stride
                    start = dim_max(ceil_div(low, space.dilation), 0)
                    last = floor_div(low + space.extent - 1, space.dilation)
                    stop = dim_min(last + 1, space.taps)
                taps.append(stack.enter_context(self.b.serial("r", stop, start)))
            yield taps

    def inner(
        self,
        at: dict[str, Dim],
        acc: Registers,
        block: Dim,
        blocks: int,
        cb: Dim,
        row_taps: list[Dim],
        s: Dim,
        column: Dim,
        reach: tuple[int, ...],
    ) -> None:
        """acc[i, j] += filter[i] * x[j] over the channels of one block, for one tap."""
        b, conv, pack, space = self.b, self.conv, self.pack, self.columns.space
        channels = dim_min(pack.c_block, conv.channels_in - cb * pack.c_block)
        width = acc.count // blocks
        # A mirrored filter is read from its far end: the packed order is the text's order.
        tap: Dim = 0
        for index, axis in zip([*row_taps, s], [*self.outer, space], strict=True):
            tap = tap * axis.taps + (axis.taps - 1 - index if conv.flip else index)
        with b.serial("c", channels) as c:
            where = ((cb * pack.taps + tap) * pack.c_block + c) * blocks * self.lanes
            base = block * pack.block_size + where
            weights = self.frame.views[conv.w.tensor.name].buffer
            filters = [b.load(weights, base + i * self.lanes) for i in range(blocks)]
            for j in reach:
                value = self.input(at, cb * pack.c_block + c, row_taps, column + j, s)
                for i in range(blocks):
                    b.accumulate(acc, i * width + j, value, filters[i])

    def input(
        self, at: dict[str, Dim], channel: Dim, row_taps: list[Dim], column: Dim, s: Dim
    ) -> Value:
        """One input element in all lanes."""
        view = self.frame.views[self.conv.x.tensor.name]
        space = self.columns.space
        channel = at["g"] * self.conv.channels_in + channel
        index: list[Dim] = [at["n"], channel]
        for axis, tap in zip(self.outer, row_taps, strict=True):
            index.append(at[axis.out.name] * axis.stride + tap * axis.dilation - axis.pad)
        if len(self.columns.merged) > 1:
            bound = self.columns.bind(column)
            index += [bound[axis.name] for axis in self.columns.merged]
        else:
            index.append(column * space.stride + s * space.dilation - space.pad)
        return self.b.splat(view.buffer, view.layout.offset(index))

    def store(
        self,
        at: dict[str, Dim],
        acc: Registers,
        block: Dim,
        blocks: int,
        column: Dim,
        width: int,
    ) -> None:
        conv = self.conv
        loaded: dict[tuple[str, Dim], Var] = {}
        for i in range(blocks):
            k = (block + i) * self.lanes
            for j in range(width):
                bound = {conv.n.name: at["n"], conv.k.name: k + lane_symbol(self.lanes)}
                bound |= {space.out.name: at[space.out.name] for space in self.outer}
                bound |= self.columns.bind(column + j)
                value = Get(acc, i * width + j)
                self.frame.store(bound, k, conv.reduce, value, loaded=loaded)


DIRECT = Schedule("direct", cost, emit)
