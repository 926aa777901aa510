"""Strided data gradients and transposed convolutions: each phase on the schedule that suits it.

The kernels of the phases follow each other, and each writes every so many elements of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.nodes import Kernel
from convdsl.schedules.contraction import depends
from convdsl.schedules.phases import Part, Phase, phases_of
from convdsl.schedules.task import Arguments, Pack, Schedule, Scheduled, Task

_MOST = 16  # phases, each of which is a kernel


@dataclass(frozen=True, slots=True)
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
        the whole, and its shape.
    """

    ways: tuple[Schedule, ...]
    rest: Schedule
    taken: Callable[[Pack, Part, Sequence[int]], Pack]

    def steps(self, task: Task) -> tuple[Step, ...]:
        """How each phase is run; nothing where one of them would not be a contraction."""
        found: list[Step] = []
        for phase in phases_of(task, _MOST):
            nothing = not any(isinstance(node, Reduce) for node in walk(phase.task.root.body))
            ways = (self.rest,) if nothing else self.ways
            bids = [(way.cost(phase.task), way) for way in ways]
            made = [Step(phase, way, cost) for cost, way in bids if cost is not None]
            if not made:
                return ()
            best = min(made, key=lambda step: step.cost)
            if not _packs_its_parts(best):
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
            shape = phase.task.operand(name).var.type.sizes
            return name, self.taken(pack, phase.parts[name], shape)

        kernels: tuple[tuple[Kernel, Arguments], ...] = tuple(
            (kernel, tuple(taken(name, pack) for name, pack in arguments))
            for kernel, arguments in scheduled.kernels
        )
        named = tuple(replace(s, name=f"{s.name}_{number}") for s in scheduled.scratch)
        return Scheduled(kernels, named)


def _packs_its_parts(step: Step) -> bool:
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
