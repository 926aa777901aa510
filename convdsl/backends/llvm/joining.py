"""Object files into one: what `ld -r` does, as far as files of our code generator need it.

Kernels are compiled in pieces, and the function that calls them is in another one (`pieces`). The
joined file has the sections of all pieces side by side, one table of symbols, and every reference
to a kernel leads to it. What is hidden becomes local, so that two networks can be linked together.

The files are LLVM's, for 64-bit little-endian ELF (gABI, chapter 4) of the processors in MACHINES.
Numbers of sections and symbols stand in many places of such files; those that are known here get
new ones, and a file that has anything else (groups, thread-local memory, other kinds of references)
is Unjoinable, before a byte is written. Where references lead is not looked at: they lead there in
the joined file, too, and whoever loads it checks them (`runtime.cpu.elf`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from convdsl.kernel.target import Target

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

MACHINES = {"x86_64": 62, "aarch64": 183}
"""Processors whose files are known, and ELF's numbers of them."""

_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_RELOCATABLE = 1

_PROGBITS, _SYMTAB, _STRTAB, _RELA, _NOTE, _NOBITS = 1, 2, 3, 4, 7, 8
_SIGNIFICANT, _UNWINDING = 0x6FFF_4C03, 0x7000_0001
_LEFT_OUT = (_SYMTAB, _STRTAB, _SIGNIFICANT)
_KNOWN = (_PROGBITS, _RELA, _NOTE, _NOBITS, _UNWINDING, *_LEFT_OUT)
_ALLOCATED = 2
_FLAGS = 0x77 | 0x1000_0000  # in memory: written, run, merged, strings, info names a section; large

_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_NO_TYPE, _OBJECT, _FUNCTION, _OF_SECTION, _FILE = 0, 1, 2, 3, 4
_HIDDEN = 2
_PAGE = 4096  # nothing is aligned to more
_FIRST_RESERVED, _ABSOLUTE = 0xFF00, 0xFFF1  # section numbers from the first on are no sections


class Unjoinable(ValueError):
    """An object file has what is not known here."""


def joinable(target: Target) -> bool:
    """Whether object files for a target are of the kind that is joined. On x32 and ILP32 they have
    32 bits, whatever the processor."""
    system = target.triple.partition("-")[2]
    short = system.endswith("x32") or "ilp32" in system
    return target.architecture in MACHINES and "linux" in system and not short


def _refuse(why: str) -> NoReturn:
    raise Unjoinable(f"object files cannot be joined: {why}")


class _Section(NamedTuple):
    name: bytes
    type: int
    flags: int
    content: bytes
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: bytes
    info: int
    other: int
    section: int
    value: int
    size: int

    @property
    def is_local(self) -> bool:
        return self.info >> 4 == _LOCAL or (self.other & 3 == _HIDDEN and self.section > 0)


@dataclass(frozen=True)
class _File:
    """What one object file holds."""

    header: tuple[int, ...]
    sections: tuple[_Section, ...]
    symbols: tuple[_Symbol, ...]

    @staticmethod
    def read(data: bytes) -> _File:
        """Raises Unjoinable."""
        try:
            file = _read(data)
            _check(file)
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            if isinstance(error, Unjoinable):
                raise
            _refuse("one is cut off")
        return file


def _read(data: bytes) -> _File:
    ident, *numbers = _HEADER.unpack_from(data)
    header = tuple(map(int, numbers))
    kind, machine, table, row, count, names = (header[i] for i in (0, 1, 5, 10, 11, 12))
    if not ident.startswith(_IDENT) or kind != _RELOCATABLE or machine not in MACHINES.values():
        _refuse("one is of another kind, or for a processor that is not known")
    if row != _SECTION.size or not 0 < count < _FIRST_RESERVED:
        _refuse("one has too many sections, or none")
    rows = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(count)]
    if any(
        kind != _NOBITS and offset + size > len(data) for _, kind, _, _, offset, size, *_ in rows
    ):
        _refuse("one is cut off")

    def text(strings: int, at: int) -> bytes:
        start = rows[strings][4] + at
        return data[start : data.index(b"\0", start)]

    sections = tuple(
        _Section(
            text(names, name),
            kind,
            flags,
            b"" if kind == _NOBITS else data[offset : offset + size],
            size,
            link,
            info,
            alignment,
            entry,
        )
        for name, kind, flags, _, offset, size, link, info, alignment, entry in rows
    )
    symbols = [
        _Symbol(text(section.link, name), *rest)
        for section in sections
        if section.type == _SYMTAB
        for name, *rest in _SYMBOL.iter_unpack(section.content)
    ]
    return _File(header, sections, tuple(symbols))


