"""Object files, checked before anything is done with them.

System V's ELF (gABI, chapter 4) as far as 64-bit little-endian relocatable files go. All that a
header, a section, a symbol or a relocation says is held against the file and against the others:
whoever takes an `ObjectFile` has only numbers that lie where they should. What is wrong is an
ArtifactError. What the machine code itself does cannot be checked.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple, NoReturn

from convdsl.diagnostics import ArtifactError

X86_64, AARCH64 = 62, 183
PROGBITS, SYMTAB, STRTAB, RELA, NOBITS = 1, 2, 3, 4, 8
ALLOCATED, EXECUTABLE = 2, 4
PC32, PLT32 = 2, 4

MAGIC = b"\x7fELF"
MACHINES = {"x86_64": X86_64, "AMD64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}
"""ELF's numbers by the names that systems give their processors."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

_IDENT = MAGIC + b"\x02\x01\x01"  # 64 bits, little-endian, version 1
_RELOCATABLE = 1
_FUNCTION = 2
_NOTE, _UNWINDING, _SIGNIFICANT = 7, 0x7000_0001, 0x6FFF_4C03
_TYPES = (PROGBITS, SYMTAB, STRTAB, RELA, _NOTE, NOBITS, _UNWINDING, _SIGNIFICANT)
_FIRST_RESERVED = 0xFF00  # section numbers from here on are no sections
_NOWHERE = -1  # absolute, or common to several files: nothing that code of ours refers to
_MOST_ZEROS = 1 << 20  # bytes of zeroed data that a section may ask for
_REACH = 16  # bytes between a reference and the end of the instruction around it

# x86-64's relocations that code without a fixed place may have, and how many bytes they change:
# R_X86_64_64, PC32, PLT32, GOTPCREL, 32S, PC64, GOTPCRELX, REX_GOTPCRELX.
_WIDTHS = {1: 8, 2: 4, 4: 4, 9: 4, 11: 4, 24: 8, 41: 4, 42: 4}


class Section(NamedTuple):
    """A section's header."""

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


class Symbol(NamedTuple):
    """A symbol. `section` is 0 where it is defined elsewhere, -1 where it has no place."""

    name: bytes
    kind: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    """A reference to be filled in: symbol + addend, at an offset in a section."""

    section: int
    offset: int
    kind: int
    symbol: Symbol
    addend: int


class ObjectFile(NamedTuple):
    """What there is to link."""

    machine: int
    data: bytes
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    def content(self, number: int) -> bytes:
        """The bytes of a section that has some in the file."""
        section = self.sections[number]
        return self.data[section.offset : section.offset + section.size]

    def function(self, name: str) -> Symbol:
        """A function that is defined here. Raises ArtifactError."""
        found = [s for s in self.symbols if s.name == name.encode() and s.kind == _FUNCTION]
        if len(found) != 1 or found[0].section <= 0:
            raise ArtifactError(f"the machine code has no function {name!r}")
        section = self.sections[found[0].section]
        if section.type != PROGBITS or ~section.flags & (ALLOCATED | EXECUTABLE):
            raise ArtifactError(f"the machine code has no function {name!r}, but something else")
        return found[0]

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Names of what the code needs and does not bring."""
        needed = {r.symbol.name for r in self.relocations if not r.symbol.section}
        return tuple(sorted(name.decode("utf-8", "replace") for name in needed))


def read(data: bytes) -> ObjectFile:
    """The file, with everything checked. Raises ArtifactError."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError, OverflowError):
        _refuse("it is cut off")


def _read(data: bytes) -> ObjectFile:
    ident, *numbers = _HEADER.unpack_from(data)
    kind, machine, version, _, _, table, _, own, _, _, size, count, names = map(int, numbers)
    if not ident.startswith(_IDENT) or (kind, version) != (_RELOCATABLE, 1):
        _refuse("its header is of another kind of file")
    if own != _HEADER.size or size != _SECTION.size or not 0 < count < _FIRST_RESERVED:
        _refuse("its header is inconsistent")
    if table + count * size > len(data) or names >= count:
        _refuse("its section headers lie beyond its end")
    sections = tuple(Section(*_SECTION.unpack_from(data, table + i * size)) for i in range(count))
    _check_sections(sections, len(data), sections[names])
    tables = [section for section in sections if section.type == SYMTAB]
    if len(tables) != 1:
        _refuse("it has no table of symbols, or several")
    symbols = _symbols(data, sections, tables[0])
    relocations = _relocations(data, sections, sections.index(tables[0]), symbols)
    found = ObjectFile(machine, data, sections, symbols, relocations)
    if machine == X86_64:
        for relocation in relocations:
            _check_relocation(found, relocation)
    return found


