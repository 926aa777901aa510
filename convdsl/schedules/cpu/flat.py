"""The schedule of maps over fewer axes than they have: rows as long as they lie.

Where every operand lies along neighbouring axes as the output does, they may as well be one: the
update of a weight [K, C, 3, 3] runs in vectors, as that of a row does, and rows of 7 are not short.
"""

from __future__ import annotations

from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.target import Target
from convdsl.schedules.cpu import generic
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Schedule, Scheduled, Task


def flattened(task: Task) -> Task | None:
    """The task over fewer axes; None where it is one by itself, or adds anything up."""
    if any(isinstance(node, Reduce) for stage in task.stages for node in walk(stage.body)):
        return None
    row = merged(task)
    return row if len(row.axes) < len(task.axes) else None


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
