"""Where the characters of a text are after it was changed."""

from __future__ import annotations

import bisect
import difflib
from dataclasses import dataclass
from functools import cached_property

COMPARED = 400
"""Lines of a change that are compared one by one; a larger one counts as new altogether."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters that both texts have, in the same order."""

    old: int
    new: int
    length: int


class Alignment:
    """What of a text is still there in another one: its start, its end, and of a change in between
    the lines that are the same."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """What both texts have, in order: at least their starts and ends."""
        old, new = self._old, self._new
        if old == new:
            return (Piece(0, 0, len(old)),)
        start = _common(old, new)
        end = _common(old[start:][::-1], new[start:][::-1])
        middle = _lines(old[start : len(old) - end], new[start : len(new) - end], start)
        return (Piece(0, 0, start), *middle, Piece(len(old) - end, len(new) - end, end))

    @cached_property
    def _old_starts(self) -> list[int]:
        return [piece.old for piece in self.pieces]

    @cached_property
    def _new_starts(self) -> list[int]:
        return [piece.new for piece in self.pieces]

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Where start..end of the old text is in the new one, if nothing in it changed."""
        for piece in self._near(self._old_starts, start):
            if piece.old <= start and end <= piece.old + piece.length:
                return start - piece.old + piece.new, end - piece.old + piece.new
        return None

    def old(self, offset: int) -> int | None:
        """Where an offset in the new text was in the old one, if it was there."""
        for piece in self._near(self._new_starts, offset):
            if piece.new <= offset <= piece.new + piece.length:
                return offset - piece.new + piece.old
        return None

    def _near(self, starts: list[int], offset: int) -> tuple[Piece, ...]:
        """The piece that an offset is in, and the one that ends where that begins."""
        index = bisect.bisect_right(starts, offset)
        return self.pieces[max(0, index - 2) : index][::-1]


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _lines(old: str, new: str, start: int) -> list[Piece]:
    """The lines that the changed parts have in common; both begin at `start`."""
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) > COMPARED:
        return []
    olds, news = _starts(before, start), _starts(after, start)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [
        Piece(olds[m.a], news[m.b], olds[m.a + m.size] - olds[m.a] - 1)
        for m in matcher.get_matching_blocks()
        if m.size and olds[m.a + m.size] - olds[m.a] > 1
    ]


def _starts(lines: list[str], start: int) -> list[int]:
    """Where each line begins, and where one after the last would."""
    found = [start]
    for line in lines:
        found.append(found[-1] + len(line) + 1)
    return found
