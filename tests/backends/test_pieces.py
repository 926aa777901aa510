"""Code made in pieces, while others are being lowered, is the code of one module."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from graphs import Builder, random_arrays, rewritten

from convdsl import InputError
from convdsl.backends.llvm import pieces
from convdsl.backends.llvm.joining import Unjoinable
from convdsl.backends.llvm.module import print_kernel, print_module, print_piece
from convdsl.backends.llvm.objects import emit_assembly, emit_object, find_target
from convdsl.backends.llvm.pieces import Pieces
from convdsl.ir.graph import Graph
from convdsl.ir.nodes import Value
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target
from convdsl.lowering import lower as lowering
from convdsl.lowering.lower import Lowered, lower
from convdsl.runtime.code import Code
from convdsl.runtime.cpu import elf
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.schedules.cpu.machine import cpu_machine

TARGETS = ("x86_64-unknown-linux-gnu:x86-64-v3", "x86_64-unknown-linux-gnu:skylake-avx512",
           "aarch64-unknown-linux-gnu:cortex-a76")  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every kernel is worth a module; no thread is left behind."""
    monkeypatch.setattr(pieces, "PIECE", 1)
    yield
    for thread in threading.enumerate():
        if thread.name == "convdsl-compiling":
            thread.join(60)
            assert not thread.is_alive()


def residual() -> Graph:
    """Convolutions of several shapes, sums that lie over operands, constants in memory."""
    b = Builder()
    x = b("gelu", b("conv", b.input("x", 1, 16, 8, 8), channels=16, kernel=3))
    for kernel in (1, 3, 5):
        x = b("relu", b("add", b("conv", x, channels=16, kernel=kernel), x))
    return b.output(y=b("softmax", b("conv", x, channels=24, kernel=1), axis=1))


def made(target: Target, graph: Graph | None = None) -> tuple[bytes, Lowered, list[Kernel]]:
    """(object code, the program, the kernels that were certain while it was lowered)."""
    told: list[Kernel] = []
    with Pieces(target) as compiler:

        def certain(kernel: Kernel) -> None:
            told.append(kernel)
            compiler.add(kernel)

        lowered = lower(rewritten(graph or residual()), cpu_machine(target), "net", certain=certain)
        return compiler.object_code(lowered.program), lowered, told


def functions(code: bytes, program: Program) -> dict[str, bytes]:
    """The machine code of each kernel that is there, references left open."""
    file = elf.read(code)
    found = {s.name.decode(): s for s in file.symbols if s.section > 0}
    code_of: dict[str, bytes] = {}
    for kernel in program.kernels:
        if kernel.name not in found:
            continue
        symbol = found[kernel.name]
        code_of[kernel.name] = file.content(symbol.section)[symbol.value :][: symbol.size]
    return code_of


@pytest.mark.dear
@pytest.mark.parametrize("cpu", TARGETS[:2])
def test_every_kernel_is_the_same(small: None, cpu: str) -> None:
    target = find_target(cpu)
    code, lowered, _ = made(target)
    whole = emit_object(print_module(lowered.program, target), target)
    assert code != whole, "it is in pieces"
    apart, together = (functions(each, lowered.program) for each in (code, whole))
    texts = {k.name: body_of(k, target) for k in lowered.program.kernels}
    assert together.keys() == texts.keys()
    assert apart == {name: together[name] for name in apart}
    assert sorted(texts[name] for name in apart) == sorted(set(texts.values())), "each text once"


def body_of(kernel: Kernel, target: Target) -> str:
    """A kernel's text but for its name."""
    return print_kernel(kernel, target).text.partition("(")[2]


@pytest.mark.dear
def test_unlike_tasks_of_one_text_are_compiled_once(small: None) -> None:
    """What packs the inputs of two convolutions that differ in their filters alone."""
    target = find_target(TARGETS[1])
    code, lowered, _ = made(target)
    kernels = lowered.program.kernels
    bodies = {body_of(kernel, target) for kernel in kernels}
    assert len(bodies) < len(kernels), "the sample has some"
    assert len(functions(code, lowered.program)) == len(bodies)


def test_steps_take_no_more_code_however_many_there_are() -> None:
    """They are a table."""
    target = find_target()

    def lines(layers: int) -> int:
        b = Builder()
        x = b.input("x", 1, 8, 128, 128)
        for _ in range(layers):
            x = b("max_pool", x, kernel=2)
        program = lower(rewritten(b.output(y=x)), cpu_machine(target), "net").program
        assert len(program.steps) >= layers
        text = print_module(program, target)
        return text[text.index("define internal void @steps(") :].count("\n")

    assert lines(6) == lines(3)


@pytest.mark.parametrize("cpu", TARGETS[:2])
def test_kernels_of_many_arities_lead_nowhere_beyond(cpu: str) -> None:
    """A table of jumps would: its entries are counted from its beginning, not from themselves, so
    that an object file's references lie as far beyond the code as the table is long."""
    target = find_target(cpu)
    b = Builder()
    parts = [b.input(f"x{number}", 1, 64) for number in range(24)]
    sums: dict[str, Value] = {}
    for most in range(2, len(parts)):
        total = parts[most]
        for part in reversed(parts[:most]):
            total = b("add", total, part)
        sums[f"y{most}"] = total
    program = lower(rewritten(b.output(**sums)), cpu_machine(target), "net").program
    assert len({len(step.arguments) for step in program.steps}) > 12, "the sample has many"
    file = elf.read(emit_object(print_module(program, target), target))
    led = [r for r in file.relocations if file.sections[r.symbol.section].flags & elf.EXECUTABLE]
    starts = {symbol.value for symbol in file.symbols if symbol.name}
    assert {r.symbol.value + r.addend for r in led if r.kind == elf.PC32} <= starts


