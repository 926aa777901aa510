"""A text analysed: every model of it, as far as each goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from convdsl.diagnostics import Diagnostic, Label
from convdsl.editing.alignment import Alignment
from convdsl.editing.carried import Holding, Match, Origin
from convdsl.editing.costs import beyond_budgets
from convdsl.editing.project import Buffers, Project, Reading
from convdsl.elaborate.examination import Applied, Examination, examine
from convdsl.syntax import ast

PATIENCE = 0.04
"""Seconds after which what was found so far is told, where some models are still to come."""


@dataclass(frozen=True)
class Analysis:
    """What is known of a text. While some models are to come it is not `complete`."""

    place: Path
    reading: Reading
    examinations: tuple[Examination, ...]
    findings: tuple[Diagnostic, ...]
    asked: frozenset[Path]  # files whose texts took part
    complete: bool = True
    costs: tuple[Diagnostic, ...] = ()  # of the findings those that budgets led to
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])  # by models

    def applied(self, node: ast.Node) -> Sequence[tuple[Examination, Applied]]:
        """The layers that the node of a tree stands for, by the models that they are in."""
        return [(e, a) for e, n in self._seen(node) for a in e.notes.applied_at(n.span)]

    def values(self, node: ast.Node) -> list[Any]:
        """What the node of a tree came to."""
        return [v for e, n in self._seen(node) for v in e.notes.values.get(id(n), ())]

    def callees(self, node: ast.Node) -> list[Any]:
        """The operators and blocks that a call turned out to be of."""
        return [
            value
            for e, n in self._seen(node)
            for value in e.notes.callees.get((id(n.span.source), n.span.start), ())
        ]

    def _seen(self, node: ast.Node) -> Iterator[tuple[Examination, ast.Node]]:
        """The node as each examination saw it: one that was made of an earlier text saw another."""
        for examination in self.examinations:
            match = self._match(examination)
            if match is None or node.span.source is not self.reading.source:
                yield examination, node
            elif (earlier := match.earlier(node)) is not None:
                yield examination, earlier

    def _match(self, examination: Examination) -> Match | None:
        """Of the text that an examination was made of, where it is an earlier one."""
        origin = self.origins.get(examination.model or "")
        if origin is None or origin.examination.notes is not examination.notes:
            return None
        if origin.reading is self.reading:
            return None
        return self._matches.setdefault(id(origin.reading), Match(origin.reading, self.reading))

    @cached_property
    def _matches(self) -> dict[int, Match]:
        return {}

    def knows(self, reading: Reading) -> bool:
        """Whether the text took part in this analysis."""
        return reading is self.reading or any(
            id(reading.source) in e.trees for e in self.examinations
        )


def analyse(
    project: Project,
    place: Path,
    before: Analysis | None = None,
    wanted: Callable[[], bool] = lambda: True,
    origins: dict[str, Origin] | None = None,
) -> Iterator[Analysis]:
    """Analyse a text; what is known first, and everything last.

    The findings are those of `convdsl check`. `before` is what was known of an earlier text: of the
    models that are still to come it says what their findings were. `origins` are examinations that
    may still hold, those of `before` unless said; what is found is put there at once, so that an
    analysis that ends early leaves what it had. Raises Cancelled where nobody wants it any more,
    FileProblem where there is no text.
    """
    reading = project.reading(place)
    library = project.library(place)
    if not reading.whole:
        yield _broken(place, reading, library, before, wanted)
        return
    if origins is None:
        origins = dict(before.origins) if before is not None else {}
    done, waiting = _carried(project, reading, before, origins, library)
    since = time.perf_counter()
    while waiting:
        model = waiting.pop(0)
        examination = _examined(reading, model, place, library, wanted)
        done.append(examination)
        if model is not None and not examination.findings:
            origins[model] = Origin(examination, reading, library.root, dict(library.texts))
        if waiting and time.perf_counter() - since > PATIENCE:
            since = time.perf_counter() + 10 * PATIENCE  # often is no help
            kept = _kept(before, reading, waiting)
            yield _analysis(place, reading, done, kept, library.asked, origins, complete=False)
    costs = () if before is None else _moved_all(before.costs, before, reading)
    for name in origins.keys() - set(reading.models):
        del origins[name]
    found = _analysis(place, reading, done, costs, library.asked, origins, complete=True)
    yield found
    now = tuple(beyond_budgets(found.reading, done, place, library, wanted))
    if now or costs:
        findings = merged([*(f for e in found.examinations for f in e.findings), *now])
        yield replace(found, findings=findings, asked=found.asked | library.asked, costs=now)


def _carried(
    project: Project,
    reading: Reading,
    before: Analysis | None,
    origins: Mapping[str, Origin],
    library: Buffers,
) -> tuple[list[Examination], list[str | None]]:
    """What is known of models still, and the models that are to be looked at."""
    waiting = _ordered(reading, before)
    if not origins:
        return [], waiting
    holding = Holding(project, origins, reading, library)
    found = {model: holding.of(model) for model in waiting}
    done = [examination for examination in found.values() if examination is not None]
    return done, [model for model in waiting if found[model] is None]


def _examined(
    reading: Reading,
    model: str | None,
    place: Path,
    library: Buffers,
    wanted: Callable[[], bool],
) -> Examination:
    """A model, and whether its losses can judge what it puts out."""
    found = examine(reading.source, reading.tree, model, place, library, wanted)
    if found.made is None or found.made.training is None:
        return found
    from convdsl.training.judging import disagreements  # takes longer to load than all of this

    return replace(found, findings=(*found.findings, *disagreements(found.made)))


def _broken(
    place: Path,
    reading: Reading,
    library: Buffers,
    before: Analysis | None,
    wanted: Callable[[], bool],
) -> Analysis:
    """Of a text that does not parse. Nothing is said of what its other items hold, which may lack
    what the broken ones define; where nothing was known before they are looked at all the same."""
    names = reading.models if before is None else ()
    done = [examine(reading.source, reading.tree, n, place, library, wanted) for n in names]
    asked = frozenset((place, *library.asked))
    return Analysis(place, reading, tuple(done), reading.errors, asked)


def _analysis(
    place: Path,
    reading: Reading,
    done: Sequence[Examination],
    kept: Sequence[Diagnostic],
    asked: set[Path],
    origins: Mapping[str, Origin],
    *,
    complete: bool,
) -> Analysis:
    order = {name: index for index, name in enumerate(reading.models)}
    sorted_ = sorted(done, key=lambda e: order.get(e.model or "", 0))
    findings = merged([*(f for e in sorted_ for f in e.findings), *kept])
    asked_ = frozenset((place, *asked))
    return Analysis(
        place, reading, tuple(sorted_), findings, asked_, complete, origins=dict(origins)
    )


def merged(findings: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """In order of place, each once: models of a file share what is around them."""
    found: dict[tuple[Any, ...], Diagnostic] = {}
    for diagnostic in findings:
        span = diagnostic.span
        where = (span.source.path, *span.source.position(span.start)) if span else ("", 0, 0)
        which = diagnostic.message if diagnostic.code.startswith("E10") else ""  # budgets
        found.setdefault((*where, diagnostic.code, which), diagnostic)
    return tuple(found[key] for key in sorted(found))


def _ordered(reading: Reading, before: Analysis | None) -> list[str | None]:
    """The models of a text: first those that had findings, then by how long they took."""
    if not reading.models:
        return [None]
    names: list[str | None] = [*reading.models]
    known = {e.model: e for e in before.examinations} if before is not None else {}

    def key(name: str | None) -> tuple[bool, int]:
        one = known.get(name)
        return (one is None or not one.findings, one.graph.newest if one is not None else 0)

    return sorted(names, key=key)


def _kept(
    before: Analysis | None, reading: Reading, waiting: Sequence[str | None]
) -> list[Diagnostic]:
    """What the models that wait had for findings, where it stands now."""
    if before is None:
        return []
    old = [f for e in before.examinations if e.model in waiting for f in e.findings]
    return [*_moved_all((*old, *before.costs), before, reading)]


def _moved_all(
    findings: Sequence[Diagnostic], before: Analysis, reading: Reading
) -> tuple[Diagnostic, ...]:
    """Findings of an earlier text where they stand now, as far as their places are still there."""
    alignment = Alignment(before.reading.text, reading.text)
    moved = (_moved(finding, before.reading, reading, alignment) for finding in findings)
    return tuple(finding for finding in moved if finding is not None)


def _moved(
    finding: Diagnostic, old: Reading, new: Reading, alignment: Alignment
) -> Diagnostic | None:
    labels: list[Label] = []
    for label in finding.labels:
        if label.span.source is not old.source:
            labels.append(label)
            continue
        span = alignment.span(label.span.start, label.span.end)
        if span is None:
            return None
        labels.append(Label(new.source.span(*span), label.text))
    return Diagnostic(
        finding.code,
        finding.message,
        tuple(labels),
        (),
        finding.notes,
        finding.help,
        finding.severity,
    )
