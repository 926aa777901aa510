"""Products of matrices: y[outer.., rows.., v] = epilogue(sum over k.. of x[..] w[..]).

The register tile is vectors of the output's axis v times rows of x. `w` is read in panels of as
many vectors: packed when weights are bound, or in every call, or in place where it lies in
vectors already and packing would not pay. At one row a tile is several vectors, so that as
many streams of `w` are read side by side. Where `w` is large its panels are cut along k too: each
is met by all rows of a band while it stays in the second-level cache (`sweeps`), and the next one
is asked for meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import prod

from convdsl.kernel.nodes import Buffer, Get, IndexTest, Load, Registers, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.epilogue import Draft, Sum, open_draft
from convdsl.schedules.cpu.gemm_ways import ABREAST, Way, best_way, count_of, rows_layout
from convdsl.schedules.cpu.panels import OwnPanel, Wanted, bands_of, is_far
from convdsl.schedules.cpu.strips import ask_for_lines, is_written_afar
from convdsl.schedules.cpu.sweeps import (
    LINE_BYTES,
    PAGE_BYTES,
    Extent,
    Limits,
    Sweeps,
    choose_sweeps,
)
from convdsl.schedules.cpu.tiles import columns_for, evenly, split
from convdsl.schedules.emission import View, extent_of, lane_symbol
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_max, dim_min, floor_div, substitute
from convdsl.tensor.records import record

_UNIT = 16  # positions of k: panels of w hold whole units
_FAR_UNITS = 2  # of rows that are read in place, far from each other, before the next tile
_LONG = 2048  # bytes of a row of an output that are written in order
_AGAIN = 2  # second-level caches: w may be read from beyond for each few rows that are written
_PANEL = Fraction(1, 8)  # of the second-level cache: for the piece of w that is swept, beside the
# one that is asked for ahead and the rows


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all tiles, and of what is packed in every call."""
    chosen = best_way(task, target)
    return None if chosen is None else chosen.cycles


