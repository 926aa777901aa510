"""The error function and its complement."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from convdsl.kernel.nodes import Binary, Compare, Select, Unary, Value
from convdsl.kernel.vector_math.exponential import Exponentials
from convdsl.kernel.vector_math.interpolation import interpolated
from convdsl.tensor import DType


class ErrorFunctions(Exponentials):
    """erf and erfc by a series near zero and a scaled complement far from it."""

    def erf(self, x: Value) -> Value:
        """Below 1 the Maclaurin series (Abramowitz, Stegun 7.1.5); above 1 - exp(-x**2) q(t), q
        the scaled complement exp(x**2) erfc(x) as a polynomial in t = (|x| - c) / (|x| + c)."""
        dtype, one = x.type.dtype, self.const(1.0, x)
        size = self.b.let(Unary("abs", x), "size")
        square = self.b.let(Binary("mul", size, size), "square")
        near = self.mul(x, self.polynomial(square, _SERIES[dtype]))
        # At the limit the complement is less than half a unit in the last place of 1.
        held = self.b.let(Binary("min", self.const(_LIMIT, x), size), "held")
        q = self.polynomial(self.folded(held, _LIMIT), _complement(dtype))
        decay = self.exp(Unary("neg", Binary("mul", held, held)))
        far = Binary("copysign", Binary("sub", one, Binary("mul", decay, q)), x)
        return self.b.let(Select(Compare("lt", size, one), near, far), "erf")

    def folded(self, x: Value, limit: float) -> Value:
        """t = (x - c) / (x + c), c between 1 and the limit."""
        c = math.sqrt(limit)
        return self.let(self.div(self.sub(x, c), self.add(x, c)), "t")

    def erfc(self, x: Value) -> Value:
        """1 - erf(x) below a half; above exp(-x**2) q(t) / (1 + 2 x), the square in twice the
        precision so that the tail is as exact as the rest."""
        dtype, limit = x.type.dtype, _TAIL_LIMIT[x.type.dtype]
        size = self.let(Unary("abs", x), "size")
        square = self.let(self.mul(size, size), "square")
        slope = self.polynomial(square, _SERIES[dtype])
        near = self.sub(self.const(1.0, x), self.mul(x, slope))
        held = self.let(Binary("min", self.const(limit, x), size), "held")
        high, low = self.two_product(held, held)
        decay = self.exp(Unary("neg", high))
        q = self.polynomial(self.folded(held, limit), _tail(dtype))
        q = self.div(self.sub(q, self.mul(q, low)), self.fma(held, 2.0, 1.0))
        far = self.let(self.mul(decay, q), "far")
        far = self.choose(self.test("lt", x, 0.0), self.sub(self.const(2.0, x), far), far)
        return self.let(self.choose(self.test("lt", size, 0.5), near, far), "erfc")


def _scaled(x: Decimal) -> Decimal:
    """exp(x**2) erfc(x) by its continued fraction (Abramowitz, Stegun 7.1.14)."""
    below = x
    for k in range(int(300 / min(x * x, 1)), 0, -1):
        below = x + Decimal(k) / 2 / below
    return 1 / (_PI.sqrt() * below)


def _unfolded(t: Decimal, limit: float) -> Decimal:
    return Decimal(math.sqrt(limit)) * (1 + t) / (1 - t)


def _reach(low: float, limit: float) -> float:
    """|t| for low <= x <= limit; it is as far at both ends where low is 1."""
    c = math.sqrt(limit)
    return max((limit - c) / (limit + c), (c - low) / (c + low))


@lru_cache
def _complement(dtype: DType) -> list[float]:
    return interpolated(
        lambda t: _scaled(_unfolded(t, _LIMIT)), _reach(1.0, _LIMIT), _DEGREE[dtype]
    )


@lru_cache
def _tail(dtype: DType) -> list[float]:
    limit = _TAIL_LIMIT[dtype]

    def times_line(t: Decimal) -> Decimal:
        x = _unfolded(t, limit)
        return _scaled(x) * (1 + 2 * x)

    return interpolated(times_line, _reach(0.5, limit), _TAIL_DEGREE[dtype])


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_LIMIT = 6.0
_DEGREE = {DType.F32: 7, DType.F64: 15}
_TAIL_LIMIT = {DType.F32: 10.5, DType.F64: 27.5}  # nothing is left there, not even denormal
_TAIL_DEGREE = {DType.F32: 9, DType.F64: 22}
_SERIES = {
    dtype: [
        2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(terms)
    ]  # of erf(x) / x
    for dtype, terms in ((DType.F32, 10), (DType.F64, 19))
}
