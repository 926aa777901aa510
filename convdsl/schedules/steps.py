"""A matrix as arithmetic: straight-line sums, few of them, that make its products with values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Binary, Const, Fma, Value
from convdsl.tensor.records import record

Matrix: TypeAlias = "tuple[tuple[Fraction, ...], ...]"

Sum: TypeAlias = "tuple[tuple[Fraction | float, int], ...]"
"""Numbers times values, by their places."""


@record
class Steps:
    """M x as sums, each of earlier values, the `inputs` before them; and which of all of these the
    results are."""

    inputs: int
    sums: tuple[Sum, ...]
    results: tuple[int, ...]

    @property
    def operations(self) -> int:
        """Multiply-adds, additions and products."""
        return sum(max(len(terms) - 1, 1) for terms in self.sums)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """M, in double precision."""
        rows = list(np.eye(self.inputs))
        for terms in self.sums:
            made = np.zeros(self.inputs)
            for number, at in terms:
                made = made + float(number) * rows[at]
            rows.append(made)
        return np.array([rows[at] for at in self.results])


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
        for row in transposed(columns)
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
    return Steps(inputs, tuple(sums), tuple(results[i] for i in range(len(rows))))


def _joined_columns(
    matrix: Matrix, add: Callable[[Sum], int]
) -> tuple[list[tuple[Fraction, ...]], list[int]]:
    """The columns of the matrix and what each is multiplied with; of x and y with columns that
    differ in signs only, x + y and x - y with what these have in common, and what not."""
    columns: list[tuple[Fraction, ...]] = []
    places: list[int] = []
    whole = transposed(matrix)
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


def transposed(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    """Columns for rows."""
    return tuple(zip(*rows, strict=True))


def _opposite(one: Sum, other: Sum) -> bool:
    """Whether two sums are e + o and e - o, and worth being made so: of three terms or more."""
    turned = {(-number, at) for number, at in one}
    same = sum(term in one for term in other)
    return (
        len(one) == len(other) > 2
        and 0 < same < len(one)
        and all(term in one or term in turned for term in other)
    )


@lru_cache(maxsize=256)  # a kernel asks for every tile
def _in_order(steps: Steps) -> tuple[tuple[tuple[float, int, int], ...], ...]:
    """Of each sum the factors, which of them are 1 or -1, and the places; ones first."""
    return tuple(
        tuple(
            (float(number), int(number) if abs(number) == 1 else 0, at)
            for number, at in sorted(terms, key=lambda term: term[0] != 1)
        )
        for terms in steps.sums
    )


def transformed(b: Builder, steps: Steps, values: Sequence[Value]) -> list[Value]:
    """M x of the values."""
    known = list(values)
    for terms in _in_order(steps):
        total: Value | None = None
        for factor, sign, at in terms:
            x = known[at]
            if total is None:
                total = x if sign > 0 else Binary("mul", Const(factor, x.type), x)
            elif sign:
                total = Binary("add" if sign > 0 else "sub", total, x)
            else:
                total = Fma(Const(factor, x.type), x, total)
        assert total is not None
        known.append(b.let(total, "s"))
    return [known[at] for at in steps.results]
