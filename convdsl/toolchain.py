"""What each kind of target is made of, from its name to its code: one table.

A toolchain is that of one processor. What is done to a lowered program in a way of the target's
own is asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.backends.llvm.pieces import Pieces
from convdsl.diagnostics import InputError, expect
from convdsl.kernel.cuda_target import ARCHITECTURES, PRECISION_OF, PRODUCTS, CudaTarget, Precision
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.machine import Machine

if TYPE_CHECKING:  # what makes code for cards is loaded for one
    from convdsl.backends.cuda import nvrtc

_Target = TypeVar("_Target", Target, CudaTarget)


FEWER_PRODUCTS = ("winograd", "winograd_sums", "spectral")
"""Schedules that compute convolutions with fewer products: other rounding, and what is no number
spreads over a tile."""


class Compiler(Protocol):
    """Makes the code of one program. What it has begun ends where it is left."""

    def __enter__(self) -> Compiler: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, kernel: Kernel) -> None:
        """Hand over a kernel that the program will have."""
        ...

    def object_code(self, program: Program) -> bytes:
        """The code of the whole program, its other kernels included."""
        ...


@dataclass(frozen=True)
class _AtOnce:
    """A compiler that begins when the program is whole."""

    make: Callable[[Program], bytes]

    def __enter__(self) -> _AtOnce:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, kernel: Kernel) -> None:
        pass

    def object_code(self, program: Program) -> bytes:
        return self.make(program)


@dataclass(frozen=True)
class Toolchain(Generic[_Target]):
    """How programs for one processor are made.

    target: the processor, or the card.
    machine: what lowering knows of it.
    version: of what makes the code; part of what cached code is kept under.
    compiler: makes the code of one program, and may begin before that is whole.
    levels: what can be shown of a program below its loops, by name.
    """

    target: _Target
    machine: Machine
    version: str
    compiler: Callable[[], Compiler]
    levels: Mapping[str, Callable[[Program], str | bytes]]

    def without(self, *schedules: str) -> Toolchain[_Target]:
        """The same, but programs use none of these schedules."""
        return replace(self, machine=self.machine.without(*schedules)) if schedules else self


def cpu_toolchain(target: Target) -> Toolchain[Target]:
    """Programs as functions that teams of threads enter, by LLVM."""

    def text(program: Program) -> str:
        return llvm_module.print_module(program, target)

    def assembly(program: Program) -> str:
        return llvm.emit_assembly(text(program), target)

    def object_code(program: Program) -> bytes:
        return llvm.emit_object(text(program), target)

    levels = {"llvm": text, "asm": assembly, "object": object_code}
    compiler = partial(Pieces, target)
    return Toolchain(target, cpu_machine(target), llvm.llvm_version(), compiler, levels)


def cuda_toolchain(target: CudaTarget) -> Toolchain[CudaTarget]:
    """Programs as grids of threads, by NVRTC."""
    from convdsl.backends.cuda import nvrtc
    from convdsl.backends.cuda.disassembly import disassemble
    from convdsl.backends.cuda.printer import print_module
    from convdsl.kernel.cuda_binary import CudaBinary
    from convdsl.schedules.cuda.machine import cuda_machine

    def source(program: Program) -> str:
        return print_module(program, target).source

    def compiled(program: Program) -> nvrtc.Compiled:
        return nvrtc.compile_source(source(program), target.arch)

    def object_code(program: Program) -> bytes:
        module = print_module(program, target)
        made = nvrtc.compile_source(module.source, target.arch)
        ptx = "" if target.facts.only else made.ptx  # of no use to later cards
        return CudaBinary(target.arch, made.cubin, ptx, module.launches).to_bytes()

    levels: dict[str, Callable[[Program], str | bytes]] = {
        "cuda": source,
        "ptx": lambda program: compiled(program).ptx,
        "cubin": lambda program: compiled(program).cubin,
        "sass": lambda program: disassemble(compiled(program).cubin),
    }
    compiler = partial(_AtOnce, object_code)
    return Toolchain(target, cuda_machine(target), nvrtc.nvrtc_version(), compiler, levels)


def _cpu(processor: str, precision: Precision) -> Toolchain[Target]:
    if precision != "highest":
        raise InputError(
            f"precision {precision}: a processor computes in the type that the model says, which is"
            " `highest`; high and medium are for a card's tensor units (--device cuda)"
        )
    return cpu_toolchain(llvm.find_target(processor))


_GENERATIONS = {
    "turing": "sm_75",
    "t4": "sm_75",
    "ampere": "sm_80",
    "a100": "sm_80",
    "ada": "sm_89",
    "l4": "sm_89",
    "hopper": "sm_90",
    "h100": "sm_90",
    "blackwell": "sm_100",
    "b200": "sm_100",
}
"""What cards are called elsewhere."""


def _cuda(processor: str, precision: Precision) -> Toolchain[CudaTarget]:
    arch = CudaTarget().arch if processor == "native" else processor
    if arch not in ARCHITECTURES:
        digits = re.search(r"\d+a?", arch)
        near = _GENERATIONS.get(arch.lower()) or (digits and f"sm_{digits[0]}")
        meant = f"; did you mean {near}?" if near in ARCHITECTURES else ""
        raise InputError(
            f"unknown architecture `{arch}`; there are {', '.join(ARCHITECTURES)}{meant}"
        )
    target = CudaTarget(arch, precision)
    if precision in ("high", "medium") and not target.has_bf16:
        raise InputError(
            f"precision {precision}: {arch} multiplies no TF32 and no bfloat16; `highest` runs"
        )
    return cuda_toolchain(target)


TOOLCHAINS: Mapping[str, Callable[[str, Precision], Toolchain[Any]]] = {"cpu": _cpu, "cuda": _cuda}
"""By the names of targets; made for a processor by its own name, `native` being the one here, and
for a precision of products (kernel.cuda_target)."""


def find_toolchain(
    target: str = "cpu", processor: str = "native", precision: str = "highest"
) -> Toolchain[Any]:
    """The toolchain of a target. InputError for a target, a processor or a precision that is not
    known."""
    expect("the target", target, str)
    expect("the processor", processor, str)
    expect("the precision", precision, str)
    if target not in TOOLCHAINS:
        raise InputError(f"unknown target `{target}`; there are {', '.join(TOOLCHAINS)}")
    if precision not in PRECISION_OF:
        known = ", ".join(f"{name} ({what})" for name, what in PRODUCTS.items())
        raise InputError(f"unknown precision `{precision}`; products are of {known}")
    return TOOLCHAINS[target](processor, PRECISION_OF[precision])
