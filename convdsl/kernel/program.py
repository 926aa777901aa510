"""A lowered network: kernels, the steps that call them, and the memory they share."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from convdsl.kernel.cpu_abi import scratch_bytes
from convdsl.tensor import DType, TensorType
from convdsl.tensor.records import record

if TYPE_CHECKING:  # programs that are only run hold no kernels
    from convdsl.kernel.nodes import Kernel


class Place(enum.Enum):
    """Which memory an argument points into."""

    INPUT = "input"  # slot = position among the program's inputs
    OUTPUT = "output"  # slot = position among the program's outputs
    STATE = "state"  # slot = position among the program's states; kept from call to call
    WEIGHTS = "weights"  # packed, read-only, shared by all calls
    ARENA = "arena"  # scratch of one call
    PRIVATE = "private"  # scratch of one thread, within a step


class Access(enum.Enum):
    """What a kernel does with an argument."""

    READ = "in"
    WRITE = "out"  # all of it; what was there before does not matter
    UPDATE = "inout"  # each element read, if at all, before it is written


@record
class Argument:
    """A buffer handed to a kernel; `offset` in bytes."""

    place: Place
    slot: int = 0
    offset: int = 0
    access: Access = Access.READ

    def __str__(self) -> str:
        slotted = self.place in (Place.INPUT, Place.OUTPUT, Place.STATE)
        where = f"{self.slot}" if slotted else f"+{self.offset}"
        word = "inout " if self.access is Access.UPDATE else ""
        return f"{word}{self.place.value}{where}"


@record
class Step:
    """One kernel call. All threads finish it before the next begins."""

    kernel: str
    arguments: tuple[Argument, ...]
    nodes: tuple[str, ...]  # names of the graph nodes it computes
    schedule: str = ""


@record
class Port:
    """A named input, output or state: a plain (row-major) array."""

    name: str
    type: TensorType


LARGE = 16 << 10
"""Bytes of a state from which on ranks of one machine keep it once, and share the work of replacing
it: that takes longer, a microsecond, than telling each other that it is done."""


def is_large(port: Port) -> bool:
    """Whether ranks of one machine keep a state once."""
    return prod(port.type.sizes) * port.type.dtype.bytes >= LARGE


@record
class AllReduce:
    """A sum over all ranks of a job, in the arena, element by element.

    begin: how many steps are done before it; end: how many at most before it must be there.
    """

    begin: int
    end: int
    offset: int  # in bytes
    elements: int
    dtype: DType

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.bytes


@record
class Phase:
    """Steps between which no other rank is waited for: from `first` to before `last`.

    waits: numbers of the sums that must be there before; begins: of those that begin after.
    """

    first: int
    last: int
    waits: tuple[int, ...]
    begins: tuple[int, ...]


@record
class Joint:
    """Runs of steps of a program over ranks, each from a first to before a last: all that write
    large states, and they write nothing else. `digest` tells them from other programs'."""

    runs: tuple[tuple[int, int], ...]
    digest: int


def phases_of(
    steps: int, sums: Sequence[AllReduce], joint: Joint | None = None
) -> tuple[Phase, ...]:
    """The phases of a program of so many steps; one where there are no sums over ranks. Sums that
    nothing reads are waited for by a last phase without steps."""
    cuts = {0, *(cut for each in sums for cut in (each.begin, each.end)), steps}
    cuts |= set() if joint is None else {cut for run in joint.runs for cut in run}
    order = sorted(cuts)
    found = [
        Phase(
            first,
            last,
            tuple(n for n, each in enumerate(sums) if each.end == first),
            tuple(n for n, each in enumerate(sums) if each.begin == last),
        )
        for first, last in pairwise(order)
    ]
    left = tuple(n for n, each in enumerate(sums) if each.end == steps)
    return (*found, Phase(steps, steps, left, ())) if left else tuple(found)


@record
class Program:
    """Everything a printer and a runtime need. Sizes in bytes."""

    name: str
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weight_bytes: int
    arena_bytes: int
    states: tuple[Port, ...] = ()  # those that the program changes; others are weights
    private_bytes: int = 0  # of each thread
    sums: tuple[AllReduce, ...] = ()  # over ranks, in the order in which all of them make these
    joint: Joint | None = None  # of a program with sums
    rounds: int = 1  # how often all steps run, each time on the next part of inputs and outputs

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What runs between sums over ranks."""
        return phases_of(len(self.steps), self.sums, self.joint)

    def scratch_bytes(self, threads: int) -> int:
        """Memory of a call by so many threads, besides its inputs, outputs, states and weights."""
        return scratch_bytes(self.arena_bytes, self.private_bytes, threads)


def format_program(program: Program) -> str:
    """The steps: what calls what, on which memory."""
    lines = [f"program {program.name}"]
    lines += [f"  in  {p.name}: {p.type}" for p in program.inputs]
    lines += [f"  out {p.name}: {p.type}" for p in program.outputs]
    lines += [f"  state {p.name}: {p.type}" for p in program.states]
    memory = f"  weights {program.weight_bytes} bytes, arena {program.arena_bytes} bytes"
    if program.private_bytes:
        memory += f", {program.private_bytes} bytes a thread"
    lines.append(memory)
    if program.rounds > 1:
        lines.append(f"  {program.rounds} rounds, each on a part of the inputs and outputs")
    for number, step in enumerate(program.steps):
        lines += [_all_reduce(each) for each in program.sums if each.begin == number]
        arguments = ", ".join(map(str, step.arguments))
        lines.append(f"  {step.kernel}({arguments})  # {', '.join(step.nodes)}")
    lines += [_all_reduce(each) for each in program.sums if each.begin == len(program.steps)]
    return "\n".join(lines)


def _all_reduce(each: AllReduce) -> str:
    what = f"{each.elements} {each.dtype} at arena+{each.offset}"
    return f"  begin the sum over ranks of {what}, wanted by step {each.end}"
