"""Where things are defined and used, in all texts of a project, and giving them other names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convdsl.diagnostics import InputError
from convdsl.editing.finding import everything, innermost, path_to
from convdsl.editing.meanings import aliased, may_be_renamed
from convdsl.editing.names import Callees, Names
from convdsl.editing.project import Project
from convdsl.editing.symbols import LOCAL, OF_FILES, Kind, Occurrence, Symbol
from convdsl.editing.view import View
from convdsl.elaborate.files import FileProblem, project_root
from convdsl.syntax import ast
from convdsl.syntax.words import KEYWORDS

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Location:
    """Characters of a text of the project."""

    place: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters of a text, and what is to stand there."""

    start: int
    end: int
    text: str


def definitions(view: View, offset: int) -> list[Location]:
    """Where what stands at an offset is defined; of an import the file, of an alias what it is."""
    at = view.at(offset)
    if at is None:
        return []
    path = path_to(view.tree, at)
    use, text = innermost(path, ast.Use), innermost(path, ast.Text)
    if use is not None and text is not None and text.plain is not None:
        other = view.project.imported(view.analysis.place, text.plain)
        return [] if other is None else [Location(Path(other.source.path), 0, 0)]
    found: list[Location] = []
    for occurrence in view.names.at(at):
        symbol = occurrence.symbol
        if symbol.kind is Kind.ALIAS:
            symbol = aliased(view.project, symbol) or symbol
        found += _definitions(view, symbol)
    return list(dict.fromkeys(found))


def _definitions(view: View, symbol: Symbol) -> Iterator[Location]:
    if symbol.place is None:
        return
    if symbol.place == view.analysis.place:
        for occurrence in view.names.of(symbol):
            now = view.now(occurrence.start, occurrence.end) if occurrence.defines else None
            if now is not None:
                yield Location(symbol.place, *now)
                return
        return
    names = names_of(view, symbol.place)
    for occurrence in names.of(symbol) if names is not None else ():
        if occurrence.defines:
            yield Location(symbol.place, occurrence.start, occurrence.end)
            return


def names_of(view: View, place: Path) -> Names | None:
    """The names of a text, or None where it cannot be read."""
    try:
        return Names(view.project, place, view.project.reading(place), view.known.callees)
    except (FileProblem, OSError):
        return None


def references(view: View, offset: int, roots: Sequence[Path]) -> list[Location]:
    """Everything in the project that means what stands at an offset."""
    symbols = {o.symbol for o in view.occurrences(offset) if o.symbol.kind is not Kind.UNKNOWN}
    found: list[Location] = []
    for names in _texts(view, symbols, roots):
        for occurrence in names.occurrences:
            if occurrence.symbol in symbols:
                found += _located(view, names, occurrence)
    return list(dict.fromkeys(found))


def _located(view: View, names: Names, occurrence: Occurrence) -> Iterator[Location]:
    if names is not view.names:
        yield Location(names.place, occurrence.start, occurrence.end)
        return
    now = view.now(occurrence.start, occurrence.end)
    if now is not None:
        yield Location(names.place, *now)


def _texts(view: View, symbols: Iterable[Symbol], roots: Sequence[Path]) -> Iterator[Names]:
    """The names of this text, and of others that may mention one of the symbols."""
    yield view.names
    own = view.analysis.place
    known = list(symbols)
    if not any(_is_seen_outside(symbol) for symbol in known):
        return
    places = {symbol.place for symbol in known if symbol.place is not None}
    folders = dict.fromkeys((*roots, *(project_root(place) for place in (own, *places))))
    words = [re.compile(rf"\b{re.escape(symbol.id)}\b") for symbol in known]
    for place in dict.fromkeys((*places, *view.project.sources(folders))):
        if place == own:
            continue
        try:
            text = view.project.text(place)
        except (FileProblem, OSError):
            continue
        if any(word.search(text) for word in words):
            names = names_of(view, place)
            if names is not None:
                yield names


def _is_seen_outside(symbol: Symbol) -> bool:
    """Whether other files can mention a symbol: what files define, and what calls give by name."""
    return symbol.kind in OF_FILES or symbol.kind in (Kind.PARAMETER, Kind.INPUT)


def renamable(view: View, offset: int) -> Occurrence:
    """The word at an offset, where it can be called otherwise; raises InputError saying why not."""
    if not view.analysis.reading.whole or view.text != view.analysis.reading.text:
        raise InputError("the text has errors: names can be changed when it parses")
    found = view.occurrences(offset)
    if not found:
        raise InputError("here stands no name that can be changed")
    for occurrence in found:
        _check_own(view.project, occurrence.symbol)
    return found[0]


def _check_own(project: Project, symbol: Symbol) -> None:
    """Raise InputError where a symbol is not the project's to rename."""
    if symbol.kind is Kind.UNKNOWN:
        raise InputError(f"nothing defines `{symbol.id}`")
    if symbol.kind is Kind.OUTPUT:
        raise InputError(f"`{symbol.id}` names an output, by which others know it")
    if not may_be_renamed(symbol) or symbol.place is None:
        raise InputError(f"`{symbol.id}` is a word of the language")
    if project.is_of_the_zoo(symbol.place):
        raise InputError(f"`{symbol.id}` is of the zoo; import it by another name: `as NAME`")


