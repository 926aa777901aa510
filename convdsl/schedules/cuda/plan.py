"""How a product is run: the tile, how factors are copied, into how many parts the depth is cut; and
how long that takes.

Time is predicted from what is emitted. A multiprocessor has four schedulers that issue one
instruction of a warp in a cycle each; a step of its blocks takes their warps' issue slots and, one
after the other, their products on the tensor units, or the bytes that the second-level cache gives,
whichever is longer. Blocks come in waves, as many as the card holds, the last one of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Read
from convdsl.kernel.layout import Layout
from convdsl.kernel.mma import TF32, WARP
from convdsl.schedules.cuda.costs import LAUNCH, moved_bytes
from convdsl.schedules.cuda.factor import Form, Way, way_of
from convdsl.schedules.cuda.gemm import Gemm, Run, in_vectors, match_gemm
from convdsl.schedules.cuda.matrix_pack import MatrixPack, matrix_pack
from convdsl.schedules.cuda.slots import Side, slots
from convdsl.schedules.cuda.tile import (
    LEAST_COPY,
    MOST_REGISTERS,
    REGISTER,
    VECTOR,
    Tile,
    tiles_for,
)
from convdsl.schedules.task import Task
from convdsl.tensor import DType

_SCHEDULERS = 4
"""Of a multiprocessor, of every architecture since sm_70 (CUDA C++ Programming Guide)."""

_WARPS_BUSY = 6.0
"""Warps of a multiprocessor that keep its schedulers busy, since each waits for its own results now
and then: on an H100 four took two thirds of what they issue, eight all of it (docs/gpu.md)."""

_PRODUCT = 10.0
"""Cycles of a scheduler that a product on the tensor units takes, besides all other issue slots:
loads of fragments and products of a warp follow each other. Eight by the data sheet of an A100; an
H100 took ten, in TF32 and in bf16."""

_PART = 0.25e-6
"""Seconds for each part that a thread adds, one load after the other: seen."""

_APART = 0.6
"""Of the memory's bandwidth, what single elements that lie apart reach, a sector for each: an H100
took 231 us for 302 MB of them in one kernel with a product, 137 in a kernel of their own."""

_PACKED = 8.0
"""Bytes moved for an element that is packed in a call: read and written."""

_STEP = 0.25e-6
"""Seconds of a step whose copies nothing hides but the steps ahead: about the latency of memory
by those on their way."""

_MOST_SLOTS = 5.9
"""Issue slots for each product on the tensor units, as counted here: machine code has up to a
third more, and eight leave the units no pause. An m16n8k16 of halves keeps them busy for eight
cycles of an A100, by its data sheet."""

_NEAR = 1.25
"""Plans whose predicted time is at most so many times the least are chosen from by their slots: no
prediction is better than that, and slots are counted."""

_LONGER = 1.25
"""How much longer loops on the plain units take than what is counted here is issued in: an H100
took 1.2 to 1.3 times as long (docs/gpu.md)."""

_BANKS = 128
"""Bytes that shared memory gives a multiprocessor in a cycle: 32 banks of four."""

_TOUCHED = 1.4
"""How much longer steps of warp groups take than the bytes that they touch there: an H100 took 1.3
to 1.6 times as long, whatever the tile, in TF32 and in bf16 alike."""

_NOT_OVERLAPPED = 0.5
"""Of the time of memory, what comes after the products of warp groups rather than beside them: an
H100 took 0.45 to 0.6."""

_SECTOR = 32  # bytes

_WIDE = 128  # sums of a thread: half of its registers
_ALONE = 2  # registers of an element that is copied alone: seen

_TOGETHER = 16
"""Bytes that are copied together at most."""

_LEAST = 64
"""Rows and columns of a tile on the tensor units, where there are as many."""

_NOT_HIDDEN = 0.1
"""Of what is issued, beside what takes longest: of two plans that wait for memory alike the one
that issues less."""

_MOST_WAVES = 4
"""Of blocks, where the depth is cut: what the last one lacks is little by then, and more parts only
add to what is written and read."""

_LEAST_STEPS = 8
"""Of a part of the depth: fewer would be spent on filling the stages."""


@dataclass(frozen=True)
class Plan:
    """See above. `columns` and `depth` of `gemm` are filled up as the ways need it. `laid`: layouts
    that operands are brought into first, by the operands' names."""

    gemm: Gemm
    tile: Tile
    a: Way
    b: Way
    pack: MatrixPack | None
    splits: int
    laid: tuple[tuple[str, Layout], ...] = ()

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
        """Issue slots of a warp in one step."""
        tile, rounded = self.tile, self.pack is not None and self.pack.rounded
        brought = 2 * tile.row_pieces, 2 * tile.column_pieces
        a, b = (
            Side(read.dtype, way, read.outside is not None or run.ragged, known, size, own)
            for read, way, run, known, size, own in (
                (self.gemm.a, self.a, self.gemm.rows, False, tile.rows, brought[0]),
                (self.gemm.b, self.b, self.gemm.columns, rounded, tile.columns, brought[1]),
            )
        )
        return slots(tile, (a, b))

    @property
    def strain(self) -> float:
        """Issue slots for each product on the tensor units, beyond those that leave them no
        pause."""
        products = 0 if self.tile.grouped else self.tile.mmas
        return max(0.0, self.slots / products - _MOST_SLOTS) if products else 0.0

    @property
    def copied_bytes(self) -> float:
        """What the second-level cache serves a block for one step: whole sectors, also where
        neighbours along a piece lie apart."""
        gemm, tile, total = self.gemm, self.tile, 0
        for read, way, size in ((gemm.a, self.a, tile.rows), (gemm.b, self.b, tile.columns)):
            apart = way.form is Form.ROWS and way.along is None
            total += size * (_SECTOR if apart else read.dtype.bytes)
        return float(total * tile.depth)

    @property
    def _copied(self) -> tuple[tuple[int, int, int], ...]:
        """Of each factor the rows of a tile, and the elements and bytes of a copy."""
        sizes = ((self.gemm.a, self.a, self.tile.rows), (self.gemm.b, self.b, self.tile.columns))
        return tuple((size, way.width, way.width * read.dtype.bytes) for read, way, size in sizes)

    def goes_behind(self, target: CudaTarget) -> bool:
        """Whether copies go on behind: not on older cards, nor of single halves."""
        return target.has_async_copies and min(b for _, _, b in self._copied) >= LEAST_COPY

    def held(self, target: CudaTarget) -> int:
        """Registers of a thread besides: addresses of elements that are copied one by one; or the
        next step's copies, where these do not go on behind."""
        if self.goes_behind(target):
            each = (size * _ALONE for size, width, _ in self._copied if width == 1)
        else:
            each = (size // width * -(-b // REGISTER) for size, width, b in self._copied)
        return sum(each) * self.tile.depth // self.tile.threads

    @property
    def parts(self) -> int:
        """Sums that wait in scratch memory for the second kernel."""
        gemm = self.gemm
        return self.splits * gemm.batch.size * gemm.rows.size * gemm.columns.size

    def blocks_on(self, target: CudaTarget) -> int:
        """Blocks that a multiprocessor holds at a time."""
        return self.tile.blocks_on(target, self.held(target))

    def step_seconds(self, target: CudaTarget, blocks: int) -> float:
        """Of a step of so many blocks at a time, which are spread over all multiprocessors."""
        facts, tile = target.facts, self.tile
        together = ceil(blocks / facts.multiprocessors)
        warps = max(tile.threads // WARP * together, _WARPS_BUSY)
        clock = facts.flops / (facts.multiprocessors * 2 * WARP * _SCHEDULERS)
        tensor = 2.0 * tile.rows * tile.columns * tile.depth * blocks / facts.tensor_flops
        if tile.grouped:
            cycles = _TOUCHED * tile.touched * together / _BANKS
        elif tile.form is not None:
            cycles = (self.slots + tile.mmas * _PRODUCT) * warps / _SCHEDULERS
        else:
            cycles, tensor = _LONGER * self.slots * warps / _SCHEDULERS, 0.0
        if tile.form is TF32:
            tensor *= 2
        return max(cycles / clock, tensor, self.copied_bytes * blocks / facts.served, _STEP)

    def nanoseconds(self, task: Task, target: CudaTarget) -> float:
        """Predicted time: of waves of blocks, as many as the card holds, the last one of the rest;
        or of memory."""
        facts = target.facts
        most = facts.multiprocessors * self.blocks_on(target)
        waves = ceil(self.blocks / most)
        rest = self.blocks - (waves - 1) * most
        work = self.step_seconds(target, rest)
        if waves > 1:
            work += (waves - 1) * self.step_seconds(target, most)
        work *= self.steps_of_part
        launches, extra = 1, 0.0  # bytes of the steps around
        if self.splits > 1:
            launches, extra = launches + 1, extra + 8.0 * self.parts
            work += self.splits * _PART
        elif not in_vectors(task, self.gemm, VECTOR):
            extra += _SECTOR / _APART * self.leaving(task)
        if self.pack is not None and not task.operand(self.gemm.b.tensor.name).static:
            launches, extra = launches + 1, extra + _PACKED * self.pack.size
        for name, layout in self.laid:
            operand = task.operand(name)
            if not operand.static:
                elements = prod(operand.var.type.sizes) + layout.size
                launches, extra = launches + 1, extra + elements * operand.var.type.dtype.bytes
        memory = moved_bytes(task) / facts.bandwidth
        hidden = _NOT_HIDDEN * min(work, memory)
        own = max(work, memory) + (_NOT_OVERLAPPED * memory if self.tile.grouped else hidden)
        return 1e9 * (own + extra / facts.bandwidth) + launches * LAUNCH

    def leaving(self, task: Task) -> int:
        """Elements that the epilogue reads and writes."""
        gemm = self.gemm
        factors = {gemm.a.tensor.name, gemm.b.tensor.name}
        sums = gemm.batch.size * gemm.rows.size * gemm.columns.size
        others = (o.var.type.sizes for o in task.operands if o.var.name not in factors)
        return sums * len(task.outputs) + sum(min(sums, prod(sizes)) for sizes in others)


@lru_cache(maxsize=512)
def plan_for(
    task: Task, target: CudaTarget, *, packing: bool = False, laying: bool = True
) -> Plan | None:
    """The fastest way, as far as it can be told. `packing`: with the second factor packed.
    `laying`: perhaps with operands that are brought into other layouts first."""
    gemm = match_gemm(task)
    if gemm is None:
        return None
    plans = [
        plan
        for tile in tiles_for(target, gemm.a.dtype, gemm.b.dtype)
        for plan in _plans(task, gemm, tile, target, packing=packing)
        if laying or not plan.laid
    ]
    if packing:
        plans = [plan for plan in plans if plan.pack is not None]
    costs = [(plan.nanoseconds(task, target), plan) for plan in plans]
    most = _NEAR * min((cost for cost, _ in costs), default=0.0)
    near = ((plan.strain, cost, plan) for cost, plan in costs if cost <= most)
    return min(near, key=lambda offer: offer[:2], default=(0.0, 0.0, None))[2]


def _plans(task: Task, gemm: Gemm, tile: Tile, target: CudaTarget, *, packing: bool) -> list[Plan]:
    if tile.stage_bytes * tile.stages > target.facts.shared_bytes or _is_crumb(gemm, tile):
        return []
    if _is_tight(gemm, tile):
        return []
    found: list[Plan] = []
    for laid in _laid(task, gemm, tile):
        whole = _with_ways(task, gemm, tile, laid, packing=packing)
        if whole is None or whole.held(target) + tile.registers > MOST_REGISTERS:
            continue
        held = whole.blocks_on(target)
        times = (*range(1, held + 1), *(held * waves for waves in range(2, _MOST_WAVES + 1)))
        most = max(1, whole.steps // _LEAST_STEPS)
        rooms = (target.facts.multiprocessors * n // whole.blocks for n in times)
        counts = [1, *(min(room, most) for room in rooms if room > 1)]
        # A part of no steps at all is left out.
        counts = [-(-whole.steps // -(-whole.steps // count)) for count in counts]
        found += [replace(whole, splits=count) for count in dict.fromkeys(counts)]
    return found


def _laid(task: Task, gemm: Gemm, tile: Tile) -> list[dict[str, Layout]]:
    """Which operands are brought into another layout first: none; or those whose elements could not
    be copied by vectors as they lie, and can be if some axis is inside and filled up."""
    found: list[dict[str, Layout]] = [{}]
    for read, own in ((gemm.a, gemm.rows), (gemm.b, gemm.columns)):
        name = read.tensor.name
        operand = task.operand(name)
        if name in found[-1] or (read is gemm.b and operand.static):
            continue
        now = way_of(read, _lies(task, read), own, gemm.depth, tile.vector)
        ways = _ways_inside(read, own, gemm.depth, tile)
        if tile.grouped and now.form is not Form.DEPTHS:
            ways, now = _deep(task, gemm, tile, read, ways), replace(now, width=1)
        best = max(ways, key=lambda layout: (ways[layout].width, -layout.size), default=None)
        if best is not None and ways[best].width > now.width:
            found += [{**others, name: best} for others in found]
    return found


def _lies(task: Task, read: Read) -> Layout:
    return task.operand(read.tensor.name).layout or Layout(read.tensor.type.sizes)


def _ways_inside(read: Read, own: Run, depth: Run, tile: Tile) -> dict[Layout, Way]:
    """How a factor would be copied with each of its axes inside, filled up to whole vectors."""
    sizes, step = read.tensor.type.sizes, _TOGETHER // read.dtype.bytes
    layouts = (Layout(sizes, axis, -(-n // step) * step) for axis, n in enumerate(sizes))
    return {layout: way_of(read, layout, own, depth, tile.vector) for layout in layouts}


def _deep(
    task: Task, gemm: Gemm, tile: Tile, read: Read, ways: Mapping[Layout, Way]
) -> dict[Layout, Way]:
    """Of the ways of a factor that lies along its rows those by which warp groups could read it:
    whole vectors along an axis of the depth along which the other one can lie, too. Factors of
    filters' gradients lie along channels; with the images inside both lie along the depth, since
    windows move along all else."""
    other, own = (gemm.b, gemm.columns) if read is gemm.a else (gemm.a, gemm.rows)
    lies = way_of(other, _lies(task, other), own, gemm.depth, tile.vector)
    there = [lies, *_ways_inside(other, own, gemm.depth, tile).values()]
    if lies.form is Form.DEPTHS:
        there = [lies]
    deep = {way.along for way in there if way.form is Form.DEPTHS and way.width == tile.vector}
    return {
        layout: way
        for layout, way in ways.items()
        if way.form is Form.DEPTHS and way.width == tile.vector and way.along in deep
    }


def _is_tight(gemm: Gemm, tile: Tile) -> bool:
    """Whether the borders of windows and two chunks of what is made narrower take more registers
    than a thread has: of warps of 64 x 64 they spilled."""
    wide = tile.chunks > 1 and not tile.halves and tile.sums >= _WIDE
    return tile.form is not None and wide and (gemm.a.outside, gemm.b.outside) != (None, None)


def _is_read_by_groups(gemm: Gemm, tile: Tile, a: Way, b: Way, pack: MatrixPack | None) -> bool:
    """Whether warp groups can multiply two factors as they are copied: along the depth, by sixteen
    bytes, rounded before; or both across it, if they are halves."""
    if tile.across:
        return pack is None and (a.width, b.width) == (tile.vector, tile.vector)
    if a.form is not Form.DEPTHS or a.width != tile.vector:
        return False
    if pack is None and (b.form is not Form.DEPTHS or b.width != tile.vector):
        return False
    if tile.halves:
        return True
    rounded = pack is not None and pack.rounded
    return gemm.a.dtype is DType.TF32 and (gemm.b.dtype is DType.TF32 or rounded)


def _is_crumb(gemm: Gemm, tile: Tile) -> bool:
    """Whether a tile of the tensor units is smaller than the product needs: what a warp issues
    besides would be the most of it. Few tiles are better cut along the depth."""
    small = tile.rows < min(_LEAST, gemm.rows.size)
    return tile.form is not None and (small or tile.columns < min(_LEAST, gemm.columns.size))


def _with_ways(
    task: Task, gemm: Gemm, tile: Tile, laid: Mapping[str, Layout], *, packing: bool
) -> Plan | None:
    """The product with its runs in the order and with the filling that copies need."""
    layouts = {o.var.name: o.layout or Layout(o.var.type.sizes) for o in task.operands} | {**laid}
    first, second = (layouts[read.tensor.name] for read in (gemm.a, gemm.b))
    a = way_of(gemm.a, first, gemm.rows, gemm.depth, tile.vector)
    b = way_of(gemm.b, second, gemm.columns, gemm.depth, tile.vector)
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
        pack = matrix_pack(made, tile.columns, tile.depth, 0 if plain else tile.chunk)
        elements = made.batch.size * made.columns.size * made.depth.size
        if pack is not None and not static and elements > 4 * prod(gemm.b.tensor.type.sizes):
            pack = None  # windows, each element many times over
    if pack is not None and gemm.b.tensor.name in laid:
        return None  # it is packed from where it lies
    if pack is not None:
        columns = replace(columns, step=4)
        rounded = tile.form is TF32 and gemm.b.dtype is DType.F32
        pack = replace(pack, rounded=rounded, vector=tile.vector if tile.grouped else 0)
        b = Way(Form.PACKED, _TOGETHER // gemm.b.dtype.bytes)
    elif b.form is Form.ROWS:
        columns = columns.with_last(b.along, b.width)
    elif plain:
        return None
    elif a.form is Form.DEPTHS and a.along != b.along:
        b = Way(Form.DEPTHS, 1, b.along)
    else:
        depth = depth.with_last(b.along, max(b.width, a.width if a.form is Form.DEPTHS else 1))
    gemm = replace(gemm, rows=rows, columns=columns, depth=depth)
    if tile.grouped and tile.halves and a.form is b.form is Form.ROWS:
        tile = replace(tile, across=True)
    if tile.grouped and not _is_read_by_groups(gemm, tile, a, b, pack):
        return None
    return Plan(gemm, tile, a, b, pack, 1, tuple(laid.items()))