def _check(file: _File) -> None:
    """Nothing but what `join` gives new numbers to."""
    tables = [number for number, s in enumerate(file.sections) if s.type == _SYMTAB]
    if len(tables) != 1:
        _refuse("one has no table of symbols, or several")
    for section in file.sections[1:]:
        name = section.name.decode(errors="replace")
        if section.alignment & (section.alignment - 1) or section.alignment > _PAGE:
            _refuse(f"section {name} is aligned to {section.alignment} bytes")
        if section.type not in _KNOWN or section.flags & ~_FLAGS:
            _refuse(f"section {name} has type {section.type:#x} and flags {section.flags:#x}")
        if section.type == _RELA:
            _check_references(file, section, tables[0], name)
    for symbol in file.symbols[1:]:
        name = symbol.name.decode(errors="replace")
        known = symbol.info >> 4 in (_LOCAL, _GLOBAL, _WEAK)
        if not known or symbol.info & 15 not in (_NO_TYPE, _OBJECT, _FUNCTION, _OF_SECTION, _FILE):
            _refuse(f"symbol {name} is of an unknown kind ({symbol.info:#x})")
        inside = symbol.section < len(file.sections) or symbol.section == _ABSOLUTE
        if not inside or (not symbol.section and symbol.info >> 4 == _LOCAL):
            _refuse(f"symbol {name} is in no section ({symbol.section:#x})")
        if 0 < symbol.section < _FIRST_RESERVED:
            held = file.sections[symbol.section]
            if held.type in (*_LEFT_OUT, _RELA) or not held.flags & _ALLOCATED:
                _refuse(f"symbol {name} is in section {held.name.decode(errors='replace')}")


def _check_references(file: _File, section: _Section, table: int, name: str) -> None:
    """They are of symbols that there are, and fill in what is in memory."""
    inside = 0 < section.info < len(file.sections)
    if not inside or section.link != table or section.entry_size != _RELOCATION.size:
        _refuse(f"section {name} is inconsistent")
    filled = file.sections[section.info]
    if filled.type not in (_PROGBITS, _UNWINDING) or not filled.flags & _ALLOCATED:
        _refuse(f"section {name} fills in what is not in memory")
    for offset, _, symbol, _ in _RELOCATION.iter_unpack(section.content):
        if offset >= filled.size or not 0 < symbol < len(file.symbols):
            _refuse(f"a reference of section {name} is to no symbol, or beyond what it fills in")


@dataclass
class _Strings:
    """A table of strings, each once."""

    places: dict[bytes, int] = field(default_factory=lambda: {b"": 0})
    content: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    def place(self, text: bytes) -> int:
        if text not in self.places:
            self.places[text] = len(self.content)
            self.content += text + b"\0"
        return self.places[text]


