"""Machine code into memory, without LLVM: a linker for what our code generator writes.

An object file of ours is one piece of code and its constants, which refers to nothing outside
itself. Of System V's ELF and its x86-64 supplement this takes just that: sections that are to be
in memory, addresses relative to the code. Anything else is declined, and LLVM's own
loader takes over. What is no sound object file at all is refused (see `elf`).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from typing import NamedTuple

from convdsl.diagnostics import ArtifactError
from convdsl.runtime.cpu import elf
from convdsl.runtime.cpu.elf import ObjectFile, Relocation, Section


class Image(NamedTuple):
    """Linked code: bytes that may lie anywhere at a multiple of a page."""

    data: bytearray
    entry: int


class Mapped:
    """Code in memory that can be executed and not written, for as long as this object lives."""

    def __init__(self, image: Image) -> None:
        self._memory = mmap.mmap(
            -1,
            max(len(image.data), 1),
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
        self._memory.write(image.data)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if protect(self._start, len(image.data), mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "memory cannot be made executable")
        self.address = self._start + image.entry


def link(object_code: bytes, entry: str) -> Image | None:
    """The code with its constants behind it, all references filled in; None where there is
    something that only a whole linker knows. ArtifactError where it is no sound object file."""
    if not object_code.startswith(elf.MAGIC) and sys.platform != "linux":
        return None
    file = elf.read(object_code)
    if file.machine != elf.X86_64:
        return None
    start = file.function(entry)
    placed = _place(file.sections)
    if placed is None:
        return None
    places, size = placed
    image = bytearray(size)
    for number, at in places.items():
        content = file.content(number)
        image[at : at + len(content)] = content
    references = [r for r in file.relocations if r.section in places]
    if not all(_relocate(reference, places, image) for reference in references):
        return None
    return Image(image, places[start.section] + start.value)


def check_whole(object_code: bytes, machine: str) -> ObjectFile | None:
    """ArtifactError unless an object file is sound and for that machine; None where systems have
    another form of them."""
    if not object_code.startswith(elf.MAGIC) and sys.platform != "linux":
        return None
    file = elf.read(object_code)
    if file.machine != elf.MACHINES.get(machine):
        raise ArtifactError(f"the machine code is not for {machine}")
    return file


def _place(sections: tuple[Section, ...]) -> tuple[dict[int, int], int] | None:
    """(offsets of the sections that are to be in memory, bytes in all)."""
    places: dict[int, int] = {}
    end = 0
    for number, section in enumerate(sections):
        if not section.flags & elf.ALLOCATED or not section.size:
            continue
        if section.type != elf.PROGBITS:
            return None
        end = -(-end // max(section.alignment, 1)) * max(section.alignment, 1)
        places[number] = end
        end += section.size
    return places, end


def _relocate(reference: Relocation, places: dict[int, int], image: bytearray) -> bool:
    """S + A - P, in 32 bits; False for a reference of another kind, or to what is not in memory."""
    symbol = reference.symbol
    if reference.kind not in (elf.PC32, elf.PLT32) or symbol.section not in places:
        return False
    place = places[reference.section] + reference.offset
    target = places[symbol.section] + symbol.value
    struct.pack_into("<i", image, place, target + reference.addend - place)
    return True
