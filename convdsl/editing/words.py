"""The words of a text, broken or not, and the kinds that editors colour them by."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, takewhile

from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from convdsl.editing.symbols import Kind, Occurrence
from convdsl.editing.view import View
from convdsl.syntax.highlight import ConvdslLexer

TYPES = (
    "comment", "string", "number", "keyword", "operator", "function", "class", "method",
    "parameter", "variable", "property", "type", "enumMember", "namespace", "macro",
)  # fmt: skip
"""Kinds of words, by the names of the protocol."""

MODIFIERS = ("declaration", "readonly", "defaultLibrary")

_BY_KIND: dict[Kind, tuple[str, tuple[str, ...]]] = {
    Kind.BLOCK: ("function", ()),
    Kind.MODEL: ("class", ()),
    Kind.VALUE: ("variable", ("readonly",)),
    Kind.ALIAS: ("function", ()),
    Kind.PARAMETER: ("parameter", ()),
    Kind.INPUT: ("variable", ()),
    Kind.NAME: ("variable", ()),
    Kind.SIZE: ("type", ()),
    Kind.OUTPUT: ("variable", ()),
    Kind.OPERATOR: ("method", ("defaultLibrary",)),
    Kind.ATTRIBUTE: ("property", ()),
    Kind.FUNCTION: ("function", ("defaultLibrary",)),
    Kind.CONSTANT: ("number", ()),
    Kind.WORD: ("enumMember", ("defaultLibrary",)),
    Kind.PART: ("property", ("readonly",)),
    Kind.DTYPE: ("type", ("defaultLibrary",)),
    Kind.SETTING: ("property", ()),
    Kind.TECHNIQUE: ("method", ("defaultLibrary",)),
    Kind.STEP: ("method", ("defaultLibrary",)),
}


@dataclass(frozen=True, slots=True)
class Word:
    """Some characters of one kind: comment, string, number, keyword, operator, name, sign or
    other."""

    start: int
    end: int
    kind: str
    text: str


@cache
def _lexer() -> ConvdslLexer:
    return ConvdslLexer()


_KINDS = (
    (Comment, "comment"),
    (String, "string"),
    (Number, "number"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (Operator, "operator"),
    (Name, "name"),
    (Punctuation, "sign"),
)


def words(text: str) -> Iterator[Word]:
    """The words of a text in order; whatever it holds."""
    for start, kind, value in _lexer().get_tokens_unprocessed(text):
        if kind in Text:
            continue
        name = next((name for known, name in _KINDS if kind in known), "other")
        yield Word(start, start + len(value), name, value)


@dataclass(frozen=True, slots=True)
class Coloured:
    """A word with the kind that it is coloured by, and what else is true of it."""

    start: int
    end: int
    type: str
    modifiers: tuple[str, ...] = ()


def colours(view: View, start: int = 0, end: int | None = None) -> Iterator[Coloured]:
    """The words of a part of the text that have a colour, in order; none spans lines."""
    now = ((view.now(o.start, o.end), o) for o in reversed(view.names.occurrences))
    meant = {span: occurrence for span, occurrence in now if span is not None}
    spans = sorted(meant)
    limit = len(view.text) if end is None else end
    for word in words(view.text):
        if word.end <= start or word.start >= limit:
            continue
        if word.kind == "string":
            first = bisect.bisect_left(spans, (word.start, 0))
            held = takewhile(lambda span, word=word: span[1] < word.end, islice(spans, first, None))
            yield from _text(word, [(span, meant[span]) for span in held])
            continue
        found = _colour(word, meant.get((word.start, word.end)))
        if found is not None:
            yield found


def _text(word: Word, held: list[tuple[tuple[int, int], Occurrence]]) -> Iterator[Coloured]:
    """A string, and the names that are interpolated in it."""
    at = word.start
    for (start, end), occurrence in held:
        if start < at:
            continue
        if start > at:
            yield Coloured(at, start, "string")
        found = _colour(Word(start, end, "name", ""), occurrence)
        if found is not None:
            yield found
        at = end
    yield Coloured(at, word.end, "string")


def _colour(word: Word, occurrence: Occurrence | None) -> Coloured | None:
    if occurrence is not None and occurrence.symbol.kind in _BY_KIND:
        type, modifiers = _BY_KIND[occurrence.symbol.kind]
        declared = ("declaration",) if occurrence.defines else ()
        return Coloured(word.start, word.end, type, (*declared, *modifiers))
    known = ("comment", "number", "keyword", "operator")
    return Coloured(word.start, word.end, word.kind) if word.kind in known else None
