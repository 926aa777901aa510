"""What shares of a sum have found, added up in their order, turned from vectors into rows.

The sums lie [share][v / lanes][c][taps..][lane]; what leaves is plain: [v, c, taps..]. All that
belongs to a vector of v is met at once: for lanes of results along a row one element of each of so
many vectors is picked, and the same vectors serve the next row. Then the epilogue runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorVar, transform
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.chain import declare_outputs, emit_chain
from convdsl.schedules.cpu import generic
from convdsl.schedules.cpu.tiles import split
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Operand, Pack, Scheduled, Task
from convdsl.tensor import Dim, TensorType

PARTIAL = "partial"
CYCLES = 2.0  # of one element that is picked, summed and stored


def late(task: Task, reduce: Reduce, partial: Layout, index: Sequence[Dim]) -> Task:
    """The task with its sum of products replaced by one over the shares of what `partial` holds at
    an index (without the share)."""
    var = TensorVar(PARTIAL, TensorType(reduce.dtype, partial.shape))
    share = Axis("share", partial.shape[0])
    single = extent_of(share) == 1
    found: Expr = Read(var, (0 if single else share.i, *index))
    found = found if single else Reduce("sum", (share,), found)

    def rule(node: Expr) -> Expr | None:
        return found if node == reduce else None

    stages = tuple(Stage(s.target, s.axes, transform(s.body, rule)) for s in task.stages)
    names = {o.var.name for o in task.operands} & {
        read.tensor.name for read in Task(task.op, stages, (), (), task.layout).reads
    }
    operands = tuple(o for o in task.operands if o.var.name in names)
    return Task(task.op, stages, (*operands, Operand(var, partial)), task.outputs, task.layout)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Rows of what the shares found; by the generic schedule where the task is not of rows."""
    flat = merged(task)
    partial = flat.operand(PARTIAL).layout
    assert partial is not None
    lanes = partial.block
    rows = len(flat.axes) == 2 and extent_of(flat.axes[1]) >= lanes
    rows = rows and all(
        read.index[1] == flat.axes[0].i for read in flat.reads if read.tensor.name == PARTIAL
    )
    if not rows or any(o.layout is None for o in flat.operands):
        return generic.emit(flat, name, target)
    b = Builder(name, flat.element, lanes)
    views: dict[str, View] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for operand in flat.operands:
        assert operand.layout is not None
        var, layout = operand.var, operand.layout
        views[var.name] = View(b.buffer(var.name, var.type.dtype, layout.size), layout)
        arguments.append((var.name, None))
    views |= declare_outputs(b, flat.outputs)
    arguments += [(output.var.name, None) for output in flat.outputs]
    v, j = flat.axes
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
                    emit_chain(Emitter(b, views, lanes, valid), flat, here, at, valid)
    return Scheduled.one(b.kernel(), arguments)
