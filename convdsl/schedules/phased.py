"""Strided data gradients and transposed convolutions: each phase on the schedule that suits it.

The kernels of the phases follow each other, and each writes every so many elements of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from convdsl.kernel.expr import Reduce, Stage, reads, walk
from convdsl.kernel.nodes import Kernel
from convdsl.schedules.contraction import depends
from convdsl.schedules.emission import extent_of
from convdsl.schedules.phases import Part, Phase, phases_of
from convdsl.schedules.task import Arguments, Pack, Schedule, Scheduled, Task
from convdsl.tensor.records import record

_MOST = 16  # kernels, each of a phase, or of several that are alike


@record
class Step:
    """A phase, and how it is run."""

    phase: Phase
    schedule: Schedule
    cost: float


@dataclass(frozen=True)
class Phased:
    """How a machine runs phases.

    ways: schedules of contractions; one of them must apply to each phase that sums anything.
    rest: the schedule of phases that meet no tap.
    taken: the pack of a larger array of which only a part is read, given its pack as if it were
        the whole, and its shape; of several parts in a row where phases are repeated. None where it
        is no pack of filters.
    repeats: whether those schedules run phases that are alike as one (`Task.over`).
    """

    ways: tuple[Schedule, ...]
    rest: Schedule
    taken: Callable[[Pack, tuple[Part, ...], Sequence[int]], Pack | None]
    repeats: bool = False

    def steps(self, task: Task) -> tuple[Step, ...]:
        """How each phase is run; nothing where one of them would not be a contraction."""
        found: list[Step] = []
        phases = phases_of(task, alike=self.repeats)
        for phase in phases if len(phases) <= _MOST else ():
            nothing = not any(isinstance(node, Reduce) for node in walk(phase.task.root.body))
            ways = (self.rest,) if nothing else self.ways
            if nothing:
                phase = replace(phase, task=_spread(phase.task))
            once, times = replace(phase.task, over=()), prod(map(extent_of, phase.task.over))
            bids = [(way.cost(once), way) for way in ways]
            made = [Step(phase, way, cost * times) for cost, way in bids if cost is not None]
            if not made:
                return ()
            best = min(made, key=lambda step: step.cost)
            if not self._packs_its_parts(best):
                return ()
            found.append(best)
        return tuple(found)

    def cost(self, task: Task) -> float | None:
        """Of all phases."""
        steps = self.steps(task)
        return sum(step.cost for step in steps) if steps else None

    def emit(self, task: Task, name: str) -> Scheduled:
        """The kernels of all phases, and the memory between those of each."""
        made = [
            self._own(step, step.schedule.emit(step.phase.task, f"{name}_phase{number}"), number)
            for number, step in enumerate(self.steps(task))
        ]
        kernels = tuple(kernel for scheduled in made for kernel in scheduled.kernels)
        return Scheduled(kernels, tuple(s for scheduled in made for s in scheduled.scratch))

    def _own(self, step: Step, scheduled: Scheduled, number: int) -> Scheduled:
        """The kernels, packing of their filters only what the phase takes, with scratch memory
        under names of their own."""
        phase, scratch = step.phase, {s.name for s in scheduled.scratch}

        def taken(name: str, pack: Pack | None) -> tuple[str, Pack | None]:
            if name in scratch:
                return f"{name}_{number}", pack
            if name not in phase.parts or pack is None:
                assert name not in phase.parts, "filters in part are packed"
                return name, pack
            part = self._part(phase, name, pack)
            assert part is not None
            return name, part

        kernels: tuple[tuple[Kernel, Arguments], ...] = tuple(
            (kernel, tuple(taken(name, pack) for name, pack in arguments))
            for kernel, arguments in scheduled.kernels
        )
        named = tuple(replace(s, name=f"{s.name}_{number}") for s in scheduled.scratch)
        return Scheduled(kernels, named)

    def _part(self, phase: Phase, name: str, pack: Pack) -> Pack | None:
        """The pack of what a phase reads of an operand."""
        return self.taken(pack, phase.parts[name], phase.task.operand(name).var.type.sizes)

    def _packs_its_parts(self, step: Step) -> bool:
        """Whether what a phase reads in part is what its schedule packs. What alone varies with the
        output's channels is the filters; in groups, of a single channel, or of a map of which a
        phase meets one position, only the schedule can tell which operand it takes for them."""
        task, parts = step.phase.task, step.phase.parts
        sums = (node for node in walk(task.root.body) if isinstance(node, Reduce))
        factors = {read.tensor.name: read for node in sums for read in reads(node)}
        channel = task.axes[1]
        varying = {n for n, r in factors.items() if any(depends(at, channel) for at in r.index)}
        if len(varying) == 1 and varying == set(parts):
            return True
        kernels = step.schedule.emit(task, "tried").kernels
        packs = [(n, pack) for _, own in kernels for n, pack in own if n in parts]
        return all(p is not None and self._part(step.phase, n, p) is not None for n, p in packs)


def _spread(task: Task) -> Task:
    """With the axes that it is repeated over as its own."""
    axes = (*task.axes[:2], *task.over, *task.axes[2:])
    stages = tuple(Stage(stage.target, axes, stage.body) for stage in task.stages)
    layout = replace(task.layout, shape=tuple(map(extent_of, axes)))
    return replace(task, stages=stages, layout=layout, over=())
