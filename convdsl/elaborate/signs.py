"""Signs and words between tensors: the operators that they stand for, applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate.conditions import SIZES
from convdsl.elaborate.expressions import TENSOR_OPERATORS
from convdsl.elaborate.naming import Naming
from convdsl.elaborate.operators import apply_operator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.values import Given, ListValue, describe, is_number
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef
from convdsl.ops import BY_NAME
from convdsl.ops.elementwise import COMPARED
from convdsl.syntax import ast
from convdsl.tensor import SymDim


class Signs(Naming):
    """Applies operators that are written as signs."""

    def combine(
        self,
        symbol: str,
        left: Given,
        right: Given,
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        if symbol not in TENSOR_OPERATORS:
            text = f"`{symbol}` works on numbers, not on tensors"
            raise self.fail(context, "E0401", text, span, help=_WHOLE_PARTS.get(symbol, ()))
        for given, other in ((left, right), (right, left)):
            if not isinstance(given.value, Value) and not is_number(given.value):
                what = f"compute {describe(left.value)} {symbol} {describe(right.value)}"
                sizes: tuple[str, ...] = ()
                if symbol in COMPARED:
                    what = f"compare {describe(left.value)} with {describe(right.value)}"
                    sizes = (SIZES,) if isinstance(given.value, ListValue) else ()
                elif isinstance(given.value, ListValue):
                    sizes = _parts_of(given)
                if isinstance(given.value, SymDim):
                    sizes = (_COUNTED.format(given.span.text if given.span else given.value),)
                raise self.fail(
                    context,
                    "E0401",
                    f"cannot {what}",
                    (given.span or span, describe(given.value)),
                    (other.span or span, describe(other.value)),
                    help=sizes,
                )
        return self._apply_plain(
            BY_NAME[TENSOR_OPERATORS[symbol]], [left, right], context, span, label
        )

    def inverted(self, given: Given, context: Context, span: Span) -> Any:
        return self._apply_plain(BY_NAME["logical_not"], [given], context, span, None)

    def negate(self, given: Given, context: Context, span: Span) -> Any:
        return self._apply_plain(BY_NAME["neg"], [given], context, span, None)

    def _apply_plain(
        self,
        op: OpDef,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        """An operator written as a sign: it takes no position among numbered layers."""
        part = self.claim(context, label, None, op.name, span, positional=False)
        name = context.names.full(part)
        return apply_operator(
            self.session,
            context,
            op,
            inputs,
            {},
            node_name=name,
            home=name,
            shared=False,
            span=span,
        )


_WHOLE_PARTS = {
    "//": "of whole numbers it is quotient(a, b), of others floor(a / b)",
    "%": "of tensors it is mod(a, b)",
}
"""What divides tensors as these signs divide numbers."""


def _parts_of(given: Given) -> tuple[str, ...]:
    """Help for several tensors where one is wanted."""
    assert isinstance(given.value, ListValue)
    if not given.value.items or not all(isinstance(item, Value) for item in given.value.items):
        return ()
    said = given.span.text if given.span is not None and given.span.text.isidentifier() else "y"
    names = ", ".join(f"{said}{i}" for i in range(min(len(given.value.items), 3)))
    more = ", ..." if len(given.value.items) > 3 else ""
    return (f"each has a name where they are bound, `{names}{more} = ...`, or is `{said}[0]`",)


_COUNTED = (
    "a size that is open is no number yet; as a tensor it is parameter([1], weight = 1.0)"
    " -> expand([{}]) -> reduce_sum([0], true)"
)
