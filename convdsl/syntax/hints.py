"""What to say about text that does not parse: found, expected, and how to mend it (mending.py)."""

from __future__ import annotations

import re
from collections.abc import Collection

from convdsl.diagnostics import Diagnostic, Label, SourceFile
from convdsl.syntax import limits
from convdsl.syntax.layout import NEWLINE, LayoutError
from convdsl.syntax.mending import help_of
from convdsl.syntax.words import (
    ITEMS,
    KEYWORDS,
    OPERATORS,
    PUNCTUATION,
    STARTS_VALUE,
    VALUE,
    WORDING,
)

_BRACKETS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[(){}\[\]]')


def bad_bracket(source: SourceFile, offset: int, error: LayoutError) -> Diagnostic:
    """What is wrong with a bracket: too deep, never opened, never closed, or closed by another."""
    at = offset + error.at
    found = source.text[at]
    here = Label(source.span(at, at + 1))
    if error.kind == "nesting":
        return Diagnostic("E0802", f"brackets nest deeper than {limits.NESTING}", (here,))
    if error.kind == "words":
        return Diagnostic("E0801", f"the source is longer than {limits.WORDS:,} words", (here,))
    if error.kind == "unopened":
        return Diagnostic("E0102", f"`{found}` closes nothing", (here,))
    if error.kind == "unclosed":
        return Diagnostic("E0102", f"`{found}` is never closed", (here,))
    assert error.opener is not None
    text, opened = error.opener
    opener = Label(source.span(offset + opened, offset + opened + 1), "opened here")
    return Diagnostic("E0102", f"`{found}` does not close `{text}`", (here, opener))


def unexpected(
    source: SourceFile, start: int, end: int, kind: str, accepts: Collection[str]
) -> Diagnostic:
    """A token that cannot stand where it stands."""
    comment = _comment(source, start)
    if comment is not None:
        return comment
    found = source.text[start:end]
    opened = _still_open(source.text[:start])
    if found in ITEMS and "INPUT" in accepts and opened and not _still_open(source.text):
        here = (Label(source.span(start, end)),)
        help = (f"a `{found}` stands beside blocks and models, not inside",)
        return Diagnostic("E0101", f"unexpected `{found}`", here, help=help)
    if found in ITEMS and "INPUT" in accepts and opened:
        opener = Label(source.span(opened[0], opened[0] + 1))
        here = Label(source.span(start, end), f"still open when this `{found}` starts")
        return Diagnostic("E0102", "`{` is never closed", (opener, here))
    expected = _expected(accepts)
    labels = [Label(source.span(start, end), f"expected {expected}" if expected else "")]
    if opened and source.text[opened[-1]] != "{" and "\n" in source.text[opened[-1] : start]:
        bracket = source.text[opened[-1]]
        labels.append(Label(source.span(opened[-1], opened[-1] + 1), f"`{bracket}` is still open"))
    ended = kind in ("$END", NEWLINE)
    shown = WORDING[kind].removeprefix("the ") if ended else f"`{found}`"
    help = help_of(source, start, found, kind, accepts)
    return Diagnostic("E0101", f"unexpected {shown}", tuple(labels), help=help)


_COMMENTS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|//|/\*|--|<!--')


def _comment(source: SourceFile, start: int) -> Diagnostic | None:
    """A comment of another language, in which, or at whose sign, the parser stopped."""
    line_start = source.text.rfind("\n", 0, start) + 1
    line_end = source.text.find("\n", start)
    line = source.text[line_start : line_end if line_end >= 0 else len(source.text)]
    for match in _COMMENTS.finditer(line):
        sign, at = match.group(), line_start + match.start()
        if at > start:
            return None
        if sign[0] in '"#':
            continue
        stands_alone = not line[: match.start()].strip()
        two_words = re.match(r"\s*[^\W\d]\w*[ \t]+\w", line[match.end() :])
        if sign in ("/*", "<!--") or stands_alone or two_words:
            here = (Label(source.span(at, at + len(sign))),)
            text = f"`{sign}` starts no comment"
            return Diagnostic("E0101", text, here, help=("a comment starts with `#`",))
    return None


def _still_open(text: str) -> list[int]:
    """Where the brackets stand that are open at the end of the text, outermost first."""
    stack: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match.group() in ("(", "[", "{"):
            stack.append(match.start())
        elif match.group() in (")", "]", "}") and stack:
            stack.pop()
    return stack


def _expected(accepts: Collection[str]) -> str:
    """`a value`, `a name or ")"`: at most four alternatives, operators summed up."""
    rest = set(accepts)
    words: list[str] = []
    if rest >= VALUE:
        words.append("a value")
        rest -= VALUE | STARTS_VALUE
    if len(rest & OPERATORS) >= 3:
        words.append("an operator")
        rest -= OPERATORS | {"LPAR", "DOT", "LSQB", "AS", "POWER"}
    statement = {"LET", "ASSERT", "INPUT", "OUTPUT"}
    if rest >= statement:
        words = ["a statement"]
        rest = rest & {"RBRACE"}
    if rest >= {"BLOCK", "MODEL"}:
        words = ["`block`, `model`, `use`, `let`, `default` or `train`"]
        rest.clear()
    for name in sorted(rest):
        wording = WORDING.get(name) or PUNCTUATION.get(name)
        if wording is None and name.lower() in KEYWORDS:
            wording = f"`{name.lower()}`"
        if wording is not None:
            words.append(wording)
    words = words[:4]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
