"""What a grid computes: floating-point operations, read off its loops.

Operations are those that are executed, not those of the definition that the grid carries out: a
transformed convolution has fewer, a tile that reaches beyond the last row has more.
"""

from __future__ import annotations

from convdsl.kernel.counting import UncountedError, combinations, runs
from convdsl.kernel.group_mma import GROUP, GROUP_ROWS
from convdsl.kernel.mma import COLUMNS, ROWS, WARP
from convdsl.kernel.nodes import (
    Binary,
    Blocks,
    Compare,
    Fma,
    GroupMma,
    Mma,
    ReduceLanes,
    Select,
    Statement,
    Unary,
    Value,
    statement_values,
    value_children,
)
from convdsl.tensor import symbols_of

_MOST_BOXES = 64  # of loop counters, to find how often something runs: enough for ends of a grid


def operations(grid: Blocks) -> int:
    """Of all threads: a multiply-add is two, any other function of numbers one. What only data
    decide is taken to run."""
    total = 0
    for body, box, tests in runs((grid,)):
        own = sum(map(_of_statement, body))
        if not own:
            continue
        known = [t for t in tests if all(s.name in box for i in (t.a, t.b) for s in symbols_of(i))]
        try:
            total += own * combinations(box, known, _MOST_BOXES)
        except UncountedError:
            total += own * combinations(box, (), 1)
    return total


def _of_statement(statement: Statement) -> int:
    """Of one thread."""
    total = sum(map(_of_value, statement_values(statement)))
    if isinstance(statement, Mma):
        total += 2 * ROWS * COLUMNS * statement.form.k // WARP
    if isinstance(statement, GroupMma):
        total += 2 * GROUP_ROWS * statement.form.columns * statement.form.k // GROUP
    return total


def _of_value(value: Value) -> int:
    inner = sum(map(_of_value, value_children(value)))
    match value:
        case Unary() | Binary() | Select() if value.type.dtype.is_float:
            return inner + value.type.lanes
        case Compare() if value.a.type.dtype.is_float:
            return inner + value.type.lanes
        case Fma() if value.type.dtype.is_float:
            return inner + 2 * value.type.lanes
        case ReduceLanes() if value.type.dtype.is_float:
            return inner + value.x.type.lanes - 1
        case _:
            return inner
