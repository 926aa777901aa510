"""exp, log, tanh, erf and their kin as polynomials over loop IR values: the one home of vector
mathematics, printed for every target and evaluated by the interpreter alike.

LLVM turns `llvm.exp.v16f32` into sixteen scalar calls; these stay vectors. The functions' records
(`scalar`) bound their errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from functools import lru_cache

from convdsl.kernel.builder import Builder
from convdsl.kernel.formula import read
from convdsl.kernel.nodes import Binary, Compare, Const, Fma, Select, Unary, Value
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import DType


class Vectors:
    """Writes the expansions of one kernel's mathematical functions."""

    def __init__(self, b: Builder) -> None:
        self.b = b

    def apply(self, function: str, parts: tuple[Value, ...]) -> Value:
        """A function of values: as one operation where backends have it, else written out."""
        record = FUNCTIONS[function]
        if parts[0].type.dtype in record.printed:
            if record.is_comparison:
                return Compare(function, *parts)
            return Unary(function, *parts) if record.arity == 1 else Binary(function, *parts)
        named = tuple(self.b.let(part) for part in parts)
        if record.formula is not None:
            return self.b.let(read(record.formula, named, self), function)
        return EXPANSIONS[function](self, *named)

    def number(self, value: float, like: Value) -> Value:
        return Const(value, like.type)

    def choose(self, test: Value, yes: Value, no: Value) -> Value:
        return Select(test, yes, no)

    def const(self, value: float, like: Value) -> Const:
        return Const(value, like.type)

    def polynomial(self, x: Value, coefficients: list[float]) -> Value:
        """Horner's scheme, lowest coefficient first."""
        total: Value = self.const(coefficients[-1], x)
        for coefficient in reversed(coefficients[:-1]):
            total = Fma(total, x, self.const(coefficient, x))
        return self.b.let(total, "poly")

    def reduced(self, x: Value) -> tuple[Value, Value]:
        """(n, r): x = n ln 2 + r, n integral, |r| <= ln 2 / 2 (Cody and Waite's two steps)."""
        high, low = _LN2[x.type.dtype]
        n = self.b.let(Unary("round", Binary("mul", x, self.const(1 / math.log(2), x))), "n")
        r = Fma(n, self.const(-high, x), x)
        return n, self.b.let(Fma(n, self.const(-low, x), r), "r")

    def scale(self, x: Value, n: Value) -> Value:
        """x * 2**n in two steps, so that neither factor leaves the range of exponents."""
        half = self.b.let(Unary("floor", Binary("mul", n, self.const(0.5, n))), "half")
        rest = Binary("sub", n, half)
        return Binary("mul", Binary("mul", x, Unary("pow2", half)), Unary("pow2", rest))

    def clamped(self, x: Value) -> Value:
        """Within a range at whose ends exp has become 0 and infinite."""
        low, high = _EXP_RANGE[x.type.dtype]
        above = Binary("max", self.const(low, x), x)
        return self.b.let(Binary("min", self.const(high, x), above), "clamped")

    def exp(self, x: Value) -> Value:
        n, r = self.reduced(self.clamped(x))
        degree = _EXP_DEGREE[x.type.dtype]
        p = self.polynomial(r, [1 / math.factorial(k) for k in range(degree + 1)])
        return self.b.let(self.scale(p, n), "exp")

    def expm1(self, x: Value) -> Value:
        """exp(x) - 1 without cancellation: 2**n (e**r - 1) + (2**n - 1)."""
        n, r = self.reduced(self.clamped(x))
        degree = _EXP_DEGREE[x.type.dtype] + 1
        q = self.polynomial(r, [0.0, *(1 / math.factorial(k) for k in range(1, degree + 1))])
        # Half of it, doubled at the end: 2**(n - 1) is finite wherever the result is.
        half = self.const(0.5, x)
        power = self.b.let(self.scale(half, n), "power")
        value = Fma(power, q, Binary("sub", power, half))
        return self.near_zero(x, Binary("add", value, value), "expm1")

    def log(self, x: Value) -> Value:
        """e ln 2 + log m with m in [sqrt(1/2), sqrt 2): log m = 2 atanh((m - 1) / (m + 1))."""
        one, zero = self.const(1.0, x), self.const(0.0, x)
        m = self.b.let(Unary("mantissa", x), "m")
        e = self.b.let(Unary("exponent", x), "e")
        small = self.b.let(Compare("lt", m, self.const(math.sqrt(0.5), x)), "small")
        m = self.b.let(Select(small, Binary("add", m, m), m), "m")
        e = self.b.let(Select(small, Binary("sub", e, one), e), "e")
        s = self.b.let(Binary("div", Binary("sub", m, one), Binary("add", m, one)), "s")
        square = self.b.let(Binary("mul", s, s), "square")
        terms = _LOG_TERMS[x.type.dtype]
        tail = self.polynomial(square, [2 / (2 * k + 3) for k in range(terms)])
        near = Fma(Binary("mul", s, square), tail, Binary("add", s, s))
        high, low = _LN2[x.type.dtype]
        result: Value = Fma(e, self.const(high, x), Fma(e, self.const(low, x), near))
        infinite = self.const(math.inf, x)
        result = Select(Compare("eq", x, infinite), infinite, result)
        result = Select(Compare("eq", x, zero), self.const(-math.inf, x), result)
        bad = Compare("ge", x, zero)  # false for negative numbers and for NaN
        return self.b.let(Select(bad, result, self.const(math.nan, x)), "log")

    def tanh(self, x: Value) -> Value:
        """-m / (m + 2) with m = expm1(-2 |x|), the sign put back."""
        size = Unary("abs", x)
        m = self.expm1(Binary("mul", size, self.const(-2.0, x)))
        y = Binary("div", Unary("neg", m), Binary("add", m, self.const(2.0, x)))
        value = self.b.let(y, "size")
        signed = Select(Compare("lt", x, self.const(0.0, x)), Unary("neg", value), value)
        return self.near_zero(x, signed, "tanh")

    def erf(self, x: Value) -> Value:
        """Below 1 the Maclaurin series (Abramowitz, Stegun 7.1.5); above 1 - exp(-x**2) q(t), q
        the scaled complement exp(x**2) erfc(x) as a polynomial in t = (|x| - c) / (|x| + c)."""
        dtype, one = x.type.dtype, self.const(1.0, x)
        size = self.b.let(Unary("abs", x), "size")
        square = self.b.let(Binary("mul", size, size), "square")
        near = Fma(x, self.polynomial(square, _ERF_SERIES[dtype]), x)
        # At the limit the complement is less than half a unit in the last place of 1.
        held = self.b.let(Binary("min", size, self.const(_ERF_LIMIT, x)), "held")
        centre = self.const(math.sqrt(_ERF_LIMIT), x)
        t = Binary("div", Binary("sub", held, centre), Binary("add", held, centre))
        q = self.polynomial(self.b.let(t, "t"), _erfc_scaled_polynomial(dtype))
        decay = self.exp(Unary("neg", Binary("mul", held, held)))
        far = self.b.let(Binary("sub", one, Binary("mul", decay, q)), "far")
        signed = Select(Compare("lt", x, self.const(0.0, x)), Unary("neg", far), far)
        return self.b.let(Select(Compare("lt", size, one), near, signed), "erf")

    def pow(self, a: Value, b: Value) -> Value:
        return self.exp(self.b.let(Binary("mul", b, self.log(a))))

    def sign(self, x: Value) -> Value:
        one, zero = self.const(1, x), self.const(0, x)
        negative = Select(Compare("lt", x, zero), self.const(-1, x), x)
        return Select(Compare("gt", x, zero), one, negative)

    def near_zero(self, x: Value, y: Value, name: str) -> Value:
        """y, but x where x is so small that f(x) = x + O(x**2) rounds to x: keeps signs of zeros
        and what would be lost below the smallest normal number."""
        small = Compare("lt", Unary("abs", x), self.const(_SMALL[x.type.dtype], x))
        return self.b.let(Select(small, x, y), name)