@pytest.mark.dear
def test_every_kernel_is_the_same_text_for_arm() -> None:
    """There loops are filled up to a multiple of bytes from where the section begins."""
    target = find_target(TARGETS[2])
    program = lower(rewritten(residual()), cpu_machine(target), "net").program
    whole = emit_assembly(print_module(program, target), target)
    for kernel in program.kernels:
        piece = emit_assembly(print_piece([print_kernel(kernel, target)], target), target)
        assert text_of(piece, kernel.name) == text_of(whole, kernel.name)


def text_of(assembly: str, name: str) -> str:
    """A function's text, whatever its labels are called."""
    begin, end = assembly.index(f"\n{name}:"), assembly.index(f".size\t{name},")
    return re.sub(r"\.L\w+", ".L", assembly[begin:end])


@pytest.mark.dear
@pytest.mark.parametrize("cpu", TARGETS)
def test_nothing_but_the_entry_is_seen_from_outside(small: None, cpu: str) -> None:
    """So two networks can be linked into one library: their kernels have the same names."""
    code, _, _ = made(find_target(cpu))
    table = next(s for s in elf.read(code).sections if s.type == elf.SYMTAB)
    symbols = elf.read(code).symbols
    seen = {symbol.name for symbol in symbols[table.info :]}
    assert seen == {b"convdsl_run"}
    assert elf.read(code).elsewhere == ()


@pytest.mark.dear(share=4)
def test_it_computes_the_same(small: None) -> None:
    target = find_target()
    code, lowered, _ = made(target)
    whole = emit_object(print_module(lowered.program, target), target)
    arrays = {k: a.astype("f4") for k, a in random_arrays(lowered.graph).items()}
    weights = aligned(lowered.program.weight_bytes)
    lowered.pack_weights(arrays, weights)
    found, expected = (
        LoadedCode(Code.of(lowered.program, each), weights, target).run([arrays["x"]], 1)[0]
        for each in (code, whole)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.dear(share=4)
def test_what_is_certain_stays(small: None) -> None:
    """Kernels that may write over what they read wait until it is known whether they do."""
    _, lowered, told = made(find_target())
    kernels = {id(kernel) for kernel in lowered.program.kernels}
    assert told
    assert all(id(kernel) in kernels for kernel in told)
    assert any("_over_" in kernel.name for kernel in lowered.program.kernels)


@pytest.mark.dear
def test_the_file_does_not_depend_on_who_was_faster(small: None) -> None:
    target = find_target()
    assert made(target)[0] == made(target)[0]


def test_small_programs_are_one_module() -> None:
    """And no thread is started for them."""
    target = find_target()
    threads: list[str] = []
    started = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        threads.append(thread.name)
        started(thread)

    b = Builder()
    graph = b.output(y=b("relu", b.input("x", 1, 16, 8, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        code, lowered, _ = made(target, graph)
    assert threads == []
    assert code == emit_object(print_module(lowered.program, target), target)


OTHERS = ("arm64-apple-macosx:apple-m1", "x86_64-pc-windows-msvc:skylake",
          "i686-linux-gnu:pentium4", "x86_64-unknown-linux-gnux32:skylake",
          "armv7-linux-gnueabihf:cortex-a9", "aarch64_be-linux-gnu:cortex-a76",
          "powerpc64-linux-gnu:pwr8", "powerpc64le-linux-gnu:pwr8", "s390x-linux-gnu:z13",
          "riscv64-linux-gnu:generic-rv64")  # fmt: skip


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("cpu", OTHERS)
def test_systems_with_other_object_files_have_one_module(small: None, cpu: str) -> None:
    """Of 32 bits, of the other byte order, of processors whose references are not known."""
    target = find_target(cpu)
    b = Builder()
    x = b("relu", b("conv", b.input("x", 1, 4, 4, 4), channels=4, kernel=1))
    code, lowered, _ = made(target, b.output(y=b("max_pool", x, kernel=2)))
    assert code == emit_object(print_module(lowered.program, target), target)


@pytest.mark.dear
def test_files_that_cannot_be_joined_are_one_module(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And somebody is told."""

    def refuses(objects: object) -> bytes:
        raise Unjoinable("section .new has type 0x99")

    monkeypatch.setattr(pieces, "join", refuses)
    target = find_target()
    with pytest.warns(UserWarning, match="section .new has type 0x99; the program is compiled"):
        code, lowered, _ = made(target)
    assert code == emit_object(print_module(lowered.program, target), target)


def test_an_error_of_the_compiler_arrives(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ir: str, target: Target) -> bytes:
        raise RuntimeError("LLVM says no")

    monkeypatch.setattr(pieces, "emit_for_another", broken)
    with pytest.raises(RuntimeError, match="LLVM says no"):
        made(find_target())


def test_lowering_that_fails_leaves_no_thread(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise InputError("no memory plan today")

    monkeypatch.setattr(lowering, "assemble", broken)
    with pytest.raises(InputError, match="no memory plan"):
        made(find_target())
