"""A text with the latest that is known of it: what every question of an editor is asked of.

While a text does not parse, or is not analysed yet, what is known is of an earlier one. Offsets of
the text are taken to it and back as far as the two are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from convdsl.editing.alignment import Alignment
from convdsl.editing.analysis import Analysis
from convdsl.editing.figures import Figures
from convdsl.editing.meanings import symbol_of
from convdsl.editing.names import Names
from convdsl.editing.project import Project
from convdsl.editing.symbols import Occurrence, Symbol
from convdsl.elaborate.examination import Applied, Examination
from convdsl.syntax import ast


@dataclass(frozen=True)
class Knowledge:
    """An analysis of a text, and what follows from it. `around` are analyses of other texts, which
    may have used this one's blocks."""

    project: Project
    analysis: Analysis
    around: tuple[Analysis, ...] = ()

    @cached_property
    def figures(self) -> Figures:
        return Figures()

    @cached_property
    def names(self) -> Names:
        """Of the analysed text."""
        return Names(self.project, self.analysis.place, self.analysis.reading, self.callees)

    # What elaboration saw, here and where this text is imported

    def _analyses(self) -> Iterator[Analysis]:
        yield self.analysis
        yield from (a for a in self.around if a.knows(self.analysis.reading))

    def applied(self, node: ast.Node) -> Sequence[tuple[Examination, Applied]]:
        """The layers that a node stands for, in every instance."""
        return [pair for analysis in self._analyses() for pair in analysis.applied(node)]

    def values(self, node: ast.Node) -> list[Any]:
        """What a node came to, in every instance."""
        return [value for analysis in self._analyses() for value in analysis.values(node)]

    def callees(self, node: ast.Node) -> list[Symbol]:
        """The operators and blocks that a call turned out to be of."""
        found = (value for analysis in self._analyses() for value in analysis.callees(node))
        return list(dict.fromkeys(map(symbol_of, found)))


@dataclass(frozen=True)
class View:
    """A text as it is, and what is known of it, or of an earlier one."""

    text: str
    known: Knowledge

    @property
    def project(self) -> Project:
        return self.known.project

    @property
    def analysis(self) -> Analysis:
        return self.known.analysis

    @property
    def names(self) -> Names:
        return self.known.names

    @property
    def tree(self) -> ast.File:
        return self.analysis.reading.tree

    @cached_property
    def alignment(self) -> Alignment:
        return Alignment(self.analysis.reading.text, self.text)

    def at(self, offset: int) -> int | None:
        """Where an offset of the text is in what was analysed."""
        return self.alignment.old(offset)

    def now(self, start: int, end: int) -> tuple[int, int] | None:
        """Where something analysed stands in the text."""
        return self.alignment.span(start, end)

    def occurrences(self, offset: int) -> tuple[Occurrence, ...]:
        """What the word at an offset of the text means."""
        at = self.at(offset)
        return () if at is None else self.names.at(at)
