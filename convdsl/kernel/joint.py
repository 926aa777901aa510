"""The steps of a program that the ranks of one machine can run as one team."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from zlib import crc32

from convdsl.kernel.program import Access, Joint, Place, Port, Program, Step, is_large
from convdsl.kernel.text import format_kernel

DIGESTS = (1 << 24) - 1
"""Squares of digests, summed over ranks, are still whole numbers of 64 bits."""


def joint_steps(program: Program) -> Joint | None:
    """The runs of steps that write large states and nothing else; None where there are none, or
    where other steps write such states, too."""
    runs: list[tuple[int, int]] = []
    for number, step in enumerate(program.steps):
        large = {port is not None and is_large(port) for port in _written(program, step)}
        if large == {True}:
            if runs and runs[-1][1] == number:
                runs[-1] = (runs[-1][0], number + 1)
            else:
                runs.append((number, number + 1))
        elif True in large:
            return None
    return Joint(tuple(runs), _digest(program, runs)) if runs else None


def _written(program: Program, step: Step) -> Iterator[Port | None]:
    """The states that a step writes; None for anything else."""
    for argument in step.arguments:
        if argument.access is not Access.READ:
            yield program.states[argument.slot] if argument.place is Place.STATE else None


def _digest(program: Program, runs: Sequence[tuple[int, int]]) -> int:
    """What the runs compute, into which states, as one number. What they read besides is the same
    for all ranks, wherever it lies."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    lines: list[str] = []
    for first, last in runs:
        lines.append(f"{last - first}")
        for step in program.steps[first:last]:
            ports = (port.name for port in _written(program, step) if port is not None)
            lines += [*ports, format_kernel(replace(kernels[step.kernel], name=""))]
    return crc32("\n".join(lines).encode()) & DIGESTS or 1


def steps_apart(program: Program) -> set[int]:
    """The joint steps after which the next may begin before all shares are done: of runs in which
    no step touches what another writes."""
    found: set[int] = set()
    for first, last in program.joint.runs if program.joint is not None else ():
        steps = range(first, last)
        touched = Counter(slot for n in steps for slot in _states(program.steps[n], read=True))
        if all(touched[s] == 1 for n in steps for s in _states(program.steps[n], read=False)):
            found.update(steps[:-1])
    return found


def _states(step: Step, *, read: bool) -> set[int]:
    """Those that a step writes, or also those that it reads."""
    return {
        argument.slot
        for argument in step.arguments
        if argument.place is Place.STATE and (read or argument.access is not Access.READ)
    }
