"""Examinations of an earlier text that hold for a later one.

A model is made of its own definition, of the blocks that it names, directly or by others, and of
what a file says outside of definitions. Where all of that is as it was, comments, empty lines and
spaces aside, the model is, too: it is not elaborated again. What is said of other definitions by
their text alone is said anew.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from convdsl.diagnostics import Diagnostic
from convdsl.editing.project import Buffers, Project, Reading
from convdsl.elaborate.examination import Examination
from convdsl.elaborate.files import FileProblem
from convdsl.elaborate.scope import Scope
from convdsl.elaborate.session import Halt, Session
from convdsl.elaborate.unused import check_unused
from convdsl.elaborate.usage import check_usage
from convdsl.syntax import ast
from convdsl.syntax.limits import DIAGNOSTICS
from convdsl.syntax.walk import fields_of

Definition = ast.Block | ast.Model


@dataclass(frozen=True)
class Origin:
    """An examination of a model with which nothing was wrong, and the text that it was made of."""

    examination: Examination
    reading: Reading
    root: Path | None
    texts: Mapping[Path, str]  # of all files that took part


# Two texts


class Match:
    """Which nodes of an earlier tree those of a later one are."""

    def __init__(self, old: Reading, new: Reading) -> None:
        self.old, self.new = old, new
        self._alike: dict[int, bool] = {}

    def alike(self, old: ast.Item, new: ast.Item) -> bool:
        """Whether two items say the same: the same text, comments, empty lines and spaces aside."""
        known = self._alike.get(id(new))
        if known is None:
            before, after = old.span.text, new.span.text
            known = before == after or (
                _essence(before) == _essence(after) and _same(old, new, None)
            )
            self._alike[id(new)] = known
        return known

    @cached_property
    def _nodes(self) -> Mapping[int, ast.Node]:
        found: dict[int, ast.Node] = {}
        olds = _by_key(self.old)
        for key, new in _by_key(self.new).items():
            old = olds.get(key)
            if old is not None and self.alike(old, new):
                _same(old, new, found)
        return found

    def earlier(self, node: ast.Node) -> ast.Node | None:
        """What a node of the later tree was in the earlier one, if it was there."""
        return self._nodes.get(id(node))


_COMMENT = re.compile(r"[ \t]*(?:#[^\n\"]*)?\r?\n(?:[ \t]*(?:#[^\n\"]*)?\r?\n)*")
_SPACES = re.compile(r"[ \t]+")


def _essence(text: str) -> str:
    """A text without comments behind and between its lines, empty lines and spaces beside others.
    Comments that hold quotes stay: a string may hold what looks like one."""
    return _SPACES.sub(" ", _COMMENT.sub("\n", text))


def _same(old: ast.Item, new: ast.Item, found: dict[int, ast.Node] | None) -> bool:
    """Whether two trees are the same but for their places; pairs of nodes are put into `found`."""
    waiting: list[tuple[Any, Any]] = [(old, new)]
    while waiting:
        before, after = waiting.pop()
        if before.__class__ is not after.__class__:
            return False
        if isinstance(after, ast.Node):
            if found is not None:
                found[id(after)] = before
            waiting.extend((getattr(before, n), getattr(after, n)) for n in fields_of(type(after)))
        elif isinstance(after, tuple):
            if len(before) != len(after):  # pyright: ignore[reportUnknownArgumentType]
                return False
            waiting.extend(zip(before, after, strict=True))  # pyright: ignore[reportUnknownArgumentType]
        elif before != after:
            return False
    return True


def _by_key(reading: Reading) -> dict[tuple[str, int], ast.Item]:
    """Definitions by name, what stands between them by its number."""
    found: dict[tuple[str, int], ast.Item] = {}
    bare = 0
    for item in reading.tree.items:
        if isinstance(item, ast.Block | ast.Model):
            found.setdefault((item.name.id, 0), item)
        else:
            bare += 1
            found["", bare] = item
    return found


# What a model is made of


_WORD = re.compile(r"[^\W\d]\w*")


class _Makeup:
    """What the models of a text are made of: names of definitions in the order of the text, and
    between them None for what is no definition."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._words: dict[str, set[str]] = {}

    def _named(self, item: ast.Item) -> set[str]:
        return self.reading.definitions.keys() & set(_WORD.findall(item.span.text))

    @cached_property
    def _outside(self) -> set[str]:
        bare = (i for i in self.reading.tree.items if not isinstance(i, ast.Block | ast.Model))
        return {name for item in bare for name in self._named(item)}

    def of(self, model: str) -> list[str | None]:
        definitions = self.reading.definitions
        found = {model} | self._outside
        waiting = deque(found)
        while waiting:
            name = waiting.popleft()
            if name not in self._words:
                self._words[name] = self._named(definitions[name])
            new = self._words[name] - found
            found |= new
            waiting.extend(new)
        items = self.reading.tree.items
        names = [i.name.id if isinstance(i, ast.Block | ast.Model) else None for i in items]
        return [name for name in names if name is None or name in found]


