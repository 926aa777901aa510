"""The schedule that runs anything: output elements side by side, reductions in registers.

Vectors run along the blocked axis of the output, or along its last axis where it is plain.
The loops around are shared out among the threads, but for the innermost one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Read,
    arithmetic,
    reads,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.schedules.emission import (
    Emitter,
    View,
    depends_on_lane,
    extent_of,
    lane_stride,
    lane_symbol,
)
from convdsl.schedules.task import Operand, Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim, substitute

_GATHER_COST = 2.0  # loads that one gathered lane amounts to


def operand_layout(
    operand: Operand, stage_reads: list[Read], axis: Axis | None, block: int
) -> Layout:
    """The layout of an operand. A weight indexed by the vector axis is blocked along it, so that
    its last vector may be read whole."""
    if operand.layout is not None:
        return operand.layout
    shape = operand.var.type.sizes
    if axis is not None and block > 1:
        for read in stage_reads:
            if read.tensor.name != operand.var.name:
                continue
            for position, index in enumerate(read.index):
                if index == axis.i:
                    return Layout(shape, position, block)
    return Layout(shape)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the output is walked: vectors of `lanes` along `axis` (None: scalars)."""

    axis: Axis | None
    lanes: int
    layouts: dict[str, Layout]


def plan(task: Task) -> Plan:
    """Vectors where they pay, scalars otherwise."""
    stage, lanes = task.stage, task.target.lanes(task.stage.target.type.dtype)
    stage_reads = list(reads(stage.body))
    if task.output.axis is not None:
        axis, lanes = stage.axes[task.output.axis], task.output.block
    else:
        axis = stage.axes[-1] if stage.axes else None
    if axis is not None and lanes > 1:
        layouts = {o.var.name: operand_layout(o, stage_reads, axis, lanes) for o in task.operands}
        plain = task.output.axis is None
        wide = not plain or extent_of(axis) >= lanes
        if wide and _gathers(stage.body, axis, lanes, layouts) <= 2 * len(stage_reads):
            return Plan(axis, lanes, layouts)
    layouts = {o.var.name: operand_layout(o, stage_reads, None, 1) for o in task.operands}
    return Plan(None, 1, layouts)


def _gathers(body: Expr, axis: Axis, lanes: int, layouts: dict[str, Layout]) -> float:
    """Reads that need a gather; infinite where an index test differs from lane to lane."""
    at = {axis.name: Axis("block", 1 << 30).i * lanes + lane_symbol(lanes)}
    count = 0.0
    for node in walk(body):
        match node:
            case Read():
                index = [substitute(d, at) for d in node.index]
                stride = lane_stride(layouts[node.tensor.name].offset(index))
                tested = node.outside is not None and any(map(depends_on_lane, index))
                count += stride not in (0, 1) or tested
            case IndexCompare() | IndexValue():
                pass
            case _:
                pass
    return count


def cost(task: Task) -> float:
    """Cycles: an operation and a read a lane, gathers lane by lane."""
    chosen = plan(task)
    elements = float(task.output.size)
    work = arithmetic(task.stage.body)
    assert isinstance(work, int)
    return elements * (work + 1) / (1 if chosen.axis is None else chosen.lanes / 2)


def emit(task: Task, name: str) -> Scheduled:
    chosen = plan(task)
    stage = task.stage
    b = Builder(name, stage.target.type.dtype, chosen.lanes)
    views: dict[str, View] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for operand in task.operands:
        var, layout = operand.var, chosen.layouts[operand.var.name]
        views[var.name] = View(b.buffer(var.name, var.type.dtype, layout.size), layout)
        arguments.append((var.name, layout if operand.static else None))
    target = stage.target
    out = View(
        b.buffer(target.name, target.type.dtype, task.output.size, written=True), task.output
    )
    arguments.append((target.name, None))
    if chosen.axis is None:
        with _loops(b, stage.axes) as at:
            value = Emitter(b, views, 1).emit(stage.body, at)
            b.store(out.buffer, out.layout.offset([at[a.name] for a in stage.axes]), value)
    else:
        _vector_loops(b, task, chosen, views, out)
    return Scheduled(b.kernel(), tuple(arguments))


def _vector_loops(b: Builder, task: Task, chosen: Plan, views: dict[str, View], out: View) -> None:
    """Whole vectors, then what is left of the axis."""
    axis, lanes, stage = chosen.axis, chosen.lanes, task.stage
    assert axis is not None
    whole, rest = divmod(extent_of(axis), lanes)
    lane = lane_symbol(lanes)

    def vectors(at: dict[str, Dim], block: Dim, valid: int | None) -> None:
        at = {**at, axis.name: block * lanes + lane}
        value = Emitter(b, views, lanes, valid).emit(stage.body, at)
        at[axis.name] = block * lanes
        where = out.layout.offset([at[a.name] for a in stage.axes])
        b.store(out.buffer, where, value)

    others = tuple(a for a in stage.axes if a is not axis)
    if whole:
        with _loops(b, others, Axis("block", whole), task.output.axis is None) as at:
            vectors(at, at.pop("block"), None)
    if not rest:
        return
    if task.output.axis is not None:
        with _loops(b, others) as at:
            vectors(at, whole, rest)
        return
    with _loops(b, others, Axis("rest", rest), True) as at:
        at[axis.name] = at.pop("rest") + whole * lanes
        value = Emitter(b, views, 1).emit(stage.body, at)
        b.store(out.buffer, out.layout.offset([at[a.name] for a in stage.axes]), value)


@contextmanager
def _loops(
    b: Builder, axes: tuple[Axis, ...], block: Axis | None = None, inner: bool = False
) -> Generator[dict[str, Dim]]:
    """Loops over the axes and the blocks (innermost, or after the first axis): all but the
    innermost in parallel."""
    order = list(axes)
    if block is not None:
        order.insert(len(order) if inner else min(1, len(order)), block)
    outer, last = order[:-1], order[-1:]
    if len(order) == 1 and extent_of(order[0]) > 1:
        outer, last = order, []
    with b.parallel([a.name for a in outer], [extent_of(a) for a in outer]) as indices:
        at = {a.name: i for a, i in zip(outer, indices, strict=True)}
        if not last:
            yield at
            return
        with b.serial(last[0].name, extent_of(last[0])) as i:
            yield {**at, last[0].name: i}


GENERIC = Schedule("generic", cost, emit)
