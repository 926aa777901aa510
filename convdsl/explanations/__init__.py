"""What every code of a diagnostic means, with a text that is wrong and one that is right.

The one home of this: `convdsl explain`, the rules of SARIF, the language server and
docs/diagnostics.md read it. The entries stand in the TOML files beside, one file for a family of
codes; tests run both examples of each.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SETTINGS = {
    "body": "in a model with `input x: f32[N, 64, 56, 56]`",
    "file": "at the top of a file",
    "alone": "the whole file",
    "width": "a file that is loaded with `--set width=2`",
    "project": "in convdsl.toml, beside `net.cnn` with the model `net`",
}
"""Where an example stands, in words."""

LEVELS = {"E": "error", "W": "warning"}
PAGE = "docs/diagnostics.md"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A code: what it means, and how a text that has it becomes one that has not."""

    code: str
    title: str
    text: str  # sentences, filled anew wherever they are shown
    setting: str  # of SETTINGS
    wrong: str
    right: str

    @property
    def level(self) -> str:
        """`error` or `warning`."""
        return LEVELS[self.code[0]]

    @property
    def where(self) -> str:
        """Where the examples stand, in words."""
        return SETTINGS[self.setting]

    def markdown(self) -> str:
        """A section of a page."""
        return (
            f"### {self.code}: {self.title}\n\n{self.text}\n\n"
            f"Wrong, {self.where}:\n\n```cnn\n{self.wrong}```\n\n"
            f"Right:\n\n```cnn\n{self.right}```\n"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "level": self.level,
            "title": self.title,
            "text": self.text,
            "where": self.where,
            "wrong": self.wrong,
            "right": self.right,
        }


def find(code: str) -> Explanation | None:
    """What is known of a code, in whatever case it is written."""
    return every().get(code.strip().upper())


@cache
def every() -> Mapping[str, Explanation]:
    """All codes, errors first."""
    folder = Path(__file__).resolve().parent
    found = {entry.code: entry for path in folder.glob("*.toml") for entry in _entries(path)}
    return {code: found[code] for code in sorted(found)}


def _entries(path: Path) -> Iterator[Explanation]:
    for code, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        yield Explanation(code=code, **{**entry, "text": _filled(entry["text"])})


def _filled(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
