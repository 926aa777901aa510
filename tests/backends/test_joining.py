"""What the joiner of object files does not know it refuses, and in words."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest

from convdsl import ArtifactError
from convdsl.backends.llvm.joining import Unjoinable, join
from convdsl.backends.llvm.objects import emit_object, find_target
from convdsl.runtime.cpu import elf

X86, ARM = "x86_64-unknown-linux-gnu:x86-64-v3", "aarch64-unknown-linux-gnu:cortex-a76"

CALLER = """declare hidden float @one(float)
@table = internal constant [2 x float] [float 1.5, float 2.5]
define float @all(float %x, i64 %i) nounwind {
  %where = getelementptr float, ptr @table, i64 %i
  %y = load float, ptr %where
  %z = call float @one(float %y)
  %s = fadd float %z, %x
  ret float %s
}"""
CALLED = """define hidden float @one(float %x) nounwind {
  %y = fmul float %x, 0x400A36E2E0000000
  ret float %y
}"""


def compiled(ir: str, cpu: str = X86) -> bytes:
    target = find_target(cpu)
    return emit_object(f'target triple = "{target.triple}"\n{ir}', target)


@pytest.mark.parametrize("cpu", [X86, ARM])
def test_what_is_joined(cpu: str) -> None:
    """References across files and to constants; hidden names are local afterwards."""
    file = elf.read(join([compiled(CALLER, cpu), compiled(CALLED, cpu)]))
    assert file.elsewhere == ()
    table = next(section for section in file.sections if section.type == elf.SYMTAB)
    assert [symbol.name for symbol in file.symbols[table.info :]] == [b"all"]
    led = {relocation.symbol.name for relocation in file.relocations}
    assert b"one" in led
    assert len(file.relocations) > 2


OTHERS = {
    "section .tbss": "@x = thread_local global i32 0",
    "section .group": "$f = comdat any\ndefine linkonce_odr void @f() comdat { ret void }",
    "symbol f is of an unknown kind": """define ptr @which() { ret ptr null }
@f = ifunc void (), ptr @which""",
    "section meta": """@x = global i32 0
@y = global i32 0, section "meta", !associated !0
!0 = !{ptr @x}""",
    r"section .rela.debug\w+ fills in what is not in memory": """
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!2}
define void @f() !dbg !3 { ret void, !dbg !4 }
!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, emissionKind: FullDebug)
!1 = !DIFile(filename: "f", directory: "d")
!2 = !{i32 2, !"Debug Info Version", i32 3}
!3 = distinct !DISubprogram(name: "f", file: !1, spFlags: DISPFlagDefinition, unit: !0, type: !5)
!4 = !DILocation(line: 1, scope: !3)
!5 = !DISubroutineType(types: !{null})""",
}
"""What is said of code that the printer never writes."""


@pytest.mark.parametrize(("said", "ir"), OTHERS.items())
def test_what_nobody_prints_here(said: str, ir: str) -> None:
    with pytest.raises(Unjoinable, match=rf"object files cannot be joined: .*{said}"):
        join([compiled(CALLED), compiled(ir)])


@pytest.mark.parametrize(
    "triple",
    ["i686-linux-gnu:pentium4", "x86_64-unknown-linux-gnux32:skylake", "powerpc64-linux-gnu:pwr8",
     "aarch64_be-linux-gnu:cortex-a76", "riscv64-linux-gnu:generic-rv64",
     "arm64-apple-macosx:apple-m1", "x86_64-pc-windows-msvc:skylake"],
)  # fmt: skip
def test_files_of_other_kinds(triple: str) -> None:
    code = compiled("define void @f() { ret void }", triple)
    with pytest.raises(Unjoinable, match="another kind, or for a processor that is not known"):
        join([code, code])


def test_two_definitions_and_two_processors() -> None:
    with pytest.raises(Unjoinable, match="two define one"):
        join([compiled(CALLED), compiled(CALLED)])
    with pytest.raises(Unjoinable, match="for different processors"):
        join([compiled(CALLER), compiled(CALLED, ARM)])


def test_notes_that_differ() -> None:
    """Of equal ones there is one."""
    said = '!llvm.ident = !{{!0}}\n!0 = !{{!"{}"}}'
    one, same, other = (compiled(said.format(text)) for text in ("a", "a", "b"))
    names = [name(join([one, same]), at) for at in range(len(elf.read(join([one, same])).sections))]
    assert names.count(b".comment") == 1
    with pytest.raises(Unjoinable, match="they differ in section .comment"):
        join([one, other])


def name(code: bytes, number: int) -> bytes:
    """A section's."""
    sections = elf.read(code).sections
    (names,) = struct.unpack_from("<H", code, 62)
    start = sections[names].offset + sections[number].name
    return code[start : code.index(b"\0", start)]


def test_files_that_are_cut_off() -> None:
    """Wherever: the sections' table is the last thing in them."""
    whole = compiled(CALLER)
    for length in range(0, len(whole), 5):
        with pytest.raises(Unjoinable, match="cannot be joined"):
            join([whole[:length], CODE])


CODE = compiled(CALLED)


def test_files_with_other_bytes() -> None:
    """They are refused in words, here or where they would be loaded; or the bytes are those of
    instructions, constants and names."""
    draw = np.random.default_rng(20)
    whole, refused = compiled(CALLER), 0
    for _ in range(500):
        changed = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            changed[draw.integers(len(changed))] = draw.choice([0, 1, 2, 255, draw.integers(256)])
        try:
            joined = join([bytes(changed), CODE])
        except Unjoinable:
            refused += 1
            continue
        with contextlib.suppress(ArtifactError):
            elf.read(joined)
    assert refused > 150
