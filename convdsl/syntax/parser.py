"""Text to syntax tree, by Lark's LALR(1) parser. The only module that imports lark."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import lark

from convdsl.diagnostics import CompileError, Diagnostic, Label, SourceFile
from convdsl.syntax import ast, hints, limits
from convdsl.syntax.build import Builder
from convdsl.syntax.layout import NEWLINE, LayoutError, arrange

ITEM = re.compile(
    r"^(?:use|default|let|assert|preprocess|labels|block|model|train)\b", re.MULTILINE
)
RECOVERY = 1 << 16  # characters; longer sources get their first syntax error only
RECOVERED = 10

_HERE = Path(__file__).resolve().parent
GRAMMARS = (_HERE.parent / "grammar", _HERE.parent.parent / "grammar")  # wheel, checkout


class _Layout:
    """Lark's hook between lexer and parser (a `PostLex`)."""

    always_accept: Iterable[str] = (NEWLINE,)

    def process(self, stream: Iterator[lark.Token]) -> Iterator[lark.Token]:
        return arrange(stream)


@functools.cache
def grammar_text() -> str:
    """The text of grammar/convdsl.lark."""
    for folder in GRAMMARS:
        if (folder / "convdsl.lark").is_file():
            return (folder / "convdsl.lark").read_text(encoding="utf-8")
    raise FileNotFoundError("convdsl is installed without its grammar")


@functools.cache
def _lark() -> lark.Lark:
    return lark.Lark(
        grammar_text(),
        parser="lalr",
        lexer="basic",
        postlex=_Layout(),
        start=["file", "expression"],
        propagate_positions=True,
        maybe_placeholders=True,
    )


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
    try:
        tree = _lark().parse(text, start=start)
    except lark.exceptions.UnexpectedCharacters as error:
        raise CompileError(
            [hints.bad_character(source, offset + (error.pos_in_stream or 0))]
        ) from None
    except lark.exceptions.UnexpectedToken as error:
        raise CompileError([_unexpected(source, offset, len(text), error)]) from None
    except LayoutError as error:
        raise CompileError([hints.bad_bracket(source, offset, error)]) from None

    def expression(inner: str, at: int) -> ast.Expression:
        return _parse(source, inner, at, "expression")  # pyright: ignore[reportReturnType]

    return _build(tree, Builder(source, expression), source, offset)


def _unexpected(
    source: SourceFile, offset: int, length: int, error: lark.exceptions.UnexpectedToken
) -> Diagnostic:
    token = error.token
    kind = token.type
    if kind == "$END":
        return hints.unexpected(source, offset + length, offset + length, kind, error.accepts)
    start = offset + (token.start_pos or 0)
    return hints.unexpected(source, start, start + len(token), kind, error.accepts)


def _build(
    root: lark.Tree[lark.Token], builder: Builder, source: SourceFile, offset: int
) -> ast.Node:
    """Call the builder bottom-up, without recursion."""
    order: list[lark.Tree[lark.Token]] = []
    stack = [root]
    while stack:
        tree = stack.pop()
        order.append(tree)
        stack.extend(child for child in tree.children if isinstance(child, lark.Tree))
    made: dict[int, object] = {}
    for tree in reversed(order):
        children = [
            made.pop(id(child)) if isinstance(child, lark.Tree) else child
            for child in tree.children
        ]
        meta = tree.meta
        span = (
            source.span(offset, offset)
            if meta.empty
            else source.span(offset + meta.start_pos, offset + meta.end_pos)
        )
        made[id(tree)] = getattr(builder, tree.data)(span, children)
    return made[id(root)]  # pyright: ignore[reportReturnType]


def tokens(text: str) -> list[tuple[str, int, int]]:
    """(terminal, start, end) of every word that reaches the parser: for tests and tools."""
    stream = _lark().lex(text)
    return [(token.type, token.start_pos or 0, token.end_pos or 0) for token in stream]
