"""The edits that bring a text into the one layout."""

from __future__ import annotations

import difflib

from convdsl.editing.references import Edit
from convdsl.syntax.format import format_source


def formatting(text: str) -> list[Edit]:
    """Of the lines that change alone, so that the cursor stays; line ends stay as they are. Raises
    CompileError where the text does not parse."""
    end = "\r\n" if "\r\n" in text else "\n"
    before = text.split("\n")
    after = format_source(text).replace("\n", end).split("\n")
    starts = [0]
    for line in before:
        starts.append(starts[-1] + len(line) + 1)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    edits: list[Edit] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        new = "\n".join(after[c:d])
        stop, last = starts[b], b == len(before)
        if not last:
            new = new + "\n" if d > c else ""
        elif d == c and a:  # the end of the text goes, and the line end before it
            edits.append(Edit(starts[a] - 1, len(text), ""))
            continue
        edits.append(Edit(starts[a], len(text) if last else stop, new))
    return edits
