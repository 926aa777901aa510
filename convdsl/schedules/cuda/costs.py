"""Nanoseconds that schedules predict for a card, by nominal figures as long as none were measured.

    launches + max(bytes / bandwidth, accesses / what caches serve, steps one after the other)

Every operand is thought to come from memory once. The caches of the multiprocessors serve sixteen
bytes of a thread at the price of four, about a byte for each multiply-add that the card could do
meanwhile (128 bytes a cycle beside 64 or 128 of them).
"""

from __future__ import annotations

import math

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Expr, Read, Reduce, children
from convdsl.schedules.emission import UNROLLED, extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, substitute

LAUNCH = 2000.0
"""Between one kernel and the next that waits for it, in a graph: assumed."""

_STEP = 300.0
"""A turn of a loop whose loads nothing hides: about the latency of memory."""

_ACCESS = 16
"""Bytes that one thread's load may have at the price of fewer."""


_LINE = 128
"""Bytes that the cache serves at a time."""


def nanoseconds(
    target: CudaTarget, moved: float, accesses: float, steps: float = 0.0, launches: int = 1
) -> float:
    """The time of kernels that move bytes, access memory so often, and take `steps` in a row."""
    facts = target.facts
    served = accesses * _ACCESS / (facts.flops / 2)
    return launches * LAUNCH + max(1e9 * moved / facts.bandwidth, 1e9 * served, steps * _STEP)


def moved_bytes(task: Task) -> float:
    """Of everything that a task reads and writes, once."""
    outputs = (*task.outputs, *(() if task.ending is None else task.ending.outputs))
    read = sum(math.prod(o.var.type.sizes) * o.var.type.dtype.bytes for o in task.operands)
    return float(read + sum(o.layout.held * o.var.type.dtype.bytes for o in outputs))


def reads_of_an_element(task: Task) -> int:
    """How often one element of the output reads an operand."""
    return sum(_reads(stage.body) for stage in task.stages)


def steps_of_an_element(task: Task) -> int:
    """Positions that reductions of one element pass, one after the other: those of loops."""
    return max((_steps(stage.body) for stage in task.stages), default=0)


def spread(offset: Dim, counter: str, times: int = 1) -> float:
    """What an access costs where neighbours differ by `times` in a counter: as many lines as the
    first two of them are apart, but no more than a line each."""
    apart = substitute(offset, {counter: 1}) - substitute(offset, {counter: 0})
    steps = abs(apart) * times if isinstance(apart, int) else 2
    return float(min(max(steps, 1), _LINE // _ACCESS))


def _reads(e: Expr) -> int:
    inner = sum(map(_reads, children(e)))
    return (isinstance(e, Read) + inner) * _times(e)


def _steps(e: Expr) -> int:
    inner = max(map(_steps, children(e)), default=0)
    if not isinstance(e, Reduce):
        return inner
    return max(inner, 1) * (1 if _times(e) <= UNROLLED else _times(e))


def _times(e: Expr) -> int:
    return math.prod(map(extent_of, e.axes)) if isinstance(e, Reduce) else 1
