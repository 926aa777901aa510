"""Minimal filtering: m outputs of a filter of r taps with t = m + r - 1 products instead of m r.

    y = A^T ((G g) * (B^T d))      y[i] = sum over s of d[i + s] g[s]

The matrices are those of Cook and Toom: a polynomial is known by its values at t - 1 points and its
leading coefficient, and the product of two by the products of theirs; filtering is that, transposed
(Winograd, Arithmetic complexity of computations, 1980; Lavin and Gray, arXiv:1509.09308). They are
exact here. In two dimensions each axis has a form of its own: one of a single tap does nothing.

Rounding grows with the form, and how much depends on the points (Barabasz et al., ACM TOMS 46,
2020). `amplification` says it: for independent elements of equal variance and many channels, added
up one after the other, how many times the rms error is that of direct sums, r times as long,

    amplification^2 = max over i of sum over j of A[i,j]^2 |G[j]|^2 |B[j]|^2 / r^2

and `worst` what the error can grow by if all of it adds up, in units of the largest |d| and |g|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import sqrt
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Binary, Const, Fma, Value

Matrix: TypeAlias = "tuple[tuple[Fraction, ...], ...]"

_PAIRS: Mapping[int, tuple[str, ...]] = {
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
class Form:
    """F(m, r), for one axis. `m` outputs at a time, `r` taps."""

    m: int
    r: int

    @property
    def t(self) -> int:
        """Inputs, and products."""
        return self.m + self.r - 1

    @property
    def points(self) -> tuple[Fraction, ...]:
        """The finite ones; infinity is the last."""
        pairs = [Fraction(size) * sign for size in _PAIRS[self.t] for sign in (1, -1)]
        return (Fraction(0), *pairs)[: self.t - 1]

    @cached_property
    def a(self) -> Matrix:
        """A^T, m x t: outputs from products."""
        columns = [[point**i for i in range(self.m)] for point in self.points]
        columns.append([Fraction(i == self.m - 1) for i in range(self.m)])
        return _transposed(columns)

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
    def amplification(self) -> float:
        """Of rounding errors, in rms; 1 for a single tap."""
        gain = [_squares(g) * _squares(b) for g, b in zip(self.g, self.b, strict=True)]
        most = max(sum(a * a * e for a, e in zip(row, gain, strict=True)) for row in self.a)
        return sqrt(most) / self.r

    @cached_property
    def worst(self) -> float:
        """Of rounding errors, at the most."""
        gain = [_sizes(g) * _sizes(b) for g, b in zip(self.g, self.b, strict=True)]
        return float(max(sum(abs(a) * e for a, e in zip(row, gain, strict=True)) for row in self.a))


@lru_cache(maxsize=64)
def form(m: int, r: int) -> Form:
    """F(m, r). ValueError where no points are chosen for as many products."""
    if m < 1 or r < 1 or m + r - 1 not in _PAIRS:
        raise ValueError(f"no form F({m}, {r})")
    return Form(m, r)


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


def _transposed(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(zip(*rows, strict=True))


def _squares(row: Sequence[Fraction]) -> Fraction:
    return sum((e * e for e in row), Fraction(0))


def _sizes(row: Sequence[Fraction]) -> Fraction:
    return sum((abs(e) for e in row), Fraction(0))


def of_filters(
    forms: Sequence[Form], flips: Sequence[bool] | None = None
) -> npt.NDArray[np.float64]:
    """The matrix [products, taps] by which filters of several axes are multiplied; `flips` says
    along which of these they are turned round."""
    whole = np.ones((1, 1))
    for axis, flip in zip(forms, flips or [False] * len(forms), strict=True):
        g = np.array(axis.g, np.float64)
        whole = np.kron(whole, g[:, ::-1] if flip else g).astype(np.float64, copy=False)
    return whole


# A matrix as arithmetic


Sum: TypeAlias = "tuple[tuple[Fraction, int], ...]"
"""Numbers times values, by their places."""


@dataclass(frozen=True, slots=True)
class Steps:
    """M x as sums, each of earlier values, the inputs before them; and which of all of these the
    results are."""

    sums: tuple[Sum, ...]
    results: tuple[int, ...]


@lru_cache(maxsize=64)
def steps_of(matrix: Matrix) -> Steps:
    """Few operations for a matrix of points in pairs: rows of opposite points are e + o and e - o
    of what even and odd columns add up to; columns of such meet as x + y and x - y."""
    inputs = len(matrix[0])
    sums: list[Sum] = []

    def add(terms: Sum) -> int:
        if len(terms) == 1 and terms[0][0] == 1:
            return terms[0][1]
        if terms not in sums:
            sums.append(terms)
        return inputs + sums.index(terms)

    columns, places = _joined_columns(matrix, add)
    rows: list[Sum] = [
        tuple((number, at) for number, at in zip(row, places, strict=True) if number)
        for row in _transposed(columns)
    ]
    results: dict[int, int] = {}
    for i, row in enumerate(rows):
        other = next(
            (j for j in range(i + 1, len(rows)) if j not in results and _opposite(row, rows[j])),
            None,
        )
        if i in results:
            continue
        if other is None:
            results[i] = add(row)
            continue
        same = tuple(term for term in row if term in rows[other])
        turned = tuple(term for term in row if term not in rows[other])
        e, o = add(same), add(turned)
        results[i] = add(((Fraction(1), e), (Fraction(1), o)))
        results[other] = add(((Fraction(1), e), (Fraction(-1), o)))
    return Steps(tuple(sums), tuple(results[i] for i in range(len(rows))))


def _joined_columns(
    matrix: Matrix, add: Callable[[Sum], int]
) -> tuple[list[tuple[Fraction, ...]], list[int]]:
    """The columns of the matrix and what each is multiplied with; of x and y with columns that
    differ in signs only, x + y and x - y with what these have in common, and what not."""
    columns: list[tuple[Fraction, ...]] = []
    places: list[int] = []
    whole = _transposed(matrix)
    met: set[int] = set()
    for i, column in enumerate(whole):
        if i in met:
            continue
        for j in range(i + 1, len(whole)):
            pair = list(zip(column, whole[j], strict=True))
            shared = [a if a == b else Fraction(0) for a, b in pair]
            turned = [a if a == -b else Fraction(0) for a, b in pair]
            alike = all(abs(a) == abs(b) for a, b in pair)
            if alike and j not in met and _count(shared) and _count(turned) and _count(column) > 2:
                met.add(j)
                columns += [tuple(shared), tuple(turned)]
                places.append(add(((Fraction(1), i), (Fraction(1), j))))
                places.append(add(((Fraction(1), i), (Fraction(-1), j))))
                break
        else:
            columns.append(column)
            places.append(i)
    return columns, places


def _count(numbers: Sequence[Fraction]) -> int:
    return sum(number != 0 for number in numbers)


def _opposite(one: Sum, other: Sum) -> bool:
    """Whether two sums are e + o and e - o, and worth being made so: of three terms or more."""
    turned = {(-number, at) for number, at in one}
    same = sum(term in one for term in other)
    return (
        len(one) == len(other) > 2
        and 0 < same < len(one)
        and all(term in one or term in turned for term in other)
    )


def transformed(b: Builder, matrix: Matrix, values: Sequence[Value]) -> list[Value]:
    """matrix x values."""
    steps = steps_of(matrix)
    known = list(values)
    for terms in steps.sums:
        ordered = sorted(terms, key=lambda term: term[0] != 1)
        total: Value | None = None
        for number, at in ordered:
            x = known[at]
            factor = Const(float(number), x.type)
            if total is None:
                total = x if number == 1 else Binary("mul", factor, x)
            elif abs(number) == 1:
                total = Binary("add" if number == 1 else "sub", total, x)
            else:
                total = Fma(factor, x, total)
        assert total is not None
        known.append(b.let(total, "s"))
    return [known[at] for at in steps.results]
