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
from dataclasses import replace
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Buffer, Get, IndexTest, Registers, Value
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space
from convdsl.schedules.cpu.direct_plan import (
    applies,
    cost,
    filter_bytes,
    filter_pack,
    input_layout,
    packs_for,
    patch_rows,
    places,
    tile_for,
    torn,
)
from convdsl.schedules.cpu.endings import Sums
from convdsl.schedules.cpu.epilogue import Draft, Sum, open_draft
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.runs import (
    Run,
    columns_of,
    patches_of,
    runs_of,
    taps_inside,
)
from convdsl.schedules.cpu.sweeps import (
    LINE_BYTES,
    Extent,
    Limits,
    Sweeps,
    choose_sweeps,
    sweep_abreast,
)
from convdsl.schedules.cpu.tiles import Tile
from convdsl.schedules.emission import extent_of, lane_symbol
from convdsl.schedules.task import Ending, Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_min
from convdsl.tensor.records import record

_IN_TURN = 0.5  # of the second-level cache: filters of all that is repeated, band after band


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Whole tiles of channels, then those that are left."""
    conv = applies(task)
    assert conv is not None
    tile = tile_for(conv, task, target)
    pack = filter_pack(conv, task, tile)
    packs = packs_for(conv, task, pack, target)
    draft = open_draft(task, name, conv.reduce, pack.lanes, conv.k, packs)
    emitter = _Direct(task, conv, tile, pack, draft, target)
    regions = list(pack.parts())
    if task.ending is not None:
        emitter.open_sums(task.ending, [(count, size) for _, count, size in regions])
    for group in range(emitter.places):
        for first, count, size in regions:
            last = first + count * size == pack.blocks
            if not (emitter.torn and last):
                emitter.tiles(group, first, count, size)
                continue
            if count > 1:
                emitter.tiles(group, first, count - 1, size)
            valid = conv.channels_out % pack.lanes
            emitter.tiles(group, first + (count - 1) * size, 1, size, valid)
    if emitter.sums is None:
        return draft.finish()
    return emitter.sums.combined(task, draft.finish(emitter.sums.buffers), name, target)


@record
class _Place:
    """Where in the loops around the register tiles the emitter stands."""

    at: dict[str, Dim]
    first_block: int
    blocks: int
    valid: int | None  # lanes of the last of them, where what is beyond belongs to another group
    chunk: tuple[Dim, Dim]  # blocks of input channels of the panel
    sweeps: Sweeps
    sweep: Dim = 0  # the row or tile of the band


@record
class _TileAt:
    """A register tile at its place: loop indices, accumulators, channels, positions."""

    place: _Place
    acc: Registers
    channel: Dim  # the first of the output
    filters: Dim  # where those of the tile begin
    positions: list[list[Dim]]  # of each position, the indices on the tile's own axes

    @property
    def at(self) -> dict[str, Dim]:
        return self.place.at

    @property
    def blocks(self) -> int:
        return self.place.blocks

    @property
    def width(self) -> int:
        return len(self.positions)


class _Direct:
    """Emits one direct convolution."""

    def __init__(
        self,
        task: Task,
        conv: Convolution,
        tile: Tile,
        pack: FilterPack,
        draft: Draft,
        target: Target,
    ) -> None:
        limits = Limits.of(target)
        group_stays = filter_bytes(conv, task) <= limits.stay
        self.conv = conv
        self.sums: Sums | None = None
        self.bands = 1  # of the pieces that sums are of
        self.pack = pack
        self.tile = tile
        self.draft = draft
        self.b: Builder = draft.b
        self.lanes = pack.lanes
        self.element = conv.reduce.dtype.bytes
        self.outer, self.columns = columns_of(conv, input_layout(conv, task, target))
        self.rows: tuple[Space, ...] = ()  # the axis that patches run along
        rows = patch_rows(self.outer, self.columns, tile)
        if rows:
            self.outer, self.rows = self.outer[:-1], self.outer[-1:]
            self.runs = patches_of(self.rows[0], self.columns.space, rows)
        else:
            self.runs = runs_of(self.columns.space, tile.columns)
        self.spaces = (*self.outer, *self.rows, self.columns.space)
        self.limits = limits
        self.torn, self.places = torn(conv, task), places(conv, task)
        # Of a group with all that is repeated: phases write parts of the same lines.
        together = pack.size // conv.groups * self.element
        self.all_stay = together <= target.caches.l2_bytes * _IN_TURN
        if draft.waiting is None or self.torn:  # sums cannot wait for a second panel
            self.limits = replace(self.limits, stay=pack.part_size * self.element)
        self.filters_stay = pack.part_size * self.element <= self.limits.stay
        self.sweep_together = self.filters_stay and group_stays

    def open_sums(self, ending: Ending, regions: list[tuple[int, int]]) -> None:
        """Declare what an ending needs: a piece for each band of the rows or planes of an image."""
        self.bands = max(self.sweeps(count, blocks).bands for count, blocks in regions)
        slots = max(blocks for _, blocks in regions)
        pieces = self.bands * prod(space.outs for space in self.outer[:-1])
        self.sums = Sums.of(self.b, ending, self.conv.n, self.conv.k, pieces, slots)

    def sweeps(self, count: int, blocks: int) -> Sweeps:
        """How `count` tiles of channels meet the filters and the positions."""
        others = extent_of(self.conv.n) * self.conv.groups * count * self.pack.repeats
        for space in self.outer[:-1]:
            others *= space.outs
        positions = self.element
        for space in self.spaces[max(0, len(self.outer) - 1) :]:
            positions *= space.outs
        extent = Extent(
            filters=self.pack.part_size * self.element,
            slab=self.pack.block_size // self.pack.c_blocks * blocks * self.element,
            blocks=self.pack.c_blocks,
            others=others,
            pieces=self.outer[-1].outs if self.outer else max(run.count for run in self.runs),
            inputs=positions * self.conv.channels_in,
            sums=positions * blocks * self.lanes,
        )
        waits = self.draft.waiting is not None and not self.torn and self.sums is None
        if waits and not self.outer and self.draft.task.ending is None:
            together = sweep_abreast(extent, self.limits, count)
            if together is not None:
                return together
        return choose_sweeps(extent, self.limits)

    def tiles(
        self, group: int, first_block: int, count: int, blocks: int, valid: int | None = None
    ) -> None:
        """All positions of `count` tiles of `blocks` blocks each, in parallel, of every so many
        groups (`places`) from one on; of the last block only the `valid` lanes are stored."""
        sweeps = self.sweeps(count, blocks)
        groups = len(range(group, self.conv.groups, self.places))
        axes = [("g", groups), *((s.out.name, s.outs) for s in self.outer[:-1])]
        inner = [("kt", count // sweeps.abreast), ("band", sweeps.bands)]
        axes += reversed(inner) if self.sweep_together else inner
        over = [(axis.name, extent_of(axis)) for axis in self.draft.task.over]
        again = len(axes) - 1 if self.sweep_together and self.all_stay else 0
        axes = [("n", extent_of(self.conv.n)), *axes[:again], *over, *axes[again:]]
        names = [name for name, _ in axes]
        with self.b.parallel(names, [extent for _, extent in axes]) as indices:
            at = dict(zip(names, indices, strict=True))
            at["g"] = group + at["g"] * self.places
            if self.sums is not None:
                self.sums.far.clear()
            with self.b.serial("panel", sweeps.panels) as panel:
                start = panel * sweeps.panel
                chunk = (start, dim_min(start + sweeps.panel, self.pack.c_blocks))
                place = _Place(at, first_block, blocks, valid, chunk, sweeps)
                if self.outer:
                    self.band_of_rows(place)
                elif sweeps.abreast > 1:
                    with self.b.serial("kt", sweeps.abreast) as kt:
                        kt = at["kt"] * sweeps.abreast + kt
                        self.band_of_tiles(replace(place, at={**at, "kt": kt}))
                else:
                    self.band_of_tiles(place)
            if self.sums is not None:
                self.end_piece(self.sums, place)

    def end_piece(self, sums: Sums, place: _Place) -> None:
        """Write what one piece of the work added up. Where tiles of channels have fewer bands
        than others, the last band writes for those that are missing."""
        at, own = place.at, place.sweeps.bands
        piece: Dim = 0
        for space in self.outer[:-1]:
            piece = piece * space.outs + at[space.out.name]
        piece = piece * self.bands
        channel = self.channel(place)
        sums.end_piece(at["n"], piece + at["band"], channel, place.blocks)
        if own < self.bands:
            last = IndexTest("eq", at["band"], own - 1)
            with self.b.when(last), self.b.serial("missing", self.bands, own) as band:
                sums.end_nothing(at["n"], piece + band, channel, place.blocks)

    def block(self, place: _Place) -> Dim:
        """The first vector of a tile, of those of its group."""
        return place.first_block + place.at["kt"] * place.blocks

    def channel(self, place: _Place) -> Dim:
        """The first output channel of a tile."""
        own = self.conv.channels_out if self.conv.groups > 1 else 0
        return place.at["g"] * own + self.block(place) * self.lanes

    def band_of_rows(self, place: _Place) -> None:
        axis, size = self.outer[-1], place.sweeps.size
        first = place.at["band"] * size
        with self.b.serial(axis.out.name, dim_min(first + size, axis.outs), first) as row:
            here = replace(place, at={**place.at, axis.out.name: row}, sweep=row - first)
            for run in self.runs:
                with self.b.serial("tile", run.count) as tile:
                    start = run.start + tile * (run.rows or run.width)
                    if self.asks_for_rows:
                        self.prefetch_rows(here, row + 1, start, run.width)
                    self.one_tile(here, run, start)

    @property
    def asks_for_rows(self) -> bool:
        """Whether the input is asked for ahead, row by row: a plain one, of which a tile meets a
        few lines here and there, so that no processor sees a stream of them coming."""
        view = self.draft.view(self.conv.x.tensor.name)
        return view.layout.axis is None and len(self.outer) == 1 and not self.rows

    def prefetch_rows(self, place: _Place, row: Dim, start: Dim, width: int) -> None:
        """Ask for what a tile of a row to come reads that none before that row has."""
        b, conv, across, down = self.b, self.conv, self.columns.space, self.outer[-1]
        view = self.draft.view(conv.x.tensor.name)
        column = start * across.stride - across.pad
        reach = (width - 1) * across.stride + (across.taps - 1) * across.dilation + 1
        size = LINE_BYTES // self.element
        with (
            b.serial("tap", down.taps, max(0, down.taps - down.stride)) as tap,
            b.serial("channel", conv.channels_in) as c,
            b.serial("line", -(-reach // size)) as line,
        ):
            h = row * down.stride + tap * down.dilation - down.pad
            channel = place.at["g"] * conv.channels_in + c
            where = view.layout.offset([place.at["n"], channel, h, column])
            b.prefetch(view.buffer, where + line * size, level=1)

    def band_of_tiles(self, place: _Place) -> None:
        """The longest run is cut into bands; runs at its ends go with the first and last band."""
        sweeps, band = place.sweeps, place.at["band"]
        main = max(range(len(self.runs)), key=lambda i: self.runs[i].count)
        for number, run in enumerate(self.runs):
            with ExitStack() as stack:
                first: Dim = 0
                past: Dim = run.count
                if number == main:
                    first = band * sweeps.size
                    past = dim_min(first + sweeps.size, run.count)
                elif sweeps.bands > 1:
                    own = 0 if number < main else sweeps.bands - 1
                    stack.enter_context(self.b.when(IndexTest("eq", band, own)))
                tile = stack.enter_context(self.b.serial("tile", past, first))
                here = replace(place, sweep=tile - first)
                self.one_tile(here, run, run.start + tile * (run.rows or run.width))

    def one_tile(self, place: _Place, run: Run, start: Dim) -> None:
        """Accumulate one register tile over a panel's input channels; after the last panel
        store it through the epilogue. Sums wait in the output from one panel to the next."""
        at, blocks, sweeps = place.at, place.blocks, place.sweeps
        acc = self.draft.registers(blocks * run.width)
        filters = self.draft.repeat(at) * self.pack.part_size
        filters += self.pack.start([at["g"]], self.block(place), blocks)
        tile = _TileAt(place, acc, self.channel(place), filters, self.positions(run, start))
        self.b.zero(acc)
        first, past = place.chunk
        if sweeps.panels > 1:
            with self.b.when(IndexTest("gt", first, 0)):
                self.fetch(tile)
        own = (*self.rows, self.columns.space)
        with self.b.serial("cb", past, first) as cb, self.outer_taps(at) as taps:
            if run.interior:
                with ExitStack() as stack:
                    inner = [stack.enter_context(self.b.serial("s", s.taps)) for s in own]
                    self.inner(tile, cb, [*taps, *inner], tuple(range(run.width)))
            else:
                for before, start, stop, reach in run.stretches(own[-1].taps):
                    rows = [before] if self.rows else []
                    with self.b.serial("s", stop, start) as tap:
                        self.inner(tile, cb, [*taps, *rows, tap], reach)
        if sweeps.panels == 1:
            self.store(tile)
            return
        with self.b.when(IndexTest("eq", past, self.pack.c_blocks)):
            self.store(tile)
        with self.b.when(IndexTest("lt", past, self.pack.c_blocks)):
            self.put_aside(tile)

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

    def inner(self, tile: _TileAt, cb: Dim, taps: Sequence[Dim], reach: tuple[int, ...]) -> None:
        """acc[i, j] += filter[i] * x[j] over the channels of one block, for one tap."""
        b, conv, pack = self.b, self.conv, self.pack
        channels = dim_min(pack.c_block, conv.channels_in - cb * pack.c_block)
        tap: Dim = 0
        for index, axis in zip(taps, self.spaces, strict=True):
            tap = tap * axis.taps + axis.of_filter(index)
        with b.serial("c", channels) as c:
            step = (cb * pack.taps + tap) * pack.c_block + c
            base = tile.filters + step * tile.blocks * self.lanes
            weights = self.draft.packed[conv.w.tensor.name]
            if not self.filters_stay:
                self.prefetch_filters(tile, step)
            if len(self.columns.merged) > 1:
                self.prefetch_inputs(tile, cb, c)
            filters = self.tile.filters(
                b, tile.blocks, tile.width, lambda i: b.vector(weights, base + i * self.lanes)
            )
            for j in reach:
                value = self.input(tile, cb * pack.c_block + c, taps, tile.positions[j])
                for i in range(tile.blocks):
                    b.accumulate(tile.acc, i * tile.width + j, value, filters[i])

    def prefetch_filters(self, tile: _TileAt, step: Dim) -> None:
        """Ask for a part of the panel that comes next, for another one in each sweep over this
        panel: so that all of it has come from memory when its turn does, at an even pace. `step`
        counts the channels and taps of a tile."""
        pack, sweeps, wide = self.pack, tile.place.sweeps, tile.blocks * self.lanes
        steps = pack.taps * pack.c_block
        start = tile.place.chunk[0] * steps
        each = -(-wide // sweeps.size)
        next = pack.c_blocks if sweeps.abreast > 1 else sweeps.panel  # of another tile, or the same
        where = tile.filters + (start + next * steps) * wide
        where += (tile.place.sweep * sweeps.panel * steps + step - start) * each
        weights = self.draft.packed[self.conv.w.tensor.name]
        for first in range(0, each, LINE_BYTES // self.element):
            self.b.prefetch(weights, where + first)

    def prefetch_inputs(self, tile: _TileAt, cb: Dim, c: Dim) -> None:
        """Ask for the same positions in the next block of channels, one position at each step."""
        view = self.draft.view(self.conv.x.tensor.name)
        channel = tile.at["g"] * self.conv.channels_in + (cb + 1) * self.pack.c_block
        bound = self.columns.bind(tile.positions[0][-1])
        index = [tile.at["n"], channel, *(bound[axis.name] for axis in self.columns.merged)]
        self.b.prefetch(view.buffer, view.layout.offset(index) + c * self.lanes, level=1)

    def input(
        self, tile: _TileAt, channel: Dim, taps: Sequence[Dim], position: Sequence[Dim]
    ) -> Value:
        """One input element in all lanes."""
        view = self.draft.view(self.conv.x.tensor.name)
        index: list[Dim] = [tile.at["n"], tile.at["g"] * self.conv.channels_in + channel]
        outs = [*(tile.at[space.out.name] for space in self.outer), *position]
        if len(self.columns.merged) > 1:
            bound = self.columns.bind(outs[-1])
            index += [bound[axis.name] for axis in self.columns.merged]
        else:
            for axis, out, tap in zip(self.spaces, outs, taps, strict=True):
                index.append(out * axis.stride + tap * axis.dilation - axis.pad)
        return self.b.splat(view.buffer, view.layout.offset(index))

    def bound(self, tile: _TileAt, i: int, j: int, lane: Dim) -> dict[str, Dim]:
        """The output's axes at accumulator (i, j)."""
        conv, position = self.conv, tile.positions[j]
        at = {conv.n.name: tile.at["n"], conv.k.name: tile.channel + i * self.lanes + lane}
        at |= {space.out.name: tile.at[space.out.name] for space in self.outer}
        at |= {axis.name: tile.at[axis.name] for axis in self.draft.task.over}
        at |= {s.out.name: p for s, p in zip(self.rows, position, strict=False)}
        return at | self.columns.bind(position[-1])

    def store(self, tile: _TileAt) -> None:
        slots = [(i, j) for i in range(tile.blocks) for j in range(tile.width)]
        found = [self.sum(tile, i, j) for i, j in slots]
        made = self.draft.store_all(found, {}, torn=self.torn)
        if self.sums is not None:
            self.sums.near.clear()
            for (i, _), own, emitter in zip(slots, found, made, strict=True):
                self.sums.add(i, emitter, own.at)
            self.sums.end_tile(tile.blocks)

    def sum(self, tile: _TileAt, i: int, j: int) -> Sum:
        """Accumulator (i, j), and where it belongs."""
        at = self.bound(tile, i, j, lane_symbol(self.lanes))
        valid = tile.place.valid if i == tile.blocks - 1 else None
        first = tile.channel + i * self.lanes
        return Sum(at, first, Get(tile.acc, i * tile.width + j), valid)

    def waiting(self, tile: _TileAt, i: int, j: int) -> tuple[Buffer, Dim]:
        """Where a sum lies from one panel to the next: in an output."""
        output = self.draft.waiting
        assert output is not None
        where = output.offset(self.bound(tile, i, j, 0), self.draft.task.axes)
        return self.draft.views[output.var.name].buffer, where

    def put_aside(self, tile: _TileAt) -> None:
        """Sums so far into the output, where `fetch` finds them for the next panel."""
        for i in range(tile.blocks):
            for j in range(tile.width):
                value = Get(tile.acc, i * tile.width + j)
                self.b.store(*self.waiting(tile, i, j), value)

    def fetch(self, tile: _TileAt) -> None:
        """The sums that `put_aside` left."""
        for i in range(tile.blocks):
            for j in range(tile.width):
                value = self.b.load(*self.waiting(tile, i, j))
                self.b.set(tile.acc, i * tile.width + j, value)


def direct(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "direct",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
