"""Convolutions, their gradients, linear layers and products of matrices: implicit GEMM.

A block computes a tile of the product. Pieces of both factors, some depths of each, are copied to
shared memory ahead of their use: two steps are on their way while one is computed with. Where there
are no such copies, on older cards and of single halves, the next step's piece is in registers
meanwhile. The epilogue runs on the sums where they are. Where there are fewer tiles than
multiprocessors the depth is cut into parts, whose sums a second kernel adds, always in the same
order.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.group_mma import ATOM
from convdsl.kernel.layout import Layout
from convdsl.kernel.mma import WARP
from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Const,
    Get,
    IndexTest,
    Kernel,
    Lane,
    Load,
    Value,
    ValueType,
    Var,
)
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.cuda.factor import Copy, Factor, Place
from convdsl.schedules.cuda.gemm import Run, as_stored, in_vectors
from convdsl.schedules.cuda.leaving import Draft, enter, store, store_all, within
from convdsl.schedules.cuda.plan import Plan, plan_for
from convdsl.schedules.cuda.tile import VECTOR
from convdsl.schedules.cuda.units import Held, Units, lanes_of, units
from convdsl.schedules.emission import Emitter
from convdsl.schedules.task import Pack, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, DType, dim_min, floor_div
from convdsl.tensor.records import record

_PARTS = "parts"
_ADDING = 128  # threads of a block of the second kernel


def implicit_gemm(target: CudaTarget, *, packing: bool = False) -> Schedule:
    """The schedule for a card; `packing`: with the second factor packed in any case."""

    def cost(task: Task) -> float | None:
        plan = plan_for(task, target, packing=packing)
        return None if plan is None else plan.nanoseconds(task, target)

    def made(task: Task, name: str) -> Scheduled:
        plan = plan_for(task, target, packing=packing)
        assert plan is not None
        return emit(task, plan, target, name)

    return Schedule("implicit_gemm", cost, made)


def emit(task: Task, plan: Plan, target: CudaTarget, name: str) -> Scheduled:
    """The product, and what adds its parts up."""
    product = _Product(task, plan, target, name)
    kernel = product.kernel()
    if plan.splits == 1:
        return Scheduled.one(kernel, product.arguments)
    apart = {plan.gemm.a.tensor.name, plan.gemm.b.tensor.name}
    names = (operand.var.name for operand in task.operands)
    again = frozenset(name for name in names if name not in apart or task.read_again(name))
    adding = Draft.open(task, f"{name}_sum", {}, only=again)
    parts = adding.b.buffer(_PARTS, DType.F32, plan.parts)
    second = _sum_kernel(adding, plan, parts)
    arguments = (*adding.arguments, (_PARTS, None))
    scratch = Scratch(_PARTS, DType.F32, plan.parts)
    return Scheduled(((kernel, product.arguments), (second, arguments)), (scratch,))


class _Product:
    """Emits the kernel of the product."""

    def __init__(self, task: Task, plan: Plan, target: CudaTarget, name: str) -> None:
        self.task, self.plan, self.target = task, plan, target
        self.gemm, self.tile = plan.gemm, plan.tile
        packs: dict[str, Pack] = dict(plan.laid)
        if plan.pack is not None:
            packs[self.gemm.b.tensor.name] = plan.pack
        leaves, only = (
            plan.splits == 1,
            frozenset({self.gemm.a.tensor.name, self.gemm.b.tensor.name}),
        )
        self.draft = Draft.open(task, name, packs, only=None if leaves else only, leaves=leaves)
        self.arguments = self.draft.arguments
        self.b = self.draft.b
        self.factors = self._factors()
        if plan.splits > 1:
            self.parts = self.b.buffer(_PARTS, DType.F32, plan.parts, written=True)
            self.arguments = (*self.arguments, (_PARTS, None))

    def _factors(self) -> tuple[Factor, Factor]:
        gemm, plan, made = self.gemm, self.plan, list[Factor]()
        laid = dict(plan.laid)
        for read, way, own, size, pack in (
            (gemm.a, plan.a, gemm.rows, self.tile.rows, None),
            (gemm.b, plan.b, gemm.columns, self.tile.columns, plan.pack),
        ):
            name = read.tensor.name
            if pack is not None:
                buffer, layout = self.draft.packed[name], Layout((pack.size,))
            elif name in laid:
                buffer, layout = self.draft.packed[name], laid[name]
            else:
                buffer, layout = self.draft.views[name].buffer, self.draft.views[name].layout
            where = buffer, layout, pack, way
            runs = gemm.batch, own, gemm.depth, size
            made.append(Factor(read, *where, *runs, self.tile, columns=read is gemm.b))
        return made[0], made[1]

    def kernel(self) -> Kernel:
        """The whole kernel."""
        plan, b = self.plan, self.b
        tiles = plan.row_tiles * plan.column_tiles
        extents = (self.gemm.batch.size * plan.splits, tiles)
        alignment = ATOM if self.tile.grouped else 4 * VECTOR
        with b.blocks(("batch", "tile"), extents) as (z, tile):
            shared = [
                b.shared(name, self.tile.stages * factor.piece, factor.dtype, alignment=alignment)
                for name, factor in zip(("a_tile", "b_tile"), self.factors, strict=True)
            ]
            lanes = (self.tile.threads // WARP, *lanes_of(self.tile))
            with b.threads(("warp", "y", "x"), lanes) as thread:
                part = z - floor_div(z, plan.splits) * plan.splits
                row = floor_div(tile, plan.column_tiles)
                at = _Block(
                    floor_div(z, plan.splits), row, tile - row * plan.column_tiles, part, thread
                )
                sums = units(b, self.tile, self.factors, thread)
                sums.begin()
                if plan.goes_behind(self.target):
                    self._pipelined(at, sums, shared)
                else:
                    self._through_registers(at, sums, shared)
                self._finish(at, list(sums.held()))
        return b.kernel()

    # Steps

    def _copies(self, at: _Block, step: Dim) -> list[list[Copy]]:
        """Of both factors."""
        _, y, x = lanes_of(self.tile)[0], *at.thread[1:]
        number = at.thread[0] * WARP + y * lanes_of(self.tile)[1] + x
        tiles = (at.row, at.column)
        return [
            list(factor.copies(Place(at.batch, tile, step, number)))
            for factor, tile in zip(self.factors, tiles, strict=True)
        ]

    def _pipelined(self, at: _Block, sums: Units, shared: list[Buffer]) -> None:
        """Copies go on while earlier pieces are computed with."""
        b, first, count = self.b, *self._span(at)

        def begin(number: Dim, stage: Dim) -> None:
            test = IndexTest("lt", number, count)
            known = decide(test)
            with ExitStack() as stack:
                if known is None:
                    stack.enter_context(b.when(test))
                for factor, buffer, copies in zip(
                    self.factors, shared, self._copies(at, first + number), strict=True
                ):
                    for copy in () if known is False else copies:
                        with ExitStack() as inner:
                            for inside in copy.shared_out:
                                inner.enter_context(b.when(inside))
                            target = (buffer, stage * factor.piece + copy.target)
                            source = (factor.buffer, copy.source)
                            b.copy(target, source, copy.width, copy.guards, copy.valid)
            b.commit_copies()

        def stage_of(step: Dim) -> Dim:
            return step - floor_div(step, self.tile.stages) * self.tile.stages

        for number in range(self.tile.ahead):
            begin(number, number)
        with b.serial("step", count) as step:
            b.wait_copies(self.tile.ahead - 1)
            if self.tile.grouped:
                b.show_products()
            b.barrier()
            ahead = step + self.tile.ahead
            if not self.tile.grouped:
                begin(ahead, stage_of(ahead))
            self._compute(sums, shared, stage_of(step))
            if self.tile.grouped:  # meanwhile: what is copied to was read by the step before
                begin(ahead, stage_of(ahead))
                sums.settle(1)
        b.wait_copies(0)
        sums.settle(0)

    def _through_registers(self, at: _Block, sums: Units, shared: list[Buffer]) -> None:
        """The next pieces are loaded before a step is computed, and stored after it."""
        b, first, count = self.b, *self._span(at)

        def put(stage: Dim, copies: list[list[Copy]], values: list[list[Var]]) -> None:
            for i, factor in enumerate(self.factors):
                for copy, value in zip(copies[i], values[i], strict=True):
                    with ExitStack() as inner:
                        for inside in copy.shared_out:
                            inner.enter_context(b.when(inside))
                        b.store(shared[i], stage * factor.piece + copy.target, value)

        def get(copies: list[list[Copy]]) -> list[list[Var]]:
            return [
                [factor.fetch(b, copy) for copy in own]
                for factor, own in zip(self.factors, copies, strict=True)
            ]

        copies = self._copies(at, first)
        put(0, copies, get(copies))
        b.barrier()
        with b.serial("step", count) as step:
            following = self._copies(at, first + dim_min(step + 1, count - 1))
            values = get(following)
            self._compute(sums, shared, step - floor_div(step, 2) * 2)
            put(step + 1 - floor_div(step + 1, 2) * 2, following, values)
            b.barrier()

    def _span(self, at: _Block) -> tuple[Dim, Dim]:
        """The first step of a part of the depth, and how many it has."""
        plan = self.plan
        first = at.part * plan.steps_of_part
        if plan.splits == 1:
            return 0, plan.steps
        return first, dim_min(plan.steps_of_part, plan.steps - first)

    def _compute(self, sums: Units, shared: list[Buffer], stage: Dim) -> None:
        a, b = (
            (buffer, stage * factor.piece)
            for buffer, factor in zip(shared, self.factors, strict=True)
        )
        sums.step(a, b)

    # Results

    def _finish(self, at: _Block, sums: Sequence[Held]) -> None:
        places = [
            (at.row * self.tile.rows + held.row, at.column * self.tile.columns + held.column)
            for held in sums
        ]
        if self.plan.splits == 1:
            found = [
                ((at.batch, *place), held.value) for place, held in zip(places, sums, strict=True)
            ]
            store_all(self.draft, self.plan, found)
            return
        for place, held in zip(places, sums, strict=True):
            self._put_aside(at, *place, held.value)

    def _put_aside(self, at: _Block, row: Dim, column: Dim, value: Value) -> None:
        """Store sums of a part of the depth."""
        b, gemm, lanes = self.b, self.gemm, value.type.lanes
        part = at.part * gemm.batch.size + at.batch
        start = (part * gemm.rows.size + row) * gemm.columns.size + column
        whole = gemm.columns.size % lanes == 0
        with ExitStack() as stack:
            if not enter(b, stack, IndexTest("lt", row, gemm.rows.size)):
                return
            for lane in range(1 if whole else lanes):
                with ExitStack() as inner:
                    if enter(b, inner, IndexTest("lt", column + lane, gemm.columns.size)):
                        stored = value if whole else Lane(value, lane)
                        b.store(self.parts, start + lane, stored)


@record
class _Block:
    """Where a block stands, and a thread in it."""

    batch: Dim
    row: Dim  # tiles
    column: Dim
    part: Dim
    thread: list[Dim]


# Parts


def _sum_kernel(draft: Draft, plan: Plan, parts: Buffer) -> Kernel:
    """Adds the parts of each sum up, the first one first; a thread for each vector of columns."""
    b, gemm = draft.b, plan.gemm
    if not in_vectors(draft.task, gemm, VECTOR):
        return _sum_kernel_as_stored(draft, plan, parts)
    vectors = gemm.columns.size // VECTOR
    total = gemm.batch.size * gemm.rows.size * vectors
    with _adding(b, total) as number:
        place = floor_div(number, vectors)
        column = (number - place * vectors) * VECTOR
        batch = floor_div(place, gemm.rows.size)
        row = place - batch * gemm.rows.size
        value = _added(b, plan, parts, number * VECTOR, VECTOR)
        store(draft, plan, (batch, row, column), value)
    return b.kernel()


def _sum_kernel_as_stored(draft: Draft, plan: Plan, parts: Buffer) -> Kernel:
    """The same where neighbouring columns are no neighbours in what leaves (filters, whose taps lie
    inside): a thread for each sum, in the order that these are stored in. Neighbouring threads read
    parts that lie apart, but a block reads all of each sector that it touches."""
    b, gemm = draft.b, plan.gemm
    runs = (gemm.batch, gemm.rows, gemm.columns)
    stored = Run(as_stored(draft.task, gemm))
    with _adding(b, stored.size) as number:
        place = stored.place(number)
        start: Dim = 0
        for run in runs:
            start = start * run.size + run.number(place)
        value = _added(b, plan, parts, start, 1)
        here = gemm.at(place)
        emitter = Emitter(b, draft.views, 1, known=((gemm.reduce, value),))
        emit_chain(emitter, draft.task, here, here)
    return b.kernel()


@contextmanager
def _adding(b: Builder, total: int) -> Generator[Dim]:
    """Threads of the second kernel, numbered."""
    blocks = -(-total // _ADDING)
    with (
        b.blocks(("block",), (blocks,)) as (block,),
        b.threads(("thread",), (_ADDING,)) as (thread,),
    ):
        number = block * _ADDING + thread
        with ExitStack() as stack:
            enter(b, stack, IndexTest("lt", number, total))
            yield within(number, total)


def _added(b: Builder, plan: Plan, parts: Buffer, start: Dim, lanes: int) -> Value:
    """What the parts of neighbouring sums come to."""
    type = ValueType(DType.F32, lanes)
    acc = b.registers(1, type)
    b.set(acc, 0, Const(0.0, type))
    with b.serial("part", plan.splits) as part:
        at = part * (plan.parts // plan.splits) + start
        b.set(acc, 0, Binary("add", Get(acc, 0), Load(parts, at, type)))
    return b.let(Get(acc, 0))