# ln 2 split so that n * high is exact for the n that occur.
_LN2 = {
    DType.F32: (0.693359375, math.log(2) - 0.693359375),
    DType.F64: (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
_EXP_RANGE = {DType.F32: (-110.0, 89.0), DType.F64: (-760.0, 710.0)}
_SMALL = {DType.F32: 2.0**-25, DType.F64: 2.0**-54}
_EXP_DEGREE = {DType.F32: 7, DType.F64: 13}
_LOG_TERMS = {DType.F32: 5, DType.F64: 11}


def _interpolated(f: Callable[[Decimal], Decimal], reach: float, degree: int) -> list[float]:
    """Coefficients of the polynomial that meets f at the Chebyshev points of -reach..reach, by
    Newton's divided differences in many digits."""
    angles = (math.pi * (j + 0.5) / (degree + 1) for j in range(degree + 1))
    points = [Decimal(reach * math.cos(angle)) for angle in angles]
    with localcontext(prec=40):
        slopes = [f(point) for point in points]
        for order in range(1, degree + 1):
            for j in range(degree, order - 1, -1):
                run = points[j] - points[j - order]
                slopes[j] = (slopes[j] - slopes[j - 1]) / run
        total = [slopes[-1]]
        for point, slope in zip(reversed(points[:-1]), reversed(slopes[:-1]), strict=True):
            higher, lower = [Decimal(0), *total], [*total, Decimal(0)]
            total = [a - point * b for a, b in zip(higher, lower, strict=True)]
            total[0] += slope
    return [float(coefficient) for coefficient in total]


def _erfc_scaled(t: Decimal) -> Decimal:
    """exp(x**2) erfc(x) by its continued fraction (Abramowitz, Stegun 7.1.14)."""
    x = Decimal(math.sqrt(_ERF_LIMIT)) * (1 + t) / (1 - t)
    below = x
    for k in range(300, 0, -1):
        below = x + Decimal(k) / 2 / below
    return 1 / (_PI.sqrt() * below)


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_ERF_LIMIT = 6.0
_ERF_REACH = (math.sqrt(_ERF_LIMIT) - 1) / (math.sqrt(_ERF_LIMIT) + 1)  # |t| for 1 <= x <= limit
_ERF_SERIES = {
    dtype: [
        2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) - (k == 0)
        for k in range(terms)
    ]  # of erf(x) / x - 1
    for dtype, terms in ((DType.F32, 10), (DType.F64, 19))
}
_ERFC_SCALED_DEGREE = {DType.F32: 7, DType.F64: 15}


@lru_cache
def _erfc_scaled_polynomial(dtype: DType) -> list[float]:
    return _interpolated(_erfc_scaled, _ERF_REACH, _ERFC_SCALED_DEGREE[dtype])


EXPANSIONS: Mapping[str, Callable[..., Value]] = {
    "exp": Vectors.exp,
    "expm1": Vectors.expm1,
    "log": Vectors.log,
    "tanh": Vectors.tanh,
    "erf": Vectors.erf,
    "pow": Vectors.pow,
    "sign": Vectors.sign,
}
"""How functions are written out that are neither printed nor made of others."""
