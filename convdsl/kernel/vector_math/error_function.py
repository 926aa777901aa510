"""The error function and its complement."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from convdsl.kernel.nodes import Binary, Compare, Select, Unary, Value
from convdsl.kernel.vector_math.exponential import DECAYED, Exponentials
from convdsl.kernel.vector_math.interpolation import interpolated, through
from convdsl.tensor import DType


class ErrorFunctions(Exponentials):
    """erf and erfc by a series near zero and a scaled complement far from it."""

    def erf(self, x: Value) -> Value:
        """In f32 1 - exp(-h) with h = -log(erfc |x|) as |x| + |x| p(|x|): one way for every x,
        without a division, near zero as exact as elsewhere. What is added to the least numbers is
        none of the type, and is lost where there is no fused multiply-add: it is made large."""
        if x.type.dtype is not DType.F32:
            return self.erf_in_parts(x)
        t = self.let(Binary("min", self.const(_FULL, x), Unary("abs", x)), "t")
        large = self.let(self.mul(t, _LARGE), "large")
        h = self.mul(self.fma(large, self.polynomial(t, _decline()), large), 1 / _LARGE)
        h = self.let(h, "h")
        return self.let(Binary("copysign", self.gone(h, 2), x), "erf")

    def erf_in_parts(self, x: Value) -> Value:
        """Below 1 the Maclaurin series (Abramowitz, Stegun 7.1.5); above 1 - exp(-x**2) q(t), q
        the scaled complement exp(x**2) erfc(x) as a polynomial in t = (|x| - c) / (|x| + c)."""
        dtype, one = x.type.dtype, self.const(1.0, x)
        size = self.b.let(Unary("abs", x), "size")
        square = self.b.let(Binary("mul", size, size), "square")
        near = self.mul(x, self.polynomial(square, _SERIES[dtype]))
        # At the limit the complement is less than half a unit in the last place of 1.
        held = self.b.let(Binary("min", self.const(_LIMIT, x), size), "held")
        q = self.polynomial(self.folded(held, 1.0, _LIMIT), _complement(dtype))
        p, power = self.decaying(self.let(self.mul(held, held), "square"))
        decay = self.mul(p, power)
        far = Binary("copysign", Binary("sub", one, Binary("mul", decay, q)), x)
        return self.b.let(Select(Compare("lt", size, one), near, far), "erf")

    def folded(self, x: Value, low: float, high: float) -> Value:
        """t = (x - c) / (x + c), as far from zero at the one end as at the other."""
        c = math.sqrt(low * high)
        return self.let(self.div(self.sub(x, c), self.add(x, c)), "t")

    def erfc(self, x: Value) -> Value:
        """1 - erf(x) below a half; above exp(-x**2) q(t) / (k + 2 k x), the square as that of half
        the digits, which is exact, and a rest: so that the tail is as exact as all else."""
        dtype, limit = x.type.dtype, _TAIL_LIMIT[x.type.dtype]
        size = self.let(Unary("abs", x), "size")
        square = self.let(self.mul(size, size), "square")
        slope = self.polynomial(square, _SERIES[dtype][: _NEAR_TERMS[dtype]])
        near = self.sub(self.const(1.0, x), self.mul(x, slope))
        held = self.let(Binary("min", self.const(limit, x), size), "held")
        high, low = self.halves(held)
        rest = self.mul(low, self.add(held, high))
        p, power = self.decaying(self.let(self.mul(high, high), "square"), rest)
        q = self.polynomial(self.folded(held, _TAIL_START, limit), _tail(dtype))
        q = self.div(q, self.fma(held, 2 * _LINE, _LINE))
        far = self.let(self.mul(self.mul(p, q), power), "far")
        far = self.choose(self.test("lt", x, 0.0), self.sub(self.const(2.0, x), far), far)
        return self.let(self.choose(self.test("lt", size, _TAIL_START), near, far), "erfc")


def _scaled(x: Decimal) -> Decimal:
    """exp(x**2) erfc(x) by its continued fraction (Abramowitz, Stegun 7.1.14)."""
    below = x
    for k in range(int(300 / min(x * x, 1)), 0, -1):
        below = x + Decimal(k) / 2 / below
    return 1 / (_PI.sqrt() * below)


def _unfolded(t: Decimal, low: float, high: float) -> Decimal:
    return Decimal(math.sqrt(low * high)) * (1 + t) / (1 - t)


def _reach(low: float, high: float) -> float:
    """|t| for low <= x <= high."""
    c = math.sqrt(low * high)
    return (high - c) / (high + c)


@lru_cache
def _decline() -> list[float]:
    """-log(erfc x) / x - 1 by x, for f32. erf depends on it the less the larger t is: so the
    points lie closer to zero than Chebyshev's, and none near the end. erf errs by 9e-9."""

    def slope(t: Decimal) -> Decimal:
        x = 2 * t
        return -(_scaled(x).ln() - x * x) / x - 1 if x > 1 else -_near_complement(x).ln() / x - 1

    shares = (
        (1 + math.cos(math.pi * (j + 0.5) / (_DECLINE_DEGREE + 1))) / 2
        for j in range(_DECLINE_DEGREE + 1)
    )
    found = through(slope, [_DECLINE_REACH * share**1.5 for share in shares])
    return [c / 2**k for k, c in enumerate(found)]  # by x = 2 t, exactly


def scaled_complement(x: Decimal) -> Decimal:
    """exp(x**2) erfc(x) of any x from 0 on."""
    return _scaled(x) if x > 1 else _near_complement(x) * (x * x).exp()


def _near_complement(x: Decimal) -> Decimal:
    """erfc(x) by the Maclaurin series, for x up to 1."""
    terms = (x * (-x * x) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(40))
    return 1 - 2 / _PI.sqrt() * sum(terms, Decimal(0))


@lru_cache
def _complement(dtype: DType) -> list[float]:
    return interpolated(
        lambda t: _scaled(_unfolded(t, 1.0, _LIMIT)), _reach(1.0, _LIMIT), _DEGREE[dtype]
    )


@lru_cache
def _tail(dtype: DType) -> list[float]:
    ends = (_TAIL_START, _TAIL_LIMIT[dtype])

    def times_line(t: Decimal) -> Decimal:
        x = _unfolded(t, *ends)
        return _scaled(x) * (1 + 2 * x) * Decimal(_LINE)

    return interpolated(times_line, _reach(*ends), _TAIL_DEGREE[dtype])


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_FULL = 3.92  # from here on erf is 1 in f32
_LARGE = 2.0**24
_DECLINE_DEGREE, _DECLINE_REACH = 8, 1.25
_LIMIT = 6.0
_DEGREE = {DType.F32: 7, DType.F64: 15}
_TAIL_START = 0.5
_LINE = 1.5625  # k: q lies between 1.76 and 1.93, where roundings are small beside it
_TAIL_LIMIT = {dtype: math.sqrt(limit) for dtype, limit in DECAYED.items()}  # nothing is left
_TAIL_DEGREE = {DType.F32: 8, DType.F64: 20}
_NEAR_TERMS = {DType.F32: 7, DType.F64: 13}  # of the series, below a half
_SERIES = {
    dtype: [
        2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(terms)
    ]  # of erf(x) / x
    for dtype, terms in ((DType.F32, 10), (DType.F64, 19))
}