def _dividing(count: int, most: int) -> int:
    """The most of at most so many that divide a count, if that is half of it or more."""
    most = max(1, min(count, most))
    fitting = (n for n in range(most, most // 2, -1) if count % n == 0)
    return next(fitting, most)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: whole tiles, then what is left of v and of the rows."""
    chosen = best_way(task, target)
    assert chosen is not None
    product = chosen.product
    draft = open_draft(task, name, product.reduce, chosen.lanes, product.v, chosen.packs)
    panel = int(target.caches.l2_bytes * _PANEL)
    emitter = _Gemm(task, chosen, draft, target, replace(Limits.of(target), panel=panel))
    for blocks, count in split(chosen.blocks, chosen.tile.blocks):
        first = 0 if blocks == chosen.tile.blocks else chosen.blocks - blocks
        emitter.blocks(first, count, blocks)
    return draft.finish(private=[] if emitter.panel is None else [emitter.panel.buffer])


@record
class _Place:
    """Where in the loops around the register tiles the emitter stands."""

    at: Mapping[str, Dim]
    block: Dim  # the first vector of the tile along v
    tile: Dim  # its number among those abreast
    blocks: int
    columns: int  # rows of x of a tile, at most
    valid: int | None  # lanes of the last vector that exist
    chunk: tuple[Dim, Dim]  # of k
    sweeps: Sweeps


class _Gemm:
    """Emits one matrix product."""

    def __init__(
        self, task: Task, chosen: Way, draft: Draft, target: Target, limits: Limits
    ) -> None:
        self.task = task
        self.target = target
        self.way = chosen
        self.draft = draft
        self.b = draft.b
        self.lanes = chosen.lanes
        name = chosen.product.x.tensor.name
        buffer = draft.packed[name] if name in chosen.packs else draft.views[name].buffer
        self.x = View(buffer, rows_layout(task, chosen.product))
        self.depth = count_of(chosen.product.k)
        self.element = chosen.product.reduce.dtype.bytes
        self.panel: OwnPanel | None = None
        if chosen.piece is not None:
            memory = draft.b.private("panel", chosen.piece.elements(self.lanes))
            view = draft.views[chosen.product.w.tensor.name]
            self.panel = OwnPanel(draft.b, memory, view, chosen.product, chosen.piece)
        given = not task.operand(chosen.product.w.tensor.name).static
        one_way = draft.waiting is None or len(chosen.product.k) != 1 or chosen.row_count == 1
        one_way = one_way or (given and chosen.row_count >= self.depth)  # sums are more than w
        self.limits = replace(limits, stay=self.matrix_bytes) if one_way else limits
        self.afar = is_written_afar(task, target)

    @property
    def matrix_bytes(self) -> int:
        """Of w, for one position of the outer axes."""
        return self.way.blocks * self.lanes * self.depth * self.element

    def blocks(self, first: int, count: int, blocks: int) -> None:
        """`count` tiles of `blocks` vectors from vector `first` on; a ragged end on its own."""
        ragged = extent_of(self.way.product.v) % self.lanes
        plain = self.task.layout.axis is None
        ends = first + count * blocks == self.way.blocks
        if ragged and plain and ends:
            if count > 1:
                self.region(first, count - 1, blocks, None)
            self.region(first + (count - 1) * blocks, 1, blocks, ragged)
        else:
            self.region(first, count, blocks, None)

    def columns(self, blocks: int) -> int:
        """Rows of x of a tile of so many blocks: few blocks that are left over take more."""
        tile, rows = self.way.tile, self.way.row_count
        if blocks == tile.blocks or rows == 1:
            return tile.columns
        each = self.target.registers(self.lanes, self.way.product.reduce.dtype)
        return columns_for(self.target, blocks, rows, each, self.depth * each)

    def sweeps(self, count: int, blocks: int) -> Sweeps:
        """How `count` tiles of vectors meet w and the rows."""
        rows, wide = self.way.row_count, blocks * self.lanes * self.element
        pieces = -(-rows // self.columns(blocks))
        outer = prod(extent_of(axis) for axis in self.way.outer)
        units = -(-self.depth // _UNIT)
        if self.panel is not None:
            piece = self.panel.piece
            depth, abreast = -(-piece.depth // _UNIT), min(count, piece.abreast)
            size = -(-pieces // bands_of(outer * -(-count // abreast), rows))
            panels = -(-self.depth // piece.depth)
            return Sweeps(depth, panels, size, -(-pieces // size), abreast)
        if self.reads_far and pieces <= ABREAST < units:
            abreast = _dividing(count, max(1, PAGE_BYTES // wide))
            return Sweeps(_FAR_UNITS, -(-units // _FAR_UNITS), pieces, 1, abreast)
        extent = Extent(
            filters=self.matrix_bytes,
            slab=wide * _UNIT,
            blocks=units,
            others=outer * count,
            pieces=pieces,
            inputs=rows * self.depth * self.element,
            sums=rows * wide,
        )
        return self.along_rows(choose_sweeps(extent, self.limits), count, blocks)

    @property
    def reads_far(self) -> bool:
        """Whether rows of w are read in place where each lies in a page of its own."""
        in_place = self.way.pack is None and self.panel is None and self.draft.waiting is not None
        return in_place and is_far(self.task, self.way.product)

    def along_rows(self, chosen: Sweeps, count: int, blocks: int) -> Sweeps:
        """As chosen; but where rows of an output are long, or its lines do not stay in the cache,
        few rows are swept by all tiles of vectors before the next, so that lines are written whole
        and in order: down the columns each would be another page."""
        row, wide = (n * self.lanes * self.element for n in (self.way.blocks, blocks))
        plain = self.task.layout.axis is None
        if not plain or chosen.panels > 1 or not (self.afar or row >= _LONG):
            return chosen
        pieces = -(-self.way.row_count // self.columns(blocks))
        if self.matrix_bytes > _AGAIN * self.target.caches.l2_bytes:
            abreast = _dividing(count, self.limits.panel // (self.depth * wide))
            return Sweeps(chosen.panel, 1, 1, pieces, abreast)
        strip = count * wide * self.columns(blocks)
        size = max(1, min(chosen.size, self.limits.band // strip))
        return Sweeps(chosen.panel, 1, size, -(-pieces // size), count)

    def region(self, first: int, count: int, blocks: int, valid: int | None) -> None:
        """All rows of some tiles of v, in parallel with all that lies outside."""
        chosen, sweeps = self.way, self.sweeps(count, blocks)
        names = [axis.name for axis in chosen.outer]
        extents = [extent_of(axis) for axis in chosen.outer]
        inner = [("kt", -(-count // sweeps.abreast)), ("band", sweeps.bands)]
        turned = self.matrix_bytes <= self.limits.stay and sweeps.abreast == 1
        order, sizes = zip(*(reversed(inner) if turned else inner), strict=True)
        with self.b.parallel((*names, *order), (*extents, *sizes)) as (*outer, one, other):
            kt, band = (other, one) if turned else (one, other)
            at = {axis.name: 0 for axis in self.task.axes}
            at |= dict(zip(names, outer, strict=True))
            start = kt * sweeps.abreast
            tiles: Dim = sweeps.abreast
            if count % sweeps.abreast:
                tiles = dim_min(tiles, count - start)
            wanted = Wanted(at, first + start * blocks, tiles, blocks, valid)
            with self.b.serial("panel", sweeps.panels) as panel:
                self.panel_of(wanted, band, panel, sweeps)

    def panel_of(self, wanted: Wanted, band: Dim, panel: Dim, sweeps: Sweeps) -> None:
        """Some tiles of v, abreast, at the positions of k of a panel."""
        blocks, step = wanted.blocks, sweeps.panel * _UNIT
        chunk = (0, self.depth)
        if sweeps.panels > 1:
            chunk = (panel * step, dim_min((panel + 1) * step, self.depth))
        if self.panel is not None:
            self.panel.fill(wanted, panel)
        with self.b.serial("tile", wanted.tiles) as tile:
            block, columns = wanted.first + tile * blocks, self.columns(blocks)
            place = _Place(wanted.at, block, tile, blocks, columns, wanted.valid, chunk, sweeps)
            self.band(place, band)

    def band(self, place: _Place, band: Dim) -> None:
        """Tiles of rows: the larger ones, then those of a row less."""
        size, rows = place.sweeps.size, self.way.row_count
        first = band * size
        past = dim_min(first + size, -(-rows // place.columns))
        tiles = start = 0
        for width, count in evenly(rows, place.columns):
            stop = dim_min(past, tiles + count)
            with self.b.serial("row", stop, dim_max(first, tiles)) as tile:
                self.one_tile(place, start + (tile - tiles) * width, width, tile - first)
            tiles, start = tiles + count, start + width * count

    def one_tile(self, place: _Place, row: Dim, rows: int, sweep: Dim) -> None:
        """acc[i, j] += w[i] * x[j] over a chunk of k; after the last the epilogue. Sums wait in the
        output from one chunk to the next."""
        b, product, blocks = self.b, self.way.product, place.blocks
        acc = b.registers(blocks * rows)
        b.zero(acc)
        start, stop = place.chunk
        several = place.sweeps.panels > 1
        if several:
            with b.when(IndexTest("gt", start, 0)):
                self.fetch(place, acc, row, rows)
        elif self.afar:
            self.ask_for_outputs(place, row, rows)
        with ExitStack() as stack:
            here = dict(place.at)
            if len(product.k) == 1:
                here[product.k[0].name] = stack.enter_context(b.serial("c", stop, start))
            else:
                for axis in product.k:
                    here[axis.name] = stack.enter_context(b.serial(axis.name, extent_of(axis)))
            self.ask_ahead(here, place, sweep)
            panel = self.way.tile.filters(b, blocks, rows, partial(self.vector, here, place))
            for j in range(rows):
                value = b.splat(self.x.buffer, self.element_of(here, row + j))
                for i in range(blocks):
                    b.accumulate(acc, i * rows + j, value, panel[i])
        if not several:
            self.store(place, acc, row, rows)
            return
        with b.when(IndexTest("eq", stop, self.depth)):
            self.store(place, acc, row, rows)
        with b.when(IndexTest("lt", stop, self.depth)):
            self.put_aside(place, acc, row, rows)

    def ask_ahead(self, at: Mapping[str, Dim], place: _Place, sweep: Dim) -> None:
        """Ask for a part of the panel that comes next, for another one in each sweep over this one:
        so that all of it has come from memory when its turn does, at an even pace."""
        chosen, sweeps, blocks = self.way, place.sweeps, place.blocks
        pieces = min(sweeps.size, -(-chosen.row_count // place.columns))
        if chosen.pack is None or self.matrix_bytes <= self.limits.stay:
            return
        if pieces == 1:
            self.ask_a_page_ahead(at, place)
            return
        step = sweeps.panel * _UNIT if sweeps.panels > 1 else self.depth
        start = place.chunk[0]
        origin = {**place.at, **{axis.name: 0 for axis in chosen.product.k}}
        following = self.where(origin, place.block, 0, blocks)
        following += (start + step) * blocks * self.lanes
        each = -(-blocks * self.lanes // pieces)
        buffer = self.draft.packed[chosen.product.w.tensor.name]
        where = following + sweep * step * each + (self.place_in_depth(at) - start) * each
        for first in range(0, each, LINE_BYTES // self.element):
            self.b.prefetch(buffer, where + first)

    def ask_a_page_ahead(self, at: Mapping[str, Dim], place: _Place) -> None:
        """Of what is swept once, in order: processors foresee no further than the page's end."""
        where = self.where(at, place.block, 0, place.blocks) + PAGE_BYTES // self.element
        buffer = self.draft.packed[self.way.product.w.tensor.name]
        for first in range(0, place.blocks * self.lanes, LINE_BYTES // self.element):
            self.b.prefetch(buffer, where + first)

    def ask_for_outputs(self, place: _Place, row: Dim, rows: int) -> None:
        """Ask for the lines that a tile will write."""
        missing = 0 if place.valid is None else self.lanes - place.valid
        for output in self.task.outputs:
            view = self.draft.views[output.var.name]
            for j in range(rows):
                at = self.bound(place, 0, row + j, 0)
                wide = place.blocks * self.lanes - missing
                ask_for_lines(self.b, view, output, self.task, at, wide)

    def place_in_depth(self, at: Mapping[str, Dim]) -> Dim:
        """A position of k as one number."""
        depth: Dim = 0
        for axis in self.way.product.k:
            depth = depth * extent_of(axis) + at[axis.name]
        return depth

    def where(self, at: Mapping[str, Dim], block: Dim, i: int, blocks: int) -> Dim:
        """Offset of vector i of the tile at a position of k, where w is packed."""
        chosen, product = self.way, self.way.product
        assert chosen.pack is not None
        depth = self.place_in_depth(at)
        outer = [at[axis.name] for axis in product.w_outer]
        start = chosen.pack.start(outer, block, blocks)
        return start + (depth * blocks + i) * self.lanes

    def vector(self, at: Mapping[str, Dim], place: _Place, i: int) -> Load:
        """Vector i of the tile at a position of k."""
        block, blocks = place.block, place.blocks
        product = self.way.product
        name = product.w.tensor.name
        if self.panel is not None:
            return self.panel.load(at, place.tile, place.chunk[0], i, blocks)
        if self.way.pack is not None:
            return self.b.vector(self.draft.packed[name], self.where(at, block, i, blocks))
        view = self.draft.views[name]
        bound = {**at, product.v.name: (block + i) * self.lanes}
        index = [substitute(component, bound) for component in product.w.index]
        type = ValueType(view.buffer.dtype, self.lanes)
        valid = place.valid if i == blocks - 1 else None
        return Load(view.buffer, view.layout.offset(index), type, valid=valid)

    def element_of(self, at: Mapping[str, Dim], row: Dim) -> Dim:
        """Offset of the element of x in a row, at a position of k."""
        index = self.way.product.x.index
        bound = dict(at)
        if self.way.rows:
            bound[self.way.rows[-1].name] = row
        return self.x.layout.offset([substitute(component, bound) for component in index])

    def bound(self, place: _Place, i: int, row: Dim, lane: Dim) -> dict[str, Dim]:
        """The output's axes at vector i of the tile and a row."""
        rows = self.way.rows
        at = {**place.at, self.way.product.v.name: (place.block + i) * self.lanes + lane}
        for axis in reversed(rows[1:]):
            at[axis.name] = row - floor_div(row, extent_of(axis)) * extent_of(axis)
            row = floor_div(row, extent_of(axis))
        return at | ({rows[0].name: row} if rows else {})

    def slots(self, place: _Place, rows: int) -> Iterator[tuple[int, int, int, int | None]]:
        """(slot of the accumulators, vector, row, lanes that exist) of a tile."""
        for i in range(place.blocks):
            last = place.valid if i == place.blocks - 1 else None
            for j in range(rows):
                yield i * rows + j, i, j, last

    def store(self, place: _Place, acc: Registers, row: Dim, rows: int) -> None:
        sums: list[Sum] = []
        for slot, i, j, last in self.slots(place, rows):
            at = self.bound(place, i, row + j, lane_symbol(self.lanes))
            sums.append(Sum(at, (place.block + i) * self.lanes, Get(acc, slot), last))
        self.draft.store_all(sums)

    def waiting(self, place: _Place, i: int, row: Dim) -> tuple[Buffer, Dim]:
        """Where a sum lies from one chunk to the next: in an output."""
        output = self.draft.waiting
        assert output is not None
        where = output.offset(self.bound(place, i, row, 0), self.task.axes)
        return self.draft.views[output.var.name].buffer, where

    def put_aside(self, place: _Place, acc: Registers, row: Dim, rows: int) -> None:
        for slot, i, j, last in self.slots(place, rows):
            self.b.store(*self.waiting(place, i, row + j), Get(acc, slot), last)

    def fetch(self, place: _Place, acc: Registers, row: Dim, rows: int) -> None:
        """The sums that `put_aside` left."""
        for slot, i, j, last in self.slots(place, rows):
            buffer, where = self.waiting(place, i, row + j)
            self.b.set(acc, slot, Load(buffer, where, acc.type, valid=last))


def gemm(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "gemm",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
