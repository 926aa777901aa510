"""Strided data gradients and transposed convolutions on processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.grouped import grouped
from convdsl.schedules.cpu.straddling import straddling
from convdsl.schedules.phased import Phased
from convdsl.schedules.phases import Part
from convdsl.schedules.task import Pack, Schedule, Task


def phases(target: Target) -> Schedule:
    """The schedule for a processor."""
    ways = (direct(target), depthwise(target), grouped(target), straddling(target))
    phased = Phased(ways, generic(target), _taken, repeats=True)

    def cost(task: Task) -> float | None:
        if any(o.layout.axis != 1 for o in task.outputs):
            return None  # vectors would be torn apart
        return phased.cost(task)

    return Schedule("phases", cost, phased.emit)


def _taken(pack: Pack, parts: tuple[Part, ...], shape: Sequence[int]) -> Pack | None:
    flat = tuple(
        number
        for part in parts
        for along in zip(part.starts, part.steps, shape, strict=True)
        for number in along
    )
    if isinstance(pack, Layout):  # [K / lanes][1][taps...][lane], of depthwise filters
        if pack.axis != 0:
            return None
        pack = FilterPack(tuple(shape), pack.block, 1, 1)
    assert isinstance(pack, FilterPack)
    return replace(pack, part=flat)
