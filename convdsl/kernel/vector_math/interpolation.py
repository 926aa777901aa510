"""Coefficients of polynomials that stand for functions in an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext


def interpolated(f: Callable[[Decimal], Decimal], reach: float, degree: int) -> list[float]:
    """Coefficients of the polynomial that meets f at the Chebyshev points of -reach..reach."""
    angles = (math.pi * (j + 0.5) / (degree + 1) for j in range(degree + 1))
    return through(f, [reach * math.cos(angle) for angle in angles])


def through(f: Callable[[Decimal], Decimal], points: Sequence[float]) -> list[float]:
    """Coefficients of the polynomial that meets f at the points, by Newton's divided differences in
    many digits."""
    places = [Decimal(point) for point in points]
    last = len(places) - 1
    with localcontext(prec=40):
        slopes = [f(place) for place in places]
        for order in range(1, last + 1):
            for j in range(last, order - 1, -1):
                run = places[j] - places[j - order]
                slopes[j] = (slopes[j] - slopes[j - 1]) / run
        total = [slopes[-1]]
        for place, slope in zip(reversed(places[:-1]), reversed(slopes[:-1]), strict=True):
            higher, lower = [Decimal(0), *total], [*total, Decimal(0)]
            total = [a - place * b for a, b in zip(higher, lower, strict=True)]
            total[0] += slope
    return [float(coefficient) for coefficient in total]
