"""Machine code into memory, without LLVM: a linker for what our code generator writes.

An object file of ours is one piece of code and its constants, which refers to nothing outside
itself. Of System V's ELF and its x86-64 supplement this takes just that: sections that are to be
in memory, addresses relative to the code. Anything else is declined, and LLVM's own
loader takes over.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4
_ALLOCATED = 2
_PC32, _PLT32 = 2, 4
_FIRST_RESERVED = 0xFF00  # section numbers from here on are no sections
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1


class Image(NamedTuple):
    """Linked code: bytes that may lie anywhere at a multiple of a page."""

    data: bytearray
    entry: int


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


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
    something that only a whole linker knows."""
    try:
        return _link(object_code, entry.encode())
    except (struct.error, IndexError, ValueError, OverflowError):
        return None


def _link(data: bytes, entry: bytes) -> Image | None:
    ident, kind, machine, _, _, _, table, _, _, _, _, size, count, _ = _HEADER.unpack_from(data)
    known = ident.startswith(_IDENT) and (kind, machine) == (_RELOCATABLE, _X86_64)
    if not known or size != _SECTION.size:
        return None
    sections = [_Section(*_SECTION.unpack_from(data, table + i * size)) for i in range(count)]
    placed = _place(sections)
    tables = [section for section in sections if section.type == _SYMTAB]
    if placed is None or len(tables) != 1:
        return None
    places, size = placed
    if size > len(data) + count * mmap.PAGESIZE:
        return None
    image = bytearray(size)
    for number, at in places.items():
        section = sections[number]
        content = data[section.offset : section.offset + section.size]
        if len(content) != section.size:
            return None
        image[at : at + section.size] = content
    symbols = _Symbols(data, sections, tables[0], places)
    references = [s for s in sections if s.type == _RELA and s.info in places]
    if not all(_relocate(data, s, places[s.info], symbols, image) for s in references):
        return None
    start = symbols.find(entry)
    return None if start is None else Image(image, start)


def _place(sections: list[_Section]) -> tuple[dict[int, int], int] | None:
    """(offsets of the sections that are to be in memory, bytes in all)."""
    places: dict[int, int] = {}
    end = 0
    for number, section in enumerate(sections):
        if not section.flags & _ALLOCATED or not section.size:
            continue
        if section.type != _PROGBITS or section.alignment > mmap.PAGESIZE:
            return None
        end = -(-end // max(section.alignment, 1)) * max(section.alignment, 1)
        places[number] = end
        end += section.size
    return places, end


class _Symbols:
    def __init__(
        self, data: bytes, sections: list[_Section], table: _Section, places: dict[int, int]
    ) -> None:
        names = sections[table.link]
        self._names = data[names.offset : names.offset + names.size]
        self._rows = [
            _SYMBOL.unpack_from(data, table.offset + at)
            for at in range(0, table.size, _SYMBOL.size)
        ]
        self._places = places

    def offset(self, number: int) -> int | None:
        """Where in the image a symbol lies; None where it does not."""
        _, _, _, section, value, _ = self._rows[number]
        inside = 0 < section < _FIRST_RESERVED and section in self._places
        return self._places[section] + value if inside else None

    def find(self, name: bytes) -> int | None:
        for number, row in enumerate(self._rows):
            start = row[0]
            if self._names[start : self._names.index(b"\0", start)] == name:
                return self.offset(number)
        return None


def _relocate(data: bytes, table: _Section, base: int, symbols: _Symbols, image: bytearray) -> bool:
    """S + A - P, in 32 bits, for each entry; False at the first of another kind."""
    for at in range(table.offset, table.offset + table.size, _RELOCATION.size):
        offset, kind, symbol, addend = _RELOCATION.unpack_from(data, at)
        target = symbols.offset(symbol)
        if kind not in (_PC32, _PLT32) or target is None:
            return False
        place = base + offset
        struct.pack_into("<i", image, place, target + addend - place)
    return True
