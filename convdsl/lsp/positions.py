"""Positions of the protocol: lines and code units of UTF-16, or of what both sides agree on.

Lines end with LF, CR LF or CR. A position beyond its line, or beyond the text, is the end of it.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from functools import cached_property

from lsprotocol import types

_END = re.compile(r"\r\n|\n|\r")

UNITS = {"utf-8": 1, "utf-16": 2, "utf-32": 4}
"""Bytes of a code unit, by the encodings of the protocol."""


def units(text: str, encoding: str) -> int:
    """How many code units a text has."""
    if text.isascii() or encoding == "utf-32":
        return len(text)
    if encoding == "utf-16":
        return len(text) + sum(character > "\uffff" for character in text)
    return len(text.encode("utf-8", "surrogatepass"))


def prefix(text: str, count: int, encoding: str) -> int:
    """How many characters the first code units are; one that is cut counts as before the cut."""
    if text.isascii() or encoding == "utf-32":
        return min(count, len(text))
    used = 0
    for index, character in enumerate(text):
        used += units(character, encoding)
        if used > count:
            return index
    return len(text)


@dataclass(frozen=True)
class Lines:
    """A text by lines."""

    text: str
    encoding: str = "utf-16"

    @cached_property
    def _ends(self) -> list[tuple[int, int]]:
        """Where the end of each line begins and ends."""
        ends = [match.span() for match in _END.finditer(self.text)]
        return [*ends, (len(self.text), len(self.text))]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(end for _, end in self._ends[:-1])]

    def offset(self, position: types.Position) -> int:
        """The character that a position is before."""
        if position.line >= len(self._starts):
            return len(self.text)
        if position.line < 0 or position.character <= 0:
            return self._starts[max(0, position.line)]
        start, end = self._starts[position.line], self._ends[position.line][0]
        return start + prefix(self.text[start:end], position.character, self.encoding)

    def position(self, offset: int) -> types.Position:
        """The position of an offset; between CR and LF the line has ended."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect.bisect_right(self._starts, offset) - 1
        start, end = self._starts[line], self._ends[line][0]
        inside = self.text[start : min(offset, end)]
        return types.Position(line, units(inside, self.encoding))

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(self.position(start), self.position(end))

    def offsets(self, range: types.Range) -> tuple[int, int]:
        """The characters of a range; of one that ends before it starts none."""
        start, end = self.offset(range.start), self.offset(range.end)
        return start, max(start, end)


def edited(lines: Lines, change: types.TextDocumentContentChangeEvent) -> Lines:
    """The text after a change: of a range, or of all of it."""
    if isinstance(change, types.TextDocumentContentChangeWholeDocument):
        return Lines(change.text, lines.encoding)
    start, end = lines.offsets(change.range)
    text = lines.text[:start] + change.text + lines.text[end:]
    return Lines(text, lines.encoding)
