"""sin and cos of any number: the argument is reduced by as many digits of 2 / pi as it takes.

x is multiplied with 2 / pi in pieces so short that every product is exact, and of each product only
what is left of multiples of 4 is kept (Payne, Hanek 1983), for all lanes alike. Which digits count
is chosen by the exponents of x, lane by lane and without branches.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from convdsl.kernel.nodes import Unary, Value
from convdsl.kernel.vector_math.terms import Terms
from convdsl.tensor import DType


class Angles(Terms):
    """Sines and cosines, their arguments reduced in f64."""

    def sin(self, x: Value) -> Value:
        return self.near_zero(x, self.turned(x, 0.0), "sin")

    def cos(self, x: Value) -> Value:
        return self.let(self.turned(x, 1.0), "cos")

    def turned(self, x: Value, quarters: float) -> Value:
        """sin(x + quarters * pi / 2)."""
        if x.type.dtype is DType.F32:
            n, r = self.narrow_rest(self.let(self.cast(x, DType.F64), "wide"))
            n = self.let(self.cast(self.add(n, quarters), DType.F32), "n")
            r = self.let(self.cast(r, DType.F32), "r")
            square = self.let(self.mul(r, r), "square")
            sine = self.fma(self.mul(square, r), self.polynomial(square, _series(3, 4)), r)
            half = self.fma(square, -0.5, 1.0)
            curve = self.polynomial(square, _series(4, 3))
            return self.placed(n, sine, self.fma(self.mul(square, square), curve, half))
        n, r, r_low = self.rest_of_quarters(self.products(x))
        n = self.let(self.add(n, quarters), "n")
        return self.placed(n, self.sine(r, r_low), self.cosine(r, r_low))

    def placed(self, n: Value, sine: Value, cosine: Value) -> Value:
        """The one or the other after n quarters of a turn, with its sign."""
        quadrant = self.let(self.sub(n, self.mul(Unary("floor", self.mul(n, 0.25)), 4.0)), "quad")
        upper = self.let(self.test("ge", quadrant, 2.0), "upper")
        within = self.let(self.choose(upper, self.sub(quadrant, 2.0), quadrant), "within")
        y = self.let(self.choose(self.test("eq", within, 1.0), cosine, sine), "y")
        return self.choose(upper, Unary("neg", y), y)

    def narrow_rest(self, x: Value) -> tuple[Value, Value]:
        """(n, r): x = n pi / 2 + r + 2 k pi of an x of f32's digits, |r| <= pi / 4.

        Of 2 / pi those digits count that make less than 4 quarters of x and more than 2**-56 of
        one; which they are follows from its exponent. The first two pieces of them make exact
        products, of the third a rounded one is exact enough; so is the sum of all in f64, for no
        number of f32 comes closer to a quarter than 2**-31 of one."""
        size = self.let(Unary("abs", x), "size")
        starts = range(_RANGE, 128, _RANGE)
        above = [self.let(self.test("ge", size, 2.0**start), "above") for start in starts]
        tables = [_digits(start) for start in (0, *starts)]
        products: list[Value] = []
        for choices in zip(*tables, strict=True):
            piece: Value = self.const(choices[0], x)
            for test, other in zip(above, choices[1:], strict=True):
                piece = self.choose(test, other, piece)
            products.append(self.let(self.mul(x, piece), "product"))
        left = [self.without_turns(product) for product in products[:2]]
        total = self.add(left[0], self.add(left[1], products[2]))
        n = self.let(Unary("round", total), "n")
        rest = self.add(self.add(self.sub(left[0], n), left[1]), products[2])
        return n, self.mul(rest, math.pi / 2)

    def without_turns(self, quarters: Value) -> Value:
        """Less the nearest multiple of 4, without error."""
        fours = self.mul(Unary("round", self.mul(quarters, 0.25)), 4.0)
        return self.let(self.sub(quarters, fours), "left")

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
            left = self.without_turns(self.let(product, "product"))
            total, error = self.two_sum(total, left)
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


def _series(first: int, terms: int = 8) -> list[float]:
    """(-1)**(k div 2) / k! for k = first, first + 2, ...: of sin and cos."""
    return [(-1) ** (k // 2) / math.factorial(k) for k in range(first, first + 2 * terms, 2)]


_RANGE = 26  # exponents that have digits of 2 / pi in common
_PIECE = 53 - 24  # binary digits whose product with those of f32 is exact


@lru_cache
def _digits(exponent: int) -> tuple[float, float, float]:
    """Of 2 / pi the digits that count for x from 2**exponent on (the first range begins at 0):
    two short pieces, and what follows. Digits before make multiples of 4 of all of x."""
    top = 25 - exponent if exponent else 1
    first, second = _pieces(1, _PIECE, 2, top)
    (rest,) = _pieces(1, 53, 1, top - 2 * _PIECE)
    return first, second, rest


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
