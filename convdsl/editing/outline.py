"""The shape of a text: what it defines, and what of it can be folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from convdsl.editing.finding import everything
from convdsl.editing.symbols import Kind
from convdsl.editing.view import View
from convdsl.editing.words import words
from convdsl.syntax import ast
from convdsl.syntax.layout import CLOSERS


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a text defines. `whole` is where all of it stands, `name` where its name."""

    name: str
    kind: Kind
    detail: str
    whole: tuple[int, int]
    selected: tuple[int, int]
    inside: tuple[Entry, ...] = ()


def outline(view: View) -> list[Entry]:
    """What the text defines, in order."""
    return [entry for item in view.tree.items for entry in _item(view, item)]


def _item(view: View, item: ast.Item) -> Iterator[Entry]:
    match item:
        case ast.Block() | ast.Model():
            kind = Kind.BLOCK if isinstance(item, ast.Block) else Kind.MODEL
            taken = ", ".join(parameter.span.text for parameter in item.parameters)
            detail = f"({taken})" if taken else ""
            inside = tuple(_inside(view, item))
            yield from _entry(view, item.name.id, kind, detail, item, item.name, inside)
        case ast.Let():
            for target in item.targets:
                yield from _entry(view, target.id, Kind.VALUE, "", item, target)
        case ast.Train():
            name = f"train {item.model.id}" if item.model is not None else "train"
            settings = tuple(
                entry
                for s in item.settings
                for entry in _entry(view, s.name.id, Kind.SETTING, s.value.span.text, s, s.name)
            )
            yield from _entry(view, name, Kind.TECHNIQUE, "", item, item, settings)
        case _:
            pass


def _inside(view: View, definition: ast.Block | ast.Model) -> Iterator[Entry]:
    for parameter in definition.parameters:
        yield from _entry(view, parameter.name.id, Kind.PARAMETER, "", parameter, parameter.name)
    for node in everything(definition.body):
        match node:
            case ast.Input():
                detail = node.type.span.text if node.type is not None else ""
                for name in node.names:
                    yield from _entry(view, name.id, Kind.INPUT, detail, node, name)
            case ast.Let() | ast.Assign():
                for name in node.targets:
                    yield from _entry(view, name.id, Kind.NAME, "", node, name)
            case ast.Named() if node.label.plain:
                yield from _entry(view, node.label.plain, Kind.OPERATOR, "", node, node.label)
            case ast.Sink() | ast.Output() if node.label.plain:
                yield from _entry(view, node.label.plain, Kind.PART, "output", node, node.label)
            case _:
                pass


def _entry(
    view: View,
    name: str,
    kind: Kind,
    detail: str,
    whole: ast.Node,
    selected: ast.Node,
    inside: tuple[Entry, ...] = (),
) -> Iterator[Entry]:
    """The entry, where what it is about still stands in the text."""
    label = view.now(selected.span.start, selected.span.end)
    start = view.now(whole.span.start, whole.span.start)
    end = view.now(whole.span.end, whole.span.end)
    if label is None or not name:
        return
    first = min(label[0], start[0]) if start is not None else label[0]
    last = max(label[1], end[1]) if end is not None else label[1]
    detail = " ".join(detail.split())
    yield Entry(name, kind, detail, (first, last), label, inside)


@dataclass(frozen=True, slots=True)
class Fold:
    """Lines from 0 that can be folded into the first; a comment, or what stands in brackets."""

    first: int
    last: int
    is_comment: bool = False


def folds(text: str) -> list[Fold]:
    """What can be folded, from the words alone: the text may be broken."""
    lines = _Lines(text)
    found: list[Fold] = []
    opened: list[tuple[str, int]] = []
    comments: list[int] = []
    for word in words(text):
        line = lines.of(word.start)
        if word.kind == "comment":
            if lines.begins(word.start):
                comments.append(line)
        elif word.text in CLOSERS:
            opened.append((CLOSERS[word.text], line))
        elif word.text in CLOSERS.values():
            while opened and opened[-1][0] != word.text:
                opened.pop()
            if opened and line > opened[-1][1] + 1:
                found.append(Fold(opened[-1][1], line - 1))
            opened = opened[:-1]
    found += [Fold(a, b, True) for a, b in _runs(comments) if b > a]
    return sorted(set(found), key=lambda fold: (fold.first, -fold.last))


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last of numbers that follow each other."""
    start: int | None = None
    last = -2
    for number in numbers:
        if number != last + 1:
            if start is not None:
                yield start, last
            start = number
        last = number
    if start is not None:
        yield start, last


class _Lines:
    """Lines of a text by offsets that grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 0

    def of(self, offset: int) -> int:
        """The line, from 0, of an offset that is not before the last one asked for."""
        self._line += self._text.count("\n", self._at, offset)
        self._at = offset
        return self._line

    def begins(self, offset: int) -> bool:
        """Whether nothing but space stands before an offset in its line."""
        return not self._text[self._text.rfind("\n", 0, offset) + 1 : offset].strip()
