"""What leaves a product: the stages after it, on sums that a thread holds, and stores.

Where a multiprocessor holds one block, nothing else is done while its threads wait for memory, and
no compiler loads earlier than what is stored before: where an output lies over an operand it may
not. So what the stages read beside the sums is loaded for some vectors at a time, before any of
these is stored.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.expr import Expr, IndexCompare, Literal, Pick, Read, reads, transform, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, Get, IndexTest, Lane, Value, ValueType
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.cuda.gemm import Run, in_vectors
from convdsl.schedules.cuda.plan import Plan
from convdsl.schedules.cuda.tile import VECTOR
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.task import Arguments, Pack, Task
from convdsl.tensor import Dim, DType, dim_max, dim_min, floor_div, symbols_of

_AHEAD = 32
"""Registers of a thread for what the stages read: products hold up to 128 sums besides."""

_Spot = tuple[Dim, Dim, Dim]
"""Which product of the batch, its row and its first column."""


@dataclass(frozen=True)
class Draft:
    """A kernel whose buffers are declared: operands as views, and packed."""

    task: Task
    b: Builder
    views: Mapping[str, View]
    packed: Mapping[str, Buffer]  # as a factor is copied from
    arguments: Arguments

    @staticmethod
    def open(
        task: Task,
        name: str,
        packs: Mapping[str, Pack],
        *,
        only: frozenset[str] | None = None,
        leaves: bool = True,
    ) -> Draft:
        """`only`: the operands that are read, if not all. `leaves`: whether the epilogue runs."""
        b = Builder(name, DType.F32, VECTOR)
        views: dict[str, View] = {}
        packed: dict[str, Buffer] = {}
        arguments: list[tuple[str, Pack | None]] = []
        for operand in task.operands:
            var, pack = operand.var, packs.get(operand.var.name)
            if only is not None and var.name not in only:
                continue
            again = leaves and task.read_again(var.name)
            if pack is not None:
                called = f"{var.name}_packed" if again else var.name
                packed[var.name] = b.buffer(called, var.type.dtype, pack.size)
                arguments.append((var.name, pack))
            if pack is None or again:
                layout = operand.layout or Layout(var.type.sizes)
                views[var.name] = View(b.buffer(var.name, var.type.dtype, layout.size), layout)
                arguments.append((var.name, layout if operand.static else None))
        if leaves:
            views |= declare_outputs(b, task.outputs)
            arguments += [(output.var.name, None) for output in task.outputs]
        return Draft(task, b, views, packed, tuple(arguments))


def enter(b: Builder, stack: ExitStack, *tests: IndexTest) -> bool:
    """Go on where tests hold; False where one never does."""
    known = [decide(test) for test in tests]
    if False in known:
        return False
    for test, holds in zip(tests, known, strict=True):
        if not holds:
            stack.enter_context(b.when(test))
    return True


def _inside(run: Run, number: Dim) -> list[IndexTest]:
    """What holds for a number of a run that is no filling, nor beyond the end."""
    tests = [IndexTest("lt", number, run.size)]
    if run.ragged:
        last = run.axes[-1]
        tests.append(IndexTest("lt", run.place(number)[last.name], extent_of(last)))
    return tests


def within(number: Dim, count: int) -> Dim:
    """A number that tests have held to be within 0 .. count - 1, so that its bounds say it too."""
    return dim_max(dim_min(number, count - 1), 0)


def store_all(draft: Draft, plan: Plan, sums: Sequence[tuple[_Spot, Value]]) -> None:
    """`store` for several vectors: what the epilogue reads where each of them stands is loaded for
    some of them at a time, before any of these is stored."""
    lanes = sums[0][1].type.lanes
    reads = ()
    if in_vectors(draft.task, plan.gemm, lanes):
        reads = _read_beside(draft.task, plan)
    some = max(1, _AHEAD // (lanes * len(reads))) if reads else len(sums)
    slots = {read: draft.b.registers(some, ValueType(read.dtype, lanes), "ahead") for read in reads}
    for first in range(0, len(sums), some):
        group = sums[first : first + some]
        for slot, (at, value) in enumerate(group) if reads else ():
            with _vector(draft, plan, at, value) as found:
                if found is not None:
                    emitter, here, _ = found
                    for read, ahead in slots.items():
                        draft.b.set(ahead, slot, emitter.read(read, here, ()))
        for slot, (at, value) in enumerate(group):
            known = tuple((read, Get(ahead, slot)) for read, ahead in slots.items())
            store(draft, plan, at, value, known)


def _read_beside(task: Task, plan: Plan) -> tuple[Read, ...]:
    """What the epilogue reads in every row of its own, and whatever the position is."""
    gemm = plan.gemm
    names = {axis.name for axis in task.axes}
    own = {axis.name for axis in (*gemm.batch.axes, *gemm.rows.axes)}
    moved = {name for name, at in gemm.where.items() if own & {s.name for s in symbols_of(at)}}
    inner = {stage.target.name for stage in task.stages}
    found: dict[Read, None] = {}
    for stage in task.stages:
        body = transform(stage.body, lambda e: _NOTHING if e == gemm.reduce else None)
        if any(isinstance(e, IndexCompare | Pick) for e in walk(body)):
            return ()
        for read in reads(body):
            symbols = {s.name for index in read.index for s in symbols_of(index)}
            if read.tensor.name not in inner and symbols <= names and symbols & moved:
                found[read] = None
    return tuple(found)


_NOTHING = Literal(0.0, DType.F32)


def store(
    draft: Draft,
    plan: Plan,
    at: _Spot,
    value: Value,
    known: tuple[tuple[Expr, Value], ...] = (),
) -> None:
    """Run the task's stages on neighbouring sums of a row, and store what leaves."""
    gemm, lanes = plan.gemm, value.type.lanes
    if in_vectors(draft.task, gemm, lanes):
        with _vector(draft, plan, at, value, known) as found:
            if found is not None:
                emitter, here, first = found
                emit_chain(emitter, draft.task, here, first)
        return
    batch, row, column = at
    with ExitStack() as stack:
        if enter(draft.b, stack, *_inside(gemm.rows, row)):
            row = within(row, gemm.rows.size)
            outer = gemm.batch.place(batch) | gemm.rows.place(row)
            named = draft.b.let(value, "sums")
            for lane in range(lanes):
                _one(draft, plan, outer, column + lane, Lane(named, lane))


