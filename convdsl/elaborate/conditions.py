"""Comparisons, `and`, `or` and `not`: decided of values, masks of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import arithmetic
from convdsl.elaborate.arithmetic import ValueProblem
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop
from convdsl.elaborate.values import LAYER_LIKE, Given, describe
from convdsl.ir.graph import Value
from convdsl.syntax import ast
from convdsl.tensor import DType

SIZES = "of sizes, compare x.channels, x.height, x.shape"

_MASKS = (
    "what a tensor holds is not known here: element by element it is `where(mask, a, b)`",
    SIZES,
)
"""What to write where a condition is wanted and a tensor stands."""


class Conditions(ABC):
    """The part of expressions that gives true, false, or a mask."""

    @abstractmethod
    def need(self, node: ast.Expression, context: Context) -> Any:
        """The node's value; raises Stop where there is none."""

    @abstractmethod
    def fail(
        self,
        context: Context,
        code: str,
        message: str,
        *labels: tuple[Span, str] | Span,
        help: str | tuple[str, ...] = (),
    ) -> Stop:
        """Record an error in the block instance of `context` and return what to raise."""

    def objection(self, problem: ValueProblem, span: Span, context: Context) -> Stop:
        """Record what is said against an operation on values that stands there."""
        return self.fail(context, problem.code, problem.message, span, help=problem.help)

    @abstractmethod
    def combined(
        self,
        symbol: str,
        left: Given,
        right: Given,
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        """left <symbol> right, of tensors or numbers."""

    @abstractmethod
    def inverted(self, given: Given, context: Context, span: Span) -> Any:
        """`not x` of a mask."""

    def compared(self, node: ast.Compared, context: Context) -> Any:
        """True or false of values; of tensors a mask, where it holds element by element."""
        left, left_node, mask = self.need(node.first, context), node.first, None
        for symbol, operand in node.rest:
            right = self.need(operand, context)
            sides = (Given(left, left_node.span), Given(right, operand.span))
            if any(isinstance(side.value, (Value, *LAYER_LIKE)) for side in sides):
                span = left_node.span.to(operand.span)
                made = self._mask(symbol, *sides, context, span)
                mask = self._together("and", mask, Given(made, span), node.span, context)
            elif not self._holds(symbol, *sides, context):
                return False
            left, left_node = right, operand
        return True if mask is None else mask.value

    def _holds(self, symbol: str, left: Given, right: Given, context: Context) -> bool:
        """left <symbol> right of values; of a chain that cannot be, the two that are to blame."""
        try:
            return arithmetic.compare(symbol, left.value, right.value)
        except ValueProblem as problem:
            assert left.span is not None
            assert right.span is not None
            raise self.objection(problem, left.span.to(right.span), context) from None

    def _mask(self, symbol: str, left: Given, right: Given, context: Context, span: Span) -> Any:
        """left <symbol> right of tensors."""
        if symbol == ">" and isinstance(right.value, LAYER_LIKE) and left.span and right.span:
            text = f"cannot compare {describe(left.value)} with {describe(right.value)}"
            help = f"write `{left.span.text} -> {right.span.text}`"
            raise self.fail(context, "E0401", text, left.span, help=help)
        if symbol == "in":
            text = f"`in` looks for numbers and words, not for {describe(left.value)}"
            help = "what a tensor holds is known when it is computed: `x == 3` is a mask"
            raise self.fail(context, "E0401", text, left.span or span, help=help)
        return self.combined(symbol, left, right, context, span, None)

    def _together(
        self, operator: str, before: Given | None, mask: Given, span: Span, context: Context
    ) -> Given:
        """Masks that stand together, by `and` or `or`."""
        if before is None:
            return mask
        return Given(self.combined(operator, before, mask, context, span, None), span)

    def condition(self, node: ast.Expression, context: Context) -> bool:
        """A boolean, or Stop."""
        value = self.need(node, context)
        if isinstance(value, bool):
            return value
        raise self._no_condition(value, node, context)

    def _no_condition(self, value: Any, node: ast.Expression, context: Context) -> Stop:
        text = f"a condition is true or false, not {describe(value)}"
        help = _MASKS if isinstance(value, Value) else ()
        return self.fail(context, "E0403", text, node.span, help=help)

    def _truth(self, node: ast.Expression, context: Context) -> Any:
        """A boolean, or a mask; raises Stop for anything else."""
        value = self.need(node, context)
        if isinstance(value, bool) or (isinstance(value, Value) and value.type.dtype is DType.BOOL):
            return value
        if isinstance(value, Value):
            text = f"`and`, `or` and `not` take masks and conditions, not {describe(value)}"
            help = f"where it is not zero: `{node.span.text} != 0`"
            raise self.fail(context, "E0403", text, node.span, help=help)
        raise self._no_condition(value, node, context)

    def logic(self, node: ast.Logic, context: Context) -> Any:
        deciding, mask = node.operator == "or", None
        for operand in node.operands:
            value = self._truth(operand, context)
            if isinstance(value, bool):
                if value is deciding:
                    return deciding
                continue
            given = Given(value, operand.span)
            mask = self._together(node.operator, mask, given, node.span, context)
        return (not deciding) if mask is None else mask.value

    def negated(self, node: ast.Negated, context: Context) -> Any:
        value = self._truth(node.operand, context)
        if isinstance(value, bool):
            return value is not node.odd
        return (
            self.inverted(Given(value, node.operand.span), context, node.span)
            if node.odd
            else value
        )
