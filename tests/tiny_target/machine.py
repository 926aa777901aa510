"""Machine records of the tiny target: plain layouts and one schedule, of loops or of grids."""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.schedules.machine import Machine, pack_forms
from convdsl.schedules.task import Schedule
from tiny_target.grid import GRID
from tiny_target.loops import LOOPS

_BYTES = 8  # of the largest element


def _plain(stage: Stage, _: Mapping[str, Layout | None], __: frozenset[str]) -> Layout:
    return Layout(stage.target.type.sizes)


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
