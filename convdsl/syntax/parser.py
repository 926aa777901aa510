"""Text to syntax tree: words, layout, the LALR(1) parser, and what to say where they object."""

from __future__ import annotations

import re
from typing import Any

from convdsl.diagnostics import CompileError, Diagnostic, Label, SourceFile
from convdsl.syntax import ast, hints, lalr, limits
from convdsl.syntax.build import Builder
from convdsl.syntax.layout import LayoutError, arrange

ITEM = re.compile(
    r"^(?:use|default|let|assert|preprocess|labels|block|model|train)\b", re.MULTILINE
)
RECOVERY = 1 << 16  # characters; longer sources get their first syntax error only
RECOVERED = 10


def parse(source: SourceFile) -> ast.File:
    """The tree of a file; raises CompileError with every syntax error found."""
    if len(source.text) > limits.SOURCE_BYTES or (
        len(source.text.encode("utf-8", "surrogatepass")) > limits.SOURCE_BYTES
    ):
        text = f"the source is larger than {limits.SOURCE_BYTES:,} bytes"
        raise CompileError([Diagnostic("E0801", text, (Label(source.span(0, 0)),))])
    try:
        tree = _parse(source, source.text, 0, "file")
    except CompileError as error:
        raise CompileError(_more_errors(source, error)) from None
    assert isinstance(tree, ast.File)
    _check_version(tree)
    return tree


def _more_errors(source: SourceFile, first: CompileError) -> list[Diagnostic]:
    """The errors of the other items too: each bad one is blanked out and the rest parsed again."""
    found = list(first.diagnostics)
    text = source.text
    starts = [match.start() for match in ITEM.finditer(text)]
    while len(text) <= RECOVERY and len(found) < RECOVERED and found[-1].span is not None:
        at = found[-1].span.start
        before = [s for s in starts if s < at]  # an error at an item's start is the one before's
        start = before[-1] if before else 0
        end = min((s for s in starts if s > start and s >= at), default=len(text))
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
        try:
            _parse(source, text, 0, "file")
        except CompileError as error:
            if error.diagnostics[0].span is None or error.diagnostics[0].span.start <= at:
                break
            found += error.diagnostics
        else:
            break
    return found


def _check_version(file: ast.File) -> None:
    for index, item in enumerate(file.items):
        if not isinstance(item, ast.Version):
            continue
        if index:
            message, help = "the language version stands on the first line", "move it to the top"
        elif item.number != 1:
            message = f"this file is written in version {item.number} of the language"
            help = "this convdsl reads version 1"
        else:
            continue
        raise CompileError([Diagnostic("E0105", message, (Label(item.span),), help=(help,))])


def _parse(source: SourceFile, text: str, offset: int, start: str) -> ast.Node:
    """Parse `text`, which stands at `offset` in the source."""

    def expression(inner: str, at: int) -> ast.Expression:
        return _parse(source, inner, at, "expression")  # pyright: ignore[reportReturnType]

    builder = Builder(source, expression)

    def build(rule: str, start: int, end: int, children: list[Any]) -> Any:
        span = source.span(offset + max(start, 0), offset + max(end, 0))
        return getattr(builder, rule)(span, children)

    try:
        return lalr.parse(arrange(lalr.words(text)), start, build)
    except lalr.BadCharacter as error:
        raise CompileError([hints.bad_character(source, offset + error.at)]) from None
    except lalr.BadWord as error:
        at = len(text) if error.word.type == lalr.END else error.word.start_pos
        start_, end_ = offset + at, offset + at + len(error.word.value)
        found = hints.unexpected(source, start_, end_, error.word.type, error.accepts)
        raise CompileError([found]) from None
    except LayoutError as error:
        raise CompileError([hints.bad_bracket(source, offset, error)]) from None


def tokens(text: str) -> list[tuple[str, int, int]]:
    """(terminal, start, end) of every word that reaches the parser: for tests and tools."""
    return [(w.type, w.start_pos, w.start_pos + len(w.value)) for w in arrange(lalr.words(text))]
