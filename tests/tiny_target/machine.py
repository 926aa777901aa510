"""Machine records of the tiny target: plain layouts and one schedule, of loops or of grids."""

from __future__ import annotations

from convdsl.kernel.layout import Layout
from convdsl.schedules.machine import Machine, pack_forms
from convdsl.schedules.task import Schedule
from convdsl.tensor import TensorType
from tiny_target.grid import GRID
from tiny_target.loops import LOOPS

_BYTES = 8  # of the largest element


def _plain(type: TensorType) -> Layout:
    return Layout(type.sizes)


def _machine(schedule: Schedule) -> Machine:
    return Machine(
        name=f"tiny {schedule.name}",
        facts="",
        layout=_plain,
        schedules=(schedule,),
        packs=pack_forms(Layout),
        alignment=_BYTES,
    )


TINY, TINY_GRID = _machine(LOOPS), _machine(GRID)
