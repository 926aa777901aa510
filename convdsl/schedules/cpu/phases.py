"""Strided data gradients and transposed convolutions: each phase on the schedule that suits it.

The kernels of the phases follow each other, and each writes every so many elements of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import depends
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.grouped import grouped
from convdsl.schedules.phases import Part, Phase, phases_of
from convdsl.schedules.task import Arguments, Pack, Schedule, Scheduled, Task

_MOST = 16  # phases, each of which is a kernel


@dataclass(frozen=True, slots=True)
class _Step:
    """A phase, and how it is run."""

    phase: Phase
    schedule: Schedule
    cycles: float


def steps_of(task: Task, target: Target) -> tuple[_Step, ...]:
    """How each phase is run; nothing where one of them would not be a convolution."""
    if any(o.layout.axis != 1 for o in task.outputs):
        return ()  # vectors would be torn apart
    found: list[_Step] = []
    ways = (direct(target), depthwise(target), grouped(target))
    rest = generic(target)
    for phase in phases_of(task, _MOST):
        nothing = not any(isinstance(node, Reduce) for node in walk(phase.task.root.body))
        bids = [(way.cost(phase.task), way) for way in ((rest,) if nothing else ways)]
        made = [_Step(phase, way, cycles) for cycles, way in bids if cycles is not None]
        if not made:
            return ()
        best = min(made, key=lambda step: step.cycles)
        if not _packs_its_parts(best):
            return ()
        found.append(best)
    return tuple(found)


def _packs_its_parts(step: _Step) -> bool:
    """Whether what a phase reads in part is what its schedule packs. What varies with the output's
    channels is the filters; of a single channel, or of a map of which a phase meets one position,
    only the schedule can tell which operand it takes for them."""
    task, parts = step.phase.task, step.phase.parts
    read = {read.tensor.name: read for read in task.reads if read.tensor.name in parts}
    if all(any(depends(place, task.axes[1]) for place in r.index) for r in read.values()):
        return True
    kernels = step.schedule.emit(task, "tried").kernels
    packs = (pack for _, arguments in kernels for name, pack in arguments if name in parts)
    return all(pack is not None for pack in packs)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of all phases."""
    steps = steps_of(task, target)
    return sum(step.cycles for step in steps) if steps else None


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """The kernels of all phases."""
    made: list[Scheduled] = []
    for number, step in enumerate(steps_of(task, target)):
        scheduled = step.schedule.emit(step.phase.task, f"{name}_phase{number}")
        made.append(replace(scheduled, kernels=_with_parts(scheduled, step.phase)))
    kernels = tuple(kernel for scheduled in made for kernel in scheduled.kernels)
    return Scheduled(kernels, tuple(s for scheduled in made for s in scheduled.scratch))


def _with_parts(scheduled: Scheduled, phase: Phase) -> tuple[tuple[Kernel, Arguments], ...]:
    """The kernels, packing of their filters only what the phase takes."""

    def taken(name: str, pack: Pack | None) -> Pack | None:
        if name not in phase.parts or pack is None:
            assert name not in phase.parts, "filters in part are packed"
            return pack
        shape = phase.task.operand(name).var.type.sizes
        return _taken(pack, phase.parts[name], shape)

    return tuple(
        (kernel, tuple((name, taken(name, pack)) for name, pack in arguments))
        for kernel, arguments in scheduled.kernels
    )


def _taken(pack: Pack, part: Part, shape: Sequence[int]) -> FilterPack:
    flat = tuple(
        number for along in zip(part.starts, part.steps, shape, strict=True) for number in along
    )
    if isinstance(pack, Layout):  # [K / lanes][1][taps...][lane], of depthwise filters
        assert pack.axis == 0
        pack = FilterPack(tuple(shape), pack.block, 1, 1)
    assert isinstance(pack, FilterPack)
    return replace(pack, part=flat)


def phases(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "phases",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
