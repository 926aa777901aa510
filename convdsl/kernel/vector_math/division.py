"""Division that rounds down, and its remainder, as NumPy defines them for every operand.

No operand traps: what a processor's integer division cannot divide is given another divisor
first, and the result chosen afterwards.
"""

from __future__ import annotations

import math

from convdsl.kernel.nodes import Binary, Const, Get, Unary, Value
from convdsl.kernel.vector_math.terms import DIGITS, Pair, Terms
from convdsl.tensor import DType, Kind


class Divisions(Terms):
    """Quotients and remainders."""

    def floor_div(self, a: Value, b: Value) -> Value:
        """floor(a / b) of integers; 0 by zero, and the least of all by -1 is itself."""
        q, _ = self.floored(a, b)
        if not _is_plain(b):
            if _has_sign(b):
                q = self.choose(self.test("eq", b, -1), Unary("neg", a), q)
            q = self.choose(self.test("eq", b, 0), 0, q)
        return self.let(q, "div")

    def floored(self, a: Value, b: Value) -> Pair:
        """(floor(a / b), what remains), by 1 in place of 0 and -1."""
        divisor = b
        if not _is_plain(b):
            odd: Value = self.test("eq", b, 0)
            if _has_sign(b):
                odd = Binary("or", odd, self.test("eq", b, -1))
            divisor = self.let(self.choose(odd, 1, b), "divisor")
        q = self.let(Binary("quotient", a, divisor), "q")
        rest = self.let(self.sub(a, self.mul(q, divisor)), "rest")
        if not _has_sign(b):
            return q, rest
        across = Binary("xor", self.test("lt", rest, 0), self.test("lt", divisor, 0))
        down = self.let(Binary("and", self.test("ne", rest, 0), across), "down")
        return (
            self.choose(down, self.sub(q, 1), q),
            self.choose(down, self.add(rest, divisor), rest),
        )

    def mod(self, a: Value, b: Value) -> Value:
        """a - b * floor(a / b), with the sign of b. Of integers 0 by zero; of numbers NaN by zero
        and of infinities, and exact."""
        if not a.type.dtype.is_float:
            return self.let(self.floored(a, b)[1], "mod")
        size, divisor = self.let(Unary("abs", a), "size"), self.let(Unary("abs", b), "divisor")
        across = Binary("xor", self.test("lt", a, 0.0), self.test("lt", b, 0.0))
        across = self.let(Binary("and", across, self.test("ne", a, 0.0)), "across")
        less = self.choose(across, self.sub(divisor, size), size)
        y = self.choose(self.test("lt", size, divisor), less, self.remainder(size, divisor, across))
        good = Binary("and", self.test("lt", size, math.inf), self.test("gt", divisor, 0.0))
        return self.let(self.choose(good, Binary("copysign", y, b), math.nan), "mod")

    def remainder(self, a: Value, b: Value, across: Value) -> Value:
        """a mod b of positive normal numbers, a >= b; what it lacks to b where they lie `across`
        zero. By long division of the significands, in f64: each step brings down as many digits
        as keep the product of the quotient's digits and the divisor's exact. The quotient is that
        by a rounded reciprocal: half of the divisor stays at most, and hardly more."""
        dtype = a.type.dtype
        first = self.let(self.cast(Unary("mantissa", a), DType.F64), "first")
        divisor = self.let(self.cast(Unary("mantissa", b), DType.F64), "m")
        inverse = self.let(self.div(self.const(1.0, divisor), divisor), "inverse")
        exponent = self.let(Unary("exponent", b), "e")
        state = self.b.registers(1, divisor.type, "division")
        far = self.b.registers(1, a.type, "far")
        self.b.set(state, 0, first)
        self.b.set(far, 0, self.sub(Unary("exponent", a), exponent))
        with self.b.serial("digits", -(-_SPAN[dtype] // _STEP[dtype])):
            left = self.let(Get(far, 0), "left")
            here = self.let(self.within(left, 0.0, _STEP[dtype]), "here")
            power = self.cast(Unary("pow2", here), DType.F64)
            rest = self.let(self.mul(Get(state, 0), power), "rest")
            q = self.let(Unary("round", self.mul(rest, inverse)), "q")
            self.b.set(state, 0, self.less(rest, q, divisor, dtype))
            self.b.set(far, 0, self.sub(left, here))
        rest = self.let(Get(state, 0), "rest")
        rest = self.let(
            self.choose(self.test("lt", rest, 0.0), self.add(rest, divisor), rest), "rest"
        )
        some = Binary("and", across, self.test("ne", rest, 0.0))
        rest = self.choose(some, self.sub(divisor, rest), rest)
        return self.scaled(self.cast(rest, dtype), exponent)

    def less(self, rest: Value, q: Value, divisor: Value, digits: DType) -> Value:
        """rest - q * divisor, of a divisor with the digits of a type, without error."""
        if digits is DType.F32:
            return self.sub(rest, self.mul(q, divisor))
        high, low = self.halves(divisor)
        return self.sub(self.sub(rest, self.mul(q, high)), self.mul(q, low))

    def sign(self, x: Value) -> Value:
        """-1, 0 or 1; the sum makes -0 a zero and keeps NaN."""
        zero = self.add(x, 0.0) if x.type.dtype.is_float else x
        below = self.choose(self.test("lt", x, 0), -1, zero)
        return self.choose(self.test("gt", x, 0), 1, below)


# Binary digits between the largest number and the smallest normal one.
_SPAN = {DType.F32: 254, DType.F64: 2046}
# So many of a quotient and two make an exact product with a divisor's, or with half of them.
_STEP = {
    DType.F32: DIGITS[DType.F64] - DIGITS[DType.F32] - 2,
    DType.F64: DIGITS[DType.F64] // 2 - 2,
}


def _has_sign(x: Value) -> bool:
    return x.type.dtype.kind is not Kind.UNSIGNED


def _is_plain(divisor: Value) -> bool:
    """A divisor that is known, and neither 0 nor -1."""
    return isinstance(divisor, Const) and divisor.value not in (0, -1)
