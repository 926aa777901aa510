"""Activations x g(x), the product made before g is too small to be kept (`kernel.gates`)."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from convdsl.kernel.formula import X, read
from convdsl.kernel.gates import SETTLED, tanh_gelu_gate
from convdsl.kernel.nodes import Binary, Unary, Value
from convdsl.kernel.vector_math.error_function import ErrorFunctions, scaled_complement
from convdsl.kernel.vector_math.exponential import DECAYED
from convdsl.kernel.vector_math.interpolation import interpolated
from convdsl.tensor import DType


class Gated(ErrorFunctions):
    """silu, mish and gelu in as many operations as the plain products, or one more."""

    def above(self, x: Value, low: float) -> Value:
        """x, no lower than that; a NaN stays."""
        return self.let(Binary("max", self.const(low, x), x), "above")

    def half_exponential(self, x: Value) -> Value:
        """v = exp(x / 2), of x no lower than where that is nothing; from some x on the same."""
        settled = self.let(Binary("min", self.const(SETTLED, x), x), "settled")
        p, power = self.decaying(settled, rate=0.5, near=_half_near_zero(x.type.dtype))
        return self.let(self.mul(p, power), "v")

    def gated(self, a: Value, x: Value) -> Value:
        """a sigmoid(x) = (a v / (v**2 + 1)) v."""
        v = self.half_exponential(x)
        gate = self.div(v, self.fma(v, v, 1.0))
        return self.mul(self.mul(a, gate), v)

    def silu(self, x: Value) -> Value:
        above = self.above(x, -2 * DECAYED[x.type.dtype])
        return self.let(self.gated(above, above), "silu")

    def tanh_gelu(self, x: Value) -> Value:
        above = self.above(x, _TANH_END[x.type.dtype])
        gate = self.let(read(tanh_gelu_gate(X), (above,), self), "gate")
        return self.let(self.gated(above, gate), "gelu")

    def mish(self, x: Value) -> Value:
        """(x u / (u v + 2)) v, u = v (v**2 + 2)."""
        above = self.above(x, -2 * DECAYED[x.type.dtype])
        v = self.half_exponential(above)
        u = self.let(self.mul(v, self.fma(v, v, 2.0)), "u")
        gate = self.div(u, self.fma(u, v, 2.0))
        return self.let(self.mul(self.mul(above, gate), v), "mish")

    def gelu(self, x: Value) -> Value:
        """Near zero x (1 + erf(x / sqrt(2))) / 2 by the series; far from it max(x, 0) -
        exp(-x**2 / 2) g(t), which is |x| erfc(|x| / sqrt(2)) / 2. The square is that of half the
        digits, which is exact, and a rest."""
        dtype = x.type.dtype
        start, limit = _ends(dtype)
        size = self.let(Unary("abs", x), "size")
        square = self.let(self.mul(x, x), "square")
        near = self.mul(x, self.fma(x, self.polynomial(square, _near(dtype)), 0.5))
        held = self.let(Binary("min", self.const(limit, x), size), "held")
        high, low = self.halves(held)
        rest = self.mul(low, self.add(held, high))
        p, power = self.decaying(self.let(self.mul(high, high), "square"), rest, rate=-0.5)
        g = self.polynomial(self.folded(held, start, limit), _far(dtype))
        below = self.mul(self.mul(p, g), power)
        far = self.sub(Binary("max", self.const(-0.0, x), x), below)
        return self.let(self.choose(self.test("lt", size, start), near, far), "gelu")


_TANH_END = {DType.F32: -12.5, DType.F64: -25.0}
"""The gate is -159 and -1155: nothing is left, and half of it is within exp's range."""
_HALF_REACH = 0.3467
_HALF_DEGREE = {DType.F32: 5, DType.F64: 10}
_START = 0.5  # of |x| / sqrt(2): below, the series of erf
_NEAR_TERMS = {DType.F32: 7, DType.F64: 13}
_FAR_DEGREE = {DType.F32: 8, DType.F64: 20}


@lru_cache
def _half_near_zero(dtype: DType) -> list[float]:
    """Coefficients of exp(r), |r| <= ln 2 / 2: one fewer than exp has, which pays for a product."""
    return interpolated(Decimal.exp, _HALF_REACH, _HALF_DEGREE[dtype])


def _ends(dtype: DType) -> tuple[float, float]:
    """Where the tail begins, and where nothing is left of it."""
    return _START * math.sqrt(2), math.sqrt(2 * DECAYED[dtype])


@lru_cache
def _near(dtype: DType) -> list[float]:
    """Coefficients of erf(x / sqrt(2)) / (2 x), by x**2."""
    return [
        (-0.5) ** k / (math.sqrt(2 * math.pi) * math.factorial(k) * (2 * k + 1))
        for k in range(_NEAR_TERMS[dtype])
    ]


@lru_cache
def _far(dtype: DType) -> list[float]:
    """Coefficients of g, by t."""
    low, high = _ends(dtype)
    c = Decimal(math.sqrt(low * high))
    reach = float((Decimal(high) - c) / (Decimal(high) + c))

    def g(t: Decimal) -> Decimal:
        x = c * (1 + t) / (1 - t)
        return x * scaled_complement(x / Decimal(2).sqrt()) / 2

    return interpolated(g, reach, _FAR_DEGREE[dtype])
