"""Formulas over the operands of a scalar function, as data.

A formula stands in a function's record as what it is made of or what its derivative is, and is
read in several worlds: as a tensor expression, as values of the loop IR, as NumPy arrays. What
differs between the worlds is an `Algebra`.

    X            the operand;  A, B  the two of a binary function;  Y  the result
    1 - Y * Y    numbers and the four operations mix as written
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias, TypeVar

from convdsl.tensor.records import record

T = TypeVar("T")


class _Terms:
    """The four operations between formulas and numbers."""

    __slots__ = ()

    def __add__(self, other: Term) -> Formula:
        return call("add", self, other)

    def __sub__(self, other: Term) -> Formula:
        return call("sub", self, other)

    def __mul__(self, other: Term) -> Formula:
        return call("mul", self, other)

    def __truediv__(self, other: Term) -> Formula:
        return call("div", self, other)

    def __radd__(self, other: float) -> Formula:
        return call("add", other, self)

    def __rsub__(self, other: float) -> Formula:
        return call("sub", other, self)

    def __rmul__(self, other: float) -> Formula:
        return call("mul", other, self)

    def __rtruediv__(self, other: float) -> Formula:
        return call("div", other, self)

    def __neg__(self) -> Formula:
        return call("neg", self)


@record
class Number(_Terms):
    """The same number in every element, of the operands' type."""

    value: float


@record
class Given(_Terms):
    """An operand by position; -1 is the result, where a formula may use it."""

    position: int


@record
class Applied(_Terms):
    """A scalar function of formulas."""

    function: str
    parts: tuple[Formula, ...]


@record
class Chosen(_Terms):
    """`yes` where the test holds, else `no`."""

    test: Formula
    yes: Formula
    no: Formula


Formula: TypeAlias = Number | Given | Applied | Chosen
Term: TypeAlias = "_Terms | float"

X: Formula = Given(0)
A: Formula = Given(0)
B: Formula = Given(1)
Y: Formula = Given(-1)


def call(function: str, *parts: Term) -> Formula:
    """The function by its name in `scalar.FUNCTIONS`."""
    return Applied(function, tuple(_formula(part) for part in parts))


def choose(test: Formula, yes: Term, no: Term) -> Formula:
    """`yes` where the test holds, else `no`."""
    return Chosen(test, _formula(yes), _formula(no))


def _formula(term: Term) -> Formula:
    if isinstance(term, (Number, Given, Applied, Chosen)):
        return term
    assert isinstance(term, (int, float))
    return Number(term)


class Algebra(Protocol[T]):
    """A world that formulas are read in."""

    def number(self, value: float, like: T) -> T:
        """A number of the type of `like`."""
        ...

    def apply(self, function: str, parts: tuple[T, ...]) -> T:
        """A function, by its name in `scalar.FUNCTIONS`."""
        ...

    def choose(self, test: T, yes: T, no: T) -> T:
        """`yes` where the test holds, else `no`."""
        ...


def read(formula: Formula, given: tuple[T, ...], algebra: Algebra[T]) -> T:
    """The formula of the given operands (and the result as the last, for derivatives). What
    occurs twice in it is made once."""
    made: dict[Formula, T] = {}

    def value(part: Formula) -> T:
        if part not in made:
            match part:
                case Number():
                    made[part] = algebra.number(part.value, given[0])
                case Given():
                    made[part] = given[part.position]
                case Applied():
                    made[part] = algebra.apply(part.function, tuple(map(value, part.parts)))
                case Chosen():
                    made[part] = algebra.choose(*map(value, (part.test, part.yes, part.no)))
        return made[part]

    return value(formula)


def functions_of(formula: Formula) -> Iterator[str]:
    """Names of the functions applied, one for each distinct application."""
    seen: set[Formula] = set()
    pending = [formula]
    while pending:
        part = pending.pop()
        if part in seen:
            continue
        seen.add(part)
        match part:
            case Applied():
                yield part.function
                pending += part.parts
            case Chosen():
                pending += (part.test, part.yes, part.no)
            case _:
                pass
