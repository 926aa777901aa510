"""Arithmetic and comparison of compile-time values. Everything stays within bounds.

Division of integers is exact: an integer where it comes out even, else a float. Symbolic
sizes stay exact; a comparison that depends on a free symbol is refused, not guessed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from convdsl.elaborate import limits
from convdsl.elaborate.values import ListValue, describe, is_number
from convdsl.ir.opdef import known_of
from convdsl.ir.shapes import sufficient
from convdsl.syntax.limits import INTEGER_BITS
from convdsl.tensor import Dim, SymDim, bounds, exact_div, floor_div

_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": lambda a, b: a // b,
    "%": operator.mod,
}


class ValueProblem(Exception):
    """The computation cannot be done; the caller adds the place."""

    def __init__(self, code: str, message: str, help: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def binary(symbol: str, left: Any, right: Any) -> Any:
    """left <symbol> right, one of + - * / // % **."""
    if isinstance(left, SymDim) or isinstance(right, SymDim):
        return _symbolic(symbol, left, right)
    if is_number(left) and is_number(right):
        return checked(_numeric(symbol, left, right))
    if symbol == "+" and isinstance(left, str) and isinstance(right, str):
        return checked_text(left + right)
    if symbol == "+" and isinstance(left, ListValue) and isinstance(right, ListValue):
        return checked_list(left.items, right.items)
    if symbol == "*" and isinstance(left, ListValue) and isinstance(right, int):
        if not isinstance(right, bool) and 0 <= right * max(left.weight, 1) <= limits.ITEMS:
            return ListValue.of(left.items * right)
        raise ValueProblem("E0806", f"cannot repeat a list {describe(right)} times")
    texts = isinstance(left, str) or isinstance(right, str)
    help = ('values stand in braces inside a text: "conv{i}"',) if texts and symbol == "+" else ()
    if isinstance(left, tuple) or isinstance(right, tuple):
        help = ("a computed size is a list, an axis each: [2 * k[0], 2 * k[1]] of a size `k`",)
    raise ValueProblem("E0401", f"cannot compute {describe(left)} {symbol} {describe(right)}", help)


