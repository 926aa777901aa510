"""Plain outputs that register tiles write in strips: a vector or a few of each of several rows.

Where an output is larger than the second-level cache, each strip waits for its lines, and no
processor foresees rows that lie pages apart. So lines are asked for before a tile is summed; and
where what is multiplied stays in the cache, few rows are swept by all its panels before the next
ones, so that their lines are written whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.sweeps import LINE_BYTES
from convdsl.schedules.emission import View
from convdsl.schedules.task import Output, Task
from convdsl.tensor import Dim

WAITING = 10
"""Cycles for which a line waits that is written by strips of different panels, asked for or not."""


def is_written_afar(task: Task, target: Target) -> bool:
    """Whether a plain output has so many elements that its lines do not stay."""
    if task.layout.axis is not None:
        return False
    written = sum(prod(o.layout.shape) * o.var.type.dtype.bytes for o in task.outputs)
    return written > target.caches.l2_bytes


def strip_cycles(task: Task, target: Target) -> float:
    """Cycles that all lines wait for, where panels are swept by all rows one after the other."""
    if not is_written_afar(task, target):
        return 0.0
    written = sum(prod(o.layout.shape) * o.var.type.dtype.bytes for o in task.outputs)
    return written / LINE_BYTES * WAITING


def ask_for_lines(
    b: Builder, view: View, output: Output, task: Task, at: Mapping[str, Dim], lanes: int
) -> None:
    """Ask for the lines of `lanes` elements of a row from a place on."""
    where = output.offset(at, task.axes)
    line = LINE_BYTES // output.var.type.dtype.bytes
    whole = output.layout.shape[-1] % line == 0 and lanes % line == 0
    ends = [] if whole else [lanes - 1]
    for element in [*range(0, lanes, line), *ends]:
        b.prefetch(view.buffer, where + element, level=1)
