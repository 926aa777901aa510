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
from convdsl.backends.llvm.objects import emit_object, find_target
from convdsl.kernel.cpu_abi import ENTRY
from convdsl.runtime.cpu import code as cpu
from convdsl.runtime.cpu import engine, mapping, processor
from convdsl.runtime.cpu.mapping import Mapped, link

pytestmark = pytest.mark.skipif(
    find_target().architecture != "x86_64", reason="elsewhere LLVM loads the code"
)

X86 = "x86_64-unknown-linux-gnu"


def object_of(body: str, declarations: str = "") -> bytes:
    ir = f'target triple = "{X86}"\n{declarations}\ndefine i64 @f(i64 %x) nounwind {{\n{body}\n}}\n'
    return emit_object(ir, find_target("x86-64", X86))


def call(code: Mapped, x: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address)(x)


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


def test_other_machines_and_names_are_declined() -> None:
    arm = emit_object(
        print_kernel(row_sums(), find_target("generic", "aarch64-linux-gnu")),
        find_target("generic", "aarch64-linux-gnu"),
    )
    assert link(arm, ENTRY) is None
    ours = object_of(" ret i64 %x")
    assert link(ours, "f") is not None
    assert link(ours, "g") is None
    assert link(b"", "f") is None
    assert link(b"MZ" + ours[2:], "f") is None


def test_damaged_objects_never_raise() -> None:
    ours = emit_object(print_kernel(row_sums(), find_target("x86-64", X86)), find_target())
    for end in range(0, len(ours), 5):
        link(ours[:end], ENTRY)
    draw = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(ours)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(ours))
            damaged[at : at + 8] = draw.randbytes(8)[: len(ours) - at]
        image = link(bytes(damaged), ENTRY)
        assert image is None or len(image.data) < 10 * len(ours) + (1 << 20)
    header = bytearray(ours)
    struct.pack_into("<Q", header, 40, 1 << 60)  # the section table beyond the end
    assert link(bytes(header), ENTRY) is None


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


def test_running_an_artifact_needs_neither_llvm_nor_graphs(tmp_path: Path) -> None:
    path = tmp_path / "net.cdsl"
    compiled(RESIDUAL).save(path, H=12, W=12)
    np.save(tmp_path / "x.npy", images())
    heavy = ("llvmlite", "networkx", "lark", "onnx", "PIL", "rich", "safetensors")
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
