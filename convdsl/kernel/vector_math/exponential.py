"""Exponentials and logarithms."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

import numpy as np

from convdsl.kernel.nodes import Binary, Fma, Unary, Value
from convdsl.kernel.scalar import LIFTS
from convdsl.kernel.vector_math.interpolation import interpolated
from convdsl.kernel.vector_math.terms import Terms
from convdsl.tensor import DType


class Exponentials(Terms):
    """exp, log and their kin as polynomials around reduced arguments."""

    def nearest(self, x: Value, factor: float) -> tuple[Value, Value]:
        """(n, 2**n), n the whole number nearest to a small product, in one sum and one
        difference: the sum has the digits of 2**n in its last places. 2**n costs a shift."""
        lifted = self.let(Binary("lift", x, self.const(factor, x)), "lifted")
        n = self.let(self.sub(lifted, LIFTS[x.type.dtype]), "n")
        return n, Unary("pow2_lifted", lifted)

    def reduced(self, x: Value) -> tuple[Value, Value, Value]:
        """(n, 2**n, r): x = n ln 2 + r, n integral, |r| <= ln 2 / 2 (Cody and Waite's two
        steps)."""
        high, low = LN2[x.type.dtype]
        n, power = self.nearest(x, 1 / math.log(2))
        r = Fma(n, self.const(-high, x), x)
        return n, power, self.b.let(Fma(n, self.const(-low, x), r), "r")

    def clamped(self, x: Value) -> Value:
        """Within a range at whose ends exp has become 0 and infinite."""
        low, high = _EXP_RANGE[x.type.dtype]
        return self.let(self.within(x, low, high), "clamped")

    def exp(self, x: Value) -> Value:
        n, _, r = self.reduced(self.clamped(x))
        return self.b.let(
            Binary("scale", self.polynomial(r, exp_near_zero(x.type.dtype)), n), "exp"
        )

    def decay(self, x: Value) -> Value:
        """exp(x) of what is not above `DECAYED`: 2**n is a factor for every n that occurs."""
        return self.fallen(x, _fallen(x.type.dtype))

    def fallen(self, x: Value, near: list[float]) -> Value:
        """The same, and exp near zero by these coefficients."""
        held = Binary("max", self.const(-DECAYED[x.type.dtype], x), x)
        _, power, r = self.reduced(self.let(held, "held"))
        return self.let(self.mul(self.polynomial(r, near), power), "decay")

    def decaying(self, x: Value, rest: Value | None = None) -> tuple[Value, Value]:
        """(p, 2**n): exp(-x - rest) = p * 2**n for -x within exp's range, and a rest of up to some
        hundredths. 2**n is 0 or infinite at its ends."""
        high, low = LN2[x.type.dtype]
        n, power = self.nearest(x, -1 / math.log(2))
        r = self.fma(n, low, self.fma(n, high, x))
        r = self.let(r if rest is None else self.add(r, rest), "r")  # -r is what is left
        series = (c * (-1) ** k for k, c in enumerate(exp_near_zero(x.type.dtype)))
        return self.polynomial(r, list(series)), power

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x)), x within a range at whose ends exp(-x) has become infinite and 0."""
        low, high = _EXP_RANGE[x.type.dtype]
        p, power = self.decaying(self.let(self.within(x, -high, -low), "clamped"))
        below = Fma(p, power, self.const(1.0, x))
        return self.let(Binary("div", self.const(1.0, x), below), "sigmoid")

    def expm1(self, x: Value) -> Value:
        """exp(x) - 1 without cancellation: 2**n (e**r - 1) + (2**n - 1)."""
        n, _, r = self.reduced(self.clamped(x))
        q = self.polynomial(r, [0.0, *exp_series(_EXP_DEGREE[x.type.dtype] + 1)[1:]])
        # Half of it, doubled at the end: 2**(n - 1) is finite wherever the result is.
        half = self.const(0.5, x)
        power = self.b.let(Binary("scale", half, n), "power")
        value = Fma(power, q, Binary("sub", power, half))
        return self.near_zero(x, Binary("add", value, value), "expm1")

    def log(self, x: Value) -> Value:
        """e ln 2 + log m, x = m 2**e."""
        e, _, s = self.ratio(x)
        square = self.let(self.mul(s, s), "square")
        tail = self.polynomial(square, log_series(_LOG_TERMS[x.type.dtype]))
        near = Fma(self.mul(s, square), tail, self.add(s, s))
        high, low = LN2[x.type.dtype]
        result: Value = self.fma(e, high, self.fma(e, low, near))
        result = self.choose(self.test("eq", x, math.inf), math.inf, result)
        result = self.choose(self.test("eq", x, 0.0), -math.inf, result)
        good = self.test("ge", x, 0.0)  # false for negative numbers and for NaN
        return self.let(self.choose(good, result, math.nan), "log")

    def ratio(self, x: Value) -> tuple[Value, Value, Value]:
        """(e, m, s): x = m 2**e with m in [sqrt(1/2), sqrt 2), and s = (m - 1) / (m + 1), of which
        log m = 2 atanh s = 2 (s + s**3 / 3 + ...)."""
        m = self.let(Unary("mantissa", x), "m")
        e = self.let(Unary("exponent", x), "e")
        small = self.let(self.test("lt", m, math.sqrt(0.5)), "small")
        m = self.let(self.choose(small, self.add(m, m), m), "m")
        e = self.let(self.choose(small, self.sub(e, 1.0), e), "e")
        return e, m, self.let(self.div(self.sub(m, 1.0), self.add(m, 1.0)), "s")

    def log1p(self, x: Value) -> Value:
        """log(1 + x) = log(u) + (1 + x - u) / u, u the rounded sum."""
        u, rest = self.two_sum(self.const(1.0, x), x)
        least = float(np.finfo(x.type.dtype.numpy).tiny)
        y = self.add(self.log(u), self.div(rest, Binary("max", self.const(least, u), u)))
        y = self.choose(self.test("eq", x, math.inf), x, y)
        return self.near_zero(x, y, "log1p")

    def tanh(self, x: Value) -> Value:
        """m / (1 - m) with m = (1 - exp(-2 |x|)) / 2, the sign put back."""
        held = self.let(Binary("min", self.const(_FLAT[x.type.dtype], x), Unary("abs", x)), "held")
        m = self.gone(held, 1)
        value = Binary("div", m, self.sub(self.const(1.0, x), m))
        return self.let(Binary("copysign", value, x), "tanh")

    def gone(self, x: Value, scale: int) -> Value:
        """m = s (1 - exp(-2 x / s)) / 2 of 0 <= x <= 44 s, without cancellation; s is a power of 2.

        x = n s ln 2 / 2 + u and m = 2**-n q + s (1 - 2**-n) / 2 with q = s (1 - exp(-2 u / s)) / 2,
        near zero u itself. What the one step of the reduction loses is small where n is, and where
        n is not, little depends on it."""
        n, power = self.nearest(x, -2 / (scale * math.log(2)))  # n of what is said is -n here
        u = self.let(self.fma(n, scale * math.log(2) / 2, x), "u")
        power = self.let(power, "power")
        near = [c / scale ** (k + 1) for k, c in enumerate(_tanh_near_zero(x.type.dtype))]
        q = self.fma(self.mul(u, u), self.polynomial(u, near), u)
        return self.let(self.fma(power, q, self.fma(power, -scale / 2, scale / 2)), "m")


