"""Functions that are called: of numbers and lists; of tensors the operators of their names."""

from __future__ import annotations

import re
from typing import Any

from convdsl.elaborate.builtins import of_an_empty_range
from convdsl.elaborate.layers import Layers
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop
from convdsl.elaborate.values import POISON, SPELLED, Builtin, Given, Layer, ListValue
from convdsl.ir.graph import Value
from convdsl.syntax import ast


class Functions(Layers):
    """Calls functions of numbers and lists."""

    def function(
        self, function: Builtin, node: ast.Call, context: Context, label: ast.Text | None
    ) -> Any:
        """A function's value; the operator of the same name where tensors are given."""
        values = [self.evaluate(argument.value, context) for argument in node.arguments]
        for argument in node.arguments:
            if argument.name is not None:
                raise self.fail(
                    context,
                    "E0301",
                    f"`{function.name}` takes no keywords",
                    argument.name.span,
                    help=_of_elements(function.name),
                )
        if POISON in values:
            raise Stop
        if function.name in SPELLED and any(isinstance(value, Value) for value in values):
            operator = SPELLED[function.name]
            spans = (argument.value.span for argument in node.arguments)
            extra = tuple(Given(v, span) for v, span in zip(values, spans, strict=True))
            layer = Layer(operator, {}, {}, extra, node.span)
            return self.apply(layer, [], context, node.span, label)
        if function.name == "sum" and len(values) == 1 and _holds_tensors(values[0]):
            return self._sum(values[0], node, context)
        least, most = function.arity
        if len(values) < least or (most is not None and len(values) > most):
            count = f"{least} to {most}" if most else f"{least} or more"
            count = str(least) if most == least else count
            text = f"`{function.name}` takes {count} value{'' if count == '1' else 's'}"
            raise self.fail(
                context,
                "E0303",
                f"{text}, {len(values) or 'none'} given",
                node.span,
                help=_of_another(function, node),
            )
        written = all(_DIGITS.fullmatch(argument.span.text) for argument in node.arguments)
        # Of computed bounds an empty range is no mistake.
        if function.name == "range" and written and (help := of_an_empty_range(values)):
            text = f"`{node.span.text}` is empty"
            raise self.fail(context, "E0405", text, node.span, help=help)
        return function.function(*values)

    def _sum(self, terms: ListValue, node: ast.Call, context: Context) -> Any:
        """Of a list with tensors: what `+` between them makes."""
        span = node.arguments[0].value.span
        total, *others = (Given(item, span) for item in terms.items)
        for other in others:
            total = Given(self.combined("+", total, other, context, node.span, None), span)
        return total.value


def _of_elements(name: str) -> tuple[str, ...]:
    """The operator that does to the elements of a tensor what a function does to its arguments."""
    operator = f"reduce_{name}"
    return (f"of the elements of a tensor: {operator}(x, axes = [...])",) * (operator in SPELLED)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, ListValue) and any(isinstance(item, Value) for item in value.items)


def _of_another(function: Builtin, node: ast.Call) -> tuple[str, ...]:
    """Help for a function of numbers that is given too few or too many: what it gives, or how two
    values of it are written."""
    given = [argument.value.span.text for argument in node.arguments]
    if len(given) > 1 and function.arity == (1, 1):
        if function.name in ("sum", "len", "reversed", "enumerate"):
            return (f"of one list: {function.name}([{', '.join(given)}])",)
        if function.name == "round":
            return (f"to decimals: round({given[0]} * 10) / 10; to a multiple round_to(x, 8)",)
    return (f"it gives {function.doc}",)


_DIGITS = re.compile(r"-?[0-9]+")
