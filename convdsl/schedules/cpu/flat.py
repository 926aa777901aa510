"""The schedule of maps on plain tensors: one row of elements, whatever axes they had.

Where every operand is read at the output's own position and lies as the output does, axes do not
matter: the update of a weight [K, C, 3, 3] runs in vectors, as that of a row does.
"""

from __future__ import annotations

from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.target import Target
from convdsl.schedules.cpu import generic
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Schedule, Scheduled, Task


def flattened(task: Task) -> Task | None:
    """The task over one axis; None where positions matter, or it has but one."""
    wide = (operand.layout for operand in task.operands if operand.var.type.rank)
    layouts = (*wide, task.layout)
    if len(task.axes) < 2 or any(at is None or at.axis is not None for at in layouts):
        return None
    if any(isinstance(node, Reduce) for stage in task.stages for node in walk(stage.body)):
        return None
    row = merged(task)
    return row if len(row.axes) == 1 else None


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
