"""Statements: bindings, assertions, defaults, inputs and what a model declares around itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convdsl.elaborate.expressions import without_value
from convdsl.elaborate.images import preprocessing
from convdsl.elaborate.inputs import InputDeclarations
from convdsl.elaborate.interpreter import Interpreter
from convdsl.elaborate.naming import LABEL
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Refused, Session, Stop, suggest
from convdsl.elaborate.values import (
    LAYER_LIKE,
    NO_DEFAULTS,
    NOTHING,
    POISON,
    SPELLED,
    BlockValue,
    Given,
    Initial,
    Operator,
    Said,
    Usual,
    describe,
    format_value,
)
from convdsl.ir.preprocess import Preprocessing
from convdsl.syntax import ast

ReadLabels = Callable[[ast.Text], tuple[str, ...]]


class Statements(Interpreter):
    """The whole language inside files, blocks and models."""

    def __init__(
        self, session: Session, bindings: Mapping[str, int], read_labels: ReadLabels
    ) -> None:
        super().__init__(session)
        self.inputs = InputDeclarations(self, bindings)
        self.preprocessing: Preprocessing | None = None
        self.labels: tuple[ast.Labels, tuple[str, ...]] | None = None
        self.read_labels = read_labels
        self._statements: dict[type, Callable[[Any, Context], None]] = {
            ast.Let: self._let,
            ast.Assign: self._assign,
            ast.Assertion: self._assertion,
            ast.Default: self._default,
            ast.Input: self._input,
            ast.Output: self._output,
            ast.Preprocess: self._preprocess,
            ast.Labels: self._labels,
        }

    def execute(self, statement: ast.Statement, context: Context, flowing: bool) -> Any:
        if isinstance(statement, ast.Evaluation):
            if flowing:
                return self.flow(statement.value, context)
            return self.evaluate(statement.value, context)
        self._statements[type(statement)](statement, context)
        return NOTHING

    def _let(self, node: ast.Let, context: Context) -> None:
        value = self.evaluate(node.value, context)
        if value is NOTHING:
            value = POISON
            help = without_value(node.value)
            self.fail(context, "E0408", "this has no value", node.value.span, help=help)
        self.bind_targets(node.targets, value, context, node.value.span)

    def _assign(self, node: ast.Assign, context: Context) -> None:
        value = self.evaluate(node.value, context)
        if value is NOTHING:
            value = self._put_out(node.value, context)
        names = ", ".join(target.id for target in node.targets)
        if value is NOTHING or isinstance(value, LAYER_LIKE):
            for target in node.targets:
                context.scope.names[target.id] = POISON
            what = (
                "this has no value" if value is NOTHING else f"`{names}` would be {describe(value)}"
            )
            help = (
                without_value(node.value)
                if value is NOTHING
                else (
                    f"let something flow in: `{names} = in -> ...`, or write `let {names} = ...`",
                )
            )
            raise self.fail(context, "E0408", what, node.value.span, help=help)
        self.bind_targets(node.targets, value, context, node.value.span)

    def _put_out(self, node: ast.Expression, context: Context) -> Any:
        """What a chain that ends with an output has put out."""
        if not isinstance(node, ast.Chain) or not isinstance(sink := node.stages[-1], ast.Sink):
            return NOTHING
        return context.results.values.get(self.label_of(sink.label, context, LABEL), NOTHING)

    def _assertion(self, node: ast.Assertion, context: Context) -> None:
        if self.condition(node.condition, context):
            return
        message = "assertion failed"
        if node.message is not None:
            message = format_value(self.need(node.message, context))
        self.fail(context, "E0406", message, node.condition.span)
        raise Refused

    def _default(self, node: ast.Default, context: Context) -> None:
        for entry in node.entries:
            name = entry.callee.id
            found, value = context.scope.find(name)
            operator = value if found else SPELLED.get(name)
            if not isinstance(operator, Operator):
                self.fail(
                    context,
                    "E0201",
                    f"`default` needs an operator, and `{name}` is none",
                    entry.callee.span,
                    help=(f"a block has its own: `block {name}(... = ...)`",)
                    if isinstance(context.scope.find(name)[1], BlockValue)
                    else suggest(name, SPELLED),
                )
                continue
            made = context.defaults.get(operator.op.name, NO_DEFAULTS)
            for argument in entry.arguments:
                try:
                    made = self._default_argument(operator, argument, context).over(made)
                except Stop:
                    continue
            context.defaults = {**context.defaults, operator.op.name: made}

    def _default_argument(
        self, operator: Operator, argument: ast.Argument, context: Context
    ) -> Said:
        if argument.name is None:
            raise self.fail(
                context,
                "E0303",
                "`default` takes keywords: name = value",
                argument.span,
                help=_keywords(operator, argument),
            )
        layer = self.bind(operator, (argument,), context, argument.span, partly=True)
        starts: dict[str, Usual] = {}
        for name, given in layer.operands.items():
            if not isinstance(given.value, str | Initial):
                raise self.fail(
                    context,
                    "E0303",
                    "`default` sets attributes, and what weights start from;"
                    f" `{name}` is a weight of {operator.name}",
                    argument.span,
                    help=(f"give its numbers in each call: {operator.name}(..., {name} = ...)",),
                )
            starts[name] = Usual(given.value, given.span)
        return Said(layer.arguments, starts)

    def _input(self, node: ast.Input, context: Context) -> None:
        self.inputs.declare(node, context)

    def _output(self, node: ast.Output, context: Context) -> None:
        value = self.evaluate(node.value, context)
        self.declare_output(node.label, Given(value, node.value.span), context)

    def _preprocess(self, node: ast.Preprocess, context: Context) -> None:
        made = preprocessing(self, node, context)
        if context.root:
            self.preprocessing = made

    def _labels(self, node: ast.Labels, context: Context) -> None:
        if context.root:
            self.labels = (node, self.read_labels(node.path))


def _keywords(operator: Operator, argument: ast.Argument) -> tuple[str, ...]:
    """Help for a default without a name: the attribute that a call has in its place."""
    first = operator.signature.positional
    if not first:
        return ()
    said = f"{first[0].name} = {argument.value.span.text}"
    return (f"write e.g. `default {operator.name}({said})`",)
