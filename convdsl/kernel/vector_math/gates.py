"""Gates of activations, in fewer operations than what they are made of would take."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from convdsl.kernel.nodes import Binary, Unary, Value
from convdsl.kernel.vector_math.error_function import ErrorFunctions, scaled_complement
from convdsl.kernel.vector_math.exponential import DECAYED, LN2, exp_near_zero
from convdsl.kernel.vector_math.interpolation import through
from convdsl.tensor import DType


class Gates(ErrorFunctions):
    """Activations of one exponential and one division."""

    def gelu(self, x: Value) -> Value:
        """x Phi(x): with z = |x| and u = 1 / (1 + z / c), Phi(-z) = exp(-z**2 / 2) u p(u), one way
        for every z. The square is that of half the digits, which is exact, and a rest, so that the
        tail is as exact as all else; its power of two comes last, when it is not too small."""
        dtype, one = x.type.dtype, self.const(1.0, x)
        z = self.let(Binary("min", self.const(_TAIL[dtype], x), Unary("abs", x)), "z")
        u = self.let(self.div(one, self.fma(z, 1 / _FOLD[dtype], 1.0)), "u")
        q = self.mul(u, self.polynomial(u, _tail(dtype)))
        p, power = self.density(z)
        gone = self.let(self.mul(q, p), "gone")
        below = self.let(self.test("lt", x, 0.0), "below")
        left = self.sub(one, self.mul(gone, power))
        share = self.mul(x, self.choose(below, gone, left))
        return self.let(self.mul(share, self.choose(below, power, 1.0)), "gelu")

    def density(self, z: Value) -> tuple[Value, Value]:
        """(p, 2**n): exp(-z**2 / 2) = p 2**n, by twice the exponent."""
        dtype = z.type.dtype
        coarse = _COARSE[dtype]
        high = self.let(self.sub(self.add(z, coarse), coarse), "high")
        square = self.let(self.mul(high, high), "square")
        n, power = self.nearest(square, -0.5 / math.log(2))
        ln2_high, ln2_low = LN2[dtype]
        r = self.fma(n, 2 * ln2_low, self.fma(n, 2 * ln2_high, square))
        r = self.let(self.fma(self.sub(z, high), self.add(z, high), r), "r")
        series = [c * (-0.5) ** k for k, c in enumerate(exp_near_zero(dtype))]
        return self.polynomial(r, series), self.let(power, "power")

    def softplus(self, x: Value) -> Value:
        """max(x, 0) + log(1 + e) of e = exp(-|x|), which is at most 1: log(1 + e) = 2 atanh(s / 2),
        s = 2 e / (2 + e), without its powers of two."""
        fall = self.let(Unary("neg", Unary("abs", x)), "fall")
        e = self.fallen(fall, exp_near_zero(x.type.dtype))
        s = self.let(self.div(self.add(e, e), self.add(e, 2.0)), "s")
        square = self.let(self.mul(s, s), "square")
        log = self.fma(self.mul(s, square), self.polynomial(square, _area(x.type.dtype)), s)
        return self.let(self.add(Binary("max", self.const(-0.0, x), x), log), "softplus")

    def tanh_softplus(self, x: Value) -> Value:
        """n / (n + 2) of n = w (w + 2), w = exp(x); 1 from exp(20) on, so that 2**n is a factor."""
        held = self.let(self.within(x, -DECAYED[x.type.dtype], _ONE), "held")
        _, power, r = self.reduced(held)
        p = self.polynomial(r, exp_near_zero(x.type.dtype))
        w = self.let(self.mul(p, power), "w")
        n = self.let(self.fma(w, w, self.add(w, w)), "n")
        return self.let(self.div(n, self.add(n, 2.0)), "tanh_softplus")


_TAIL = {dtype: math.sqrt(2 * limit) for dtype, limit in DECAYED.items()}  # nothing is left
_FOLD = {DType.F32: 2.5, DType.F64: 4.0}  # c: where coefficients cancel least
_TAIL_DEGREE = {DType.F32: 9, DType.F64: 22}
_COARSE = {DType.F32: 1.5 * 2.0**15, DType.F64: 1.5 * 2.0**32}
"""What rounds numbers of the tail to half of their digits."""
_ONE = 20.0
_AREA_DEGREE = {DType.F32: 5, DType.F64: 12}


@lru_cache
def _tail(dtype: DType) -> list[float]:
    """exp(z**2 / 2) Phi(-z) / u by u."""

    fold = _FOLD[dtype]

    def share(u: Decimal) -> Decimal:
        z = (1 / u - 1) * Decimal(fold)
        return scaled_complement(z / Decimal(2).sqrt()) / 2 / u

    return through(share, _points(1 / (1 + _TAIL[dtype] / fold), 1.0, _TAIL_DEGREE[dtype]))


@lru_cache
def _area(dtype: DType) -> list[float]:
    """(2 atanh(s / 2) - s) / s**3 by s**2, of s up to two thirds."""

    def rest(square: Decimal) -> Decimal:
        terms = (2 * (square / 4) ** k / (8 * (2 * k + 3)) for k in range(60))
        return sum(terms, Decimal(0))

    return through(rest, _points(0.0, 4 / 9, _AREA_DEGREE[dtype]))


def _points(low: float, high: float, degree: int) -> list[float]:
    """Chebyshev's, between two numbers."""
    angles = (math.pi * (j + 0.5) / (degree + 1) for j in range(degree + 1))
    return [(low + high) / 2 + (high - low) / 2 * math.cos(angle) for angle in angles]