def _check_sections(sections: tuple[Section, ...], length: int, names: Section) -> None:
    """Each inside the file, no two over the same bytes: so all together are not more than it."""
    if any(sections[0]):
        _refuse("its first section is not empty")
    if names.type != STRTAB:
        _refuse("its sections have no names")
    inside: list[tuple[int, int]] = [(0, _HEADER.size)]
    for section in sections[1:]:
        if section.type not in _TYPES or section.name >= names.size:
            _refuse("a section is of an unknown kind, or without a name")
        if section.alignment & (section.alignment - 1) or section.alignment > mmap.PAGESIZE:
            _refuse("a section's alignment is no power of two")
        if section.type == NOBITS:
            if section.size > _MOST_ZEROS:
                _refuse("a section asks for too many zeros")
        elif section.size:
            inside.append((section.offset, section.offset + section.size))
    inside.sort()
    starts = [start for start, _ in inside[1:]]
    if any(end > start for (_, end), start in zip(inside, [*starts, length], strict=True)):
        _refuse("its sections overlap, or lie beyond its end")


def _symbols(data: bytes, sections: tuple[Section, ...], table: Section) -> tuple[Symbol, ...]:
    names = sections[table.link]
    text = data[names.offset : names.offset + names.size]
    if names.type != STRTAB or not text.endswith(b"\0"):
        _refuse("its symbols have no names")
    if table.entry_size != _SYMBOL.size or table.size % _SYMBOL.size or not table.size:
        _refuse("its table of symbols is inconsistent")
    found: list[Symbol] = []
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, info, _, section, value, size = map(int, _SYMBOL.unpack_from(data, at))
        if name >= len(text):
            _refuse("a symbol's name lies beyond the names")
        if section < _FIRST_RESERVED and section:
            if section >= len(sections) or value + size > sections[section].size:
                _refuse("a symbol lies beyond its section")
        elif section:
            section = _NOWHERE
        found.append(Symbol(text[name : text.index(b"\0", name)], info & 15, section, value, size))
    return tuple(found)


def _relocations(
    data: bytes, sections: tuple[Section, ...], symtab: int, symbols: tuple[Symbol, ...]
) -> tuple[Relocation, ...]:
    found: list[Relocation] = []
    for table in sections:
        if table.type != RELA:
            continue
        wrong = table.entry_size != _RELOCATION.size or table.size % _RELOCATION.size
        if wrong or table.link != symtab or not 0 < table.info < len(sections):
            _refuse("a table of references is inconsistent")
        for at in range(table.offset, table.offset + table.size, _RELOCATION.size):
            offset, kind, symbol, addend = _RELOCATION.unpack_from(data, at)
            if symbol >= len(symbols):
                _refuse("a reference is to no symbol")
            if offset >= sections[table.info].size:
                _refuse("a reference lies beyond its section")
            found.append(Relocation(table.info, offset, kind, symbols[symbol], addend))
    return tuple(found)


def _check_relocation(file: ObjectFile, relocation: Relocation) -> None:
    """Of a known kind, wholly inside its section, and to something inside another."""
    width = _WIDTHS.get(relocation.kind)
    section = file.sections[relocation.section]
    if width is None or relocation.offset + width > section.size or section.type != PROGBITS:
        _refuse("a reference is of an unknown kind, or lies beyond its section")
    symbol = relocation.symbol
    if symbol.section == _NOWHERE:
        _refuse("a reference is to no place")
    if symbol.section and not file.sections[symbol.section].flags & ALLOCATED:
        _refuse("a reference is to what is not in memory")
    if not symbol.section and (not symbol.name or relocation.kind == PC32):
        _refuse("a reference to elsewhere goes no way that reaches far enough")
    place = symbol.value + relocation.addend if symbol.section else relocation.addend
    room = file.sections[symbol.section].size if symbol.section else 0
    if not -_REACH <= place <= room:
        _refuse("a reference leads beyond what it is to")


def _refuse(why: str) -> NoReturn:
    raise ArtifactError(f"the machine code is damaged: {why}")
