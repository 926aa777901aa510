"""A whole program as one LLVM module with one exported function, `convdsl_run`.

`convdsl_run(context, stay)` is entered by every thread of a team: by the caller's with 0, by
helpers with the time that they stay awake when all is done, for a next call that may follow at
once. `context` is a table of pointers, its slots as in kernel.cpu_abi. How
threads share out what there is to do stands in `steps`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from convdsl.backends.llvm.ir import KernelPrinter, attributes_of
from convdsl.backends.llvm.steps import steps_function
from convdsl.backends.llvm.team import team_functions
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target
from convdsl.kernel.verify import verify_kernel
from convdsl.kernel.verify_program import verify_program


class Printed(NamedTuple):
    """A kernel as a function, and the intrinsics that it declares."""

    text: str
    declarations: frozenset[str]


def print_kernel(kernel: Kernel, target: Target) -> Printed:
    """LLVM IR of a kernel, which is verified first."""
    verify_kernel(kernel)
    declarations: set[str] = set()
    text = KernelPrinter(kernel, declarations, target).print()
    return Printed(text, frozenset(declarations))


def print_module(
    program: Program,
    target: Target,
    timed: bool = False,
    printed: Mapping[str, Printed] | None = None,
    apart: Collection[str] = (),
    same: Mapping[str, str] | None = None,
) -> str:
    """LLVM IR of the program. It and every kernel are verified first. Timed code also writes the
    clock before the first step and after each one, in cycles of the processor's counter. Kernels
    may have been printed before; those that are in modules of their own (`print_piece`) are
    declared only. `same`: kernels whose code is another one's, which steps call in their place."""
    verify_program(program)
    program = _renamed(program, same or {})
    known = printed or {}
    parts = [
        Printed(_declared(kernel), frozenset())
        if kernel.name in apart
        else known.get(kernel.name) or print_kernel(kernel, target)
        for kernel in program.kernels
    ]
    steps, declared = steps_function(program, target, timed)
    return _module(program.name, target, parts, (team_functions(target), steps), declared)


def _renamed(program: Program, same: Mapping[str, str]) -> Program:
    """The program without kernels that are another one; steps call that."""
    if not same:
        return program
    kernels = tuple(kernel for kernel in program.kernels if kernel.name not in same)
    steps = (replace(step, kernel=same.get(step.kernel, step.kernel)) for step in program.steps)
    return replace(program, kernels=kernels, steps=tuple(steps))


def print_piece(kernels: Sequence[Printed], target: Target) -> str:
    """A module of kernels that another one calls."""
    shown = [k._replace(text=k.text.replace(_INTERNAL, _HIDDEN, 1)) for k in kernels]
    return _module("kernels", target, shown, (), "")


_INTERNAL, _HIDDEN = "define internal void @", "define hidden void @"


def _declared(kernel: Kernel) -> str:
    parameters = ["ptr" for _ in kernel.buffers]
    return f"declare hidden void @{kernel.name}({', '.join([*parameters, 'i64', 'i64'])})"


def _module(
    name: str, target: Target, kernels: Sequence[Printed], others: Sequence[str], declared: str
) -> str:
    declarations = frozenset[str]().union(*(kernel.declarations for kernel in kernels))
    return "\n\n".join(
        [
            f'source_filename = "{name}"\ntarget triple = "{target.triple}"',
            *(kernel.text for kernel in kernels),
            *others,
            "\n".join(sorted(declarations)) + "\n" + declared,
            attributes_of(target),
            '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}',
        ]
    )
