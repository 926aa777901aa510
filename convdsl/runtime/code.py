"""What an artifact and the code cache keep of a compiled program, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from convdsl.diagnostics import ArtifactError, InputError
from convdsl.kernel.cpu_abi import ENTRY, scratch_bytes
from convdsl.kernel.program import AllReduce, Joint, Phase, Port, Program, phases_of

_MOST_STEPS = 1 << 20
MEMORY_LIMIT = 64 << 30
"""Bytes that weights and scratch memory of one program may plan for."""


@dataclass(frozen=True, slots=True)
class Code:
    """A compiled program: what an artifact stores of it. On a processor `entry` names what is
    called in the object code; for a card that is a kernel.cuda_binary."""

    object_code: bytes
    entry: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_bytes: int
    weight_bytes: int
    steps: int
    states: tuple[Port, ...] = ()
    private_bytes: int = 0  # of each thread
    sums: tuple[AllReduce, ...] = ()  # over ranks; artifacts have none
    joint: Joint | None = None  # the same

    def check(self) -> None:
        """ArtifactError for what no program of ours says of itself."""
        sizes = (self.arena_bytes, self.weight_bytes, self.private_bytes, self.steps)
        if min(sizes) < 0 or not 0 < self.steps <= _MOST_STEPS or not self.outputs:
            raise ArtifactError("a program without steps or outputs, or of impossible sizes")
        for ports in (self.inputs, self.outputs, self.states):
            if len({port.name for port in ports}) != len(ports):
                raise ArtifactError("two inputs, outputs or states of one name")
            for port in ports:
                if prod(port.type.sizes) * port.type.dtype.bytes > MEMORY_LIMIT:
                    raise ArtifactError(f"`{port.name}` is impossibly large")

    @staticmethod
    def of(program: Program, object_code: bytes) -> Code:
        return Code(
            object_code,
            ENTRY,
            program.inputs,
            program.outputs,
            program.arena_bytes,
            program.weight_bytes,
            len(program.steps) * program.rounds,
            program.states,
            program.private_bytes,
            program.sums,
            program.joint,
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What runs between sums over ranks."""
        return phases_of(self.steps, self.sums, self.joint)

    def scratch_bytes(self, threads: int) -> int:
        """What a call by a team lends to the code."""
        return scratch_bytes(self.arena_bytes, self.private_bytes, threads)


def check_memory(arena_bytes: int, weight_bytes: int) -> None:
    """InputError, before anything is allocated, for a program that plans for too much."""
    planned = arena_bytes + weight_bytes
    if planned > MEMORY_LIMIT:
        raise InputError(f"the program plans for {planned:,} bytes, more than {MEMORY_LIMIT:,}")