# ln 2 split so that n * high is exact for the n that occur.
LN2 = {
    DType.F32: (0.693359375, math.log(2) - 0.693359375),
    DType.F64: (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
DECAYED = {DType.F32: 88.0, DType.F64: 709.2}
"""exp(-x) is denormal, and so is the power of two in it."""
_EXP_RANGE = {DType.F32: (-DECAYED[DType.F32], 89.0), DType.F64: (-DECAYED[DType.F64], 710.0)}
_EXP_DEGREE = {DType.F32: 7, DType.F64: 13}  # Taylor's, of exp(r) - 1
_NEAR_DEGREE = {DType.F32: 6, DType.F64: 11}
_NEAR = 0.38  # ln 2 / 2, and a rest
_FALLEN_DEGREE = {DType.F32: 5, DType.F64: 10}
_FLAT = {DType.F32: 9.02, DType.F64: 19.1}
"""tanh is 1."""
_TANH_DEGREE = {DType.F32: 4, DType.F64: 10}
_LOG_TERMS = {DType.F32: 5, DType.F64: 11}


@lru_cache
def exp_near_zero(dtype: DType) -> list[float]:
    """Coefficients of exp(r) for the r that reduction leaves."""
    return interpolated(Decimal.exp, _NEAR, _NEAR_DEGREE[dtype])


@lru_cache
def _fallen(dtype: DType) -> list[float]:
    """The same with an error of a unit or two in the last place, none at zero: what shares are made
    of, and one share alone is one."""

    def beyond(r: Decimal) -> Decimal:
        return (r.exp() - 1) / r

    reach, degree = math.log(2) / 2, _FALLEN_DEGREE[dtype]
    if degree % 2 == 0:  # zero is one of the points
        return interpolated(Decimal.exp, reach, degree)
    return [1.0, *interpolated(beyond, reach, degree - 1)]


@lru_cache
def _tanh_near_zero(dtype: DType) -> list[float]:
    """(q - u) / u**2 of q = (1 - exp(-2 u)) / 2, by u."""

    def rest(u: Decimal) -> Decimal:
        return sum(((-2) ** (k - 1) * u ** (k - 2) / math.factorial(k) for k in _TANH_TERMS), _NONE)

    return interpolated(rest, _NEAR / 2, _TANH_DEGREE[dtype])


_NONE = Decimal(0)
_TANH_TERMS = range(2, 40)  # of the series, below 0.4**40 / 40!


def exp_series(degree: int) -> list[float]:
    """Coefficients of exp(r)."""
    return [1 / math.factorial(k) for k in range(degree + 1)]


def log_series(terms: int) -> list[float]:
    """Coefficients, by powers of s**2, of (2 atanh(s) - 2 s) / s**3."""
    return [2 / (2 * k + 3) for k in range(terms)]
