"""Which schedule runs a task: the one that predicts the fewest cycles."""

from __future__ import annotations

from convdsl.schedules.cpu.depthwise import DEPTHWISE
from convdsl.schedules.cpu.direct import DIRECT
from convdsl.schedules.cpu.gemm import GEMM
from convdsl.schedules.cpu.generic import GENERIC
from convdsl.schedules.task import Schedule, Task

SCHEDULES: tuple[Schedule, ...] = (DIRECT, DEPTHWISE, GEMM, GENERIC)


def bids(task: Task) -> list[tuple[float, Schedule]]:
    """(predicted cycles, schedule) of all that apply, the best first."""
    offers = ((schedule.cost(task), schedule) for schedule in SCHEDULES)
    return sorted(
        ((cost, schedule) for cost, schedule in offers if cost is not None), key=lambda o: o[0]
    )


def choose(task: Task) -> Schedule:
    return bids(task)[0][1]
