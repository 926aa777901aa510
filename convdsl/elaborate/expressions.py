"""Evaluating expressions on compile-time values; what flows through layers is interpreter.py."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import arithmetic, foreign
from convdsl.elaborate.arithmetic import ValueProblem
from convdsl.elaborate.builtins import BUILTINS, NUMBERS, TENSOR_ATTRIBUTES, tensor_attribute
from convdsl.elaborate.conditions import Conditions
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, Stop, suggest
from convdsl.elaborate.unknown import explain
from convdsl.elaborate.values import (
    LAYER_LIKE,
    NOTHING,
    POISON,
    SPELLED,
    Given,
    ListValue,
    Record,
    describe,
    format_value,
)
from convdsl.ir.graph import Value
from convdsl.ops import OPERATORS
from convdsl.ops.elementwise import COMPARED, SIGNS
from convdsl.syntax import ast
from convdsl.tensor import SymDim

TENSOR_OPERATORS = {
    **{sign: name for name, sign in SIGNS.items()},
    **COMPARED,
    "**": "pow",
    "and": "logical_and",
    "or": "logical_or",
}
"""The operators that signs and words between tensors stand for."""

WORDS = frozenset(w for op in OPERATORS for a in op.attributes for w in a.choices)
"""Words that some attribute takes; they stand for themselves where nothing else is called so."""

LONG = frozenset({str, SymDim, ListValue})
"""What can be long, and then takes more than one step."""

PLAIN = frozenset({int, float})

Rule = Callable[[Any, Context], Any]


_REDUCES = {"max": "reduce_max", "min": "reduce_min", "sum": "reduce_sum"}
"""Methods of tensors elsewhere that have the name of an operator of two tensors here."""

_GIVEN = re.compile(r"\(([^()\n]*)\)")
_AXES = re.compile(r"-?\d+(?:, *-?\d+)+")


def _given_behind(node: ast.Member) -> str:
    """The arguments of a call as they stand behind a name; several axes are one list here."""
    given = _GIVEN.match(node.span.source.text, node.span.end)
    if given is None or not given[1].strip():
        return ""
    return f"([{given[1]}])" if _AXES.fullmatch(given[1]) else given[0]


class Evaluator(Conditions):
    """Expressions to values. A failed evaluation is reported once and yields POISON."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._rules: dict[type, Rule] = {
            ast.Name: self._name,
            ast.Incoming: self._incoming,
            ast.Literal: self._literal,
            ast.Text: self._text,
            ast.Items: self._list,
            ast.Arithmetic: self._arithmetic,
            ast.Signed: self._signed,
            ast.Power: self._power,
            ast.Compared: self.compared,
            ast.Logic: self.logic,
            ast.Negated: self.negated,
            ast.Member: self._member,
            ast.Index: self._index,
            ast.Part: self._part,
        }

    @abstractmethod
    def combine(
        self,
        symbol: str,
        left: Given,
        right: Given,
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        """left <symbol> right where one of them is a tensor."""

    @abstractmethod
    def negate(self, given: Given, context: Context, span: Span) -> Any:
        """-x of a tensor."""

    def evaluate(self, node: ast.Expression, context: Context) -> Any:
        """The node's value; POISON where it failed (the diagnostic is recorded)."""
        session = self.session
        session.enter(node.span, context.frames)
        try:
            value = self._rules[type(node)](node, context)
            if type(value) in LONG:
                session.charge(value, node.span, context.frames)
            return value
        except Stop:
            return POISON
        except ValueProblem as problem:
            self.objection(problem, node.span, context)
            return POISON
        finally:
            session.depth -= 1

    def need(self, node: ast.Expression, context: Context) -> Any:
        """The node's value; raises Stop where there is none."""
        value = self.evaluate(node, context)
        if value is POISON:
            raise Stop
        if value is NOTHING:
            raise self.fail(
                context,
                "E0408",
                "this has no value",
                node.span,
                help=without_value(node),
            )
        return value

    def fail(
        self,
        context: Context,
        code: str,
        message: str,
        *labels: tuple[Span, str] | Span,
        help: str | tuple[str, ...] = (),
    ) -> Stop:
        """Record an error in the block instance of `context` and return what to raise."""
        hints = (help,) if isinstance(help, str) else help
        return self.session.fail(code, message, *labels, frames=context.frames, help=hints)

    # Leaves

    def _literal(self, node: ast.Literal, context: Context) -> Any:
        return node.value

    def _name(self, node: ast.Name, context: Context) -> Any:
        found, value = context.scope.find(node.id)
        if found:
            return value
        if node.id in BUILTINS:
            return BUILTINS[node.id]
        if node.id in NUMBERS:
            return NUMBERS[node.id]
        if node.id in SPELLED:
            return SPELLED[node.id]
        if node.id in WORDS:
            return node.id
        labels, help = explain(self.session, node, context, WORDS)
        context.scope.names[node.id] = POISON  # told once
        text = f"unknown name `{node.id}`"
        raise self.fail(context, "E0201", text, node.span, *labels, help=help)

    def _incoming(self, node: ast.Incoming, context: Context) -> Any:
        if context.incoming is None:
            raise self.fail(
                context,
                "E0408",
                "`in` means nothing here: no single tensor flows in",
                node.span,
                help="name the tensor you mean, as in `x.batch`; sizes of inputs are names, too: N",
            )
        return context.incoming

    def _text(self, node: ast.Text, context: Context) -> str:
        pieces = [
            part if isinstance(part, str) else format_value(self.need(part, context))
            for part in node.parts
        ]
        return arithmetic.checked_text("".join(pieces))

    def text(self, node: ast.Text, context: Context) -> str:
        """An interpolated text; raises Stop where a part fails."""
        try:
            return self._text(node, context)
        except ValueProblem as problem:
            raise self.objection(problem, node.span, context) from None

    def _list(self, node: ast.Items, context: Context) -> ListValue:
        values = tuple(self.evaluate(item, context) for item in node.items)
        for item, value in zip(node.items, values, strict=True):
            if value is NOTHING:
                help = without_value(item)
                raise self.fail(context, "E0408", "this has no value", item.span, help=help)
        if POISON in values:
            raise Stop
        return arithmetic.checked_list(values)

    # Operators

    def _arithmetic(
        self, node: ast.Arithmetic, context: Context, label: ast.Text | None = None
    ) -> Any:
        return self.computed_on(self._operand(node.first, context), node, context, label)

    def computed_on(
        self, total: Any, node: ast.Arithmetic, context: Context, label: ast.Text | None
    ) -> Any:
        """What the operands after the first make of its value; the last operation has the label."""
        before = node.first
        for index, (symbol, operand) in enumerate(node.rest):
            value = self._operand(operand, context)
            if type(total) in PLAIN and type(value) in PLAIN:
                total = self._computed(symbol, total, value, context, node.first, operand)
            else:
                left = Given(total, node.first.span.to(before.span))
                span = node.first.span.to(operand.span)
                last = label if index == len(node.rest) - 1 else None
                total = self.combined(symbol, left, Given(value, operand.span), context, span, last)
            before = operand
        return total

    def _operand(self, node: ast.Expression, context: Context) -> Any:
        value = self.evaluate(node, context)
        if value is NOTHING:
            help = without_value(node)
            raise self.fail(context, "E0408", "this has no value", node.span, help=help)
        return value

    def combined(
        self,
        symbol: str,
        left: Given,
        right: Given,
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        if left.value is POISON or right.value is POISON:
            return POISON
        for given in (left, right):
            if isinstance(given.value, LAYER_LIKE) and given.span is not None:
                in_chain = given is left and not isinstance(right.value, LAYER_LIKE)
                raise self.fail(
                    context,
                    "E0401",
                    f"`{symbol}` takes tensors or numbers, not {describe(given.value)}",
                    given.span,
                    help=_flows(symbol, left, right, first=in_chain),
                )
        if isinstance(left.value, Value) or isinstance(right.value, Value):
            return self.combine(symbol, left, right, context, span, label)
        try:
            return arithmetic.binary(symbol, left.value, right.value)
        except ValueProblem as problem:
            raise self.objection(problem, span, context) from None

    def _computed(
        self,
        symbol: str,
        left: Any,
        right: Any,
        context: Context,
        first: ast.Expression,
        last: ast.Expression,
    ) -> Any:
        """left <symbol> right of two numbers, which stand from `first` to `last`."""
        try:
            return arithmetic.binary(symbol, left, right)
        except ValueProblem as problem:
            raise self.objection(problem, first.span.to(last.span), context) from None

    def _signed(self, node: ast.Signed, context: Context) -> Any:
        value = self.need(node.operand, context)
        if isinstance(value, Value):
            if not node.negative:
                return value
            return self.negate(Given(value, node.operand.span), context, node.span)
        negated = arithmetic.negate(value)
        return negated if node.negative else value

    def _power(self, node: ast.Power, context: Context) -> Any:
        return self.raised(self.evaluate(node.operands[0], context), node, context)

    def raised(self, base: Any, node: ast.Power, context: Context) -> Any:
        """The value of the first operand to the power of the others."""
        values = [base, *(self.evaluate(operand, context) for operand in node.operands[1:])]
        if POISON in values:
            raise Stop
        total = Given(values[-1], node.operands[-1].span)
        for operand, value in zip(node.operands[-2::-1], values[-2::-1], strict=True):
            span = operand.span.to(total.span or node.span)
            left = Given(value, operand.span)
            total = Given(self.combined("**", left, total, context, span, None), span)
        return total.value

    # Parts of values

    def _member(self, node: ast.Member, context: Context) -> Any:
        value = self.need(node.object, context)
        name = node.name.id
        if isinstance(value, Value) and name in TENSOR_ATTRIBUTES:
            return tensor_attribute(value, name)
        if isinstance(value, Record) and name in value.fields:
            return value.fields[name]
        if isinstance(value, Value):
            known = tuple(TENSOR_ATTRIBUTES)
        elif isinstance(value, Record):
            known = tuple(value.fields)
        else:
            grows = isinstance(value, ListValue) and name in ("append", "extend", "push", "add")
            text = f"{describe(value).removesuffix(', applied to nothing')} has no parts to name"
            said = node.object.span.text
            help = (f"nothing changes in place: `{said} = {said} + [...]`",) if grows else ()
            if isinstance(value, LAYER_LIKE) and name in SPELLED:
                help = (f"layers follow each other: `{said} -> {name}`",)
            elif isinstance(value, LAYER_LIKE):
                help = _of_a_layer(name)
            whole = node.object.object if isinstance(node.object, ast.Member) else None
            if whole is not None and name in TENSOR_ATTRIBUTES:
                help = (f"it is of the tensor: `{whole.span.text}.{name}`",)
            if grows and isinstance(node.object, ast.Name):
                context.scope.names[node.object.id] = POISON  # what it would hold is not known
            raise self.fail(context, "E0404", text, node.name.span, help=help)
        raise self.fail(
            context,
            "E0404",
            f"{describe(value)} has no `{name}`",
            node.name.span,
            help=self._called_like_a_method(node, value)
            or suggest(name, known)
            or (f"it has {', '.join(known)}",),
        )

    def _called_like_a_method(self, node: ast.Member, value: Any) -> tuple[str, ...]:
        name = _REDUCES.get(node.name.id, node.name.id)
        layer = isinstance(value, Value) and name in SPELLED
        if isinstance(value, Value) and name in ("size", "dim", "sizes", "dims"):
            said = node.object.span.text
            return (f"its sizes are {said}.shape, the second of them {said}.shape[1]",)
        if layer:
            return (f"write `{node.object.span.text} -> {name}{_given_behind(node)}`",)
        return foreign.method(node.object.span.text, name) if isinstance(value, Value) else ()

    def _index(self, node: ast.Index, context: Context) -> Any:
        value = self.need(node.object, context)
        self._whole(index := self.need(node.index, context), node.index, context)
        items = self._items(value, node, context)
        if not -len(items) <= index < len(items):
            raise self.fail(
                context,
                "E0405",
                f"index {index} is outside a list of {len(items)}",
                node.index.span,
                help=(f"the first is 0, the last {len(items) - 1} or -1",) if items else (),
            )
        return items[index]

    def _part(self, node: ast.Part, context: Context) -> Any:
        """Some elements of a list, as Python counts them: bounds beyond its ends are its ends."""
        value = self.need(node.object, context)
        bounds: list[int | None] = []
        for bound in (node.start, node.stop, node.step):
            found = None if bound is None else self.need(bound, context)
            if bound is not None:
                self._whole(found, bound, context)
            bounds.append(found)
        if bounds[2] == 0:
            assert node.step is not None
            text = "a part of a list with step 0"
            raise self.fail(context, "E0405", text, node.step.span)
        items = self._items(value, node, context)[slice(*bounds)]
        return items if isinstance(value, tuple) and items else ListValue.of(items)

    def _whole(self, index: Any, node: ast.Expression, context: Context) -> None:
        if isinstance(index, bool) or not isinstance(index, int):
            text = f"an index is an integer, not {describe(index)}"
            raise self.fail(context, "E0401", text, node.span)

    def _items(self, value: Any, node: ast.Index | ast.Part, context: Context) -> tuple[Any, ...]:
        match value:
            case ListValue():
                return value.items
            case tuple():
                return value  # pyright: ignore[reportUnknownVariableType]
            case Record():
                return tuple(value.fields.values())
            case _:
                text = f"only lists are indexed, not {describe(value)}"
                help = _parts_of(value, node)
                raise self.fail(context, "E0401", text, node.object.span, help=help)


def _parts_of(value: Any, node: ast.Index | ast.Part) -> tuple[str, ...]:
    """Help where somebody indexes a tensor."""
    if not isinstance(value, Value):
        return ()
    if isinstance(node, ast.Part):
        bounds = {"start": node.start, "stop": node.stop, "step": node.step}
        said = "".join(f", {n} = {bound.span.text}" for n, bound in bounds.items() if bound)
        return (f"of a tensor, along an axis: {node.object.span.text} -> slice([0]{said})",)
    return ("parts of a tensor are slice(axes, start, stop) and split(parts)",)


def _flows(symbol: str, left: Given, right: Given, first: bool) -> str:
    """How a layer takes part in arithmetic: something flows into it."""
    layer, other = (left, right) if first else (right, left)
    if layer.span is None or isinstance(other.value, LAYER_LIKE):
        return "let something flow into both: `(x -> ...) " + symbol + " (x -> ...)`"
    said = other.span.text if other.span is not None and "->" not in other.span.text else "y"
    flowing = f"x -> {layer.span.text}"
    if symbol in COMPARED:
        flowing = f"({flowing})" if first else flowing
    both = f"{flowing} {symbol} {said}" if first else f"{said} {symbol} ({flowing})"
    return f"let something flow into it: `{both}`" if len(both) <= 60 else _FLOW_IN


_FLOW_IN = "let something flow into it: `x -> ...`"


def without_value(node: ast.Expression) -> tuple[str, ...]:
    """Help for what has no value where one is needed."""
    if isinstance(node, ast.Conditional) and node.otherwise is None:
        return ("say what it is otherwise: `if ... { ... } else { ... }`",)
    return ("end the body with an expression",)


def _of_a_layer(name: str) -> tuple[str, ...]:
    """Help for what would be read from a layer: its weights, or what it gives."""
    if name in ("weight", "bias", "weights", "kernel"):
        return (f"a weight for two layers is a tensor: `w = parameter([...])`, `{name} = w`",)
    if name in TENSOR_ATTRIBUTES:
        return (f"sizes are of what it gives: `y = x -> ...`, then `y.{name}`",)
    return ()
