"""Code in memory without LLVM: the same numbers, or declined."""

from __future__ import annotations

import ctypes
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels import print_kernel, row_sums
from small_models import CALCULATOR, RESIDUAL, compiled, images

import convdsl
from convdsl import ArtifactError
from convdsl.backends.llvm.objects import emit_object, find_target
from convdsl.kernel.cpu_abi import ENTRY
from convdsl.runtime.cpu import code as cpu
from convdsl.runtime.cpu import elf, engine, mapping, processor
from convdsl.runtime.cpu.mapping import Image, Mapped, link

pytestmark = pytest.mark.skipif(
    find_target().architecture != "x86_64", reason="elsewhere LLVM loads the code"
)

X86 = "x86_64-unknown-linux-gnu"


def object_of(body: str, declarations: str = "") -> bytes:
    ir = f'target triple = "{X86}"\n{declarations}\ndefine i64 @f(i64 %x) nounwind {{\n{body}\n}}\n'
    return emit_object(ir, find_target("x86-64", X86))


def call(code: Mapped, x: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address)(x)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("target", ["x86-64", "x86-64-v2", "x86-64-v3", "native"])
@pytest.mark.parametrize("text", [RESIDUAL, CALCULATOR], ids=["residual", "calculator"])
def test_the_same_numbers_as_llvm_s_loader(
    text: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Any] = [images()]
    if text == CALCULATOR:
        inputs = [np.arange(24, dtype="f4").reshape(1, 4, 6), np.ones((1, 4, 6), "f4")]
    taken: list[bool] = []
    monkeypatch.setattr(cpu, "link", lambda *a: taken.append(True) or link(*a))
    found = compiled(text, cpu=target)(*inputs)
    monkeypatch.setattr(cpu, "link", lambda *a: None)
    expected = compiled(text, cpu=target)(*inputs)
    assert taken
    np.testing.assert_equal(found, expected)


def test_constants_lie_behind_the_code() -> None:
    tables = "@t = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11], align 64"
    body = " %p = getelementptr i64, ptr @t, i64 %x\n %v = load i64, ptr %p\n ret i64 %v"
    image = link(object_of(body, tables), "f")
    assert image is not None
    code = Mapped(image)
    assert [call(code, x) for x in range(4)] == [3, 5, 7, 11]


@pytest.mark.parametrize(
    ("body", "declarations"),
    [
        (" %v = call i64 @labs(i64 %x)\n ret i64 %v", "declare i64 @labs(i64)"),
        (" %v = load i64, ptr @there\n ret i64 %v", "@there = external global i64"),
        (" %v = load i64, ptr @here\n ret i64 %v", "@here = internal global i64 0"),
        (" %v = load ptr, ptr @a\n %w = ptrtoint ptr %v to i64\n ret i64 %w", "@a = global ptr @a"),
    ],
    ids=["calls out", "data elsewhere", "zeroed data", "absolute address"],
)
def test_what_refers_elsewhere_is_declined(body: str, declarations: str) -> None:
    assert link(object_of(body, declarations), "f") is None


def test_other_machines_are_declined_and_other_names_refused() -> None:
    arm = emit_object(
        print_kernel(row_sums(), find_target("generic", "aarch64-linux-gnu")),
        find_target("generic", "aarch64-linux-gnu"),
    )
    assert link(arm, ENTRY) is None
    ours = object_of(" ret i64 %x")
    assert link(ours, "f") is not None
    with pytest.raises(ArtifactError, match="has no function 'g'"):
        link(ours, "g")
    with pytest.raises(ArtifactError, match="not for riscv64"):
        mapping.check_whole(ours, "riscv64")
    for nothing in (b"", b"MZ" + ours[2:]):
        with pytest.raises(ArtifactError, match="is damaged"):
            link(nothing, "f")


def linked(data: bytes) -> Image | None:
    """What becomes of damaged code, if anything."""
    try:
        return link(data, ENTRY)
    except ArtifactError:
        return None


def test_damaged_objects_are_refused_or_whole() -> None:
    ours = emit_object(print_kernel(row_sums(), find_target("x86-64", X86)), find_target())
    for end in range(0, len(ours), 5):
        with pytest.raises(ArtifactError, match="damaged"):
            link(ours[:end], ENTRY)
    draw = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(ours)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(ours))
            damaged[at : at + 8] = draw.randbytes(8)[: len(ours) - at]
        image = linked(bytes(damaged))
        assert image is None or len(image.data) < 10 * len(ours) + (1 << 20)


WHOLE_FILE = {  # offset in the header: (its field, values that cannot be right)
    16: ("<H", 0, 2, 3),  # the kind
    18: ("<H", 0),  # the machine; others are declined
    40: ("<Q", 0, 1, 1 << 40, 1 << 63),  # where the sections are described
    52: ("<H", 0, 63),
    58: ("<H", 0, 63, 65535),
    60: ("<H", 0, 1, 200, 65535),
}


def test_every_field_of_the_header_is_checked() -> None:
    ours = object_of(" ret i64 %x")
    for offset, (form, *values) in WHOLE_FILE.items():
        for value in values:
            damaged = bytearray(ours)
            struct.pack_into(form, damaged, offset, value)
            try:
                assert link(bytes(damaged), "f") is None, (offset, value)
            except ArtifactError:
                continue
            with pytest.raises(ArtifactError, match="not for x86_64"):
                mapping.check_whole(bytes(damaged), "x86_64")


