"""Tasks that nothing stores, written into those that read them: statistics over lines.

    t[n, c] = sum over h, w of x[n, c, h, w]
    s[n, g] = sum over j of t[n, 8 g + j]         sum over j, h, w of x[n, 8 g + j, h, w]
    m[n, c] = s[n, floor(c / 8)]                  nothing: whoever reads m[n, c] reads s

A sum of sums is one sum, and a copy is what it copies. Lines are worth memory of their own where
each is added up once; who holds a whole group in registers has no use for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convdsl.kernel.expr import (
    Axis,
    Expr,
    Read,
    Reduce,
    Stage,
    reads,
    reindex,
    transform,
)
from convdsl.schedules.task import Operand, Task


def inlined(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks without those that can be written into later ones."""
    left = list(tasks)
    number = 0
    while number < len(left) - 1:
        later = _written_into(left[number], left[number + 1 :])
        if later is None:
            number += 1
        else:
            left[number:] = later
    return tuple(left)


def _written_into(task: Task, readers: Sequence[Task]) -> list[Task] | None:
    """The readers without a task; None where one of them needs what it makes as it is."""
    if task.outputs or task.ending is not None or len(task.stages) != 1:
        return None
    (stage,) = task.stages
    if not isinstance(stage.body, Read | Reduce):
        return None
    found: list[Task] = []
    for reader in readers:
        stages = tuple(replace(s, body=_without(s.body, stage)) for s in reader.stages)
        if any(read.tensor == stage.target for s in stages for read in reads(s.body)):
            return None
        own = {operand.var.name for operand in reader.operands}
        read = {read.tensor.name for s in stages for read in reads(s.body)}
        more = (o for o in task.operands if o.var.name in read - own)
        operands: tuple[Operand, ...] = (*reader.operands, *more)
        found.append(replace(reader, stages=stages, operands=operands))
    return found


def _without(e: Expr, stage: Stage) -> Expr:
    """An expression that reads what a stage's body reads, where that is the same."""
    body = stage.body

    def rule(node: Expr) -> Expr | None:
        if isinstance(body, Read):
            return _at(node, stage) if isinstance(node, Read) else None
        if not isinstance(body, Reduce) or not isinstance(node, Reduce):
            return None
        alike = (node.op, node.accumulate) == (body.op, body.accumulate)
        inner = _at(node.body, stage)
        if not alike or not isinstance(inner, Reduce):
            return None
        return replace(node, axes=(*node.axes, *inner.axes), body=inner.body)

    return transform(e, rule)


def _at(e: Expr, stage: Stage) -> Expr | None:
    """The body of a stage where an expression reads what it makes; its own axes under names that
    nobody else has. None where it reads something else."""
    if not isinstance(e, Read) or e.tensor != stage.target or e.outside is not None:
        return None
    bindings = {axis.name: place for axis, place in zip(stage.axes, e.index, strict=True)}
    body = stage.body
    if isinstance(body, Reduce):
        axes = tuple(Axis(f"{axis.name}@{stage.target.name}", axis.extent) for axis in body.axes)
        inner = {old.name: new.i for old, new in zip(body.axes, axes, strict=True)}
        return replace(body, axes=axes, body=reindex(body.body, {**inner, **bindings}))
    return reindex(body, bindings)
