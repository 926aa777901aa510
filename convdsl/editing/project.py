"""The texts of a project: what stands in files, and over it what is open in an editor."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate.files import FileProblem, Library, project_root, read_text
from convdsl.syntax import ast
from convdsl.syntax.limits import SOURCE_BYTES
from convdsl.syntax.parser import parse_leniently

KEPT = 256
"""Texts that are not parsed again when they are needed again."""

FILES = 2_000
"""Files of a project that are looked through."""


@dataclass(frozen=True)
class Reading:
    """A text with its tree: of the whole, or where it does not parse of the items that do."""

    source: SourceFile
    tree: ast.File
    errors: tuple[Diagnostic, ...]

    @property
    def text(self) -> str:
        return self.source.text

    @property
    def whole(self) -> bool:
        """Whether the text parses."""
        return not self.errors

    @cached_property
    def definitions(self) -> Mapping[str, ast.Block | ast.Model]:
        """Blocks and models by name; of two alike the first."""
        found: dict[str, ast.Block | ast.Model] = {}
        for item in self.tree.items:
            if isinstance(item, ast.Block | ast.Model):
                found.setdefault(item.name.id, item)
        return found

    @property
    def models(self) -> tuple[str, ...]:
        names = (item.name.id for item in self.tree.items if isinstance(item, ast.Model))
        return tuple(dict.fromkeys(names))


def read(place: Path, text: str) -> Reading:
    """Parse a text that stands at a place."""
    source = SourceFile(str(place), text)
    tree, errors = parse_leniently(source)
    empty = ast.File(source.span(0, 0), ())
    return Reading(source, empty if tree is None else tree, errors)


class Project:
    """Open texts by their real paths; readings of them and of files, each made once."""

    def __init__(self, zoo: Path | None) -> None:
        self.zoo = Path(os.path.realpath(zoo)) if zoo is not None else None
        self._open: dict[Path, str] = {}
        self._readings: dict[tuple[Path, str], Reading] = {}
        self._lock = threading.Lock()

    def set_text(self, place: Path, text: str | None) -> None:
        """What an editor has for a file from now on; None where it is closed."""
        opened = dict(self._open)
        if text is None:
            opened.pop(place, None)
        else:
            opened[place] = text
        self._open = opened  # replaced, never changed: others may be reading it

    @property
    def opened(self) -> Mapping[Path, str]:
        """The texts that are open, as they are now."""
        return self._open

    def text(self, place: Path, limit: int = SOURCE_BYTES) -> str:
        """The open text, or else the file's; raises FileProblem."""
        found = self._open.get(place)
        return read_text(place, limit) if found is None else found

    def reading(self, place: Path) -> Reading:
        """The parsed text of a place; raises FileProblem."""
        return self.parsed(place, self.text(place))

    def parsed(self, place: Path, text: str) -> Reading:
        """A text parsed, or as it was parsed before."""
        with self._lock:  # one tree for one text: notes are kept by its nodes
            key = (place, text)
            found = self._readings.pop(key, None) or read(place, text)
            self._readings[key] = found  # the latest last
            while len(self._readings) > KEPT:
                self._readings.pop(next(iter(self._readings)))
            return found

    def library(self, place: Path) -> Buffers:
        """What the file at a place may read."""
        return Buffers(self, project_root(place))

    def imported(self, place: Path, text: str) -> Reading | None:
        """What `use "text"` in the file at `place` reads, if it can be read."""
        try:
            return self.reading(self.library(place).resolve(text, place))
        except (FileProblem, OSError, ValueError):
            return None

    def place_of(self, source: SourceFile) -> Path:
        """Where a source of this project stands."""
        return Path(source.path)

    def is_of_the_zoo(self, place: Path) -> bool:
        return self.zoo is not None and self.zoo in place.parents

    def sources(self, roots: Iterable[Path]) -> Iterator[Path]:
        """Every `.cnn` file below the folders, and what is open, once; hidden folders left out."""
        seen = set(self._open)
        yield from self._open
        count = 0
        for root in roots:
            for folder, folders, names in os.walk(root):
                folders[:] = sorted(n for n in folders if not n.startswith((".", "node_modules")))
                for name in sorted(names):
                    if not name.endswith(".cnn"):
                        continue
                    count += 1
                    if count > FILES:
                        return
                    place = Path(os.path.realpath(Path(folder) / name))
                    if place not in seen:
                        seen.add(place)
                        yield place


class Buffers(Library):
    """A library where open texts win over files; keeps what was asked for, and the texts."""

    def __init__(self, project: Project, root: Path) -> None:
        super().__init__(root, project.zoo)
        self._project = project
        self.asked: set[Path] = set()
        self.texts: dict[Path, str] = {}

    def text(self, place: Path, limit: int) -> str:
        self.asked.add(place)
        found = self.texts[place] = self._project.text(place, limit)
        return found

    def source(self, place: Path, shown: str) -> SourceFile:
        return self._project.parsed(place, self.text(place, SOURCE_BYTES)).source

    def tree(self, source: SourceFile) -> ast.File:
        found = self._project.parsed(self._project.place_of(source), source.text)
        if found.errors:
            raise CompileError(found.errors)
        return found.tree