def rename(view: View, offset: int, name: str, roots: Sequence[Path]) -> dict[Path, list[Edit]]:
    """The edits, by file, that call what stands at an offset otherwise.

    Raises InputError where the new name cannot be, or would mean something else somewhere: the
    edited texts are read again, and every word has to mean what it meant before.
    """
    occurrence = renamable(view, offset)
    if not NAME.fullmatch(name) or name in KEYWORDS:
        raise InputError(f"`{name}` cannot be a name")
    symbols = {o.symbol for o in view.occurrences(offset)}
    texts = list(_texts(view, symbols, roots))
    symbols = _together(texts, symbols)
    if not symbols <= {o.symbol for o in view.occurrences(offset)}:
        texts = list(_texts(view, symbols, roots))
    for symbol in symbols:
        _check_own(view.project, symbol)
    if name == occurrence.symbol.id:
        return {}
    edits: dict[Path, list[Edit]] = {}
    for names in texts:
        spans = {(o.start, o.end) for o in names.occurrences if o.symbol in symbols}
        if not spans:
            continue
        if not names.reading.whole:
            raise InputError(f"{names.place.name} has errors: names can be changed when it parses")
        if view.project.is_of_the_zoo(names.place):
            raise InputError(f"{names.place.name} of the zoo uses it")
        called = {Edit(start, end, name) for start, end in spans}
        edits[names.place] = sorted(
            {*called, *_put_out(names, spans)}, key=lambda edit: (edit.start, edit.end)
        )
    _check_meanings(view, texts, symbols, name, edits)
    return edits


def _put_out(names: Names, spans: set[tuple[int, int]]) -> Iterator[Edit]:
    """What keeps results called as they are: `output low` becomes `output low = NAME`, among others
    on a line of its own."""
    text = names.reading.text
    nodes = (node for node in everything(names.reading.tree) if isinstance(node, ast.Output))
    for node in nodes:
        start, end = node.label.span.start, node.label.span.end
        if not node.short or (start, end) not in spans:
            continue
        yield Edit(start, start, f"{node.label.span.text} = ")
        line = text[text.rfind("\n", 0, node.span.start) + 1 : node.span.start]
        begin = "\n" + " " * (len(line) - len(line.lstrip())) + "output "
        before = _COMMA_BEFORE.search(text, node.span.start, start)
        after = _COMMA_AFTER.match(text, end, node.span.end)
        yield from (Edit(*comma.span(), begin) for comma in (before, after) if comma is not None)


_COMMA_BEFORE = re.compile(r",[ \t]*\Z")
_COMMA_AFTER = re.compile(r",[ \t]*(?![ \t\n#])")


def _together(texts: Sequence[Names], symbols: set[Symbol]) -> set[Symbol]:
    """All symbols that some word means at once with one of these: a call of several blocks."""
    found = set(symbols)
    while True:
        more = {
            other.symbol
            for names in texts
            for spans in [{(o.start, o.end) for o in names.occurrences if o.symbol in found}]
            for other in names.occurrences
            if (other.start, other.end) in spans
        }
        if more <= found:
            return found
        found |= more


def _check_meanings(
    view: View,
    texts: Sequence[Names],
    symbols: set[Symbol],
    name: str,
    edits: dict[Path, list[Edit]],
) -> None:
    """Raise InputError where a word would mean something else in the edited texts."""
    change = _Change((), symbols, name)
    others = {o.symbol for names in texts for o in names.occurrences} - symbols
    if any(change.called(symbol) in others for symbol in symbols):
        raise InputError(f"`{name}` means something else there already")
    edited = Project(view.project.zoo)
    for place, text in view.project.opened.items():
        edited.set_text(place, text)
    for names in texts:
        if names.place in edits:
            edited.set_text(names.place, applied(names.reading.text, edits[names.place]))
    for names in texts:
        if names.place not in edits:
            continue
        change = _Change(edits[names.place], symbols, name)
        reading = edited.reading(names.place)
        after = Names(edited, names.place, reading, change.callees(view, names))
        now = {(o.start, o.end, o.symbol) for o in after.occurrences}
        wrong = sorted(change.meanings(names) ^ now, key=lambda word: word[0])
        if wrong or not reading.whole:
            line = reading.source.position(wrong[0][0])[0] if wrong else 1
            raise InputError(f"`{name}` means something else in {names.place.name}:{line}")


@dataclass(frozen=True, slots=True)
class _Change:
    """Some symbols called otherwise in a text."""

    edits: Sequence[Edit]
    symbols: set[Symbol]
    name: str

    def moved(self, offset: int) -> int:
        """Where an offset of the text is afterwards."""
        before = (edit for edit in self.edits if edit.end <= offset)
        return offset + sum(len(edit.text) - (edit.end - edit.start) for edit in before)

    def called(self, symbol: Symbol) -> Symbol:
        """The symbol as it is called afterwards, and its owner."""
        own = self.name if symbol in self.symbols else symbol.id
        owners = (s for s in self.symbols if s.kind in OF_FILES and s.place == symbol.place)
        renamed = symbol.kind in LOCAL and any(s.id == symbol.owner for s in owners)
        return Symbol(symbol.kind, own, self.name if renamed else symbol.owner, symbol.place)

    def meanings(self, names: Names) -> set[tuple[int, int, Symbol]]:
        """What every word is to mean afterwards, by where it stands then."""
        changed = {(edit.start, edit.end): edit for edit in self.edits}
        found: set[tuple[int, int, Symbol]] = set()
        for o in names.occurrences:
            edit = changed.get((o.start, o.end))
            start = self.moved(o.start)
            end = start + (len(edit.text) if edit is not None else o.end - o.start)
            found.add((start, end, self.called(o.symbol)))
        return found

    def callees(self, view: View, names: Names) -> Callees:
        """What calls of a text turned out to be of, as it is called afterwards."""
        nodes = everything(names.reading.tree)
        calls = (node for node in nodes if isinstance(node, ast.Call))
        known = {self.moved(call.span.start): view.known.callees(call) for call in calls}
        return lambda node: [self.called(s) for s in known.get(node.span.start, ())]


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text with the edits, which are in order and do not overlap."""
    for edit in reversed(edits):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
