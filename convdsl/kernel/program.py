"""A lowered network: kernels, the steps that call them, and the memory they share."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convdsl.tensor import TensorType

if TYPE_CHECKING:  # programs that are only run hold no kernels
    from convdsl.kernel.nodes import Kernel

YIELD, TEAM_SIZE, WEIGHTS, ARENA, COUNTERS, TIMES, BOARD, TICKET, PORTS = range(9)
"""Slots of the context table that compiled code receives: how to let another thread run, the size
of the team (a number), weights, arena, zeroed counters, where timed code writes its clock, the
board (or null) and the call's ticket for it (a number; afterwards, how many helpers may still look
at the call), then inputs and outputs."""

BOARD_TICKET, BOARD_CONTEXT, BOARD_ENTRY, BOARD_SEATS, BOARD_INSIDE, BOARD_AWAKE = 0, 1, 2, 3, 8, 16
"""64-bit words of the board, where one caller at a time pins its call for helpers that are awake: a
number that changes with every call, its context (null when it is over), its function, how many
may come, how many are looking at what is pinned, how many are awake and wait for a call."""

BOARD_WORDS = 24

COUNTERS_PER_STEP = 16
"""64-bit words that a step's two counters take, each on a cache line of its own."""

SHARES = 4
"""Shares of a step for each thread: enough to even out unequal ones, few enough to stay large."""

ENTRY = "convdsl_run"
"""The function that compiled code exports: entry(context, stay), entered by every thread of a team.
The caller's says 0. A helper, when all is done, stays awake for so many pauses, and takes part in
what is pinned to the board meanwhile."""


class Place(enum.Enum):
    """Which memory an argument points into."""

    INPUT = "input"  # slot = position among the program's inputs
    OUTPUT = "output"  # slot = position among the program's outputs
    WEIGHTS = "weights"  # packed, read-only, shared by all calls
    ARENA = "arena"  # scratch of one call


@dataclass(frozen=True, slots=True)
class Argument:
    """A buffer handed to a kernel; `offset` in bytes."""

    place: Place
    slot: int = 0
    offset: int = 0

    def __str__(self) -> str:
        if self.place in (Place.INPUT, Place.OUTPUT):
            return f"{self.place.value}{self.slot}"
        return f"{self.place.value}+{self.offset}"


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call. All threads finish it before the next begins."""

    kernel: str
    arguments: tuple[Argument, ...]
    nodes: tuple[str, ...]  # names of the graph nodes it computes
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A named input or output: a plain (row-major) array."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True)
class Program:
    """Everything a printer and a runtime need. Sizes in bytes."""

    name: str
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weight_bytes: int
    arena_bytes: int


def format_program(program: Program) -> str:
    """The steps: what calls what, on which memory."""
    lines = [f"program {program.name}"]
    lines += [f"  in  {p.name}: {p.type}" for p in program.inputs]
    lines += [f"  out {p.name}: {p.type}" for p in program.outputs]
    lines.append(f"  weights {program.weight_bytes} bytes, arena {program.arena_bytes} bytes")
    for step in program.steps:
        arguments = ", ".join(map(str, step.arguments))
        lines.append(f"  {step.kernel}({arguments})  # {', '.join(step.nodes)}")
    return "\n".join(lines)
