"""What each kind of target is made of, from its name to its code: one table.

A toolchain is that of one processor. What is done to a lowered program in a way of the target's
own is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.diagnostics import InputError, expect
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.machine import Machine


@dataclass(frozen=True)
class Toolchain:
    """How programs for one processor are made.

    target: the processor.
    machine: what lowering knows of it.
    version: of what makes the code; part of what cached code is kept under.
    object_code: the code of a program.
    levels: what can be shown of a program below its loops, by name.
    """

    target: Target
    machine: Machine
    version: str
    object_code: Callable[[Program], bytes]
    levels: Mapping[str, Callable[[Program], str | bytes]]

    def without(self, *schedules: str) -> Toolchain:
        """The same, but programs use none of these schedules."""
        return replace(self, machine=self.machine.without(*schedules)) if schedules else self


def cpu_toolchain(target: Target) -> Toolchain:
    """Programs as functions that teams of threads enter, by LLVM."""

    def text(program: Program) -> str:
        return llvm_module.print_module(program, target)

    def assembly(program: Program) -> str:
        return llvm.emit_assembly(text(program), target)

    def object_code(program: Program) -> bytes:
        return llvm.emit_object(text(program), target)

    levels = {"llvm": text, "asm": assembly, "object": object_code}
    return Toolchain(target, cpu_machine(target), llvm.llvm_version(), object_code, levels)


TOOLCHAINS: Mapping[str, Callable[[str], Toolchain]] = {
    "cpu": lambda processor: cpu_toolchain(llvm.find_target(processor)),
}
"""By the names of targets; made for a processor by its own name, `native` being the one here."""


def find_toolchain(target: str = "cpu", processor: str = "native") -> Toolchain:
    """The toolchain of a target. InputError for a target or a processor that is not known."""
    expect("the target", target, str)
    expect("the processor", processor, str)
    if target not in TOOLCHAINS:
        raise InputError(f"unknown target `{target}`; there is {', '.join(TOOLCHAINS)}")
    return TOOLCHAINS[target](processor)
