"""Ways to run a product of matrices: how w is read, which axis of the rows tiles run along, and
what that takes.

Panels of w are packed, when weights are bound or in every call; or w is read in place where it lies
in vectors already; or panels of it are brought where they are used (`panels`).
"""

from __future__ import annotations

from math import prod

from convdsl.kernel.expr import Axis
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import (
    Product,
    coefficient,
    depends,
    match_convolution,
    match_product,
    matrix_order,
)
from convdsl.schedules.cpu.epilogue import waiting_in
from convdsl.schedules.cpu.filters import FilterPack, packing_cycles
from convdsl.schedules.cpu.panels import (
    COPYING,
    TURNING,
    Piece,
    bands_of,
    choose_piece,
    is_along_sum,
    is_far,
)
from convdsl.schedules.cpu.planar_plan import plan
from convdsl.schedules.cpu.strips import strip_cycles
from convdsl.schedules.cpu.tiles import Tile, choose_tile, evenly, swept_cycles
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Pack, Task
from convdsl.tensor.records import record

_SCATTERED = (
    1.03  # cycles of a tile that reads rows of w far from each other, to those of packed ones
)
ABREAST = 2  # tiles of rows that meet rows of w in place, however far these are from each other
_FAR = 2.0  # the same where many tiles meet rows that are far from each other


@record
class Way:
    """How a product is run. `rows` are the axes that tiles run along, as one; `pack` is None where
    w is read in place."""

    product: Product
    tile: Tile
    lanes: int
    rows: tuple[Axis, ...]
    pack: FilterPack | None
    packs: dict[str, Pack]
    cycles: float
    piece: Piece | None = None  # of w that is brought into memory of its own

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


def best_way(task: Task, target: Target) -> Way | None:
    """The cheaper way of reading w; None where the task is no product, or more than one."""
    axes, output = task.axes, task.layout
    if len(task.reducing) > 1:
        return None
    long = [axis for axis in axes if extent_of(axis) > 1]
    if output.axis is None and _is_of_planes(task, target):
        return None  # rows are read as they lie, or brought near by the strip: nothing is packed
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
    makers = (_packed, _in_place, _own)
    ways = [make(task, target, product, lanes) for make in makers]
    return min((way for way in ways if way is not None), key=lambda p: p.cycles, default=None)


def _is_of_planes(task: Task, target: Target) -> bool:
    """Whether it is a convolution by weights of planes that lie plain."""
    conv = match_convolution(task.root)
    known = conv is not None and task.operand(conv.w.tensor.name).static
    return known and plan(task, target) is not None


def _packed(task: Task, target: Target, product: Product, lanes: int) -> Way | None:
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
    return Way(product, tile, lanes, rows, pack, packs, cycles)


def in_vectors(task: Task, product: Product, lanes: int) -> bool:
    """Whether w lies in vectors along v; of rows the last one in part."""
    layout, w, v = task.operand(product.w.tensor.name).layout, product.w, product.v
    if layout is None:
        return False
    if layout.axis is None:
        whole = extent_of(v) % lanes == 0 or task.layout.axis is None
        return whole and coefficient(layout.offset(w.index), v) == 1
    others = (index for axis, index in enumerate(w.index) if axis != layout.axis)
    whole = w.index[layout.axis] == v.i and layout.block == lanes
    return whole and not any(depends(index, v) for index in others)


def _in_place(task: Task, target: Target, product: Product, lanes: int) -> Way | None:
    """Vectors of w as they lie."""
    if not in_vectors(task, product, lanes):
        return None
    rows = tiled_rows(task, product)
    tile = _tile(target, product, rows, lanes)
    packs = _plain_rows(task, product)
    met_again = is_far(task, product) and count_of(rows) > ABREAST * tile.columns
    cycles = _cycles(target, product, rows, tile, lanes) * (_FAR if met_again else _SCATTERED)
    return Way(product, tile, lanes, rows, None, packs, cycles + packing_cycles(task, packs))


def _own(task: Task, target: Target, product: Product, lanes: int) -> Way | None:
    """w lies along the sum, or in rows far from each other that several tiles meet: panels of it
    are brought into memory of their own."""
    turned = is_along_sum(task, product, lanes)
    if task.layout.axis is not None or not (turned or is_far(task, product)):
        return None
    rows = tiled_rows(task, product)
    tile = _tile(target, product, rows, lanes)
    outer = count_of((*product.outer, *product.rows)) // count_of(rows)
    piece = choose_piece(target, product, lanes, tile.blocks, outer, turned=turned)
    depth = extent_of(product.k[0])
    few = count_of(rows) < depth  # so that sums that wait are less than w
    if not turned and not (few and in_vectors(task, product, lanes)):
        return None
    if not turned and count_of(rows) <= ABREAST * tile.columns:
        return None
    if piece.depth < depth and not (few and waiting_in(task, product.reduce.dtype)):
        return None
    packs = _plain_rows(task, product)
    blocks = -(-extent_of(product.v) // lanes)
    panels = outer * -(-blocks // (tile.blocks * piece.abreast))
    brought = outer * bands_of(panels, count_of(rows)) * blocks * lanes * depth
    cycles = _cycles(target, product, rows, tile, lanes)
    cycles += brought * (TURNING if turned else COPYING) + packing_cycles(task, packs)
    if piece.abreast == 1:  # all rows sweep a panel, and no wider strip, before the next
        cycles += strip_cycles(task, target)
    return Way(product, tile, lanes, rows, None, packs, cycles, piece)


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
    return max(runs, key=count_of)


def count_of(axes: tuple[Axis, ...]) -> int:
    """Positions of some axes."""
    return prod(extent_of(axis) for axis in axes)


def _tile(target: Target, product: Product, rows: tuple[Axis, ...], lanes: int) -> Tile:
    blocks = -(-extent_of(product.v) // lanes)
    if count_of(rows) == 1:
        return Tile(min(blocks, 4), 1)
    each = target.registers(lanes, product.reduce.dtype)
    depth = count_of(product.k) * each
    return choose_tile(target, blocks, count_of(rows), each=each, even=True, depth=depth)


def _cycles(
    target: Target, product: Product, rows: tuple[Axis, ...], tile: Tile, lanes: int
) -> float:
    outer = count_of((*product.outer, *product.rows)) // count_of(rows)
    blocks = -(-extent_of(product.v) // lanes)
    depth, registers = count_of(product.k), target.registers(lanes, product.reduce.dtype)
    own = evenly(count_of(rows), tile.columns)
    swept = (swept_cycles(target, tile.blocks, q, depth * registers) * count for q, count in own)
    return outer * depth * -(-blocks // tile.blocks) * registers * sum(swept)
