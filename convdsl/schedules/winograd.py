"""Minimal filtering: m outputs of a filter of r taps with t = m + r - 1 products instead of m r.

    y = A^T ((G g) * (B^T d))      y[i] = sum over s of d[i + s] g[s]

The matrices are those of Cook and Toom: a polynomial is known by its values at t - 1 points and its
leading coefficient, and the product of two by the products of theirs; filtering is that, transposed
(Winograd, Arithmetic complexity of computations, 1980; Lavin and Gray, arXiv:1509.09308). They are
exact here. In two dimensions each axis has a form of its own: one of a single tap does nothing.

How much rounding grows depends on the points (Barabasz et al., ACM TOMS 46, 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from convdsl.schedules.filtering import Form
from convdsl.schedules.steps import Matrix, Steps, steps_of, transposed

PAIRS: Mapping[int, tuple[str, ...]] = {
    1: (),
    4: ("1",),
    6: ("5/8", "3/2"),
    8: ("1/2", "1", "2"),
}
"""For each t the finite points but zero, each with either sign: pairs share half of their
arithmetic. Of the eighths and quarters up to 3 those that amplify least, by F(2, 3), F(4, 3) and
F(6, 3): for the second, points of 1 and 2 would amplify twice as much an axis. The entries of A
and B are whole numbers over powers of two, exact in any float."""


@dataclass(frozen=True)
class PointForm(Form):
    """F(m, r) from finite points in pairs, and infinity: as many products as inputs."""

    @property
    def products(self) -> int:
        return self.t

    @property
    def said(self) -> str:
        return f"F({self.m}, {self.r})"

    @property
    def points(self) -> tuple[Fraction, ...]:
        """The finite ones; infinity is the last."""
        pairs = [Fraction(size) * sign for size in PAIRS[self.t] for sign in (1, -1)]
        return (Fraction(0), *pairs)[: self.t - 1]

    @cached_property
    def a(self) -> Matrix:
        """A^T, m x t: outputs from products."""
        columns = [[point**i for i in range(self.m)] for point in self.points]
        columns.append([Fraction(i == self.m - 1) for i in range(self.m)])
        return transposed(columns)

    @cached_property
    def g(self) -> Matrix:
        """G, t x r: what a filter is multiplied as."""
        rows = [
            tuple(
                point**i / _product(point - other for other in self.points if other != point)
                for i in range(self.r)
            )
            for point in self.points
        ]
        return (*rows, tuple(Fraction(i == self.r - 1) for i in range(self.r)))

    @cached_property
    def b(self) -> Matrix:
        """B^T, t x t: what the inputs are multiplied as."""
        rows = [_from_roots([p for p in self.points if p != point]) for point in self.points]
        rows.append(_from_roots(self.points))
        return tuple((*row, *[Fraction(0)] * (self.t - len(row))) for row in rows)

    @cached_property
    def inputs(self) -> Steps:
        return steps_of(self.b)

    @cached_property
    def filters(self) -> Steps:
        return steps_of(self.g)

    @cached_property
    def outputs(self) -> Steps:
        return steps_of(self.a)


def _product(factors: Iterator[Fraction]) -> Fraction:
    made = Fraction(1)
    for factor in factors:
        made *= factor
    return made


def _from_roots(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of all x - root, that of x^0 first."""
    made = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *made], [*(-root * c for c in made), Fraction(0)]
        made = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(made)
