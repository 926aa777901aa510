"""The documents that a client has open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lsprotocol import types
from pygls.uris import from_fs_path, to_fs_path

from convdsl.editing.analysis import Analysis
from convdsl.editing.carried import Origin
from convdsl.editing.project import Project
from convdsl.editing.view import Knowledge, View
from convdsl.lsp.positions import Lines, edited


@dataclass(eq=False)
class Document:
    """An open text with what is known of it. `latest` is the analysis that findings come from,
    `good` the last of a text that parsed, `origins` what was found of its models by whichever
    analysis looked at them last, `ticket` changes whenever the text or what it reads does."""

    uri: str
    place: Path
    lines: Lines
    version: int | None
    ticket: int = 0
    latest: Analysis | None = None
    good: Analysis | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    known: Knowledge | None = None
    origins: dict[str, Origin] = field(default_factory=dict[str, Origin])

    @property
    def text(self) -> str:
        return self.lines.text


class Documents:
    """Open documents by their addresses, and what their texts are as a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.encoding = "utf-16"
        self._open: dict[str, Document] = {}

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))

    def find(self, uri: str) -> Document | None:
        return self._open.get(uri)

    def open(self, uri: str, text: str, version: int | None) -> Document:
        """A document that was opened."""
        document = Document(uri, place_of(uri), Lines(text, self.encoding), version)
        self._open[uri] = document
        self.project.set_text(document.place, text)
        return document

    def change(
        self,
        uri: str,
        changes: list[types.TextDocumentContentChangeEvent],
        version: int | None,
    ) -> Document | None:
        """A document after some changes, one after the other."""
        document = self._open.get(uri)
        if document is None:
            return None
        for change in changes:
            document.lines = edited(document.lines, change)
        document.version = version
        self.project.set_text(document.place, document.text)
        return document

    def close(self, uri: str) -> Document | None:
        """A document that was closed; its file counts again."""
        document = self._open.pop(uri, None)
        if document is not None:
            self.project.set_text(document.place, None)
        return document

    def view(self, document: Document) -> View | None:
        """A document with the best that is known of it."""
        analysis = document.latest if document.good is None else document.good
        if analysis is None:
            return None
        around = tuple(d.good for d in self if d is not document and d.good is not None)
        known = document.known
        if known is None or known.analysis is not analysis or not _same(known.around, around):
            document.known = known = Knowledge(self.project, analysis, around)
        return View(document.text, known)

    def address(self, place: Path) -> str:
        """The address of a place: as the client calls it, where it is open."""
        for document in self._open.values():
            if document.place == place:
                return document.uri
        return from_fs_path(str(place)) or ""

    def lines(self, place: Path) -> Lines | None:
        """The text of a place by lines, if it can be read."""
        for document in self._open.values():
            if document.place == place:
                return document.lines
        try:
            return Lines(self.project.reading(place).text, self.encoding)
        except Exception:  # noqa: BLE001  unreadable in whatever way
            return None


def _same(some: tuple[Analysis, ...], others: tuple[Analysis, ...]) -> bool:
    """Whether these are the same analyses, not equal ones."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def place_of(uri: str) -> Path:
    """Where a document stands; one that is not saved yet has a place of its own."""
    path = to_fs_path(uri)
    if not path or "\0" in path:
        return Path(
            "/", "unsaved", f"{uri.rpartition(':')[2].strip('/') or 'untitled'}".replace("\0", "")
        )
    return Path(os.path.realpath(path))
