"""Where names live: variables, the names of layers, defaults, and the place of evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from convdsl.diagnostics import Frame, Span

# operator name -> `values.Said`
Defaults: TypeAlias = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Scope:
    """The variables of a file, a block instance or a model."""

    parent: Scope | None = None
    names: dict[str, Any] = field(default_factory=dict[str, Any])

    def find(self, name: str) -> tuple[bool, Any]:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return True, scope.names[name]
            scope = scope.parent
        return False, None

    def visible(self) -> Iterable[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.parent


@dataclass(slots=True, eq=False)
class LayerNames:
    """Names of the layers directly inside one block instance or named scope.

    `path` leads the names of nodes, `home` those of weights. They differ where a layer is
    applied again: its weights keep the names of the first time (`shared`).
    """

    path: str = ""
    home: str = ""
    numbered: bool = False
    shared: bool = False
    taken: dict[str, Span | None] = field(default_factory=dict[str, Any])
    _groups: set[str] = field(default_factory=set[str])  # what stands before the dots of names
    _counts: dict[str, int] = field(default_factory=dict[str, int])
    _position: int = 0

    def default(self, base: str, positional: bool) -> str:
        """The next free `base`, `base_2`, ...; in a numbered scope the position."""
        if self.numbered and positional:
            self._position += 1
            return str(self._position - 1)
        count = self._counts.get(base, 0)
        while True:
            count += 1
            name = base if count == 1 else f"{base}_{count}"
            if name not in self.taken:
                self._counts[base] = count
                return name

    def clash(self, part: str) -> str | None:
        """The name, or what stands before a dot of it, where a layer is called so already."""
        if part in self.taken:
            return part
        return next((g for g in _before_dots(part) if g in self.taken.keys() - self._groups), None)

    def take(self, part: str, span: Span | None) -> None:
        """A child is called so: "features.0" is one of the group `features`."""
        for group in _before_dots(part):
            self._groups.add(group)
            self.taken.setdefault(group, span)
        self.taken[part] = span

    def skip(self) -> None:
        """A child with a name of its own takes a position all the same."""
        self._position += 1

    def inside(self, part: str, numbered: bool = False) -> LayerNames:
        """The names inside the child called `part`."""
        return LayerNames(self.full(part), self.key(part), numbered, self.shared)

    def full(self, part: str) -> str:
        return f"{self.path}.{part}" if self.path else part

    def key(self, part: str) -> str:
        return f"{self.home}.{part}" if self.home else part


def _before_dots(name: str) -> Iterator[str]:
    at = name.find(".")
    while at >= 0:
        yield name[:at]
        at = name.find(".", at + 1)


@dataclass(slots=True, eq=False)
class Results:
    """What `output` has declared in a block instance or model."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    spans: dict[str, Span] = field(default_factory=dict[str, Span])


@dataclass(slots=True, eq=False)
class Context:
    """The place of evaluation. Bodies get a copy, so that defaults and `in` end with them."""

    scope: Scope
    names: LayerNames
    defaults: Defaults
    results: Results
    frames: tuple[Frame, ...] = ()
    incoming: Any = None  # what `in` means; None where nothing flows in
    incoming_span: Span | None = None
    arriving: tuple[Any, ...] | None = None  # a block's inputs, until its `input` takes them
    root: bool = False  # directly in the model being built, not in a block

    def copy(
        self, names: LayerNames | None = None, frames: tuple[Frame, ...] | None = None
    ) -> Context:
        """The same place, perhaps with other names for its layers."""
        return Context(
            self.scope,
            self.names if names is None else names,
            self.defaults,
            self.results,
            self.frames if frames is None else frames,
            self.incoming,
            self.incoming_span,
            self.arriving,
            self.root,
        )

    def receiving(self, incoming: Any, span: Span | None) -> Context:
        """The same place, where `in` means `incoming`."""
        made = self.copy()
        made.incoming, made.incoming_span = incoming, span
        return made