@contextmanager
def _vector(
    draft: Draft,
    plan: Plan,
    at: _Spot,
    value: Value,
    known: tuple[tuple[Expr, Value], ...] = (),
) -> Generator[tuple[Emitter, Mapping[str, Dim], Mapping[str, Dim]] | None]:
    """Where neighbouring sums of a row are inside: what emits a task there, the axes at each lane
    and at the first one. None where they never are."""
    gemm, lanes = plan.gemm, value.type.lanes
    batch, row, column = at
    tests = [*_inside(gemm.rows, row), IndexTest("lt", column, gemm.columns.size)]
    with ExitStack() as stack:
        if not enter(draft.b, stack, *tests):
            yield None
            return
        row = within(row, gemm.rows.size)
        outer = gemm.batch.place(batch) | gemm.rows.place(row)
        column = within(floor_div(column, lanes), gemm.columns.size // lanes) * lanes
        place = gemm.columns.place(column)
        last = gemm.columns.axes[-1].name
        lanes_of_it = {**place, last: place[last] + lane_symbol(lanes)}
        first, here = gemm.at(outer, place), gemm.at(outer, lanes_of_it)
        yield (
            Emitter(draft.b, draft.views, lanes, known=((gemm.reduce, value), *known)),
            here,
            first,
        )


def _one(draft: Draft, plan: Plan, outer: Mapping[str, Dim], column: Dim, value: Value) -> None:
    """A single sum."""
    gemm = plan.gemm
    with ExitStack() as stack:
        if enter(draft.b, stack, *_inside(gemm.columns, column)):
            place = gemm.columns.place(within(column, gemm.columns.size))
            here = gemm.at(outer, place)
            emitter = Emitter(draft.b, draft.views, 1, known=((gemm.reduce, value),))
            emit_chain(emitter, draft.task, here, here)
