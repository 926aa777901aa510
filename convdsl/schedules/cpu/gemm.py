"""Matrix product with a weight, plain layouts: y[.., k] = epilogue(sum over c of x[.., c] w[k, c]).

The register tile is vectors of output features times rows of x. At batch 1 a tile is one row
and several vectors, so that as many streams of weights are read side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Read, Reduce
from convdsl.kernel.nodes import Get
from convdsl.kernel.target import Target
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.contraction import find_product
from convdsl.schedules.cpu.generic import operand_layout
from convdsl.schedules.cpu.tiles import FilterPack, Tile, choose_tile, split, tile_cycles
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, floor_div


@dataclass(frozen=True, slots=True)
class Product:
    """The axes of the product; `rows` are all output axes but the last."""

    reduce: Reduce
    x: Read
    w: Read
    rows: tuple[Axis, ...]
    k: Axis
    c: Axis

    @property
    def row_count(self) -> int:
        total = 1
        for axis in self.rows:
            total *= extent_of(axis)
        return total


def applies(task: Task) -> Product | None:
    found = find_product(task)
    if found is None or task.layout.axis is not None or len(task.axes) < 2:
        return None
    reduce, x, w = found
    *rows, k = task.axes
    if len(reduce.axes) != 1 or x.outside is not None:
        return None
    c = reduce.axes[0]
    operand = task.operand(x.tensor.name).layout
    if operand is None or operand.axis is not None:
        return None
    if x.index != (*(axis.i for axis in rows), c.i) or w.index != (k.i, c.i):
        return None
    return Product(reduce, x, w, tuple(rows), k, c)


def tile_for(product: Product, target: Target, lanes: int) -> Tile:
    blocks = -(-extent_of(product.k) // lanes)
    tile = choose_tile(target, blocks, product.row_count)
    if product.row_count == 1:
        return Tile(min(blocks, 4), 1)
    return tile


def cost(task: Task, target: Target) -> float | None:
    product = applies(task)
    if product is None:
        return None
    lanes = target.lanes(product.reduce.dtype)
    tile = tile_for(product, target, lanes)
    blocks = -(-extent_of(product.k) // lanes)
    tiles = -(-blocks // tile.blocks) * -(-product.row_count // tile.columns)
    return extent_of(product.c) * tiles * tile_cycles(tile.blocks, tile.columns)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    product = applies(task)
    assert product is not None
    emitter = _Gemm(task, product, name, target)
    for blocks, count in split(emitter.pack.blocks, emitter.tile.blocks):
        first = 0 if blocks == emitter.tile.blocks else emitter.pack.blocks - blocks
        emitter.blocks(first, count, blocks)
    return Scheduled.one(emitter.b.kernel(), emitter.arguments)


class _Gemm:
    """Emits one matrix product."""

    def __init__(self, task: Task, product: Product, name: str, target: Target) -> None:
        self.task = task
        self.product = product
        dtype = product.reduce.dtype
        self.lanes = target.lanes(dtype)
        self.tile = tile_for(product, target, self.lanes)
        features, channels = extent_of(product.k), extent_of(product.c)
        self.pack = FilterPack((features, channels), self.lanes, self.tile.blocks, channels)
        self.b = Builder(name, dtype, self.lanes)
        self.views: dict[str, View] = {}
        self.arguments: list[tuple[str, Pack | None]] = []
        for operand in task.operands:
            var = operand.var
            layout = operand_layout(operand, task.reads, product.k, self.lanes)
            pack = self.pack if var.name == product.w.tensor.name else layout
            self.views[var.name] = View(self.b.buffer(var.name, var.type.dtype, pack.size), layout)
            self.arguments.append((var.name, pack if operand.static else None))
        self.views |= declare_outputs(self.b, task.outputs)
        self.arguments += [(output.var.name, None) for output in task.outputs]

    def blocks(self, first: int, count: int, blocks: int) -> None:
        """`count` tiles of `blocks` vectors from vector `first` on; a ragged end on its own."""
        ragged = extent_of(self.product.k) % self.lanes
        ends = first + count * blocks == self.pack.blocks
        if ragged and ends:
            if count > 1:
                self.region(first, count - 1, blocks, None)
            self.region(first + (count - 1) * blocks, 1, blocks, ragged)
        else:
            self.region(first, count, blocks, None)

    def region(self, first: int, count: int, blocks: int, valid: int | None) -> None:
        for rows, runs in split(self.product.row_count, self.tile.columns):
            start = 0 if rows == self.tile.columns else self.product.row_count - rows
            with self.b.parallel(("kt", "row"), (count, runs)) as (kt, row):
                self.one_tile(first + kt * blocks, blocks, start + row * rows, rows, valid)

    def one_tile(self, block: Dim, blocks: int, row: Dim, rows: int, valid: int | None) -> None:
        b, product, pack = self.b, self.product, self.pack
        acc = b.registers(blocks * rows)
        b.zero(acc)
        x = self.views[product.x.tensor.name]
        w = self.views[product.w.tensor.name].buffer
        channels = extent_of(product.c)
        with b.serial("c", channels) as c:
            base = block * pack.block_size + c * blocks * self.lanes
            filters = [b.load(w, base + i * self.lanes) for i in range(blocks)]
            for j in range(rows):
                value = b.splat(x.buffer, (row + j) * channels + c)
                for i in range(blocks):
                    b.accumulate(acc, i * rows + j, value, filters[i])
        for i in range(blocks):
            last = valid if i == blocks - 1 else None
            for j in range(rows):
                self.store(block + i, row + j, Get(acc, i * rows + j), last)

    def store(self, block: Dim, row: Dim, value: Get, valid: int | None) -> None:
        product = self.product
        at: dict[str, Dim] = {product.k.name: block * self.lanes + lane_symbol(self.lanes)}
        for axis in reversed(product.rows[1:]):
            at[axis.name] = row - floor_div(row, extent_of(axis)) * extent_of(axis)
            row = floor_div(row, extent_of(axis))
        at[product.rows[0].name] = row
        emitter = Emitter(self.b, self.views, self.lanes, valid, ((product.reduce, value),))
        emit_chain(emitter, self.task, at, {**at, product.k.name: block * self.lanes}, valid)


def gemm(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "gemm",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
