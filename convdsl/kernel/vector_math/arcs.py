"""The inverse of the tangent, of which those of sine and cosine are made."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache

from convdsl.kernel.nodes import Binary, Unary, Value
from convdsl.kernel.vector_math.interpolation import interpolated
from convdsl.kernel.vector_math.terms import Terms
from convdsl.tensor import DType


class Arcs(Terms):
    """Angles of slopes."""

    def atan(self, x: Value) -> Value:
        """pi / 4 per step that brings the slope below tan(pi / 8), and z p(z**2) of what is left:
        z is the slope itself, (|x| - 1) / (|x| + 1) from tan(pi / 8) on, -1 / |x| from
        tan(3 pi / 8) on."""
        size = self.let(Unary("abs", x), "size")
        steep = self.let(self.test("gt", size, 1 / _EIGHTH), "steep")
        middle = self.let(self.test("gt", size, _EIGHTH), "middle")
        turned = self.div(self.sub(size, 1.0), self.add(size, 1.0))
        inverse = self.div(self.const(-1.0, x), size)
        z = self.choose(steep, inverse, self.choose(middle, turned, size))
        z = self.let(z, "z")
        start = self.choose(
            steep, math.pi / 2, self.choose(middle, self.const(math.pi / 4, x), 0.0)
        )
        # What rounding took from pi / 2 and pi / 4.
        rest = _ROUNDED[x.type.dtype]
        low = self.choose(steep, rest, self.choose(middle, self.const(rest / 2, x), 0.0))
        square = self.let(self.mul(z, z), "square")
        arc = self.fma(self.mul(z, square), self.polynomial(square, _arc(x.type.dtype)), z)
        total = self.add(start, self.add(arc, low))
        return self.let(Binary("copysign", total, x), "atan")


_EIGHTH = math.tan(math.pi / 8)
_DEGREE = {DType.F32: 5, DType.F64: 14}
_TERMS = 60  # of the series, below 0.18**60
_HALF_PI = Decimal("1.57079632679489661923132169163975144209858469968755")
_ROUNDED = {
    DType.F32: float(_HALF_PI - Decimal("1.57079637050628662109375")),
    DType.F64: float(_HALF_PI - Decimal(math.pi / 2)),
}


@lru_cache
def _arc(dtype: DType) -> list[float]:
    """(atan(z) - z) / z**3 by z**2."""

    def series(t: Decimal) -> Decimal:
        return sum(((-t) ** k / (2 * k + 3) for k in range(_TERMS)), Decimal(0)) * -1

    return interpolated(series, _EIGHTH**2, _DEGREE[dtype])