# What holds


class Holding:
    """Which examinations of an earlier text hold for a later one."""

    def __init__(
        self, project: Project, origins: Mapping[str, Origin], reading: Reading, library: Buffers
    ) -> None:
        self._project = project
        self._origins = origins
        self._reading = reading
        self._library = library
        self._makeups: dict[int, _Makeup] = {}
        self._matches: dict[int, Match] = {}
        self._sound = bool(origins) and self._is_sound()

    def of(self, model: str | None) -> Examination | None:
        """What is known of a model of the later text by an examination of the earlier one."""
        origin = self._origins.get(model or "")
        if origin is None or model is None or not self._sound:
            return None
        if not self._stands(model, origin) or not self._reads_the_same(origin):
            return None
        found = self._said_anew(origin.examination)
        if found is None:
            return None
        self._library.asked.update(origin.texts)
        broken = any(finding.severity == "error" for finding in found)
        made = None if broken else origin.examination.made
        return replace(origin.examination, findings=found, made=made)

    def _is_sound(self) -> bool:
        """Whether nothing is wrong with the file that every model of it would be told of: a name
        for two things, parameters that no definition can have."""
        names = [name.id for name in _names(self._reading.tree)]
        if len(set(names)) < len(names):
            return False
        for definition in self._reading.definitions.values():
            own = [parameter.name.id for parameter in definition.parameters]
            if len(set(own)) < len(own):
                return False
            if isinstance(definition, ast.Model) and any(
                p.default is None for p in definition.parameters
            ):
                return False
        return True

    def _stands(self, model: str, origin: Origin) -> bool:
        """Whether all that the model is made of says what it said."""
        old, new = origin.reading, self._reading
        if (len(old.models) > 1) is not (len(new.models) > 1):
            return False  # settings of training are shared or not
        if self._makeup(old).of(model) != (names := self._makeup(new).of(model)):
            return False
        match = self._matches.setdefault(id(old), Match(old, new))
        before, after = _by_key(old), _by_key(new)
        keys = {key for key in after if not key[0]} | {(n, 0) for n in names if n is not None}
        return all(match.alike(before[key], after[key]) for key in keys)

    def _makeup(self, reading: Reading) -> _Makeup:
        return self._makeups.setdefault(id(reading), _Makeup(reading))

    def _reads_the_same(self, origin: Origin) -> bool:
        """Whether the files that took part are as they were, and are read as the same trees."""
        if self._library.root != origin.root:
            return False
        try:
            for place, text in origin.texts.items():
                if self._project.text(place) != text:
                    return False
        except (FileProblem, OSError):
            return False
        for tree in origin.examination.trees.values():
            source = tree.span.source
            if source is not origin.reading.source:
                place = self._project.place_of(source)
                if self._project.parsed(place, source.text).source is not source:
                    return False
        return True

    def _said_anew(self, examination: Examination) -> tuple[Diagnostic, ...] | None:
        """What is said of the definitions that the model does not use, and of all names."""
        unused = [
            finding
            for definition in self._reading.definitions.values()
            if definition.name.id not in examination.used
            for finding in self._of_unused[definition.name.id]
        ]
        if len(unused) >= DIAGNOSTICS:
            return None
        return tuple(unused) if unused else self._of_names

    @cached_property
    def _of_unused(self) -> Mapping[str, list[Diagnostic]]:
        tree = self._reading.tree
        scope = Scope(None, {name.id: None for name in _names(tree)})
        found: dict[str, list[Diagnostic]] = {}
        definitions = self._reading.definitions
        for name, definition in definitions.items():
            session = Session()
            others = {id(other) for other in definitions.values() if other is not definition}
            with contextlib.suppress(Halt):
                check_unused(session, tree, scope, others)
            found[name] = session.diagnostics
        return found

    @cached_property
    def _of_names(self) -> tuple[Diagnostic, ...]:
        session = Session()
        check_usage(session, self._reading.tree, None)
        return tuple(session.warnings)


def _names(tree: ast.File) -> Iterator[ast.Name]:
    """The names that a file gives to something."""
    for item in tree.items:
        match item:
            case ast.Block() | ast.Model():
                yield item.name
            case ast.Let():
                yield from item.targets
            case ast.Use():
                yield from (imported.alias or imported.name for imported in item.names)
            case _:
                pass
