"""What expansions are written with: arithmetic on values, and numbers in twice the precision.

A number in twice the precision is a pair high + low with |low| at most half a unit in the last
place of high. Error terms are computed with sums and products alone (Dekker 1971, Knuth 4.2.2), so
that they are exact with and without fused multiply-adds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import (
    Binary,
    Cast,
    Compare,
    Const,
    Fma,
    Select,
    Unary,
    Value,
    ValueType,
)
from convdsl.tensor import DType

Operand: TypeAlias = "Value | float"
Pair: TypeAlias = "tuple[Value, Value]"

DIGITS = {DType.F32: 24, DType.F64: 53}
"""Binary digits of a significand."""


class Terms(ABC):
    """Writes values into one kernel."""

    def __init__(self, b: Builder) -> None:
        self.b = b

    @abstractmethod
    def apply(self, function: str, parts: tuple[Value, ...]) -> Value:
        """Any function of `scalar.FUNCTIONS`."""

    # The world of loop IR that formulas are read in

    def number(self, value: float, like: Value) -> Value:
        return Const(value, like.type)

    def choose(self, test: Value, yes: Operand, no: Operand) -> Value:
        like = no if isinstance(yes, (int, float)) else yes
        assert not isinstance(like, (int, float))
        return Select(test, self.value(yes, like), self.value(no, like))

    # Arithmetic, numbers as constants

    def const(self, value: float, like: Value) -> Const:
        return Const(value, like.type)

    def value(self, operand: Operand, like: Value) -> Value:
        return Const(operand, like.type) if isinstance(operand, (int, float)) else operand

    def let(self, value: Value, name: str) -> Value:
        return self.b.let(value, name)

    def add(self, a: Value, b: Operand) -> Value:
        return Binary("add", a, self.value(b, a))

    def sub(self, a: Value, b: Operand) -> Value:
        return Binary("sub", a, self.value(b, a))

    def mul(self, a: Value, b: Operand) -> Value:
        return Binary("mul", a, self.value(b, a))

    def div(self, a: Value, b: Operand) -> Value:
        return Binary("div", a, self.value(b, a))

    def fma(self, a: Value, b: Operand, c: Operand) -> Value:
        return Fma(a, self.value(b, a), self.value(c, a))

    def test(self, op: str, a: Value, b: Operand) -> Value:
        return Compare(op, a, self.value(b, a))

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.type.dtype is dtype else Cast(x, ValueType(dtype, x.type.lanes))

    def within(self, x: Value, low: float, high: float) -> Value:
        """x, no lower and no higher than that; a NaN stays."""
        above = Binary("max", self.const(low, x), x)
        return Binary("min", self.const(high, x), above)

    def scaled(self, x: Value, n: Value) -> Value:
        """x * 2**n in two steps, so that neither factor leaves the range of exponents."""
        half = self.let(Unary("floor", self.mul(n, 0.5)), "half")
        return self.mul(self.mul(x, Unary("pow2", half)), Unary("pow2", self.sub(n, half)))

    def polynomial(self, x: Value, coefficients: list[float]) -> Value:
        """Horner's scheme, lowest coefficient first."""
        total: Value = self.const(coefficients[-1], x)
        for coefficient in reversed(coefficients[:-1]):
            total = Fma(total, x, self.const(coefficient, x))
        return self.b.let(total, "poly")

    def near_zero(self, x: Value, y: Value, name: str) -> Value:
        """y, but x where x is so small that f(x) = x + O(x**2) rounds to x: keeps signs of zeros
        and what would be lost below the smallest normal number."""
        limit = 0.5 ** (DIGITS[x.type.dtype] + 1)
        small = Compare("lt", Unary("abs", x), self.const(limit, x))
        return self.b.let(Select(small, x, y), name)

    # Twice the precision

    def two_sum(self, a: Value, b: Value) -> Pair:
        """a + b without error."""
        total = self.let(self.add(a, b), "sum")
        of_b = self.let(self.sub(total, a), "part")
        rest = self.add(self.sub(a, self.sub(total, of_b)), self.sub(b, of_b))
        return total, self.let(rest, "rest")

    def quick_sum(self, a: Value, b: Value) -> Pair:
        """a + b without error where |a| >= |b|."""
        total = self.let(self.add(a, b), "sum")
        return total, self.let(self.sub(b, self.sub(total, a)), "rest")

    def halves(self, a: Value) -> Pair:
        """a as a sum of two numbers of half its digits; |a| below the largest by as many."""
        factor = 2.0 ** -(-DIGITS[a.type.dtype] // 2) + 1
        scaled = self.let(self.mul(a, factor), "scaled")
        high = self.let(self.sub(scaled, self.sub(scaled, a)), "high")
        return high, self.let(self.sub(a, high), "low")

    def two_product(self, a: Value, b: Value) -> Pair:
        """a * b without error."""
        product = self.let(self.mul(a, b), "product")
        (ah, al), (bh, bl) = self.halves(a), self.halves(b)
        rest = self.sub(self.mul(ah, bh), product)
        for x, y in ((ah, bl), (al, bh), (al, bl)):
            rest = self.add(rest, self.mul(x, y))
        return product, self.let(rest, "rest")
