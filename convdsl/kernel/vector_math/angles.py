"""sin and cos of any number: the argument is reduced by as many digits of 2 / pi as it takes.

x is multiplied with 2 / pi in pieces so short that every product is exact, and of each product only
what is left of multiples of 4 is kept (Payne, Hanek 1983), for all lanes alike. That the
products are made even for small x costs some hundred instructions a vector, and no branch.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from convdsl.kernel.nodes import Unary, Value
from convdsl.kernel.vector_math.terms import Terms
from convdsl.tensor import DType


class Angles(Terms):
    """Sines and cosines, computed in f64."""

    def sin(self, x: Value) -> Value:
        return self.near_zero(x, self.turned(x, 0.0), "sin")

    def cos(self, x: Value) -> Value:
        return self.let(self.turned(x, 1.0), "cos")

    def turned(self, x: Value, quarters: float) -> Value:
        """sin(x + quarters * pi / 2)."""
        wide = self.let(self.cast(x, DType.F64), "wide")
        if x.type.dtype is DType.F32:
            products = [self.mul(wide, piece) for piece in _pieces(1, 29, 7)]
        else:
            products = self.products(wide)
        n, r, r_low = self.rest_of_quarters(products)
        n = self.let(self.add(n, quarters), "n")
        quadrant = self.let(self.sub(n, self.mul(Unary("floor", self.mul(n, 0.25)), 4.0)), "quad")
        upper = self.let(self.test("ge", quadrant, 2.0), "upper")
        within = self.let(self.choose(upper, self.sub(quadrant, 2.0), quadrant), "within")
        y = self.choose(self.test("eq", within, 1.0), self.cosine(r, r_low), self.sine(r, r_low))
        y = self.choose(upper, Unary("neg", self.let(y, "y")), y)
        return self.cast(y, x.type.dtype)

    def products(self, x: Value) -> list[Value]:
        """x * 2 / pi of f64, but for multiples of 4. x is brought below 2**128, 2 / pi up as far,
        and its pieces chosen lane by lane."""
        size = self.let(Unary("abs", x), "size")
        groups = [self.let(self.test("ge", size, 2.0**e), "large") for e in range(128, 1024, 128)]
        down: Value = self.const(1.0, x)
        for number, large in enumerate(groups, 1):
            down = self.choose(large, 2.0 ** (-128 * number), down)
        high, low = self.halves(self.let(self.mul(x, self.let(down, "down")), "near"))
        made: list[Value] = []
        tables = [_pieces(2 ** (128 * number), 26, 12, 54) for number in range(8)]
        for choices in zip(*tables, strict=True):
            piece: Value = self.const(choices[0], x)
            for large, other in zip(groups, choices[1:], strict=True):
                piece = self.choose(large, other, piece)
            piece = self.let(piece, "piece")
            made += [self.mul(high, piece), self.mul(low, piece)]
        return made

    def rest_of_quarters(self, products: list[Value]) -> tuple[Value, Value, Value]:
        """(n, r, r_low): the sum of the products is n + (r + r_low) / (pi / 2) + 4 k, |n| integral,
        |r| <= pi / 4."""
        total: Value = self.const(0.0, products[0])
        rest, least = total, total
        for product in products:
            product = self.let(product, "product")
            fours = self.mul(Unary("round", self.mul(product, 0.25)), 4.0)
            total, error = self.two_sum(total, self.let(self.sub(product, fours), "left"))
            rest, error = self.two_sum(rest, error)
            least = self.let(self.add(least, error), "least")
        n = self.let(Unary("round", total), "n")
        turn, error = self.two_sum(self.let(self.sub(total, n), "turn"), rest)
        turn, error = self.quick_sum(turn, self.let(self.add(error, least), "rest"))
        r, r_low = self.two_product(turn, self.const(math.pi / 2, turn))
        r_low = self.add(r_low, self.fma(turn, _HALF_PI_LOW, self.mul(error, math.pi / 2)))
        r, r_low = self.quick_sum(r, self.let(r_low, "r_low"))
        return n, r, r_low

    def sine(self, r: Value, low: Value) -> Value:
        """sin(r + low) = sin r + low cos r"""
        square = self.let(self.mul(r, r), "square")
        curve = self.mul(self.mul(r, square), self.polynomial(square, _series(3)))
        slope = self.mul(low, self.fma(square, -0.5, 1.0))
        return self.let(self.add(r, self.add(curve, slope)), "sine")

    def cosine(self, r: Value, low: Value) -> Value:
        """cos(r + low) = cos r - low sin r; what 1 - r**2 / 2 loses to rounding is added again."""
        square = self.let(self.mul(r, r), "square")
        half = self.let(self.mul(square, 0.5), "half")
        first = self.let(self.sub(self.const(1.0, r), half), "first")
        lost = self.sub(self.sub(self.const(1.0, r), first), half)
        curve = self.mul(self.mul(square, square), self.polynomial(square, _series(4)))
        return self.let(
            self.add(first, self.add(lost, self.sub(curve, self.mul(r, low)))), "cosine"
        )


def _series(first: int) -> list[float]:
    """(-1)**(k div 2) / k! for k = first, first + 2, ...: of sin and cos."""
    return [(-1) ** (k // 2) / math.factorial(k) for k in range(first, first + 16, 2)]


@lru_cache
def _pieces(scale: int, digits: int, count: int, top: int = 0) -> tuple[float, ...]:
    """2 / pi times `scale` in `count` numbers of `digits` binary digits each, from 2**(top - 1)
    down; what lies above is left out."""
    length = digits * count
    whole = int(_two_over_pi() * scale * 2 ** (length - top)) % 2**length
    pieces: list[float] = []
    for number in range(count):
        place = length - digits * (number + 1)
        piece = whole >> place & (2**digits - 1)
        pieces.append(math.ldexp(piece, place - length + top))
    return tuple(pieces)


@lru_cache
def _two_over_pi() -> Fraction:
    """To 1,400 binary digits, by Machin's formula."""
    one = 1 << 1500

    def arctan_of_one_over(n: int) -> int:
        total, term, k = 0, one // n, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (n * n), k + 2
        return total

    pi = 4 * (4 * arctan_of_one_over(5) - arctan_of_one_over(239))
    return Fraction(2 * one, pi)


_HALF_PI_LOW = 6.123233995736766e-17  # pi / 2 - float(pi / 2)
