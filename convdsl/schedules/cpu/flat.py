"""The schedule of maps on plain tensors: one row of elements, whatever axes they had.

Where every operand is read at the output's own position and lies as the output does, axes do not
matter: the update of a weight [K, C, 3, 3] runs in vectors, as that of a row does.
"""

from __future__ import annotations

from math import prod

from convdsl.ir.classify import is_in_place
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Pick,
    Read,
    Reduce,
    Stage,
    TensorVar,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.cpu import generic
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Operand, Output, Schedule, Scheduled, Task
from convdsl.tensor import TensorType


def flattened(task: Task) -> Task | None:
    """The task over one axis; None where positions matter, or it has but one."""
    if task.ending is not None or len(task.axes) < 2 or not _lies_flat(task):
        return None
    size = prod(map(extent_of, task.axes))
    axis, layout = Axis("i", size), Layout((size,))

    def row(var: TensorVar) -> TensorVar:
        return TensorVar(var.name, TensorType(var.type.dtype, (size,)))

    def moved(e: Expr) -> Expr | None:
        return row(e.tensor)[axis.i] if isinstance(e, Read) and e.tensor.type.rank else None

    return Task(
        task.op,
        tuple(Stage(row(s.target), (axis,), transform(s.body, moved)) for s in task.stages),
        tuple(Operand(row(o.var), layout) if o.var.type.rank else o for o in task.operands),
        tuple(Output(row(o.var), layout) for o in task.outputs),
        layout,
    )


def _lies_flat(task: Task) -> bool:
    """Whether all but scalars is plain, and read at its own position."""
    wide = [operand.layout for operand in task.operands if operand.var.type.rank]
    if task.layout.axis is not None or any(at is None or at.axis is not None for at in wide):
        return False
    nodes = [node for stage in task.stages for node in walk(stage.body)]
    if any(isinstance(node, Reduce | Pick | IndexValue | IndexCompare) for node in nodes):
        return False
    found = (node for node in nodes if isinstance(node, Read) and node.tensor.type.rank)
    return all(is_in_place(read, task.axes) for read in found)


def cost(task: Task, target: Target) -> float | None:
    """Cycles: those of the row; None for what is not one."""
    row = flattened(task)
    return None if row is None else generic.cost(row, target)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """The row, element by element."""
    row = flattened(task)
    assert row is not None
    return generic.emit(row, name, target)


def flat(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "flat",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