def join(objects: Sequence[bytes]) -> bytes:
    """One object file of several. Unjoinable where one has what is not known here, where they are
    for different processors, and for a symbol that two define."""
    files = [_File.read(data) for data in objects]
    if len({(file.header[1], file.header[6]) for file in files}) != 1:
        _refuse("they are for different processors")
    kept = _kept(files)
    numbers = {place: number for number, place in enumerate(kept, 1)}
    symbols, places = _symbols(files, numbers)
    table = len(kept) + 1
    strings = _Strings()
    rows: list[tuple[int, ...]] = [(0,) * 10]
    body = bytearray(_HEADER.size)

    def add(section: _Section) -> None:
        body.extend(bytes(-len(body) % max(section.alignment, 1)))
        name, size = strings.place(section.name), section.size
        own = (section.type, section.flags, 0, len(body), size, section.link, section.info)
        rows.append((name, *own, section.alignment, section.entry_size))
        body.extend(section.content)

    for number, index in kept:
        section = files[number].sections[index]
        if section.type == _RELA:
            content = _relocations(section.content, number, places)
            info = numbers[number, section.info]
            section = section._replace(content=content, link=table, info=info)
        add(section)
    entries = b"".join(
        _SYMBOL.pack(strings.place(s.name), s.info, s.other, s.section, s.value, s.size)
        for s in symbols
    )
    local = sum(symbol.info >> 4 == _LOCAL for symbol in symbols)
    size = len(entries)
    add(_Section(b".symtab", _SYMTAB, 0, entries, size, table + 1, local, 8, _SYMBOL.size))
    strings.place(b".strtab")
    text = bytes(strings.content)
    add(_Section(b".strtab", _STRTAB, 0, text, len(text), 0, 0, 1, 0))
    body.extend(bytes(-len(body) % 8))
    ident = objects[0][:16]
    header = list(files[0].header)
    header[5], header[11], header[12] = len(body), len(rows), table + 1
    body[: _HEADER.size] = _HEADER.pack(ident, *header)
    return bytes(body) + b"".join(_SECTION.pack(*row) for row in rows)


def _kept(files: Sequence[_File]) -> list[tuple[int, int]]:
    """(file, section) of what the joined file has: what is in memory, references that are filled in
    there, and of notes each once."""
    kept: list[tuple[int, int]] = []
    notes: dict[bytes, bytes] = {}
    for number, file in enumerate(files):
        for index, section in enumerate(file.sections):
            if not index or section.type in _LEFT_OUT:
                continue
            if not section.flags & _ALLOCATED and section.type != _RELA:
                if section.name in notes:
                    if notes[section.name] != section.content:
                        _refuse(f"they differ in section {section.name.decode(errors='replace')}")
                    continue
                notes[section.name] = section.content
            kept.append((number, index))
    return kept


def _symbols(
    files: Sequence[_File], numbers: dict[tuple[int, int], int]
) -> tuple[list[_Symbol], dict[tuple[int, int], int]]:
    """The symbols, local ones first, and the number of each one of a file among them."""
    local, others = [_Symbol(b"", 0, 0, 0, 0, 0)], list[_Symbol]()
    defined: dict[bytes, tuple[bool, int]] = {}  # (whether it is local, its number there)
    places: dict[tuple[int, int], tuple[bool, int]] = {}
    undefined: list[tuple[tuple[int, int], _Symbol]] = []
    for number, file in enumerate(files):
        for index, symbol in enumerate(file.symbols):
            at = number, index
            is_file = symbol.info & 15 == _FILE
            if not index or (is_file and number):
                places[at] = True, 0
                continue
            if not symbol.section:
                undefined.append((at, symbol))
                continue
            if symbol.section < _FIRST_RESERVED:
                symbol = symbol._replace(section=numbers[number, symbol.section])
            goes = local if symbol.is_local else others
            places[at] = goes is local, len(goes)
            if symbol.info >> 4 != _LOCAL:
                if symbol.name in defined:
                    _refuse(f"two define {symbol.name.decode(errors='replace')}")
                defined[symbol.name] = places[at]
            if goes is local:
                symbol = symbol._replace(info=_LOCAL << 4 | symbol.info & 15, other=0)
            goes.append(symbol)
    for at, symbol in undefined:
        if symbol.name not in defined:
            defined[symbol.name] = False, len(others)
            others.append(symbol)
        places[at] = defined[symbol.name]
    first = len(local)
    return local + others, {at: n if own else n + first for at, (own, n) in places.items()}


def _relocations(content: bytes, number: int, places: dict[tuple[int, int], int]) -> bytes:
    return b"".join(
        _RELOCATION.pack(offset, kind, places[number, symbol], addend)
        for offset, kind, symbol, addend in _RELOCATION.iter_unpack(content)
    )
