"""Products of matrices: y[outer.., rows.., v] = epilogue(sum over k.. of x[..] w[..]).

The register tile is vectors of the output's axis v times rows of x. `w` is read in panels of as
many vectors: packed when weights are bound, or in every call, or in place where it lies in
vectors already and packing would not pay. At one row a tile is several vectors, so that as
many streams of `w` are read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod

from convdsl.kernel.expr import Axis
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Get, Var
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import (
    Product,
    coefficient,
    depends,
    match_convolution,
    match_product,
    matrix_order,
)
from convdsl.schedules.cpu.epilogue import Draft, open_draft
from convdsl.schedules.cpu.filters import FilterPack, packing_cycles
from convdsl.schedules.cpu.tiles import Tile, choose_tile, split, tile_cycles
from convdsl.schedules.emission import View, extent_of, lane_symbol
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, floor_div, substitute

_SCATTERED = (
    1.2  # cycles of a tile that reads rows of w far from each other, to those of packed ones
)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a product is run. `rows` are the axes that tiles run along, as one; `pack` is None where
    w is read in place."""

    product: Product
    tile: Tile
    lanes: int
    rows: tuple[Axis, ...]
    pack: FilterPack | None
    packs: dict[str, Pack]
    cycles: float

    @property
    def outer(self) -> tuple[Axis, ...]:
        """Axes with a loop of their own."""
        product = self.product
        own = (*product.outer, *(axis for axis in product.rows if axis not in self.rows))
        return tuple(axis for axis in own if extent_of(axis) > 1)

    @property
    def row_count(self) -> int:
        return prod(extent_of(axis) for axis in self.rows)

    @property
    def blocks(self) -> int:
        """Vectors of the output along v."""
        return -(-extent_of(self.product.v) // self.lanes)


def best_way(task: Task, target: Target) -> _Way | None:
    """The cheaper way of reading w; None where the task is no product, or more than one."""
    axes, output = task.axes, task.layout
    if len(task.reducing) > 1:
        return None
    long = [axis for axis in axes if extent_of(axis) > 1]
    if output.axis is None:
        product = match_product(task.root, long[-1]) if long else None
    elif match_convolution(task.root) is None:
        product = match_product(task.root, axes[output.axis])
    else:
        return None  # of one tap: better run as what it is, with filters in panels
    if product is None:
        return None
    lanes = target.lanes(product.reduce.dtype) if output.axis is None else output.block
    if lanes < 2:
        return None
    ways = (_packed(task, target, product, lanes), _in_place(task, target, product, lanes))
    return min((way for way in ways if way is not None), key=lambda p: p.cycles, default=None)


def _packed(task: Task, target: Target, product: Product, lanes: int) -> _Way | None:
    order = matrix_order(product)
    if order is None:
        return None
    rows = tiled_rows(task, product)
    tile = _tile(target, product, rows, lanes)
    outer = tuple(extent_of(axis) for axis in product.w_outer)
    depth = tuple(extent_of(axis) for axis in product.k) or (1,)
    shape = (extent_of(product.v), *depth)
    panel = depth[0] if len(depth) == 1 else 1
    in_order = () if list(order) == sorted(order) else order
    pack = FilterPack(shape, lanes, tile.blocks, panel, outer, in_order)
    packs: dict[str, Pack] = {product.w.tensor.name: pack, **_plain_rows(task, product)}
    cycles = _cycles(target, product, rows, tile, lanes) + packing_cycles(task, packs)
    return _Way(product, tile, lanes, rows, pack, packs, cycles)


def _in_place(task: Task, target: Target, product: Product, lanes: int) -> _Way | None:
    """Vectors of w as they lie: consecutive along v, and the last one whole."""
    layout, w, v = task.operand(product.w.tensor.name).layout, product.w, product.v
    if layout is None:
        return None
    if layout.axis is None:
        whole = extent_of(v) % lanes == 0 and coefficient(layout.offset(w.index), v) == 1
    else:
        others = (index for axis, index in enumerate(w.index) if axis != layout.axis)
        whole = w.index[layout.axis] == v.i and layout.block == lanes
        whole = whole and not any(depends(index, v) for index in others)
    if not whole:
        return None
    rows = tiled_rows(task, product)
    tile = _tile(target, product, rows, lanes)
    packs = _plain_rows(task, product)
    cycles = _cycles(target, product, rows, tile, lanes) * _SCATTERED + packing_cycles(task, packs)
    return _Way(product, tile, lanes, rows, None, packs, cycles)


def rows_layout(task: Task, product: Product) -> Layout:
    """How x is read: as it lies, but plain where it is blocked along one of the rows."""
    x = product.x
    layout = task.operand(x.tensor.name).layout
    plain = Layout(x.tensor.type.sizes)
    if layout is None:
        return plain
    along_rows = layout.axis is not None and any(
        depends(x.index[layout.axis], axis) for axis in product.rows
    )
    return plain if along_rows else layout


def _plain_rows(task: Task, product: Product) -> dict[str, Pack]:
    name, layout = product.x.tensor.name, rows_layout(task, product)
    given = task.operand(name).layout
    return {} if given is None or given == layout else {name: layout}


def tiled_rows(task: Task, product: Product) -> tuple[Axis, ...]:
    """The axes of rows that x moves along as along one: of several such, the longest."""
    offset = rows_layout(task, product).offset(product.x.index)
    runs: list[tuple[Axis, ...]] = [()]
    for axis in product.rows:
        step, last = coefficient(offset, axis), runs[-1][-1:]
        joined = [coefficient(offset, before) for before in last]
        follows = step is not None and joined == [extent_of(axis) * step]
        runs.append((*runs[-1], axis) if follows else (axis,))
    return max(runs, key=_count)


def _count(axes: tuple[Axis, ...]) -> int:
    return prod(extent_of(axis) for axis in axes)


def _tile(target: Target, product: Product, rows: tuple[Axis, ...], lanes: int) -> Tile:
    blocks = -(-extent_of(product.v) // lanes)
    if _count(rows) == 1:
        return Tile(min(blocks, 4), 1)
    return choose_tile(
        target, blocks, _count(rows), each=target.registers(lanes, product.reduce.dtype)
    )


def _cycles(
    target: Target, product: Product, rows: tuple[Axis, ...], tile: Tile, lanes: int
) -> float:
    outer = _count((*product.outer, *product.rows)) // _count(rows)
    blocks = -(-extent_of(product.v) // lanes)
    tiles = -(-blocks // tile.blocks) * -(-_count(rows) // tile.columns)
    tiles *= target.registers(lanes, product.reduce.dtype)
    return outer * _count(product.k) * tiles * tile_cycles(tile.blocks, tile.columns)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all tiles, and of what is packed in every call."""
    chosen = best_way(task, target)
    return None if chosen is None else chosen.cycles


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """One kernel: whole tiles, then what is left of v and of the rows."""
    chosen = best_way(task, target)
    assert chosen is not None
    product = chosen.product
    draft = open_draft(task, name, product.reduce, chosen.lanes, product.v, chosen.packs)
    emitter = _Gemm(task, chosen, draft)
    for blocks, count in split(chosen.blocks, chosen.tile.blocks):
        first = 0 if blocks == chosen.tile.blocks else chosen.blocks - blocks
        emitter.blocks(first, count, blocks)
    return draft.finish()


class _Gemm:
    """Emits one matrix product."""

    def __init__(self, task: Task, chosen: _Way, draft: Draft) -> None:
        self.task = task
        self.way = chosen
        self.draft = draft
        self.b = draft.b
        self.lanes = chosen.lanes
        name = chosen.product.x.tensor.name
        buffer = draft.packed[name] if name in chosen.packs else draft.views[name].buffer
        self.x = View(buffer, rows_layout(task, chosen.product))

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

    def region(self, first: int, count: int, blocks: int, valid: int | None) -> None:
        """All rows of some tiles of v, in parallel with all that lies outside."""
        chosen = self.way
        names = [axis.name for axis in chosen.outer]
        extents = [extent_of(axis) for axis in chosen.outer]
        for rows, runs in split(chosen.row_count, chosen.tile.columns):
            start = 0 if rows == chosen.tile.columns else chosen.row_count - rows
            order = (*names, "kt", "row")
            with self.b.parallel(order, (*extents, count, runs)) as (*outer, kt, row):
                at = {axis.name: 0 for axis in self.task.axes}
                at |= dict(zip(names, outer, strict=True))
                self.one_tile(at, first + kt * blocks, blocks, start + row * rows, rows, valid)

    def one_tile(
        self,
        at: Mapping[str, Dim],
        block: Dim,
        blocks: int,
        row: Dim,
        rows: int,
        valid: int | None,
    ) -> None:
        """acc[i, j] += w[i] * x[j] over all of k, then the epilogue."""
        b, product = self.b, self.way.product
        acc = b.registers(blocks * rows)
        b.zero(acc)
        with ExitStack() as stack:
            here = dict(at)
            for axis in product.k:
                name = "c" if len(product.k) == 1 else axis.name
                here[axis.name] = stack.enter_context(b.serial(name, extent_of(axis)))
            panel = [self.vector(here, block, i, blocks) for i in range(blocks)]
            for j in range(rows):
                value = b.splat(self.x.buffer, self.element(here, row + j))
                for i in range(blocks):
                    b.accumulate(acc, i * rows + j, value, panel[i])
        for i in range(blocks):
            last = valid if i == blocks - 1 else None
            for j in range(rows):
                self.store(at, block + i, row + j, Get(acc, i * rows + j), last)

    def vector(self, at: Mapping[str, Dim], block: Dim, i: int, blocks: int) -> Var:
        """Vector i of the tile at a position of k."""
        chosen, product = self.way, self.way.product
        name = product.w.tensor.name
        if chosen.pack is not None:
            depth: Dim = 0
            for axis in product.k:
                depth = depth * extent_of(axis) + at[axis.name]
            outer = [at[axis.name] for axis in product.w_outer]
            start = chosen.pack.start(outer, block, blocks)
            where = start + (depth * blocks + i) * self.lanes
            return self.b.load(self.draft.packed[name], where)
        view = self.draft.views[name]
        bound = {**at, product.v.name: (block + i) * self.lanes}
        index = [substitute(component, bound) for component in product.w.index]
        return self.b.load(view.buffer, view.layout.offset(index))

    def element(self, at: Mapping[str, Dim], row: Dim) -> Dim:
        """Offset of the element of x in a row, at a position of k."""
        index = self.way.product.x.index
        bound = dict(at)
        if self.way.rows:
            bound[self.way.rows[-1].name] = row
        return self.x.layout.offset([substitute(component, bound) for component in index])

    def store(
        self, at: Mapping[str, Dim], block: Dim, row: Dim, value: Get, valid: int | None
    ) -> None:
        v, rows = self.way.product.v, self.way.rows
        bound = {**at, v.name: block * self.lanes + lane_symbol(self.lanes)}
        for axis in reversed(rows[1:]):
            bound[axis.name] = row - floor_div(row, extent_of(axis)) * extent_of(axis)
            row = floor_div(row, extent_of(axis))
        if rows:
            bound[rows[0].name] = row
        first = block * self.lanes
        self.draft.store(bound, first, value, valid)


def gemm(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "gemm",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
