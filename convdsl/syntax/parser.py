"""Text to syntax tree, by Lark's LALR(1) parser, and what to say where it objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import lark

from convdsl.diagnostics import CompileError, Diagnostic, Label, SourceFile, Span
from convdsl.syntax import ast, characters, hints, limits, tables
from convdsl.syntax.build import Builder
from convdsl.syntax.chains import Placed
from convdsl.syntax.layout import LayoutError

ITEM = re.compile(
    r"^(?:use|default|let|assert|preprocess|labels|block|model|train)\b", re.MULTILINE
)
RECOVERY = 1 << 16  # characters; longer sources get their first syntax error only
RECOVERED = 10


def parse(source: SourceFile) -> ast.File:
    """The tree of a file; raises CompileError with every syntax error found."""
    tree, found = parse_leniently(source)
    if found:
        raise CompileError(found)
    assert tree is not None
    return tree


def parse_leniently(source: SourceFile) -> tuple[ast.File | None, tuple[Diagnostic, ...]]:
    """The tree of a file with every syntax error found. Where there are some it is the tree of the
    items without any, or None where those cannot be told."""
    if len(source.text) > limits.SOURCE_BYTES or (
        len(source.text.encode("utf-8", "surrogatepass")) > limits.SOURCE_BYTES
    ):
        text = f"the source is larger than {limits.SOURCE_BYTES:,} bytes"
        return None, (Diagnostic("E0801", text, (Label(source.span(0, 0)),)),)
    try:
        tree = _parse(source, source.text, 0, "file")
    except CompileError as error:
        return _recovered(source, error)
    assert isinstance(tree, ast.File)
    return tree, _version_errors(tree)


def _recovered(
    source: SourceFile, first: CompileError
) -> tuple[ast.File | None, tuple[Diagnostic, ...]]:
    """The errors of the other items too: each bad one is blanked out and the rest parsed again."""
    found = list(first.diagnostics)
    tree: ast.Node | None = None
    text = source.text
    starts = [match.start() for match in ITEM.finditer(text)]
    while len(text) <= RECOVERY and len(found) < RECOVERED and found[-1].span is not None:
        at = found[-1].span.start
        before = [s for s in starts if s < at]  # an error at an item's start is the one before's
        start = before[-1] if before else 0
        inside = text.startswith("use", at) and text.count("{", start, at) > text.count(
            "}", start, at
        )
        end = min((s for s in starts if s > start and s >= at + inside), default=len(text))
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
        try:
            tree = _parse(source, text, 0, "file")
        except CompileError as error:
            span = error.diagnostics[0].span
            if span is None or span.start <= at or _is_left_over(source.text, text, span):
                break
            found += error.diagnostics
        else:
            break
    return tree if isinstance(tree, ast.File) else None, tuple(found)


def _is_left_over(whole: str, blanked: str, span: Span) -> bool:
    """Whether a bracket closes what stood in an item that is blanked out."""
    opener = _OPENS.get(whole[span.start : span.start + 1])
    if opener is None:
        return False
    return blanked[: span.start].count(opener) < whole[: span.start].count(opener)


_OPENS = {")": "(", "]": "[", "}": "{"}


def _version_errors(file: ast.File) -> tuple[Diagnostic, ...]:
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
        return (Diagnostic("E0105", message, (Label(item.span),), help=(help,)),)
    return ()


def _parse(source: SourceFile, text: str, offset: int, start: str) -> ast.Node:
    """Parse `text`, which stands at `offset` in the source."""
    try:
        tree = tables.parser().parse(text, start=start)
    except lark.UnexpectedCharacters as error:
        raise CompileError(
            [characters.bad_character(source, offset + error.pos_in_stream)]
        ) from None
    except lark.UnexpectedToken as error:
        word = error.token
        at = offset + (len(text) if word.type == "$END" else word.start_pos)
        found = hints.unexpected(source, at, at + len(word), word.type, error.accepts)
        raise CompileError([found]) from None
    except LayoutError as error:
        raise CompileError([hints.bad_bracket(source, offset, error)]) from None

    def expression(inner: str, at: int) -> ast.Expression:
        return _parse(source, inner, at, "expression")  # pyright: ignore[reportReturnType]

    assert isinstance(tree, Placed)
    return _build(tree, Builder(source, expression), source, offset)


def _build(root: Placed, builder: Builder, source: SourceFile, offset: int) -> ast.Node:
    """Call the builder from the leaves upwards, by a loop: brackets may nest deep."""
    order: list[Placed] = []
    stack = [root]
    inner = Placed  # as every child is that is no word
    while stack:
        tree = stack.pop()
        order.append(tree)
        stack += [child for child in tree.children if type(child) is inner]
    made: dict[int, ast.Node] = {}
    makers: dict[str, Callable[[Span, list[Any]], ast.Node]] = {}
    for tree in reversed(order):
        children = [made.pop(id(c)) if type(c) is inner else c for c in tree.children]
        rule, start, end = tree.data, max(tree.start, 0), tree.end
        if (make := makers.get(rule)) is None:
            make = makers[rule] = getattr(builder, rule)
        made[id(tree)] = make(source.span(offset + start, offset + end), children)
    return made[id(root)]


_FOREIGN = ("use", "1.5")
"""Of these words no place takes both: items begin with the first, expressions with the second."""


def expected(text: str) -> frozenset[str] | None:
    """What can follow a text, by the names of the grammar's terminals: asked where somebody writes.
    None where the text is wrong before its end. Only the last item is looked at."""
    starts = [match.start() for match in ITEM.finditer(text)]
    last = text[starts[-1] if starts else 0 :]
    for word in _FOREIGN:
        try:
            tables.parser().parse(f"{last} {word}", start="file")
        except lark.UnexpectedToken as error:
            if error.token.type != "$END" and error.token.start_pos == len(last) + 1:
                return frozenset(error.accepts)
        except (lark.UnexpectedCharacters, LayoutError):
            return None
    return None


def tokens(text: str) -> list[tuple[str, int, int]]:
    """(terminal, start, end) of every word that reaches the parser: for tests and tools."""
    words = tables.parser().lex(text)
    return [(word.type, word.start_pos, word.end_pos) for word in words]