def checked(value: Any) -> Any:
    """A number, provided it is within bounds and finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueProblem("E0405", "the result is not a finite number")
    elif value.bit_length() > INTEGER_BITS:
        raise ValueProblem("E0806", "the result does not fit 64 bits")
    return value


def checked_text(value: str) -> str:
    """A text within the limit; raises ValueProblem."""
    if len(value) > limits.TEXT:
        raise ValueProblem("E0806", f"a text of more than {limits.TEXT:,} characters")
    return value


def checked_list(*parts: tuple[Any, ...]) -> ListValue:
    """The concatenation, provided that it stays within the limit."""
    made = ListValue.of(tuple(item for part in parts for item in part))
    if made.weight > limits.ITEMS:
        raise ValueProblem("E0806", f"a list of more than {limits.ITEMS:,} elements")
    return made


def _numeric(symbol: str, left: Any, right: Any) -> Any:
    if symbol in ("/", "//", "%") and right == 0:
        raise ValueProblem("E0405", "division by zero")
    if symbol == "**":
        return _power(left, right)
    if symbol == "/":
        whole = isinstance(left, int) and isinstance(right, int) and left % right == 0
        return left // right if whole else left / right
    return _RULES[symbol](left, right)


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right >= 0:
        if left.bit_length() * right > 2 * INTEGER_BITS and abs(left) > 1:
            raise ValueProblem("E0806", "the result does not fit 64 bits")
        return left ** (right if abs(left) > 1 else min(right, 2 + right % 2))
    try:
        result = float(left) ** float(right)
    except (OverflowError, ZeroDivisionError):
        raise ValueProblem("E0405", "the result is not a finite number") from None
    if isinstance(result, complex):
        raise ValueProblem("E0405", "a root of a negative number")
    return result


def _symbolic(symbol: str, left: Any, right: Any) -> Any:
    for side in (left, right):
        if isinstance(side, bool) or not isinstance(side, int | SymDim):
            raise ValueProblem(
                "E0401", f"cannot compute {describe(left)} {symbol} {describe(right)}"
            )
    if symbol in ("/", "//", "%"):
        return _divide(symbol, left, right)
    if symbol == "**":
        return _symbolic_power(left, right)
    terms = [len(side.terms) if isinstance(side, SymDim) else 1 for side in (left, right)]
    if symbol == "*" and terms[0] * terms[1] > 256:
        raise ValueProblem("E0806", "a symbolic size of more than 256 terms")
    return checked_dim(_RULES[symbol](left, right))


def _divide(symbol: str, left: Dim, right: Dim) -> Dim:
    if symbol == "/":
        quotient = exact_div(left, right)
        if quotient is None:
            raise ValueProblem(
                "E0402",
                f"{left} / {right} is not known to be an integer",
                (f"declare it on the input (`where {left} % {right} == 0`), or use `//`",),
            )
        return checked_dim(quotient)
    if not isinstance(right, int) or right <= 0:
        raise ValueProblem("E0405", f"division by {right}")
    quotient = floor_div(left, right)
    return checked_dim(quotient if symbol == "//" else left - quotient * right)


def _symbolic_power(left: Dim, right: Any) -> Dim:
    if not isinstance(right, int) or not 0 <= right <= 8:
        raise ValueProblem("E0405", "a symbolic size takes powers from 0 to 8")
    result: Dim = 1
    for _ in range(right):
        result = binary("*", result, left)
    return result


def checked_dim(value: Dim) -> Dim:
    """A symbolic size, provided it can be written down."""
    if isinstance(value, int):
        return checked(value)
    if len(value.terms) > 256 or len(str(value)) > limits.DIM_TEXT:
        raise ValueProblem("E0806", "a symbolic size that is too long to write down")
    return value


def negate(value: Any) -> Any:
    """-value of a number or a size; raises ValueProblem for others."""
    if isinstance(value, SymDim) or is_number(value):
        return checked_dim(-value) if isinstance(value, SymDim) else -value
    raise ValueProblem("E0401", f"cannot negate {describe(value)}")


def compare(symbol: str, left: Any, right: Any) -> bool:
    """left <symbol> right, one of == != < <= > >= in."""
    if symbol == "in":
        return any(equal(left, item) for item in _items(left, right))
    if symbol in ("==", "!="):
        return equal(left, right) == (symbol == "==")
    if isinstance(left, SymDim) or isinstance(right, SymDim):
        return _ordered(symbol, left, right)
    texts = isinstance(left, str) and isinstance(right, str)
    if not texts and not (is_number(left) and is_number(right)):
        raise ValueProblem("E0401", f"cannot compare {describe(left)} with {describe(right)}")
    rules: dict[str, Callable[[Any, Any], bool]] = {
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
    return rules[symbol](left, right)


def _items(left: Any, right: Any) -> tuple[Any, ...]:
    if isinstance(right, ListValue):
        return right.items
    if isinstance(right, tuple):
        return right  # pyright: ignore[reportUnknownVariableType]
    both = isinstance(left, str) and isinstance(right, str)
    help = ('compare texts by `==`, or list them: `kind in ["a", "b"]`',) if both else ()
    raise ValueProblem("E0401", f"`in` looks into a list, not {describe(right)}", help)


def equal(left: Any, right: Any) -> bool:
    """Equality; of symbolic sizes where it can be decided for every value of the symbols."""
    if isinstance(left, SymDim) or isinstance(right, SymDim):
        if not all(isinstance(side, int | SymDim) for side in (left, right)):
            return False
        difference = left - right
        if isinstance(difference, int):
            return difference == 0
        low, high = bounds(difference)
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        raise _undecided("==", left, right)
    if isinstance(left, ListValue) and isinstance(right, ListValue):
        pairs = zip(left.items, right.items, strict=False)
        return len(left.items) == len(right.items) and all(equal(a, b) for a, b in pairs)
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _ordered(symbol: str, left: Any, right: Any) -> bool:
    for side in (left, right):
        if isinstance(side, bool) or not isinstance(side, int | SymDim):
            raise ValueProblem("E0401", f"cannot compare {describe(left)} with {describe(right)}")
    if symbol in (">", "<="):
        return _ordered("<" if symbol == ">" else ">=", right, left)
    low, high = bounds(left - right)
    if low is not None and low >= 0:
        return symbol == ">="
    if high is not None and high < 0:
        return symbol == "<"
    raise _undecided(symbol, left, right)


def _undecided(symbol: str, left: Dim, right: Dim) -> ValueProblem:
    """Help is what the constraints of an input can say: of a size alone, or of its remainder."""
    known = sufficient(left, right) if symbol == "==" else None
    said = f"{left} {symbol} {right}"
    help = "give the sizes"
    if known is not None:
        help = f"declare it on the input: `where {known_of(known)}`"
    elif str(left).isidentifier() and (isinstance(right, int) or str(right).isidentifier()):
        help = f"declare it on the input: `where {said}`, or give the size"
    return ValueProblem("E0402", f"cannot decide {said} for every size", (help,))
