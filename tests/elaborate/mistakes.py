"""A catalogue of mistakes that authors make, as text: mistakes.txt beside this file.

    === NAME CODE: SUGGESTION          the inside of a model with an input x of 64 channels and
    === NAME CODE                      56 x 56 pixels
    === NAME CODE file: SUGGESTION     a whole file
    === NAME CODE file width=3: ...    a whole file, and what is set from outside

SUGGESTION is what the help has to say; none where the message says it all. Each mistake has a
golden diagnostic in golden/diagnostics/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(
    r"^=== ([a-z0-9-]+) ([EW]\d{4})( file)?(?: (\w+=[^:\n]+))?(?:: (.*))?\n", re.MULTILINE
)
_CHAPTER = re.compile(r"^# [A-Z][^\n]*\n\Z", re.MULTILINE)


@dataclass(frozen=True)
class Mistake:
    name: str
    text: str
    code: str
    suggestion: str | None
    whole: bool
    setting: str | None = None  # NAME=VALUE, as after `--set`

    @property
    def source(self) -> str:
        if self.whole:
            return f"{self.text}\n"
        return f"model m {{\n    input x: f32[N, 64, 56, 56]\n{_indented(self.text)}\n}}\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _read(text: str) -> Iterator[Mistake]:
    heads = list(_HEAD.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        inside = text[head.end() : after.start() if after is not None else len(text)]
        inside = _CHAPTER.sub("", inside.rstrip("\n") + "\n").strip("\n")
        name, code, whole, setting, suggestion = head.groups()
        yield Mistake(name, inside, code, suggestion, whole is not None, setting)


MISTAKES = tuple(_read(Path(__file__).with_name("mistakes.txt").read_text(encoding="utf-8")))
