"""Where keys and values stand in a TOML text, which `tomllib` does not say.

The text is one that `tomllib` has read, so nothing is checked here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
Place = tuple[int, int]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_OTHER = re.compile(r"[^,\]}\n#]*")


@dataclass(slots=True)
class Places:
    """Of keys and of values, start and end by the way that leads there: `("budget", "net",
    "params")`, with numbers for elements of arrays. A table is where its heading is."""

    keys: dict[Path, Place] = field(default_factory=dict[Path, Place])
    values: dict[Path, Place] = field(default_factory=dict[Path, Place])


def places(text: str) -> Places:
    """Where everything is."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found = Places()
        self._tables: dict[Path, int] = {}  # arrays of tables: how many there were

    def scan(self) -> Places:
        prefix: Path = ()
        while self._skip(_BLANK) < len(self._text):
            prefix = self._heading() if self._text[self._at] == "[" else self._pair(prefix)
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _heading(self) -> Path:
        start = self._at
        many = self._text.startswith("[[", start)
        self._at += 2 if many else 1
        names = [name for name, _ in self._key()]
        self._at += 2 if many else 1
        prefix: Path = ()
        for number, name in enumerate(names):
            prefix = (*prefix, name)
            if many and number == len(names) - 1:
                self._tables[prefix] = self._tables.get(prefix, 0) + 1
            if prefix in self._tables:
                self._mark(prefix, (start, self._at))
                prefix = (*prefix, self._tables[prefix] - 1)
            self._mark(prefix, (start, self._at))
        return prefix

    def _mark(self, path: Path, place: Place) -> None:
        self._found.keys.setdefault(path, place)
        self._found.values.setdefault(path, place)

    def _pair(self, prefix: Path) -> Path:
        """`key = value`; gives the prefix back."""
        path = prefix
        for name, place in self._key():
            path = (*path, name)
            self._mark(path, place)
        self._at += 1  # the sign
        self._skip(_SPACE)
        self._value(path)
        return prefix

    def _key(self) -> list[tuple[str, Place]]:
        """A key with dots, up to what ends it."""
        parts: list[tuple[str, Place]] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            if self._text[start] in "\"'":
                self._skip(_STRING)
                name = tomllib.loads(f"k = {self._text[start : self._at]}")["k"]
            else:
                self._skip(_BARE)
                name = self._text[start : self._at]
            parts.append((name, (start, self._at)))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        start = self._at
        match self._text[start]:
            case "[":
                self._elements(path)
            case "{":
                self._inline(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                end = self._skip(_OTHER)
                self._at = start + len(self._text[start:end].rstrip())
        self._found.values[path] = (start, self._at)

    def _elements(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._text[self._skip(_BLANK)] != "]":
            self._value((*path, number))
            number += 1
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1
