"""The zoo: the models that convdsl ships, by name.

The files stand in examples/ of a checkout, or inside the installed package: published networks in
the folder itself, the ideas of teaching texts in its gallery/. They are found by their text alone,
without parsing, so that listing them is quick. What they say of themselves stands in comments, as
sentences:

    # TITLE. AUTHORS YEAR, arXiv:NUMBER, table 1; whatever else there is to say.

right above a model. A model that names no paper has the one that its file names first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE / "examples", _HERE.parent / "examples")  # wheel, checkout

_MODEL = re.compile(r"^model\s+([A-Za-z_]\w*)\s*(?:\(([^)]*)\))?", re.MULTILINE)
_PARAMETER = re.compile(r"(?:\[[^\]]*\]|[^,\[])+")  # commas of lists stay
_SENTENCE = re.compile(r"(?<=[a-z0-9)])\.(?= [A-Z])")  # not after initials
_COMMENT = re.compile(r"(?:^#[^\n]*\n)+", re.MULTILINE)
_AUTHOR = r"[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*"
_PAPER = re.compile(
    rf"{_AUTHOR}(?:, {_AUTHOR})*(?: et al\.)? (?:19|20)\d\d(?:, arXiv:\d{{4}}\.\d{{4,5}})?"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo. `parameters` are as written: `classes = 1000`; `paper` as cited: `He et
    al. 2015, arXiv:1512.03385`."""

    path: Path
    model: str
    title: str
    parameters: tuple[str, ...]
    paper: str | None


def folder() -> Path | None:
    """Where the zoo's files are; None where convdsl was installed without them."""
    for candidate in FOLDERS:
        if any(candidate.glob("*.cnn")):
            return candidate
    return None


def files() -> list[Path]:
    """The zoo's files: published networks first, then the gallery, each in alphabetical order."""
    place = folder()
    return [*sorted(place.glob("*.cnn")), *sorted(place.glob("gallery/*.cnn"))] if place else []


@functools.cache
def names() -> dict[str, Entry]:
    """Every model of the zoo by name, in the order of files."""
    found: dict[str, Entry] = {}
    for path in files():
        text = path.read_text(encoding="utf-8")
        comments = {match.end(): _sentences(match.group()) for match in _COMMENT.finditer(text)}
        usual = _paper(sentence for sentences in comments.values() for sentence in sentences)
        for match in _MODEL.finditer(text):
            name, parameters = match.group(1), match.group(2) or ""
            listed = tuple(p.strip() for p in _PARAMETER.findall(parameters) if p.strip())
            own = comments.get(match.start(), [""])
            found[name] = Entry(path, name, own[0], listed, _paper(own[1:]) or usual)
    return found


def find(name: str) -> Entry | None:
    """The model called `name`."""
    return names().get(name)


def _sentences(comment: str) -> list[str]:
    """What a comment says, without the full stop at its end."""
    lines = (line.lstrip("#").strip() for line in comment.splitlines())
    return _SENTENCE.split(" ".join(line for line in lines if line).removesuffix("."))


def _paper(sentences: Iterable[str]) -> str | None:
    """The first work that a sentence begins with."""
    cited = (_PAPER.match(sentence.strip()) for sentence in sentences)
    return next((match.group() for match in cited if match), None)
