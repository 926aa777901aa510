"""How long a step should take on this machine: a roofline with the schedules' own cycles.

    compute = cycles / (threads * clock)
    memory  = bytes of weights / bandwidth of memory
            + bytes of large values / bandwidth just beyond the second-level cache
    seconds = max(compute, memory)

Cycles are what the chosen schedule predicts for one core, and the clock is the one at which the
multiply-add kernel would take as long as they predict for it. The weights of a step, states among
them, come from memory, whole: other steps have driven them out of the caches since the last call.
Values of the network that are larger than half of the threads' second-level caches come from, or
go, beyond those; smaller ones were made a moment ago and cost nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convdsl.kernel.caches import Caches
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Access, Place, Program, Step
from convdsl.measure.machine import Figures
from convdsl.tensor import DType


@dataclass(frozen=True, slots=True)
class Team:
    """Who runs the steps: so many threads of a machine."""

    threads: int
    figures: Figures
    lanes: int  # of a vector of the type that the figures are of
    caches: Caches


@dataclass(frozen=True, slots=True)
class Moved:
    """What a step reads and writes beyond the second-level caches, in bytes."""

    weights: int  # states among them
    values: int

    def times(self, rounds: int) -> Moved:
        return Moved(rounds * self.weights, rounds * self.values)


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of something, by what it computes and by what it moves."""

    compute_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound(self) -> str:
        """What holds it back: `compute` or `memory`."""
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"


@dataclass(frozen=True, slots=True)
class Prediction(Bound):
    """One step."""

    moved: Moved


def predict(program: Program, cycles: Sequence[float], team: Team) -> list[Prediction]:
    """Of every step, by its cycles on one core."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    near = team.threads * team.caches.l2_bytes // 2
    rate = team.threads * team.figures.clock(team.threads, team.lanes)
    found: list[Prediction] = []
    for step, count in zip(program.steps, cycles, strict=True):
        moved = moved_by(step, kernels[step.kernel], near)
        memory = moved.weights / team.figures.memory_bytes + moved.values / team.figures.l3_bytes
        times = program.rounds
        found.append(Prediction(times * count / rate, times * memory, moved.times(times)))
    return found


def moved_by(step: Step, kernel: Kernel, near: int) -> Moved:
    """What must come from afar, or go there, or both; values of up to `near` bytes need not."""
    weights = values = 0
    for where, buffer in dict(zip(step.arguments, kernel.buffers, strict=True)).items():
        size = buffer.size * buffer.dtype.bytes
        times = 2 if where.access is Access.UPDATE else 1
        if where.place in (Place.WEIGHTS, Place.STATE):
            weights += times * size
        elif size > near:
            values += times * size
    return Moved(weights, values)


def main_type(program: Program) -> DType:
    """The floating-point type that a program computes in: that of its first port with one."""
    types = (port.type.dtype for port in (*program.inputs, *program.outputs))
    return next((dtype.computed for dtype in types if dtype.is_float), DType.F32)
