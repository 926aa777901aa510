"""Object files into one: what `ld -r` does, as far as files of our code generator need it.

Kernels are compiled in pieces, and the function that calls them is in another one (`pieces`). The
joined file has the sections of all pieces side by side, one table of symbols, and every reference
to a kernel leads to it. What is hidden becomes local, so that two networks can be linked together.
The files are LLVM's, for 64-bit little-endian ELF (gABI, chapter 4): nothing is checked here.
Whoever loads the result checks it (`runtime.cpu.elf`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

_SYMTAB, _STRTAB, _RELA, _NOBITS, _SIGNIFICANT = 2, 3, 4, 8, 0x6FFF_4C03
_ALLOCATED = 2
_LOCAL, _FILE, _HIDDEN = 0, 4, 2
_FIRST_RESERVED = 0xFF00  # section numbers from here on are no sections


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
        _, *numbers = _HEADER.unpack_from(data)
        header = tuple(map(int, numbers))
        table, count, names = header[5], header[11], header[12]
        rows = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(count)]

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
        symbols: list[_Symbol] = []
        for section in sections:
            if section.type == _SYMTAB:
                for name, *rest in _SYMBOL.iter_unpack(section.content):
                    symbols.append(_Symbol(text(section.link, name), *rest))
        return _File(header, sections, tuple(symbols))


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
    """One object file of several. ValueError for a symbol that two define."""
    files = [_File.read(data) for data in objects]
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
    notes: set[bytes] = set()
    for number, file in enumerate(files):
        for index, section in enumerate(file.sections):
            if not index or section.type in (_SYMTAB, _STRTAB, _SIGNIFICANT):
                continue
            if not section.flags & _ALLOCATED and section.type != _RELA:
                if section.name in notes:
                    continue
                notes.add(section.name)
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
                    raise ValueError(f"two pieces define {symbol.name.decode()}")
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
