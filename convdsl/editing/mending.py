"""Edits that mend a finding, where its help says what to write.

What help says is for people. So an edit is tried before it is offered: the edited text is analysed,
the finding has to be gone, and nothing else may be wrong that was not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from convdsl.diagnostics import Diagnostic, Span
from convdsl.editing.analysis import Analysis, analyse
from convdsl.editing.finding import everything
from convdsl.editing.project import Project
from convdsl.editing.references import Edit, applied
from convdsl.elaborate.session import SUGGESTED
from convdsl.syntax import ast

_WRITE = re.compile(r"write `([^`]+)`")
_CALL = re.compile(r"(?:or )?(?:call it|write) `(\w+ as _\w+|_\w+)` if that is on purpose")
_DECLARE = re.compile(r"declare it on the input: where (.+)")
_SIGNS = "=<>-&|!+*/%"
_PLACEHOLDER = re.compile(r"\.\.\.|\bNAME\b")


@dataclass(frozen=True, slots=True)
class Mending:
    """An edit of the text that mends a finding."""

    title: str
    edit: Edit


def mendings(project: Project, analysis: Analysis, finding: Diagnostic) -> list[Mending]:
    """The edits that mend a finding of a text. There is nearly always one, or none."""
    span = finding.span
    if span is None or span.source is not analysis.reading.source:
        return []
    proposed = dict.fromkeys(m for text in finding.help for m in _proposed(analysis, span, text))
    return [m for m in proposed if _mends(project, analysis, finding, m)]


def _proposed(analysis: Analysis, span: Span, help: str) -> Iterator[Mending]:
    """What a line of help comes down to, as an edit."""
    if found := SUGGESTED.search(help):
        yield _replaced(span, _spelled(span, found[1]))
    elif found := _CALL.search(help):
        yield _replaced(span, found[1])
    elif found := _DECLARE.fullmatch(help):
        yield from _declared(analysis, found[1])
    elif (found := _WRITE.search(help)) and not _PLACEHOLDER.search(found[1]):
        yield _replaced(_sign(span), found[1])


def _replaced(span: Span, text: str) -> Mending:
    return Mending(f"Write `{text}`", Edit(span.start, span.end, text))


def _sign(span: Span) -> Span:
    """A sign of several characters, whose last one is the first that cannot stand there."""
    text, start = span.source.text, span.start
    if not span.text or span.text[0] not in _SIGNS:
        return span
    while start and text[start - 1] in _SIGNS:
        start -= 1
    return span.source.span(start, span.end)


def _spelled(span: Span, word: str) -> str:
    """The word in the place of another one; a file stands in quotes."""
    return f'"{word}"' if span.text.startswith('"') else word


def _declared(analysis: Analysis, condition: str) -> Iterator[Mending]:
    """The condition behind the input that has the size."""
    size = condition.partition(" ")[0]
    for node in everything(analysis.reading.tree):
        if not isinstance(node, ast.Input) or node.type is None:
            continue
        names = (n.id for e in node.type.extents for n in everything(e) if isinstance(n, ast.Name))
        if size in names:
            text = f", {condition}" if node.constraints else f" where {condition}"
            title = f"Declare `where {condition}`"
            yield Mending(title, Edit(node.span.end, node.span.end, text))


def _mends(project: Project, analysis: Analysis, finding: Diagnostic, mending: Mending) -> bool:
    """Whether the finding is gone after the edit, and nothing new is wrong."""
    edited = Project(project.zoo)
    for place, text in project.opened.items():
        edited.set_text(place, text)
    edited.set_text(analysis.place, applied(analysis.reading.text, [mending.edit]))
    *_, after = analyse(edited, analysis.place)
    if analysis.reading.errors and not after.reading.errors:
        return True  # it parses: what is found in it now was not looked for before
    before, now = _counted(analysis.findings), _counted(after.findings)
    key = _key(finding)
    return now[key] < before[key] and all(_known(f, finding, before, now) for f in after.findings)


def _known(
    found: Diagnostic,
    mended: Diagnostic,
    before: Counter[tuple[str, str]],
    now: Counter[tuple[str, str]],
) -> bool:
    """Whether something that is wrong after an edit was before, or is what was hidden by what is
    mended: another mistake of its kind, at its place."""
    key = _key(found)
    if found.severity != "error" or now[key] <= before[key]:
        return True
    return found.code == mended.code and _text(found) == _text(mended)


def _text(finding: Diagnostic) -> str:
    return finding.span.text if finding.span is not None else ""


def _key(finding: Diagnostic) -> tuple[str, str]:
    return finding.code, finding.message


def _counted(findings: tuple[Diagnostic, ...]) -> Counter[tuple[str, str]]:
    return Counter(map(_key, findings))
