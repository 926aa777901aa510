"""What is proven of sizes: the least and the most they can be, and comparisons that always hold.

Bounds are those of intervals, term by term, but for sums whose terms are known together:
remainders, and differences of floors by one divisor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from convdsl.tensor.dim import (
    Atom,
    Coefficient,
    Dim,
    Extremum,
    Floor,
    Monomial,
    Symbol,
    SymDim,
    make,
    normal,
    ratio,
    terms_of,
)


def bounds(value: Dim) -> tuple[int | None, int | None]:
    """Proven (lowest, highest) value; None where no bound is known."""
    if isinstance(value, int):
        return value, value
    low: Coefficient | None = 0
    high: Coefficient | None = 0
    for monomial, coefficient in value._terms.items():  # pyright: ignore[reportPrivateUsage]
        if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], Symbol):
            first, last = monomial[0][0].minimum, monomial[0][0].maximum
        elif monomial:
            return _bounds_of_parts(value)
        else:
            first = last = 1
        if coefficient < 0:
            first, last = last, first
        low = None if low is None or first is None else low + coefficient * first
        high = None if high is None or last is None else high + coefficient * last
    return _whole(low, high)


def _whole(low: Coefficient | None, high: Coefficient | None) -> tuple[int | None, int | None]:
    """The whole numbers between two bounds."""
    return (
        None if low is None else -((-low.numerator) // low.denominator),
        None if high is None else high.numerator // high.denominator,
    )


@lru_cache(maxsize=50_000)
def _bounds_of_parts(value: SymDim) -> tuple[int | None, int | None]:
    low: Coefficient | None = 0
    high: Coefficient | None = 0
    for first, last, coefficient in _bounded_parts(value):
        if coefficient < 0:
            first, last = last, first
        low = None if low is None or first is None else low + coefficient * first
        high = None if high is None or last is None else high + coefficient * last
    return _whole(low, high)


def _bounded_parts(value: SymDim) -> Iterable[tuple[int | None, int | None, Coefficient]]:
    """(low, high, coefficient) of parts that sum up to the value.

    Terms are bounded one by one, but for remainders, which lie between 0 and d - 1, and for
    differences of two floors by the same denominator: floor(a/d) - floor(b/d) lies between
    floor((a - b)/d) and ceil((a - b)/d).
    """
    rest = dict(value._terms)  # pyright: ignore[reportPrivateUsage]
    yield from _remainders(rest)
    floors = [(m[0][0], c, m) for m, c in rest.items() if len(m) == 1 and m[0][1] == 1]
    for first, coefficient, key in floors:
        for second, other, opposite in floors:
            paired = coefficient > 0 and other == -coefficient and {key, opposite} <= rest.keys()
            if not paired or not isinstance(first, Floor) or not isinstance(second, Floor):
                continue
            divisor = first.denominator
            if divisor == second.denominator and isinstance(divisor, int):
                low, high = bounds(first.numerator - second.numerator)
                if low is not None or high is not None:
                    del rest[key], rest[opposite]
                    yield (
                        None if low is None else low // divisor,
                        None if high is None else -(-high // divisor),
                        coefficient,
                    )
    for monomial, coefficient in rest.items():
        yield *_monomial_bounds(monomial), coefficient


def _remainders(terms: dict[Monomial, Coefficient]) -> Iterator[tuple[int, int, Coefficient]]:
    """Takes remainders out of a sum: c*(a - d*floor(a/d)), and c*(floor(a/m) - k*floor(a/(m*k))),
    which is the remainder of floor(a/m) by k."""
    floors = [(m[0][0], m) for m in terms if len(m) == 1 and m[0][1] == 1]
    for atom, key in floors:
        if not isinstance(atom, Floor) or not isinstance(atom.denominator, int) or key not in terms:
            continue
        whole = -ratio(terms[key], atom.denominator)
        inner = [(m, c) for m, c in terms_of(atom.numerator) if m]
        if all(terms.get(m) == whole * c for m, c in inner):
            constant = dict(terms_of(atom.numerator)).get((), 0)
            for m in (key, *(m for m, _ in inner)):
                del terms[m]
            terms[()] = terms.get((), 0) - whole * constant
            yield 0, atom.denominator - 1, normal(whole)
            continue
        for other, opposite in floors:
            if not isinstance(other, Floor) or other.numerator != atom.numerator:
                continue
            small = other.denominator
            if not isinstance(small, int) or opposite == key or atom.denominator % small:
                continue
            times = atom.denominator // small
            if opposite in terms and terms[key] == -times * terms[opposite]:
                coefficient = terms.pop(opposite)
                del terms[key]
                yield 0, times - 1, coefficient
                break


def _monomial_bounds(monomial: Monomial) -> tuple[int | None, int | None]:
    if len(monomial) == 1 and monomial[0][1] == 1:
        return _atom_bounds(monomial[0][0])
    low: int = 1
    high: int | None = 1
    for atom, power in monomial:
        first, last = _atom_bounds(atom)
        for _ in range(power):
            if low < 0 or first is None or first < 0:
                return None, None
            low = low * first
            high = None if high is None or last is None else high * last
    return low, high


def _atom_bounds(atom: Atom) -> tuple[int | None, int | None]:
    if isinstance(atom, Symbol):
        return atom.minimum, atom.maximum
    if isinstance(atom, Floor):
        return _floor_bounds(atom)
    pairs = [bounds(argument) for argument in atom.arguments]
    lows = [low for low, _ in pairs if low is not None]
    highs = [high for _, high in pairs if high is not None]
    if atom.kind == "min":
        return (min(lows) if len(lows) == len(pairs) else None), (min(highs) if highs else None)
    return (max(lows) if lows else None), (max(highs) if len(highs) == len(pairs) else None)


def _floor_bounds(atom: Floor) -> tuple[int | None, int | None]:
    low, high = bounds(atom.numerator)
    least, most = bounds(atom.denominator)
    assert least is not None  # floor_div made sure
    if low is not None:
        low = low // least if low < 0 else 0 if most is None else low // most
    if high is not None:
        high = high // least if high >= 0 else -1 if most is None else high // most
    return low, high


def provably(condition: str, left: Dim, right: Dim) -> bool:
    """True where `left <condition> right` (">=", ">", "==") holds for every binding."""
    difference = left - right
    if condition == "==":
        return difference == 0
    return _reaches(difference, 0 if condition == ">=" else 1)


def _reaches(value: Dim, least: int, replaced: int = 4) -> bool:
    """Whether a value is never less. A maximum is as much as any of its arguments: where one of
    them, in its place, suffices, it does; max(H, W) - H is 0 or more. So are minima taken away.
    Of so many within one another, each has several arguments."""
    low, _ = bounds(value)
    if low is not None and low >= least:
        return True
    for monomial, coefficient in terms_of(value) if replaced else ():
        atom = monomial[0][0] if len(monomial) == 1 and monomial[0][1] == 1 else None
        if not isinstance(atom, Extremum) or not isinstance(coefficient, int):
            continue
        if (atom.kind == "max") == (coefficient > 0):
            rest = value - make({monomial: coefficient})
            found = (rest + argument * coefficient for argument in atom.arguments)
            if any(_reaches(one, least, replaced - 1) for one in found):
                return True
    return False
