"""LLVM: which processors there are, what is printed, what the machine code of each is made of."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from kernels import print_kernel, row_sums

from convdsl import InputError
from convdsl.backends.llvm import objects as llvm
from convdsl.backends.llvm.objects import emit_assembly, emit_object, find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.cpu_abi import ENTRY
from convdsl.kernel.nodes import Binary, Compare, Const, Fma, Kernel, Select, Value, ValueType
from convdsl.kernel.verify import KernelError
from convdsl.tensor import DType

X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-linux-gnu"


# Processors


@pytest.mark.parametrize(
    ("cpu", "vector_bytes", "registers"),
    [
        ("x86-64", 16, 16),
        ("x86-64-v2", 16, 16),
        ("x86-64-v3", 32, 16),
        ("x86-64-v4", 64, 32),
        ("skylake", 32, 16),
        ("skylake-avx512", 64, 32),
        ("znver4", 64, 32),
    ],
)
def test_vectors_of_x86(cpu: str, vector_bytes: int, registers: int) -> None:
    target = find_target(cpu, X86)
    assert (target.vector_bytes, target.vector_registers) == (vector_bytes, registers)
    assert (target.cpu, target.features, target.architecture) == (cpu, "", "x86_64")
    assert target.lanes(DType.F32) == vector_bytes // 4
    assert target.lanes(DType.F64) == vector_bytes // 8


@pytest.mark.parametrize("cpu", ["generic", "neoverse-n1", "apple-m1"])
def test_vectors_of_arm(cpu: str) -> None:
    target = find_target(cpu, ARM)
    assert (target.vector_bytes, target.vector_registers) == (16, 32)
    assert target.architecture == "aarch64"


def test_native_names_features() -> None:
    target = find_target()
    assert target.triple == llvm.host_triple()
    assert target.cpu
    assert target.features.startswith(("+", "-"))
    assert target == find_target("native")


@pytest.mark.parametrize("cpu", ["pentium-9", "x86-64-v5", "", "help", "neoverse-n1"])
def test_unknown_processors(cpu: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"unknown processor `{cpu}` for x86_64; known are native"):
        find_target(cpu, X86)
    assert capfd.readouterr().err == "", "LLVM's own words are kept from the user"


def test_unknown_triple() -> None:
    with pytest.raises(InputError, match="LLVM has no code generator for z80-unknown-none"):
        find_target("generic", "z80-unknown-none")


def test_version_names_both() -> None:
    assert re.fullmatch(r"llvmlite [\d.]+\S*, LLVM [\d.]+", llvm.llvm_version())


# What is printed


def test_ir_of_a_small_kernel(golden: Callable[[str, str], None]) -> None:
    target = find_target("x86-64-v3", X86)
    golden("llvm/row_sums.ll", print_kernel(row_sums(), target) + "\n")


def test_arm_flushes_denormals_its_own_way() -> None:
    ir = print_kernel(row_sums(), find_target("neoverse-n1", ARM))
    assert "llvm.aarch64.set.fpcr" in ir
    assert "mxcsr" not in ir


def test_malformed_kernels_never_reach_llvm() -> None:
    b = Builder("bad", DType.F32, 4)
    y = b.buffer("y", DType.F32, 4, written=True)
    b.store(y, 1, Const(0.0, ValueType(DType.F32, 4)))
    with pytest.raises(KernelError, match="out of bounds"):
        print_kernel(b.kernel(), find_target())


def fma_kernel(dtype: DType, lanes: int) -> Kernel:
    b = Builder("axpy", dtype, lanes)
    x = b.buffer("x", dtype, 64 * lanes)
    y = b.buffer("y", dtype, 64 * lanes, written=True)
    with b.parallel(("i",), (64,)) as (i,):
        v = b.load(x, i * lanes)
        b.store(y, i * lanes, Fma(v, v, b.splat(x, i)))
    return b.kernel()


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize(
    ("triple", "cpu", "instruction"),
    [
        (X86, "x86-64-v4", {"f32": r"vfmadd\w+ps.*zmm", "f64": r"vfmadd\w+pd.*zmm"}),
        (X86, "x86-64-v3", {"f32": r"vfmadd\w+ps.*ymm", "f64": r"vfmadd\w+pd.*ymm"}),
        (X86, "x86-64-v2", {"f32": r"mulps.*xmm", "f64": r"mulpd.*xmm"}),
        (ARM, "generic", {"f32": r"fmla\s+v\d+\.4s", "f64": r"fmla\s+v\d+\.2d"}),
        (ARM, "neoverse-n1", {"f32": r"fmla\s+v\d+\.4s", "f64": r"fmla\s+v\d+\.2d"}),
    ],
)
def test_vector_instructions(
    triple: str, cpu: str, instruction: dict[str, str], dtype: DType
) -> None:
    target = find_target(cpu, triple)
    ir = print_kernel(fma_kernel(dtype, target.lanes(dtype)), target)
    assembly = emit_assembly(ir, target)
    assert re.search(instruction[str(dtype)], assembly)
    assert ENTRY in assembly
    assert emit_object(ir, target)[:4] == b"\x7fELF"


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize(
    ("triple", "cpu", "instruction"),
    [(X86, "x86-64-v4", "vscalefp"), (X86, "x86-64-v3", "vps?ll"), (ARM, "neoverse-n1", "shl")],
)
def test_powers_of_two_are_one_instruction_where_there_is_one(
    triple: str, cpu: str, instruction: str, dtype: DType
) -> None:
    target = find_target(cpu, triple)
    lanes = target.lanes(dtype)
    b = Builder("scaled", dtype, lanes)
    x = b.buffer("x", dtype, 2 * lanes)
    y = b.buffer("y", dtype, lanes, written=True)
    b.store(y, 0, Binary("scale", b.load(x, 0), b.load(x, lanes)))
    assembly = emit_assembly(print_kernel(b.kernel(), target), target)
    assert re.search(instruction, assembly)
    assert ("vscalef" in assembly) == (cpu == "x86-64-v4")


IN_PLACE: dict[str, Callable[[Value, Value], Value]] = {
    "max": lambda here, x: Binary("max", here, x),
    "limit": lambda here, x: Binary("max", here, Const(0.5, here.type)),
    "yes": lambda here, x: Select(Compare("gt", here, x), here, x),
    "no": lambda here, x: Select(Compare("gt", x, here), Binary("mul", x, x), here),
}


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_choice_over_what_lies_there_is_stored_whole(name: str, dtype: DType) -> None:
    """LLVM would store under a mask, which takes as long as 18 stores."""
    target = find_target("x86-64-v3", X86)
    lanes = target.lanes(dtype)
    b = Builder("over", dtype, lanes)
    x = b.buffer("x", dtype, 8 * lanes)
    y = b.buffer("y", dtype, 8 * lanes, written=True)
    with b.parallel(("i",), (8,)) as (i,):
        b.store(y, i * lanes, IN_PLACE[name](b.load(y, i * lanes), b.load(x, i * lanes)))
    assert "vmaskmov" not in emit_assembly(print_kernel(b.kernel(), target), target)