HUGE = (1 << 20, 1 << 40, (1 << 64) - 8)


@pytest.mark.parametrize("field", [24, 32], ids=["offset", "size"])
def test_sections_lie_inside_the_file(field: int) -> None:
    tables = "@t = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11], align 64"
    body = " %p = getelementptr i64, ptr @t, i64 %x\n %v = load i64, ptr %p\n ret i64 %v"
    ours = object_of(body, tables)
    (start,), (count,) = struct.unpack_from("<Q", ours, 40), struct.unpack_from("<H", ours, 60)
    file = elf.read(ours)
    for number in range(1, count):
        if not file.sections[number].size:
            continue
        for value in HUGE:
            damaged = bytearray(ours)
            struct.pack_into("<Q", damaged, start + 64 * number + field, value)
            with pytest.raises(ArtifactError, match="damaged"):
                link(bytes(damaged), "f")


def test_symbols_and_references_lie_inside_their_sections() -> None:
    tables = "@t = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11], align 64"
    body = " %p = getelementptr i64, ptr @t, i64 %x\n %v = load i64, ptr %p\n ret i64 %v"
    ours = object_of(body, tables)
    symbols, references = (
        next(s for s in elf.read(ours).sections if s.type == kind)
        for kind in (elf.SYMTAB, elf.RELA)
    )
    rows = range(symbols.offset + 24, symbols.offset + symbols.size, 24)
    placed = [at for at in rows if struct.unpack_from("<H", ours, at + 6)[0] < 0xFF00]
    wrong = [(at + field, "<Q", value) for at in placed for field in (8, 16) for value in HUGE]
    wrong += [(at, "<I", 1 << 20) for at in rows]
    wrong += [(at + 6, "<H", 200) for at in rows]
    for at in range(references.offset, references.offset + references.size, 24):
        wrong += [(at, "<Q", value) for value in HUGE]
        wrong += [(at + 8, "<I", kind) for kind in (0, 3, 1000)]
        wrong += [(at + 12, "<I", 1000)]
        wrong += [(at + 16, "<q", addend) for addend in (-100, 1 << 20, 1 << 62, -(1 << 63))]
    for at, form, value in wrong:
        damaged = bytearray(ours)
        struct.pack_into(form, damaged, at, value)
        with pytest.raises(ArtifactError, match="damaged"):
            link(bytes(damaged), "f")


def permissions(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line.split()[1]
    return ""


def test_code_is_never_writable_and_goes_with_its_object() -> None:
    image = link(object_of(" ret i64 %x"), "f")
    assert image is not None
    code = Mapped(image)
    address = code.address
    assert permissions(address) == "r-xp"
    assert call(code, 5) == 5
    del code
    assert permissions(address) != "r-xp"


def test_memory_that_may_not_be_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = link(object_of(" ret i64 %x"), "f")
    assert image is not None
    monkeypatch.setattr(mapping.mmap, "PROT_EXEC", 0x4000_0000)
    with pytest.raises(OSError, match="memory cannot be made executable"):
        Mapped(image)


# The processor


@pytest.mark.dear(share=4)
def test_running_an_artifact_needs_neither_llvm_nor_graphs(tmp_path: Path) -> None:
    """Nor loops, expressions and what runs on a card: each is a tenth of a start."""
    path = tmp_path / "net.cdsl"
    compiled(RESIDUAL).save(path, H=12, W=12)
    np.save(tmp_path / "x.npy", images())
    heavy = ["llvmlite", "networkx", "lark", "onnx", "PIL", "rich", "safetensors"]
    heavy += [f"convdsl.{room}" for room in ("kernel.nodes", "kernel.expr", "ir", "runtime.cuda")]
    script = (
        "import sys; from convdsl.cli import main;"
        f"code = main(['run', '{path}', '--data', '{tmp_path}/x.npy', '-o', '{tmp_path}/y.npy']);"
        f"print(code, [name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "0 []\n"
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), compiled(RESIDUAL)(images()))


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("target", ["native", "x86-64-v2", "x86-64-v3"])
def test_llvm_is_asked_where_the_proof_is_of_another_processor(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.cdsl"
    compiled(RESIDUAL, cpu=target).save(path, H=12, W=12)
    asked: list[int] = []
    host = engine.host
    monkeypatch.setattr(engine, "host", lambda: asked.append(1) or host())
    convdsl.load_executable(path)
    assert not asked
    monkeypatch.setattr(processor, "identity", lambda: "another")
    convdsl.load_executable(path)
    assert len(asked) == (target == "native")  # the levels are told by Linux


def test_features_that_linux_does_not_list_are_asked_of_llvm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "_facts", lambda: ())
    asked: list[int] = []
    host = engine.host
    monkeypatch.setattr(engine, "host", lambda: asked.append(1) or host())
    processor.identity.cache_clear()
    try:
        assert processor.identity() == ""
        processor.check_processor(find_target("x86-64-v2", X86), "it")
        assert asked
        assert processor.proof(find_target("x86-64-v2", X86)) == ""
    finally:
        processor.identity.cache_clear()
