"""How a product is run: the tile, how factors are copied, into how many parts the depth is cut; and
how long that takes.

Time is predicted from what is emitted. A multiprocessor has four schedulers that issue one
instruction of a warp in a cycle each; a step of a block takes its warps' issue slots, its products
on the tensor units what these take, and its copies the bytes that memory gives. Whichever is
the longest counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.layout import Layout
from convdsl.kernel.mma import WARP
from convdsl.schedules.cuda.costs import LAUNCH, moved_bytes
from convdsl.schedules.cuda.factor import Form, Way, way_of
from convdsl.schedules.cuda.gemm import Gemm, match_gemm
from convdsl.schedules.cuda.matrix_pack import MatrixPack, matrix_pack
from convdsl.schedules.cuda.tile import STAGES, VECTOR, Tile, tiles_for
from convdsl.schedules.task import Task

_SCHEDULERS = 4
"""Of a multiprocessor, of every architecture since sm_70 (CUDA C++ Programming Guide)."""

_WARPS_BUSY = 8.0
"""Warps of a multiprocessor that keep its schedulers busy: two each, since each waits for its own
results now and then."""

_PACKED = 8.0
"""Bytes moved for an element that is packed in a call: read and written."""

_STEP = 0.25e-6
"""Seconds of a step whose copies nothing hides but the steps ahead: about the latency of memory
by those on their way."""

_SECTOR = 32  # bytes

_SERVED = 2.5
"""Bytes that the second-level cache serves for each that memory does: about 4 TB/s beside 1.6 of an
A100, by what others measured."""

_LEAST = 64
"""Rows and columns of a tile on the tensor units, where there are as many."""

_NOT_HIDDEN = 0.1
"""Of what is issued, beside what takes longest: of two plans that wait for memory alike the one
that issues less."""

_MOST_SPLITS = 32
_LEAST_STEPS = 8
"""Of a part of the depth: fewer would be spent on filling the stages."""


@dataclass(frozen=True)
class Plan:
    """See above. `columns` and `depth` of `gemm` are filled up as the ways need it."""

    gemm: Gemm
    tile: Tile
    a: Way
    b: Way
    pack: MatrixPack | None
    splits: int

    @property
    def row_tiles(self) -> int:
        return -(-self.gemm.rows.size // self.tile.rows)

    @property
    def column_tiles(self) -> int:
        return -(-self.gemm.columns.size // self.tile.columns)

    @property
    def blocks(self) -> int:
        return self.gemm.batch.size * self.row_tiles * self.column_tiles * self.splits

    @property
    def steps(self) -> int:
        """Of the whole depth."""
        return -(-self.gemm.depth.size // self.tile.depth)

    @property
    def steps_of_part(self) -> int:
        return -(-self.steps // self.splits)

    @property
    def slots(self) -> float:
        """Issue slots of a warp in one step. On the tensor units, what lies along rows is loaded
        one depth after the other."""
        tile, single = self.tile, 0
        if tile.form is not None:
            pieces = ((self.a, tile.row_pieces), (self.b, tile.column_pieces))
            single = sum(2 * count for way, count in pieces if way.form is Form.ROWS)
        return tile.slots + single * tile.chunks * (VECTOR - 1)

    @property
    def copied_bytes(self) -> float:
        """What the second-level cache serves a block for one step: whole sectors, also where
        neighbours along a piece lie apart."""
        sizes = ((self.a, self.tile.rows), (self.b, self.tile.columns))
        apart = (way.form is Form.ROWS and way.along is None for way, _ in sizes)
        each = (_SECTOR if alone else 4 for alone in apart)
        return float(
            sum(size * b for (_, size), b in zip(sizes, each, strict=True)) * self.tile.depth
        )

    @property
    def parts(self) -> int:
        """Sums that wait in scratch memory for the second kernel."""
        gemm = self.gemm
        return self.splits * gemm.batch.size * gemm.rows.size * gemm.columns.size

    def nanoseconds(self, task: Task, target: CudaTarget) -> float:
        """Predicted time."""
        facts, tile = target.facts, self.tile
        held = tile.blocks_on(target)
        waves = ceil(self.blocks / (facts.multiprocessors * held))
        rest = self.blocks - (waves - 1) * facts.multiprocessors * held
        clock = facts.flops / (facts.multiprocessors * 2 * WARP * _SCHEDULERS)
        warps = tile.threads // WARP

        def wave(blocks: int) -> float:
            together = min(held, ceil(blocks / facts.multiprocessors)) * warps
            slots = self.slots * self.steps_of_part * together
            busy = min(1.0, together / _WARPS_BUSY)
            return slots / _SCHEDULERS / clock / busy

        issue = (waves - 1) * wave(facts.multiprocessors * held) + wave(rest)
        products = tile.rows * tile.columns * tile.depth * self.steps_of_part * self.blocks * 2.0
        rate = facts.tensor_flops / (2 if tile.form is not None and tile.form.k == 8 else 1)
        tensor = products / rate if tile.form is not None else 0.0
        launches, extra = 1, 0.0  # bytes of the steps around
        if self.splits > 1:
            launches, extra = launches + 1, extra + 8.0 * self.parts
        if self.pack is not None and not task.operand(self.gemm.b.tensor.name).static:
            launches, extra = launches + 1, extra + _PACKED * self.pack.size
        latency = self.steps_of_part * _STEP
        served = self.copied_bytes * self.steps_of_part * self.blocks / (_SERVED * facts.bandwidth)
        own = max(issue, tensor, served, moved_bytes(task) / facts.bandwidth, latency)
        own += _NOT_HIDDEN * issue
        return 1e9 * (own + extra / facts.bandwidth) + launches * LAUNCH


@lru_cache(maxsize=512)
def plan_for(task: Task, target: CudaTarget, *, packing: bool = False) -> Plan | None:
    """The fastest way, as far as it can be told. `packing`: with the second factor packed."""
    gemm = match_gemm(task)
    if gemm is None:
        return None
    plans = [
        plan
        for tile in tiles_for(target)
        for plan in _plans(task, gemm, tile, target, packing=packing)
    ]
    if packing:
        plans = [plan for plan in plans if plan.pack is not None]
    return min(plans, key=lambda plan: plan.nanoseconds(task, target), default=None)


def _plans(task: Task, gemm: Gemm, tile: Tile, target: CudaTarget, *, packing: bool) -> list[Plan]:
    if tile.stage_bytes * STAGES > target.facts.shared_bytes or _is_crumb(gemm, tile):
        return []
    whole = _with_ways(task, gemm, tile, packing=packing)
    if whole is None:
        return []
    room = target.facts.multiprocessors * tile.blocks_on(target)
    most = min(_MOST_SPLITS, whole.steps // _LEAST_STEPS, max(1, 2 * room // whole.blocks))
    counts = sorted({2**i for i in range(6) if 2**i <= most} | ({most} if most > 1 else {1}))
    # A part of no steps at all is left out.
    counts = [-(-whole.steps // -(-whole.steps // count)) for count in counts]
    return [replace(whole, splits=count) for count in dict.fromkeys(counts)]


def _is_crumb(gemm: Gemm, tile: Tile) -> bool:
    """Whether a tile of the tensor units is smaller than the product needs: what a warp issues
    besides would be the most of it. Few tiles are better cut along the depth."""
    small = tile.rows < min(_LEAST, gemm.rows.size)
    return tile.form is not None and (small or tile.columns < min(_LEAST, gemm.columns.size))


def _with_ways(task: Task, gemm: Gemm, tile: Tile, *, packing: bool) -> Plan | None:
    """The product with its runs in the order and with the filling that copies need."""
    layouts = {o.var.name: o.layout or Layout(o.var.type.sizes) for o in task.operands}
    first, second = (layouts[read.tensor.name] for read in (gemm.a, gemm.b))
    a = way_of(gemm.a, first, gemm.rows, gemm.depth)
    b = way_of(gemm.b, second, gemm.columns, gemm.depth)
    rows, columns, depth = gemm.rows, gemm.columns, gemm.depth
    if a.form is Form.ROWS:
        rows = rows.with_last(a.along, a.width)
    else:
        depth = depth.with_last(a.along, a.width)
    static = task.operand(gemm.b.tensor.name).static
    plain = tile.form is None
    pack = None
    if static or packing or b.width == 1 or (plain and b.form is Form.DEPTHS):
        made = replace(gemm, rows=rows, columns=replace(columns, step=4), depth=depth)
        pack = matrix_pack(made, tile.columns, tile.depth, chunks=not plain)
        elements = made.batch.size * made.columns.size * made.depth.size
        if pack is not None and not static and elements > 4 * prod(gemm.b.tensor.type.sizes):
            pack = None  # windows, each element many times over
    if pack is not None:
        columns = replace(columns, step=4)
        rounded = static and tile.form is not None and tile.form.k == 8
        pack = replace(pack, rounded=rounded)
        b = Way(Form.PACKED, 4)
    elif b.form is Form.ROWS:
        columns = columns.with_last(b.along, b.width)
    elif plain:
        return None
    elif a.form is Form.DEPTHS and a.along != b.along:
        b = Way(Form.DEPTHS, 1, b.along)
    else:
        depth = depth.with_last(b.along, b.width)
    gemm = replace(gemm, rows=rows, columns=columns, depth=depth)
    return Plan(gemm, tile, a, b, pack, 1)
