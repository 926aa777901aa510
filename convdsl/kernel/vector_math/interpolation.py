"""Coefficients of polynomials that stand for functions in an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext


def interpolated(f: Callable[[Decimal], Decimal], reach: float, degree: int) -> list[float]:
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
