"""The zoo: the models that convdsl ships, by name.

The files stand in examples/ of a checkout, or inside the installed package. They are found by
their text alone, without parsing, so that listing them is quick.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE / "examples", _HERE.parent / "examples")  # wheel, checkout

_MODEL = re.compile(r"^model\s+([A-Za-z_]\w*)\s*(?:\(([^)]*)\))?", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[a-z0-9)])\.(?= [A-Z])")  # not after initials
_HEADING = re.compile(r"((?:^#[^\n]*\n)+)\Z", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo. `parameters` are as written: `classes = 1000`."""

    path: Path
    model: str
    title: str
    parameters: tuple[str, ...]


def folder() -> Path | None:
    """Where the zoo's files are; None where convdsl was installed without them."""
    for candidate in FOLDERS:
        if any(candidate.glob("*.cnn")):
            return candidate
    return None


@functools.cache
def names() -> dict[str, Entry]:
    """Every model of the zoo by name, in alphabetical order of files."""
    found: dict[str, Entry] = {}
    place = folder()
    for path in sorted(place.glob("*.cnn")) if place else ():
        text = path.read_text(encoding="utf-8")
        for match in _MODEL.finditer(text):
            name, parameters = match.group(1), match.group(2) or ""
            listed = tuple(p.strip() for p in parameters.split(",") if p.strip())
            found[name] = Entry(path, name, _title(text[: match.start()]), listed)
    return found


def find(name: str) -> Entry | None:
    """The model called `name`."""
    return names().get(name)


def _title(before: str) -> str:
    """The first sentence of the comment right above a model."""
    heading = _HEADING.search(before)
    if heading is None:
        return ""
    lines = (line.lstrip("#").strip() for line in heading.group(1).splitlines())
    whole = " ".join(line for line in lines if line)
    return _SENTENCE.split(whole, maxsplit=1)[0].removesuffix(".")
