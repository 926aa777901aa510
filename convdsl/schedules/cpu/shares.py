"""What shares of a sum have found, added up in their order, turned from vectors into rows.

The sums lie [share][v / lanes][c][taps..][lane]; what leaves is plain: [v, c, taps..]. All that
belongs to a vector of v is met at once: for lanes of results along a row one element of each of so
many vectors is picked, and the same vectors serve the next row. Then the epilogue runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorVar, axes_over, transform
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.correlation import Correlation
from convdsl.schedules.cpu import generic
from convdsl.schedules.cpu.tiles import split
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Arguments, Operand, Output, Pack, Scheduled, Scratch, Task
from convdsl.tensor import Dim, DType, TensorType

PARTIAL, _TOTAL = "partial", "total"
CYCLES = 2.0  # of one element that is picked, summed and stored


def opened(
    found: Correlation,
    task: Task,
    name: str,
    partial: Layout,
    packs: Mapping[str, Layout],
) -> tuple[Builder, dict[str, View], Arguments]:
    """A kernel that writes shares of a correlation's sums, its buffers declared: factors as they
    lie, or packed, and `partial`."""
    b = Builder(f"{name}_shares", found.reduce.dtype, partial.block)
    views: dict[str, View] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for read in dict.fromkeys((found.a.tensor, found.b.tensor)):
        given = task.operand(read.name).layout
        layout = packs.get(read.name) or given or Layout(read.type.sizes)
        views[read.name] = View(b.buffer(read.name, read.type.dtype, layout.size), layout)
        arguments.append((read.name, None if layout == given else layout))
    made = b.buffer(PARTIAL, found.reduce.dtype, partial.size, written=True)
    views[PARTIAL] = View(made, partial)
    return b, views, (*arguments, (PARTIAL, None))


def finished(
    task: Task, reduce: Reduce, partial: Layout, index: Sequence[Dim], name: str, target: Target
) -> Scheduled:
    """The kernels that make a task's outputs of what `partial` holds of its sum of products, at an
    index that does not name the share."""
    if partial.shape[0] == 1:
        return _emit(_late(task, reduce, PARTIAL, partial, index), name, target)
    total = Layout((1, *partial.shape[1:]), 1, partial.block)
    first = generic.emit(_added(task.op, reduce.dtype, partial, total), f"{name}_total", target)
    last = _emit(_late(task, reduce, _TOTAL, total, index), name, target)
    own = Scratch(_TOTAL, reduce.dtype, total.size)
    return first.then(last, own)


def _added(op: str, dtype: DType, partial: Layout, total: Layout) -> Task:
    """The sums of all shares, in vectors as they lie."""
    x = TensorVar(PARTIAL, TensorType(dtype, partial.shape))
    y = TensorVar(_TOTAL, TensorType(dtype, total.shape))
    axes = axes_over(total.shape)
    share = Axis("share", partial.shape[0])
    body = Reduce("sum", (share,), Read(x, (share.i, *(axis.i for axis in axes[1:]))))
    stage = Stage(y, axes, body)
    return Task(op, (stage,), (Operand(x, partial),), (Output(y, total),), total)


def _late(task: Task, reduce: Reduce, name: str, sums: Layout, index: Sequence[Dim]) -> Task:
    """The task with reads of the sums that a variable holds instead of its sum of products."""
    var = TensorVar(name, TensorType(reduce.dtype, sums.shape))
    found = Read(var, (0, *index))

    def rule(node: Expr) -> Expr | None:
        return found if node == reduce else None

    stages = tuple(Stage(s.target, s.axes, transform(s.body, rule)) for s in task.stages)
    late = Task(task.op, stages, (Operand(var, sums),), task.outputs, task.layout)
    names = {read.tensor.name for read in late.reads}
    kept = tuple(o for o in task.operands if o.var.name in names)
    return replace(late, operands=(*kept, Operand(var, sums)))


def _emit(task: Task, name: str, target: Target) -> Scheduled:
    """Rows of the sums, the last operand; by the generic schedule where the task has no rows."""
    flat = merged(task)
    var, sums = flat.operands[-1].var, flat.operands[-1].layout
    assert sums is not None
    found = [read for read in flat.reads if read.tensor == var]
    rows = len(flat.axes) == 2 and extent_of(flat.axes[1]) >= sums.block
    rows = rows and all(read.index[1] == flat.axes[0].i for read in found)
    if not rows or any(operand.layout is None for operand in flat.operands):
        return generic.emit(flat, name, target)
    return _in_rows(flat, name, sums.block)


def _in_rows(task: Task, name: str, lanes: int) -> Scheduled:
    """A block of lanes x lanes results at a time, and shorter ones at either end."""
    frame = Frame.open(task, name, lanes)
    b, views = frame.b, frame.views
    v, j = task.axes
    for each, vectors in split(extent_of(v), lanes):
        before = 0 if each == lanes else extent_of(v) - each
        for length, blocks in split(extent_of(j), lanes):
            first = 0 if length == lanes else extent_of(j) - length
            with b.parallel(("vb", "block"), (vectors, blocks)) as (vb, block):
                start = first + block * lanes
                with b.serial("own", each) as own:
                    at = {v.name: before + vb * lanes + own, j.name: start}
                    here = {**at, j.name: start + lane_symbol(lanes)}
                    valid = None if length == lanes else length
                    emit_chain(Emitter(b, views, lanes, valid), task, here, at, valid)
    return frame.finish()
