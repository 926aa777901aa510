"""A source looked at as far as it goes, for those who look while it is written.

`elaborate` answers with a model or with what is wrong. An examination keeps both: the findings, the
graph as far as it got, and what names, calls and layers came to while it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile, Span
from convdsl.elaborate.files import Library
from convdsl.elaborate.model import check_tree, elaborate_tree
from convdsl.elaborate.modules import Modules
from convdsl.elaborate.outside import from_python
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import ROOM, Halt, Session, Stop
from convdsl.elaborate.statements import Statements
from convdsl.elaborate.values import NOTHING, POISON, BlockValue, Given, Layer, Operator
from convdsl.ir.graph import Graph, Value
from convdsl.ir.model import Model
from convdsl.ir.opdef import OpDef
from convdsl.syntax import ast

KEPT = 64
"""Values of one name that are kept: it has one for each instance of its block."""

WATCHED = 256
"""Expressions between two looks at whether anybody still waits."""


class Cancelled(Exception):
    """Nobody waits for the examination any more."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A layer that tensors flowed into. `written` is where the layer stands, `at` where it was
    applied, the operators made have ids after `first`, up to `last`."""

    name: str
    written: Span
    at: Span
    factory: Operator | BlockValue | OpDef
    inputs: tuple[Any, ...]
    result: Any
    first: int
    last: int


@dataclass(slots=True)
class Notes:
    """What came to pass, by the id of the node of the tree; trees live as long as these."""

    applied: list[Applied] = field(default_factory=list[Applied])
    values: dict[int, list[Any]] = field(default_factory=dict[int, list[Any]])
    callees: dict[tuple[int, int], list[Operator | BlockValue]] = field(
        default_factory=dict[tuple[int, int], list[Operator | BlockValue]]
    )
    _at: dict[tuple[int, int, int], list[Applied]] = field(
        default_factory=dict[tuple[int, int, int], list[Applied]]
    )
    _counted: int = 0  # of the layers applied those that `_at` has

    def applied_at(self, span: Span) -> Sequence[Applied]:
        """The layers that stand at a place, or are applied there."""
        for applied in self.applied[self._counted :]:
            for place in dict.fromkeys((applied.at, applied.written)):
                key = (id(place.source), place.start, place.end)
                self._at.setdefault(key, []).append(applied)
        self._counted = len(self.applied)
        return self._at.get((id(span.source), span.start, span.end), ())

    def value(self, node: ast.Node, value: Any) -> None:
        """The node came to a value."""
        if value is POISON or value is NOTHING:
            return
        known = self.values.setdefault(id(node), [])
        if len(known) < KEPT:
            known.append(value)

    def callee(self, span: Span, factory: Operator | BlockValue) -> None:
        """A call turned out to be of an operator or a block."""
        known = self.callees.setdefault((id(span.source), span.start), [])
        if len(known) < KEPT and not any(factory is one for one in known):
            known.append(factory)


@dataclass(frozen=True, slots=True)
class Examination:
    """What is known of a model of a source; of a source without one `model` is None. Where nothing
    is wrong with it `made` is the model."""

    model: str | None
    made: Model | None
    graph: Graph
    findings: tuple[Diagnostic, ...]
    notes: Notes
    trees: Mapping[int, ast.File]  # of all files that took part, by the id of the source
    used: frozenset[str]  # the definitions of the source that the model is made of


class _Observing(Statements):
    """Evaluates as ever, and takes notes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.notes = Notes()

    def _name(self, node: ast.Name, context: Context) -> Any:
        value = super()._name(node, context)
        self.notes.value(node, value)
        return value

    def _incoming(self, node: ast.Incoming, context: Context) -> Any:
        value = super()._incoming(node, context)
        self.notes.value(node, value)
        return value

    def bind_targets(
        self, targets: tuple[ast.Name, ...], value: Any, context: Context, span: Span
    ) -> None:
        super().bind_targets(targets, value, context, span)
        for target in targets:
            self.notes.value(target, context.scope.names.get(target.id, POISON))

    def bind(
        self,
        factory: Operator | BlockValue,
        arguments: tuple[ast.Argument, ...],
        context: Context,
        span: Span,
        partly: bool = False,
    ) -> Layer:
        self.notes.callee(span, factory)
        return super().bind(factory, arguments, context, span, partly)

    def _apply_layer(
        self,
        layer: Layer,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        first = self.session.graph.newest
        result = super()._apply_layer(layer, inputs, context, span, label)
        tensors = tuple(given.value for given in (*inputs, *layer.extra))
        last = self.session.graph.newest
        name = layer.home or layer.factory.name
        self.notes.applied.append(
            Applied(name, layer.span, span, layer.factory, tensors, result, first, last)
        )
        return result

    def _apply_plain(
        self,
        op: OpDef,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        first = self.session.graph.newest
        result = super()._apply_plain(op, inputs, context, span, label)
        tensors = tuple(given.value for given in inputs)
        name = result.node.name if isinstance(result, Value) else op.name
        last = self.session.graph.newest
        self.notes.applied.append(Applied(name, span, span, op, tensors, result, first, last))
        return result

    def _arrive(
        self,
        factory: BlockValue,
        layer: Layer,
        inputs: Sequence[Given],
        inner: Context,
        context: Context,
        span: Span,
    ) -> None:
        super()._arrive(factory, layer, inputs, inner, context, span)
        definition = factory.definition
        for parameter in definition.parameters:
            given = layer.arguments.get(parameter.name.id)
            if given is not None:
                self.notes.value(parameter.name, given.value)
        statements = (s for s in definition.body.statements if isinstance(s, ast.Input))
        names = [name for statement in statements for name in statement.names]
        for name, given in zip(names, inner.arriving or (), strict=False):
            self.notes.value(name, given.value)


class _Watched(Session):
    """A session that ends when nobody waits for it."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        super().__init__()
        self._wanted = wanted
        self._entered = 0

    def enter(self, span: Span, frames: Any) -> None:
        self._entered += 1
        if not self._entered % WATCHED and not self._wanted():
            raise Cancelled
        super().enter(span, frames)


def examine(
    source: SourceFile,
    tree: ast.File,
    model: str | None,
    place: Path | None,
    library: Library,
    wanted: Callable[[], bool] = lambda: True,
    parameters: Mapping[str, Any] | None = None,
) -> Examination:
    """Elaborate a model of a tree, or check the tree where it holds none, and keep what was seen.

    The findings are those of `elaborate` and `check_definitions`. `wanted` is asked now and then;
    raises Cancelled where it says no. `parameters` set the model's, or bind symbols of its inputs.
    """
    given = {name: from_python(value) for name, value in (parameters or {}).items()}
    session = _Watched(wanted)
    modules = Modules(session, library)

    def work() -> Model | None:
        if model is not None:
            return elaborate_tree(session, modules, source, tree, model, given, place, _Observing)
        check_tree(session, modules, source, tree, place, _Observing)
        session.finish()
        return None

    made: Model | None = None
    try:
        made = ROOM.during(work)
        findings = tuple(session.warnings)
    except CompileError as error:
        findings = error.diagnostics
    except (Halt, Stop):
        findings = tuple(session.diagnostics)
    statements = modules.statements
    notes = statements.notes if isinstance(statements, _Observing) else Notes()
    used = frozenset(
        item.name.id
        for item in tree.items
        if isinstance(item, ast.Block | ast.Model)
        and (id(item) in session.instantiated or item.name.id == model)
    )
    return Examination(model, made, session.graph, findings, notes, session.trees, used)
