"""What a table holds, whoever draws it: nothing of analyses is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """What the cells of some columns mean: a text of words, for where one of them is shown."""

    headings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Headings and lines of cells; columns in `right` hold numbers. `spare` are headings of columns
    that a narrow terminal does without, the first one first."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    right: frozenset[int]
    spare: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def right_of(self, column: int) -> bool:
        return column in self.right
