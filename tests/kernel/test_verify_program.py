"""What a program may do with memory, and what is said where it does something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kernels import program_of

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Access, Argument, Place, Port, Program, Step
from convdsl.kernel.verify_program import ProgramError, verify_program
from convdsl.tensor import DType, TensorType

SIZE, LANES = 16, 4
VECTOR = TensorType(DType.F32, (SIZE,))
READ, WRITE, UPDATE = Access.READ, Access.WRITE, Access.UPDATE


def copy(name: str = "copy", shift: int = 0, dtype: DType = DType.F32) -> Kernel:
    """y[i] = x[i + shift] where that exists."""
    b = Builder(name, dtype, LANES)
    x = b.buffer("x", dtype, SIZE)
    y = b.buffer("y", dtype, SIZE, written=True)
    with b.parallel(("i",), (SIZE // LANES - shift,)) as (i,):
        b.store(y, i * LANES, b.load(x, (i + shift) * LANES))
    return b.kernel()


def increment(shift: int = 0) -> Kernel:
    """y[i] = y[i + shift], in place where there is no shift."""
    b = Builder("increment", DType.F32, LANES)
    y = b.buffer("y", DType.F32, SIZE, written=True)
    with b.parallel(("i",), (SIZE // LANES - shift,)) as (i,):
        b.store(y, i * LANES, b.load(y, (i + shift) * LANES))
    return b.kernel()


def step(kernel: str, *arguments: Argument) -> Step:
    return Step(kernel, arguments, (kernel,))


def at(place: Place, offset: int = 0, access: Access = READ, slot: int = 0) -> Argument:
    return Argument(place, slot, offset, access)


INPUT, WEIGHTS = at(Place.INPUT), at(Place.WEIGHTS)
OUTPUT = at(Place.OUTPUT, access=WRITE)


def program(*steps: Step, kernels: tuple[Kernel, ...] | None = None) -> Program:
    """A program of an input, an output and a state of 64 bytes each, as many of weights, and an
    arena of 128."""
    known = (copy(), increment()) if kernels is None else kernels
    x, y, s = (Port(name, VECTOR) for name in "xys")
    return Program("p", known, steps, (x,), (y,), 64, 128, (s,))


ARENA = at(Place.ARENA, access=WRITE)
TO_OUTPUT = step("copy", INPUT, OUTPUT)

GOOD = {
    "input to output": [TO_OUTPUT],
    "weights to output": [step("copy", WEIGHTS, OUTPUT)],
    "a state as it was": [step("copy", at(Place.STATE), OUTPUT)],
    "a state written": [TO_OUTPUT, step("copy", INPUT, at(Place.STATE, access=WRITE))],
    "a state updated": [TO_OUTPUT, step("increment", at(Place.STATE, access=UPDATE))],
    "through the arena": [step("copy", INPUT, ARENA), step("copy", at(Place.ARENA), OUTPUT)],
    "updated in the arena": [
        step("copy", INPUT, ARENA),
        step("increment", at(Place.ARENA, access=UPDATE)),
        step("copy", at(Place.ARENA), OUTPUT),
    ],
    "two halves of an arena": [
        step("copy", INPUT, ARENA),
        step("copy", at(Place.ARENA), at(Place.ARENA, 64, WRITE)),
        step("copy", at(Place.ARENA, 32), OUTPUT),
    ],
}


@pytest.mark.parametrize("steps", GOOD.values(), ids=GOOD)
def test_sound_programs(steps: list[Step]) -> None:
    verify_program(program(*steps))


BAD: dict[str, tuple[list[Step], str]] = {
    "no such kernel": ([step("move", INPUT, OUTPUT)], "step 0: there is no kernel move"),
    "too few": ([step("copy", INPUT)], "step 0, copy: 1 arguments for 2 buffers"),
    "not said to be written": (
        [step("copy", INPUT, at(Place.OUTPUT))],
        "it writes output0, its y",
    ),
    "said to be written": ([step("copy", at(Place.STATE, access=WRITE), OUTPUT)], "only reads"),
    "an input written": ([step("copy", WEIGHTS, at(Place.INPUT, access=WRITE))], "y writes to"),
    "a weight written": ([step("copy", INPUT, at(Place.WEIGHTS, access=WRITE))], "y writes to"),
    "a weight updated": ([step("increment", at(Place.WEIGHTS, access=UPDATE))], "y writes to"),
    "no such input": ([step("copy", at(Place.INPUT, slot=1), OUTPUT)], "there is no input1"),
    "no such state": ([step("copy", at(Place.STATE, slot=1), OUTPUT)], "there is no state1"),
    "past the end": ([step("copy", INPUT, at(Place.ARENA, 96, WRITE))], "does not lie in arena"),
    "before the start": ([step("copy", INPUT, at(Place.ARENA, -4, WRITE))], "does not lie in"),
    "not whole elements": ([step("copy", INPUT, at(Place.ARENA, 2, WRITE))], "does not lie in"),
    "read before written": (
        [step("copy", at(Place.ARENA), OUTPUT)],
        r"x reads arena\+0 before it is written",
    ),
    "half of it written": (
        [step("copy", INPUT, ARENA), step("copy", at(Place.ARENA, 32), OUTPUT)],
        r"x reads arena\+32 before it is written",
    ),
    "updated before written": (
        [step("increment", at(Place.ARENA, access=UPDATE))],
        "before it is written",
    ),
    "an output read too early": (
        [step("copy", at(Place.OUTPUT), ARENA), TO_OUTPUT],
        "x reads output0 before it is written",
    ),
    "no output": ([step("copy", INPUT, ARENA)], "the output y is not written"),
    "one memory for both": (
        [step("copy", at(Place.STATE), at(Place.STATE, access=WRITE))],
        "state0 and state0 are the same memory",
    ),
    "overlapping": (
        [step("copy", INPUT, ARENA), step("copy", at(Place.ARENA), at(Place.ARENA, 32, WRITE))],
        "are the same memory",
    ),
}


@pytest.mark.parametrize(("steps", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(steps: list[Step], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        verify_program(program(*steps))


@pytest.mark.parametrize("shift", [0, 1])
def test_an_update_reads_where_it_writes(shift: int) -> None:
    steps = (TO_OUTPUT, step("increment", at(Place.STATE, access=UPDATE)))
    made = program(*steps, kernels=(copy(), increment(shift)))
    if not shift:
        verify_program(made)
        return
    with pytest.raises(ProgramError, match="y is not read where it is written"):
        verify_program(made)


def test_ports_have_the_type_of_the_buffer() -> None:
    whole = program_of(copy(dtype=DType.I64))
    verify_program(whole)
    wrong = replace(whole, inputs=(Port("x", TensorType(DType.F64, (SIZE,))),))
    with pytest.raises(ProgramError, match="input0 holds f64, not i64"):
        verify_program(wrong)


def test_kernels_have_names_of_their_own() -> None:
    with pytest.raises(ProgramError, match="two kernels of one name"):
        verify_program(program(TO_OUTPUT, kernels=(copy(), copy(shift=1))))


def test_machine_code_is_only_made_of_sound_programs() -> None:
    from convdsl.backends.llvm.module import print_module
    from convdsl.backends.llvm.objects import find_target

    wrong: Any = program(step("copy", INPUT, at(Place.WEIGHTS, access=WRITE)))
    with pytest.raises(ProgramError, match="y writes to"):
        print_module(wrong, find_target())
