"""The parser: runs the LALR(1) tables of grammar/convdsl.lark over words.

A shift-reduce parser as in Aho, Lam, Sethi, Ullman 2006, section 4.7. The tables are Lark's
(convdsl.syntax.tables). Trees are made while reducing: each rule calls the builder's method of
its name with its span and children. What only groups (`?sum: product`, brackets) makes nothing.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAMMAR, TABLES = "convdsl.lark", "convdsl.tables.json"
_HERE = Path(__file__).resolve().parent
GRAMMARS = (_HERE.parent / "grammar", _HERE.parent.parent / "grammar")  # wheel, checkout

END = "$END"
Build = Callable[[str, int, int, list[Any]], Any]  # rule, start, end, children


@dataclass(slots=True)
class Word:
    """A terminal of the grammar, its text and where it stands."""

    type: str
    value: str
    start_pos: int


class BadCharacter(Exception):
    """No word starts here."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class BadWord(Exception):
    """A word that cannot stand here; `accepts` names those that can."""

    def __init__(self, word: Word, accepts: set[str]) -> None:
        super().__init__(word.type)
        self.word = word
        self.accepts = accepts


@dataclass(frozen=True, slots=True)
class Rule:
    """One production; `children` as tables._rule says. A part belongs to the rule around it."""

    name: str
    left: str
    length: int
    children: tuple[int | None, ...]
    alone: bool  # an only child stands for itself

    @property
    def is_transparent(self) -> bool:
        """Whether nothing changes but the state: `?sum: product`."""
        return self.alone and self.length == 1 and self.children == (0,)

    @property
    def is_part(self) -> bool:
        return self.left.startswith("_")


@dataclass(frozen=True, slots=True)
class Tables:
    """Words and states. An action is a state to go to, or -1 - the rule to reduce by."""

    terminals: frozenset[str]
    pattern: re.Pattern[str]
    ignored: frozenset[str]
    own: dict[str, dict[str, str]]  # terminal -> texts that are terminals of their own
    starts: dict[str, int]
    ends: dict[str, int]
    rules: tuple[Rule, ...]
    states: tuple[dict[str, int], ...]


def read(name: str) -> str:
    """A file of the grammar, from the wheel or the checkout."""
    for folder in GRAMMARS:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"convdsl is installed without {name}")


def grammar_text() -> str:
    """The text of grammar/convdsl.lark."""
    return read(GRAMMAR)


@functools.cache
def tables() -> Tables:
    """The tables of the language."""
    made = json.loads(read(TABLES))
    pattern = re.compile(made["pattern"])
    own = (name for texts in made["own"].values() for name in texts.values())
    return Tables(
        frozenset([*pattern.groupindex, *own, END]),
        pattern,
        frozenset(made["ignored"]),
        made["own"],
        made["starts"],
        made["ends"],
        tuple(Rule(name, left, n, tuple(c), alone) for name, left, n, c, alone in made["rules"]),
        tuple(made["states"]),
    )


def words(text: str) -> Iterator[Word]:
    """The words of a text; raises BadCharacter where there is none."""
    language = tables()
    match, ignored, own = language.pattern.match, language.ignored, language.own
    at = 0
    while at < len(text):
        found = match(text, at)
        if found is None or found.lastgroup is None:
            raise BadCharacter(at)
        kind, value = found.lastgroup, found.group()
        if kind not in ignored:
            if kind in own:
                kind = own[kind].get(value, kind)
            yield Word(kind, value, at)
        at = found.end()


def parse(stream: Iterable[Word], start: str, build: Build) -> Any:
    """What `build` makes of the rule `start`; raises BadWord."""
    language = tables()
    table, end = language.states, language.ends[start]
    states = [language.starts[start]]
    stack = _Stack(build)
    for word in stream:
        kind = word.type
        action = table[states[-1]].get(kind)
        while action is not None and action < 0:
            _reduce(language.rules[-1 - action], table, states, stack)
            action = table[states[-1]].get(kind)
        if action is None:
            raise BadWord(word, _accepts(language, states))
        states.append(action)
        stack.shift(word)
    while states[-1] != end:
        action = table[states[-1]].get(END)
        if action is None:
            raise BadWord(Word(END, "", -1), _accepts(language, states))
        _reduce(language.rules[-1 - action], table, states, stack)
    return stack.values[-1]


class _Stack:
    """The values of the symbols read so far and where they stand; -1 where there is no text."""

    __slots__ = ("build", "ends", "starts", "values")

    def __init__(self, build: Build) -> None:
        self.build = build
        self.values: list[Any] = []
        self.starts: list[int] = []
        self.ends: list[int] = []

    def shift(self, word: Word) -> None:
        self.values.append(word.value)
        self.starts.append(word.start_pos)
        self.ends.append(word.start_pos + len(word.value))

    def reduce(self, rule: Rule) -> None:
        """Replace the symbols of the rule's right side by what it makes of them."""
        at = len(self.values) - rule.length
        values = self.values[at:]
        start = next((s for s in self.starts[at:] if s >= 0), -1)
        end = max(self.ends[at:], default=-1)
        wanted = rule.children
        children: list[Any] = []
        if rule.is_part and wanted and wanted[0] == -1:  # a repetition: one more
            children, wanted = values[0], wanted[1:]
        for which in wanted:
            if which is None:
                children.append(None)
            elif which < 0:
                children.extend(values[-1 - which])
            else:
                children.append(values[which])
        made: Any = children
        if rule.alone and len(children) == 1:
            made = children[0]
        elif not rule.is_part:
            made = self.build(rule.name, start, end, children)
        del self.values[at:], self.starts[at:], self.ends[at:]
        self.values.append(made)
        self.starts.append(start)
        self.ends.append(end)


def _reduce(
    rule: Rule, table: tuple[dict[str, int], ...], states: list[int], stack: _Stack
) -> None:
    if not rule.is_transparent:
        stack.reduce(rule)
    if rule.length:
        del states[-rule.length :]
    states.append(table[states[-1]][rule.left])


def _accepts(language: Tables, states: list[int]) -> set[str]:
    """The terminals that can stand next."""
    known = language.terminals & language.states[states[-1]].keys()
    return {kind for kind in known if _is_accepted(language, states, kind)}


def _is_accepted(language: Tables, states: list[int], kind: str) -> bool:
    stack = list(states)
    while (action := language.states[stack[-1]].get(kind)) is not None:
        if action >= 0:
            return True
        rule = language.rules[-1 - action]
        if rule.length:
            del stack[-rule.length :]
        stack.append(language.states[stack[-1]][rule.left])
        if kind == END and stack[-1] in language.ends.values():
            return True
    return False
