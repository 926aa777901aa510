"""What the names of a text mean: every word with its symbol, across files.

A file has one space of names, and so has every block or model in it, however deep its braces nest.
A name of a definition is read before it is bound there only where it means one of the file.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from convdsl.diagnostics import Span
from convdsl.editing.finding import everything
from convdsl.editing.meanings import (
    aliased,
    builtin,
    definition_of,
    exported,
    imported_symbol,
    inputs_of,
    techniques_of,
)
from convdsl.editing.project import Project, Reading
from convdsl.editing.symbols import Kind, Occurrence, Symbol
from convdsl.elaborate.builtins import TENSOR_ATTRIBUTES
from convdsl.elaborate.images import STEPS
from convdsl.elaborate.signatures import of_operator
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast
from convdsl.syntax.walk import fields_of

Callees = Callable[[ast.Node], Sequence[Symbol]]


class Names:
    """The occurrences of a text, in order. `callees` says what calls turned out to be of, where the
    text alone does not."""

    def __init__(
        self, project: Project, place: Path, reading: Reading, callees: Callees | None = None
    ) -> None:
        self.reading = reading
        self.place = place
        found = _Finder(project, place, reading, callees).occurrences()
        self.occurrences = tuple(sorted(set(found), key=lambda o: (o.start, o.end)))

    @cached_property
    def _starts(self) -> list[int]:
        return [occurrence.start for occurrence in self.occurrences]

    def at(self, offset: int) -> tuple[Occurrence, ...]:
        """The occurrences that an offset touches; several where a call may be of several blocks."""
        index = bisect.bisect_right(self._starts, offset)
        near = [o for o in self.occurrences[max(0, index - 8) : index] if offset <= o.end]
        if not near:
            return ()
        last = max(near, key=lambda o: o.start)
        return tuple(o for o in near if (o.start, o.end) == (last.start, last.end))

    def of(self, symbol: Symbol) -> Iterator[Occurrence]:
        return (o for o in self.occurrences if o.symbol == symbol)


@dataclasses.dataclass(slots=True)
class _Space:
    """The names that a definition binds: what each is, and where it has a value first."""

    owner: str
    symbols: dict[str, Symbol]
    since: dict[str, int]
    loops: list[Span]
    outputs: dict[str, ast.Text] = dataclasses.field(default_factory=dict[str, ast.Text])
    read: set[str] = dataclasses.field(default_factory=set[str])  # of the outputs

    def output(self, name: str, at: int) -> bool:
        """Whether a name that is not bound means an output, which stands above."""
        label = self.outputs.get(name)
        return label is not None and label.span.end <= at

    def find(self, name: str, at: int, visible: Mapping[str, Symbol]) -> Symbol | None:
        symbol = self.symbols.get(name)
        if symbol is None or name not in visible or at >= self.since[name]:
            return symbol
        first = self.since[name]
        around = (loop for loop in self.loops if loop.start <= at < loop.end)
        return symbol if any(loop.start <= first <= loop.end for loop in around) else None


class _Finder:
    """Walks a tree once."""

    def __init__(
        self, project: Project, place: Path, reading: Reading, callees: Callees | None
    ) -> None:
        self._project = project
        self._place = place
        self._reading = reading
        self._callees = callees
        self._visible = exported(project, place, reading)
        self._space: _Space | None = None
        self._found: list[Occurrence] = []
        self._waiting: list[Any] = []
        self._sized: set[Symbol] = set()  # open sizes that were met
        self._shared: list[_Space] = []  # of the models that a statement of the file is for

    def occurrences(self) -> list[Occurrence]:
        for item in self._reading.tree.items:
            self._item(item)
        return self._found

    def _add(self, node: ast.Node, symbol: Symbol, *, defines: bool = False) -> None:
        self._found.append(Occurrence(node.span.start, node.span.end, symbol, defines))

    # Items

    def _item(self, item: ast.Item) -> None:
        match item:
            case ast.Use():
                for imported in item.names:
                    meant = imported_symbol(self._project, self._place, item, imported.name.id, 0)
                    self._add(imported.name, meant)
                    if imported.alias is not None:
                        self._add(imported.alias, self._own(imported.alias), defines=True)
            case ast.Let():
                self._walk(item.value)
                for target in item.targets:
                    self._add(target, self._own(target), defines=True)
            case ast.Block() | ast.Model():
                self._add(item.name, self._own(item.name), defines=True)
                self._definition(item)
            case ast.Preprocess():  # for each model that it fits
                models = (i for i in self._reading.tree.items if isinstance(i, ast.Model))
                self._shared = [self._space_of(model) for model in models]
                self._walk(item)
                self._shared = []
            case ast.Train():
                if item.model is not None:
                    self._add(item.model, self._meaning(item.model))
                for setting in item.settings:
                    self._setting(setting)
            case _:
                self._walk(item)

    def _own(self, name: ast.Name) -> Symbol:
        return self._visible.get(name.id, Symbol(Kind.UNKNOWN, name.id, "", self._place))

    def _definition(self, item: ast.Block | ast.Model) -> None:
        self._space = self._space_of(item)
        for parameter in item.parameters:
            if parameter.default is not None:
                self._walk(parameter.default)
            self._bound(parameter.name)
        for statement in item.body.statements:
            self._walk(statement)
        for name in self._space.read:
            symbol = Symbol(Kind.OUTPUT, name, item.name.id, self._place)
            self._add(self._space.outputs[name], symbol, defines=True)
        self._space = None

    def _bound(self, name: ast.Name) -> None:
        assert self._space is not None
        self._add(name, self._space.symbols[name.id], defines=True)

    def _space_of(self, item: ast.Block | ast.Model) -> _Space:
        space = _Space(item.name.id, {}, {}, [])

        def bind(name: ast.Name, kind: Kind, since: int) -> None:
            symbol = Symbol(kind, name.id, space.owner, self._place)
            space.symbols.setdefault(name.id, symbol)
            space.since.setdefault(name.id, since)

        for parameter in item.parameters:
            bind(parameter.name, Kind.PARAMETER, parameter.span.start)
        for node in everything(item.body):
            match node:
                case ast.Input():
                    for name in node.names:
                        bind(name, Kind.INPUT, node.span.end)
                    for name in self._open_sizes(node, space):
                        bind(name, Kind.SIZE, node.span.start)
                case ast.Let() | ast.Assign():
                    for name in node.targets:
                        bind(name, Kind.NAME, node.span.end)
                case ast.Loop():
                    space.loops.append(node.span)
                    for name in node.targets:
                        bind(name, Kind.NAME, node.iterable.span.end)
                case ast.Repetition():
                    space.loops.append(node.span)
                case ast.Sink() | ast.Output():
                    name = node.label.plain
                    if name is not None and node.label.span.text == name:
                        space.outputs.setdefault(name, node.label)
                case _:
                    pass
        return space

    def _open_sizes(self, node: ast.Input, space: _Space) -> list[ast.Name]:
        """Names in the type that nothing else means."""
        extents = node.type.extents if node.type is not None else ()
        names = (n for e in extents for n in everything(e) if isinstance(n, ast.Name))
        return [n for n in names if n.id not in space.symbols and n.id not in self._visible]

    # Nodes

    def _walk(self, node: Any) -> None:
        """Visit all nodes of a tree, by a stack of what is to come: brackets may nest deep."""
        outer, self._waiting = self._waiting, [node]
        while self._waiting:
            item = self._waiting.pop()
            if callable(item):
                item()
            elif isinstance(item, tuple):
                self._then(*item)  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(item, ast.Node):
                self._visit(item)
        self._waiting = outer

    def _then(self, *items: Any) -> None:
        """What comes next, in order: nodes, or what is to be done."""
        self._waiting.extend(reversed(items))

    def _visit(self, node: ast.Node) -> None:
        match node:
            case ast.Name():
                self._name(node)
            case ast.Call():
                self._call(node)
            case ast.Member():
                self._then(node.object)
                if node.name.id in TENSOR_ATTRIBUTES:
                    self._add(node.name, Symbol(Kind.PART, node.name.id))
            case ast.Let() | ast.Assign():
                self._then(node.value, lambda: self._all_bound(node.targets))
            case ast.Loop():
                self._then(node.iterable, lambda: self._all_bound(node.targets), node.body)
            case ast.Input():
                self._input(node)
            case ast.DefaultEntry():
                self._add(node.callee, self._meaning(node.callee))
                self._arguments(node.arguments, self._meant(node.callee))
            case ast.Preprocess():
                self._name(node.input)
                self._preprocess(node.steps)
            case _:
                self._then(*(getattr(node, name) for name in fields_of(type(node))))

    def _all_bound(self, names: tuple[ast.Name, ...]) -> None:
        for name in names:
            self._bound(name)

    def _name(self, node: ast.Name) -> None:
        shared = [s.symbols[node.id] for s in self._shared if node.id in s.symbols]
        for symbol in shared or (self._meaning(node),):
            self._add(node, symbol)

    def _meaning(self, node: ast.Name) -> Symbol:
        if self._space is not None:
            local = self._space.find(node.id, node.span.start, self._visible)
            if local is not None:
                return local
        if node.id in self._visible:
            return self._visible[node.id]
        known = builtin(node.id)
        space = self._space
        if known is None and space is not None and space.output(node.id, node.span.start):
            space.read.add(node.id)
            return Symbol(Kind.OUTPUT, node.id, space.owner, self._place)
        return known or Symbol(Kind.UNKNOWN, node.id, "", self._place)

    def _input(self, node: ast.Input) -> None:
        for name in node.names:
            if self._space is not None:
                self._bound(name)
        if node.type is not None:
            self._add(node.type.dtype, Symbol(Kind.DTYPE, node.type.dtype.id))
            self._sizes(node.type.extents)
        self._then(node.constraints)

    def _sizes(self, extents: tuple[ast.Expression, ...]) -> None:
        """Open sizes are bound where they stand first."""
        for extent in extents:
            for name in everything(extent):
                if not isinstance(name, ast.Name):
                    continue
                symbol = self._meaning(name)
                first = symbol.kind is Kind.SIZE and symbol not in self._sized
                self._sized.add(symbol)
                self._add(name, symbol, defines=first)

    # Calls

    def _call(self, node: ast.Call) -> None:
        self._then(node.callee)
        meant: list[Symbol] = []
        if isinstance(node.callee, ast.Name):
            meant = self._meant(node.callee)
        if not meant and self._callees is not None:
            meant = [*self._callees(node)]
        self._arguments(node.arguments, meant)

    def _meant(self, callee: ast.Name) -> list[Symbol]:
        symbol = self._meaning(callee)
        if symbol.kind is Kind.ALIAS:
            return [s for s in (aliased(self._project, symbol),) if s is not None]
        if symbol.kind is Kind.FUNCTION and symbol.id in SPELLINGS:
            return [Symbol(Kind.OPERATOR, symbol.id)]
        return [symbol] if symbol.kind in (Kind.BLOCK, Kind.MODEL, Kind.OPERATOR) else []

    def _arguments(self, arguments: tuple[ast.Argument, ...], meant: list[Symbol]) -> None:
        for argument in arguments:
            for symbol in meant if argument.name is not None else ():
                assert argument.name is not None
                found = self._keyword(symbol, argument.name.id)
                if found is not None:
                    self._add(argument.name, found)
            self._then(argument.value)

    def _keyword(self, callee: Symbol, name: str) -> Symbol | None:
        """What a keyword in a call of an operator or a block is."""
        if callee.kind is Kind.OPERATOR:
            op = SPELLINGS[callee.id]
            signature = of_operator(op)
            known = name in signature.by_name or name in signature.operands
            return Symbol(Kind.ATTRIBUTE, name, op.name) if known else None
        found = definition_of(self._project, callee)
        if found is None:
            return None
        reading, definition = found
        place = Path(reading.source.path)
        if any(parameter.name.id == name for parameter in definition.parameters):
            return Symbol(Kind.PARAMETER, name, definition.name.id, place)
        if name in inputs_of(definition):
            return Symbol(Kind.INPUT, name, definition.name.id, place)
        return None

    # What surrounds models

    def _preprocess(self, steps: ast.Expression) -> None:
        calls = (steps.head, *steps.stages) if isinstance(steps, ast.Chain) else (steps,)
        for call in calls:
            if not isinstance(call, ast.Call) or not isinstance(call.callee, ast.Name):
                self._then(call)
                continue
            if call.callee.id in STEPS:
                self._add(call.callee, Symbol(Kind.STEP, call.callee.id))
            for argument in call.arguments:
                if argument.name is not None:
                    self._add(argument.name, _argument(argument.name.id, call.callee.id))
                self._then(argument.value)

    def _setting(self, setting: ast.Setting) -> None:
        self._add(setting.name, Symbol(Kind.SETTING, setting.name.id))
        known = techniques_of(setting.name.id)
        for node in everything(setting.value):
            if isinstance(node, ast.Name) and node.id in self._visible:
                self._add(node, self._visible[node.id])
            elif isinstance(node, ast.Name) and node.id in known:
                self._add(node, Symbol(Kind.TECHNIQUE, node.id, setting.name.id))
            elif isinstance(node, ast.Argument) and node.name is not None:
                callee = _callee_of(setting.value, node)
                self._add(node.name, _argument(node.name.id, callee))


def _argument(name: str, callee: str) -> Symbol:
    return Symbol(Kind.ATTRIBUTE, name, callee)


def _callee_of(root: ast.Expression, argument: ast.Argument) -> str:
    """The name of what an argument is given to."""
    for node in everything(root):
        if isinstance(node, ast.Call) and argument in node.arguments:
            return node.callee.id if isinstance(node.callee, ast.Name) else ""
    return ""
