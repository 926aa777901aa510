"""Powers: of numbers through logarithms of more digits, of integers by squaring."""

from __future__ import annotations

import math

import numpy as np

from convdsl.kernel.nodes import Binary, Const, Get, Unary, Value
from convdsl.kernel.vector_math.exponential import LN2, Exponentials, exp_series, log_series
from convdsl.kernel.vector_math.terms import Pair
from convdsl.tensor import DType


class Powers(Exponentials):
    """a to the power of b, as C's pow and NumPy define it for every operand."""

    def pow(self, a: Value, b: Value) -> Value:
        if isinstance(b, Const):
            simple = self.simple_power(a, b.value)
            if simple is not None:
                return self.let(simple, "pow")
        if not a.type.dtype.is_float:
            return self.integer_power(a, b)
        size = self.let(Unary("abs", a), "size")
        power = self.wide_power if a.type.dtype is DType.F32 else self.exact_power
        y = power(size, b)
        # Of zero, as which denormals count where they are not flushed, and infinity.
        least = float(np.finfo(a.type.dtype.numpy).tiny)
        zero = self.let(self.test("lt", size, least), "zero")
        end = Binary("xor", zero, self.test("gt", b, 0.0))
        extreme = Binary("or", zero, self.test("eq", size, math.inf))
        y = self.choose(extreme, self.choose(end, self.const(math.inf, a), 0.0), y)
        # Of negative numbers: an odd exponent keeps the sign, a fraction has no answer.
        half = self.let(self.mul(b, 0.5), "half")
        whole = self.let(self.test("eq", Unary("floor", b), b), "whole")
        odd = Binary("and", whole, self.test("ne", Unary("floor", half), half))
        y = self.choose(odd, Binary("copysign", y, a), y)
        fraction = Binary("and", self.test("lt", a, 0.0), Unary("not", whole))
        lost = Binary("and", fraction, self.test("lt", size, math.inf))
        y = self.choose(lost, self.const(math.nan, a), y)
        y = self.choose(self.test("eq", b, b), y, b)
        one = Binary("or", self.test("lt", Unary("abs", b), least), self.test("eq", a, 1.0))
        return self.let(self.choose(one, self.const(1.0, a), y), "pow")

    def simple_power(self, a: Value, exponent: float) -> Value | None:
        """Products for a small whole exponent, roots and products for small quarters."""
        if exponent in range(_WHOLE[a.type.dtype.is_float]):
            return self.product(a, int(exponent))
        if not a.type.dtype.is_float:
            return None
        if exponent in (-1, -2):
            return self.product(
                self.let(self.div(self.const(1.0, a), a), "inverse"), -int(exponent)
            )
        if exponent not in (-0.5, -0.25, 0.25, 0.5, 0.75, 1.5):
            return None
        # pow takes -0 for 0 and minus infinity for infinity, which sqrt does not.
        base = self.choose(self.test("eq", a, -math.inf), math.inf, self.add(a, 0.0))
        base = self.let(base, "base")
        root = self.let(Unary("sqrt", base), "root")
        quarter = Unary("sqrt", root)
        power = {0.25: quarter, 0.5: root, 0.75: self.mul(root, quarter), 1.5: self.mul(base, root)}
        y = power[abs(exponent)]
        return self.div(self.const(1.0, a), y) if exponent < 0 else y

    def product(self, a: Value, count: int) -> Value:
        """a * a * ..., by squaring."""
        if count < 2:
            return a if count else self.const(1, a)
        half = self.product(a, count // 2)
        square = self.let(self.mul(half, half), "square")
        return self.mul(square, a) if count % 2 else square

    def wide_power(self, a: Value, b: Value) -> Value:
        """Of f32, a > 0: through f64, where the logarithm has twice the digits needed."""
        wide = self.let(self.cast(a, DType.F64), "wide")
        e, _, s = self.ratio(wide)
        square = self.let(self.mul(s, s), "square")
        tail = self.polynomial(square, log_series(_WIDE_TERMS))
        log = self.fma(e, math.log(2), self.fma(self.mul(s, square), tail, self.add(s, s)))
        log = self.choose(self.test("eq", a, a), log, math.nan)
        exponent = self.within(self.cast(b, DType.F64), -_LARGEST, _LARGEST)
        product = self.let(self.within(self.mul(exponent, log), -110.0, 110.0), "product")
        n, two = self.nearest(product, 1 / math.log(2))
        r = self.let(self.fma(n, -math.log(2), product), "r")
        p = self.polynomial(r, exp_series(_WIDE_DEGREE))
        return self.let(self.cast(self.mul(p, two), DType.F32), "power")

    def exact_power(self, a: Value, b: Value) -> Value:
        """Of f64, a > 0: exp of a product in twice the precision."""
        high, low = self.precise_log(a)
        high = self.let(self.choose(self.test("eq", a, a), high, math.nan), "high")
        exponent = self.let(self.within(b, -_LARGEST, _LARGEST), "exponent")
        product, rest = self.two_product(exponent, high)
        rest = self.let(self.fma(exponent, low, rest), "rest")
        held = self.let(self.within(product, -800.0, 800.0), "held")
        n, _, r = self.reduced(held)
        within = self.test("eq", held, product)
        r = self.let(self.add(r, self.choose(within, rest, 0.0)), "r")
        return self.let(self.scaled(self.polynomial(r, exp_series(13)), n), "power")

    def precise_log(self, a: Value) -> Pair:
        """log a of f64 to some 64 binary digits: e ln 2 + 2 s + s**3 (2/3 + s**2 (2/5 + ...)), the
        first terms of each sum in twice the precision."""
        e, m, s = self.ratio(a)
        below, below_low = self.two_sum(m, self.const(1.0, m))
        product, rest = self.two_product(s, below)
        left = self.sub(self.sub(self.sub(m, 1.0), product), rest)
        s_low = self.let(self.div(self.sub(left, self.mul(s, below_low)), below), "s_low")
        square, square_low = self.two_product(s, s)
        square_low = self.let(self.fma(self.mul(s, 2.0), s_low, square_low), "square_low")
        tail = self.mul(square, self.polynomial(square, log_series(12)[1:]))
        factor, factor_low = self.quick_sum(self.const(2 / 3, a), self.let(tail, "tail"))
        factor_low = self.let(self.add(factor_low, _TWO_THIRDS_LOW), "factor_low")
        cube, cube_low = self.two_product(s, square)
        cube_low = self.let(
            self.add(cube_low, self.fma(s, square_low, self.mul(s_low, square))), "cube_low"
        )
        curve, curve_low = self.two_product(cube, factor)
        curve_low = self.add(curve_low, self.fma(cube, factor_low, self.mul(cube_low, factor)))
        near, near_low = self.quick_sum(self.let(self.add(s, s), "twice"), curve)
        near_low = self.add(self.add(near_low, self.add(s_low, s_low)), curve_low)
        high, low = LN2[DType.F64]
        total, total_low = self.two_sum(self.let(self.mul(e, high), "whole"), near)
        total_low = self.add(total_low, self.fma(e, low, near_low))
        return self.quick_sum(total, self.let(total_low, "total_low"))

    def integer_power(self, a: Value, b: Value) -> Value:
        """By the binary digits of b, wrapping as products do; of negative b 1 / a**-b cut off."""
        state = self.b.registers(3, a.type, "power")
        negative = self.let(self.test("lt", b, 0), "negative")
        for slot, start in enumerate((self.const(1, a), a, self.choose(negative, 0, b))):
            self.b.set(state, slot, start)
        with self.b.serial("digit", 63):
            base, left = self.let(Get(state, 1), "base"), self.let(Get(state, 2), "left")
            half = self.let(self.halved(left), "half")
            power = Get(state, 0)
            odd = self.test("ne", self.sub(left, self.add(half, half)), 0)
            self.b.set(state, 0, self.choose(odd, self.mul(power, base), power))
            self.b.set(state, 1, self.mul(base, base))
            self.b.set(state, 2, half)
        even = self.test("eq", b, self.mul(self.halved(b), 2))
        flip = self.choose(self.test("eq", a, -1), self.choose(even, self.const(1, a), -1), 0)
        small = self.choose(self.test("eq", a, 1), 1, flip)
        return self.let(self.choose(negative, small, Get(state, 0)), "pow")

    def halved(self, a: Value) -> Value:
        """Half of an integer, towards zero."""
        return Binary("quotient", a, Const(2, a.type))


_WHOLE = {True: 5, False: 64}  # exponents below that are products: of floats, of integers
_LARGEST = 2.0**70
"""An exponent that takes every number but 1 out of the range; as good as infinity."""
_WIDE_TERMS, _WIDE_DEGREE = 8, 9
_TWO_THIRDS_LOW = 3.700743415417188e-17  # 2/3 - float(2/3)
