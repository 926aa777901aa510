"""Direct convolution in blocked layouts: a register tile held across all input channels and taps.

Borders are met by variants of the tile, not by halos: rows of taps outside the input are cut
off by the bounds of the tap loop, and a tile at an edge is emitted once more with only the
positions that each tap can reach. The inner loop never tests anything. 1 x 1 convolutions of
stride 1 run over rows and columns as one axis: a matrix product. On narrow maps a tile spans
several rows, so that filters are read from beyond the first-level cache less often.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Get, Registers, Value, Var
from convdsl.schedules.cpu.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.epilogue import Frame, open_frame
from convdsl.schedules.cpu.runs import (
    Columns,
    Run,
    columns_of,
    patches_of,
    runs_of,
    taps_inside,
)
from convdsl.schedules.cpu.tiles import FilterPack, Tile, choose_tile, tile_cycles
from convdsl.schedules.emission import extent_of, lane_symbol
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min, floor_div

_L2_SHARE = 512 << 10  # bytes of filters that may stay in the second-level cache
_PANEL = 320 << 10  # bytes of filters swept at a time: that and the next panel stay there
_PATCH = 14  # positions that a tile of several rows may have
_SHARES = 8  # tiles of channels that give a team enough to share out


def applies(task: Task) -> Convolution | None:
    """Blocked output; one group, or groups that fill whole vectors."""
    conv = match_convolution(task)
    if conv is None or task.output.axis != 1:
        return None
    block = task.output.block
    if block < 2 or (conv.groups > 1 and conv.channels_out % block):
        return None
    return conv


def tile_for(conv: Convolution, task: Task) -> Tile:
    """The register tile. On a narrow map its columns may be those of several rows."""
    block = task.output.block
    blocks = -(-conv.channels_out // block)
    outer, columns = columns_of(conv, task)
    wide = columns.space.outs
    if outer and wide * 2 <= _PATCH:
        wide *= min(_PATCH // wide, outer[-1].outs)
    return choose_tile(task.target, blocks, wide, must_divide=conv.groups > 1)


def patch_rows(outer: tuple[Space, ...], columns: Columns, tile: Tile) -> int:
    """Whole rows that one tile covers; 0 where tiles are pieces of a row."""
    rows = tile.columns // columns.space.outs
    return rows if outer and rows >= 2 else 0


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
    tiles = -(-blocks // tile.blocks) * max(1.0, columns.space.outs / tile.columns)
    return work * tiles * tile_cycles(tile.blocks, min(tile.columns, columns.space.outs))


def emit(task: Task, name: str) -> Scheduled:
    conv = applies(task)
    assert conv is not None
    tile = tile_for(conv, task)
    lanes = task.output.block
    shape = (extent_of(conv.k), conv.channels_in, *(space.taps for space in conv.space))
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


@dataclass(frozen=True, slots=True)
class _Panel:
    """One register tile on its way: loop indices, accumulators, channels, positions."""

    at: dict[str, Dim]
    acc: Registers
    block: Dim  # the first vector of output channels
    blocks: int
    positions: list[list[Dim]]  # of each position, the indices on the tile's own axes
    start: Dim
    chunk: tuple[int, int]  # blocks of input channels

    @property
    def width(self) -> int:
        return len(self.positions)


class _Direct:
    """Emits one direct convolution."""

    def __init__(
        self, task: Task, conv: Convolution, tile: Tile, pack: FilterPack, frame: Frame
    ) -> None:
        self.conv = conv
        self.pack = pack
        self.frame = frame
        self.b: Builder = frame.b
        self.lanes = pack.lanes
        self.outer, self.columns = columns_of(conv, task)
        self.rows: tuple[Space, ...] = ()  # the axis that patches run along
        rows = patch_rows(self.outer, self.columns, tile)
        if rows:
            self.outer, self.rows = self.outer[:-1], self.outer[-1:]
            self.runs = patches_of(self.rows[0], self.columns.space, rows)
        else:
            self.runs = runs_of(self.columns.space, tile.columns)
        self.spaces = (*self.outer, *self.rows, self.columns.space)
        weights = pack.size * task.stage.target.type.dtype.bytes
        # Filters that stay in cache are swept for each position; larger ones are each read once
        # while the positions are swept.
        self.filters_stay = weights <= _L2_SHARE

    def chunks(self, blocks: int) -> list[tuple[int, int]]:
        """(first, past the last) block of input channels of each panel. Sums wait in the output
        between panels."""
        whole = self.pack.c_blocks
        element = self.frame.task.stage.target.type.dtype.bytes
        per_block = self.pack.block_size // whole * blocks * element
        size = whole if self.filters_stay else max(1, min(whole, _PANEL // per_block))
        count = -(-whole // size)
        size = -(-whole // count)
        return [(start, min(start + size, whole)) for start in range(0, whole, size)]

    def tiles(self, first_block: int, count: int, blocks: int) -> None:
        """All positions of `count` tiles of `blocks` blocks each, in parallel."""
        axes = [("n", extent_of(self.conv.n)), ("g", self.conv.groups)]
        axes += [(s.out.name, s.outs) for s in self.outer]
        position = len(axes) + 1 if self.filters_stay else 2
        chunks = self.chunks(blocks)
        one_row = len(self.spaces) == 1 and all(run.interior for run in self.runs)
        if one_row and (self.filters_stay or count < _SHARES):
            for run in self.runs:  # its tiles are shared out among the threads
                with self.parallel([*axes, ("tile", run.count)], count, position) as at:
                    start = run.start + at["tile"] * run.width
                    for chunk in chunks:
                        self.one_tile(at, run, start, first_block, blocks, chunk)
            return
        inner = self.outer if len(chunks) > 1 else ()
        axes = axes[: len(axes) - len(inner)]
        with self.parallel(axes, count, min(position, len(axes))) as at:
            for chunk in chunks:
                with self.rows_inside(at, inner) as here:
                    for run in self.runs:
                        with self.b.serial("tile", run.count) as tile:
                            start = run.start + tile * (run.rows or run.width)
                            self.one_tile(here, run, start, first_block, blocks, chunk)

    @contextmanager
    def rows_inside(
        self, at: dict[str, Dim], spaces: tuple[Space, ...]
    ) -> Generator[dict[str, Dim]]:
        """Loops over outer axes within a share, where panels are swept by all positions."""
        with ExitStack() as stack:
            loops = {
                space.out.name: stack.enter_context(self.b.serial(space.out.name, space.outs))
                for space in spaces
            }
            yield {**at, **loops}

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
        self,
        at: dict[str, Dim],
        run: Run,
        start: Dim,
        first_block: int,
        blocks: int,
        chunk: tuple[int, int],
    ) -> None:
        """Accumulate one register tile over a chunk of the input channels; after the last one
        store it through the epilogue."""
        per_group = self.conv.channels_out // self.lanes if self.conv.groups > 1 else 0
        block = at["g"] * per_group + first_block + at["kt"] * blocks
        acc = self.frame.registers(blocks * run.width)
        panel = _Panel(at, acc, block, blocks, self.positions(run, start), start, chunk)
        if chunk[0] == 0:
            self.b.zero(acc)
        else:
            self.fetch(panel)
        own = (*self.rows, self.columns.space)
        with self.b.serial("cb", chunk[1], chunk[0]) as cb, self.outer_taps(at) as taps:
            if run.interior:
                with ExitStack() as stack:
                    inner = [stack.enter_context(self.b.serial("s", s.taps)) for s in own]
                    self.inner(panel, cb, [*taps, *inner], tuple(range(run.width)))
            else:
                every_tap = product(*(range(space.taps) for space in own))
                for tap, reach in zip(every_tap, run.reach, strict=True):
                    if reach:
                        self.inner(panel, cb, [*taps, *tap], reach)
        if chunk[1] == self.pack.c_blocks:
            self.store(panel)
        else:
            self.put_aside(panel)

    def positions(self, run: Run, start: Dim) -> list[list[Dim]]:
        if not run.rows:
            return [[start + j] for j in range(run.width)]
        wide = self.columns.space.outs
        return [[start + j // wide, j % wide] for j in range(run.width)]

    @contextmanager
    def outer_taps(self, at: dict[str, Dim]) -> Generator[list[Dim]]:
        """Loops over the taps of the outer axes, cut to those inside the input."""
        with ExitStack() as stack:
            taps: list[Dim] = []
            for space in self.outer:
                start, stop = taps_inside(space, at[space.out.name])
                taps.append(stack.enter_context(self.b.serial("r", stop, start)))
            yield taps

    def inner(self, panel: _Panel, cb: Dim, taps: Sequence[Dim], reach: tuple[int, ...]) -> None:
        """acc[i, j] += filter[i] * x[j] over the channels of one block, for one tap."""
        b, conv, pack = self.b, self.conv, self.pack
        channels = dim_min(pack.c_block, conv.channels_in - cb * pack.c_block)
        # A mirrored filter is read from its far end: the packed order is the text's order.
        tap: Dim = 0
        for index, axis in zip(taps, self.spaces, strict=True):
            tap = tap * axis.taps + (axis.taps - 1 - index if conv.flip else index)
        with b.serial("c", channels) as c:
            where = ((cb * pack.taps + tap) * pack.c_block + c) * panel.blocks * self.lanes
            base = panel.block * pack.block_size + where
            weights = self.frame.views[conv.w.tensor.name].buffer
            if not self.filters_stay:
                share = panel.chunk[1] - panel.chunk[0]
                ahead = pack.block_size // pack.c_blocks * share * panel.blocks
                ahead = ahead + self.sweep_line(panel) * self.lanes
                b.prefetch(weights, base + ahead)
            filters = [b.load(weights, base + i * self.lanes) for i in range(panel.blocks)]
            for j in reach:
                value = self.input(panel, cb * pack.c_block + c, taps, panel.positions[j])
                for i in range(panel.blocks):
                    b.accumulate(panel.acc, i * panel.width + j, value, filters[i])

    def sweep_line(self, panel: _Panel) -> Dim:
        """Which of a panel's lines this sweep over it asks for, of the panel that comes next: so
        that it has come from memory when its turn does."""
        if self.outer:
            axis = self.outer[-1]
            return floor_div(panel.at[axis.out.name] * panel.blocks, axis.outs)
        sweeps = self.rows[0].outs if self.rows else self.columns.space.outs
        return floor_div(panel.start * panel.blocks, sweeps)

    def input(
        self, panel: _Panel, channel: Dim, taps: Sequence[Dim], position: Sequence[Dim]
    ) -> Value:
        """One input element in all lanes."""
        view = self.frame.views[self.conv.x.tensor.name]
        index: list[Dim] = [panel.at["n"], panel.at["g"] * self.conv.channels_in + channel]
        outs = [*(panel.at[space.out.name] for space in self.outer), *position]
        if len(self.columns.merged) > 1:
            bound = self.columns.bind(outs[-1])
            index += [bound[axis.name] for axis in self.columns.merged]
        else:
            for axis, out, tap in zip(self.spaces, outs, taps, strict=True):
                index.append(out * axis.stride + tap * axis.dilation - axis.pad)
        return self.b.splat(view.buffer, view.layout.offset(index))

    def bound(self, panel: _Panel, i: int, j: int, lane: Dim) -> dict[str, Dim]:
        """The output's axes at accumulator (i, j)."""
        conv, position = self.conv, panel.positions[j]
        at = {conv.n.name: panel.at["n"], conv.k.name: (panel.block + i) * self.lanes + lane}
        at |= {space.out.name: panel.at[space.out.name] for space in self.outer}
        at |= {s.out.name: p for s, p in zip(self.rows, position, strict=False)}
        return at | self.columns.bind(position[-1])

    def store(self, panel: _Panel) -> None:
        loaded: dict[tuple[str, Dim], Var] = {}
        lane = lane_symbol(self.lanes)
        for i in range(panel.blocks):
            for j in range(panel.width):
                value = Get(panel.acc, i * panel.width + j)
                first = (panel.block + i) * self.lanes
                at = self.bound(panel, i, j, lane)
                self.frame.store(at, first, self.conv.reduce, value, loaded=loaded)

    def output_offset(self, panel: _Panel, i: int, j: int) -> Dim:
        at = self.bound(panel, i, j, 0)
        stage = self.frame.task.stage
        view = self.frame.views[stage.target.name]
        return view.layout.offset([at[axis.name] for axis in stage.axes])

    def put_aside(self, panel: _Panel) -> None:
        """Sums so far into the output, where `fetch` finds them for the next panel."""
        output = self.frame.views[self.frame.task.stage.target.name].buffer
        for i in range(panel.blocks):
            for j in range(panel.width):
                value = Get(panel.acc, i * panel.width + j)
                self.b.store(output, self.output_offset(panel, i, j), value)

    def fetch(self, panel: _Panel) -> None:
        output = self.frame.views[self.frame.task.stage.target.name].buffer
        for i in range(panel.blocks):
            for j in range(panel.width):
                value = self.b.load(output, self.output_offset(panel, i, j))
                self.b.set(panel.acc, i * panel.width + j, value)


DIRECT = Schedule("direct", cost, emit)
