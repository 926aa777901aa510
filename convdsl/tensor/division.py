"""Division of sizes: exact floors, ceilings, and quotients that leave nothing over.

What divides evenly, for every value that its symbols may stand for, leaves the floor; of what
is left a floor becomes an atom in lowest terms. `SymDim`'s `//` and `%` are these.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, gcd

from convdsl.tensor.dim import (
    Coefficient,
    Dim,
    Floor,
    Monomial,
    Symbol,
    SymDim,
    atom_key,
    make,
    normal,
    of_terms,
    product,
    ratio,
    terms_of,
)
from convdsl.tensor.proof import bounds, provably


def floor_div(value: Dim, divisor: Dim) -> Dim:
    """floor(value / divisor), exactly. Whatever divides evenly leaves the floor."""
    if isinstance(divisor, SymDim):
        return _floor_symbolic(value, divisor)
    if divisor <= 0:
        raise ValueError(f"division by {divisor}")
    if isinstance(value, int):
        return value // divisor
    return value if divisor == 1 else _floor_div(value, divisor)


@lru_cache(maxsize=50_000)
def _floor_div(value: SymDim, divisor: int) -> Dim:
    whole: dict[Monomial, Coefficient] = {}
    rest: dict[Monomial, Coefficient] = {}
    for monomial, coefficient in value._terms.items():  # pyright: ignore[reportPrivateUsage]
        step, base = _multiples(monomial)
        if monomial and coefficient * step % divisor == 0:
            whole[monomial] = ratio(coefficient, divisor)
            if base:  # coefficient * (monomial - base) divides evenly, coefficient * base may not
                whole[()] = whole.get((), 0) - ratio(coefficient * base, divisor)
                rest[()] = rest.get((), 0) + coefficient * base
        else:
            rest[monomial] = rest.get(monomial, 0) + coefficient
    if len(rest) > 1 and any(sum(power for _, power in m) > 1 for m in rest):
        quotient = {m: ratio(c, divisor) for m, c in rest.items()}
        if _is_whole(quotient):  # all of it together, where no term is by itself
            return of_terms(whole) + of_terms(quotient)
    return of_terms(whole) + _floor_atom(of_terms(rest), divisor)


def _floor_symbolic(value: Dim, divisor: SymDim) -> Dim:
    least, _ = bounds(divisor)
    if least is None or least < 1:
        raise ValueError(f"division by {divisor}, which is not known to be positive")
    whole: Dim = 0
    rest: Dim = 0
    for monomial, coefficient in terms_of(value):
        term = make({monomial: coefficient})
        quotient = exact_div(term, divisor) if monomial else None
        if quotient is None:
            rest = rest + term
        else:
            whole = whole + quotient
    together = exact_div(rest, divisor)
    if together is not None:
        return whole + together
    low, _ = bounds(rest)
    if low is not None and low >= 0 and provably(">", divisor, rest):
        return whole
    nested = _nested_floor(rest, divisor) if isinstance(rest, SymDim) else None
    if nested is not None:
        return nested + whole
    return SymDim({((Floor(rest, divisor), 1),): 1}) + whole


def _multiples(monomial: Monomial) -> tuple[int, int]:
    """(step, base): the monomial is base modulo step."""
    if len(monomial) == 1 and monomial[0][1] == 1:
        atom = monomial[0][0]
        if isinstance(atom, Symbol):
            return atom.divisor, atom.remainder % atom.divisor
    step = 1
    for atom, power in monomial:
        if isinstance(atom, Symbol) and atom.remainder % atom.divisor == 0:
            step *= atom.divisor**power
    return step, 0


def _floor_atom(value: Dim, divisor: int) -> Dim:
    if isinstance(value, int):
        return value // divisor
    terms = value._terms  # pyright: ignore[reportPrivateUsage]
    if all(isinstance(c, int) for c in terms.values()):
        # floor((k*a + r) / (k*b)) with 0 <= r < k is floor(a / b); whole multiples go outside.
        common = gcd(divisor, *(int(c) for m, c in terms.items() if m))
        constant = int(value.constant)
        outside, constant = divmod(constant, divisor)
        if common > 1:
            inner = {m: int(c) // common for m, c in terms.items() if m}
            inner[()] = constant // common
            return floor_div(make(inner), divisor // common) + outside
        moved = {m: c for m, c in terms.items() if m}
        moved[()] = constant
        inner_dim = make(moved)
    else:
        outside, inner_dim = 0, value
    if isinstance(inner_dim, int):
        return inner_dim // divisor + outside
    nested = _nested_floor(inner_dim, divisor)
    if nested is not None:
        return nested + outside
    low, high = bounds(inner_dim)
    if low is not None and high is not None and low // divisor == high // divisor:
        return low // divisor + outside
    return SymDim({((Floor(inner_dim, divisor), 1),): 1}) + outside


def _nested_floor(value: SymDim, divisor: Dim) -> Dim | None:
    """floor((floor(x / a) + c) / b) = floor((x + a*c) / (a*b))."""
    terms = value.terms
    varying = [(m, c) for m, c in terms if m]
    if len(varying) != 1 or varying[0][1] != 1:
        return None
    monomial = varying[0][0]
    if len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(monomial[0][0], Floor):
        return None
    inner = monomial[0][0]
    shift = value.constant
    if not isinstance(shift, int):
        return None
    return floor_div(inner.numerator + inner.denominator * shift, inner.denominator * divisor)


def ceil_div(value: Dim, divisor: Dim) -> Dim:
    """ceil(value / divisor), exactly."""
    return floor_div(value + (divisor - 1), divisor)


def exact_div(value: Dim, divisor: Dim) -> Dim | None:
    """value / divisor where the division is provably without remainder, else None."""
    if isinstance(divisor, int):
        if divisor == 0:
            return None
        quotient = floor_div(value, abs(divisor))
        if quotient * abs(divisor) != value:
            return None
        return quotient if divisor > 0 else -quotient
    if value == divisor:
        return 1
    if isinstance(value, int):
        return 0 if value == 0 else None
    terms = _quotient(value, divisor)
    return make(terms) if terms is not None and _is_whole(terms) else None


def _quotient(value: SymDim, divisor: SymDim) -> dict[Monomial, Coefficient] | None:
    """The terms of value / divisor, long division; None where something is left over."""
    below = dict(divisor.terms)
    rest = dict(value.terms)
    atoms = {atom for terms in (below, rest) for monomial in terms for atom, _ in monomial}
    places = {atom: place for place, atom in enumerate(sorted(atoms, key=atom_key))}

    def rank(monomial: Monomial) -> tuple[int, ...]:
        # By degree, then by powers: an order that products keep, as long division needs.
        powers = [0] * len(places)
        for atom, power in monomial:
            powers[places[atom]] = power
        return (sum(powers), *powers)

    first = max(below, key=rank)
    found: dict[Monomial, Coefficient] = {}
    while rest:
        highest = max(rest, key=rank)
        powers = dict(highest)
        for atom, power in first:
            powers[atom] = powers.get(atom, 0) - power
            if powers[atom] < 0:
                return None
        monomial = tuple((atom, powers[atom]) for atom, _ in highest if powers[atom])
        coefficient = normal(Fraction(rest[highest]) / Fraction(below[first]))
        found[monomial] = coefficient
        for other, c in below.items():
            key = product(monomial, other)
            left = rest.get(key, 0) - coefficient * c
            if left:
                rest[key] = left
            else:
                rest.pop(key, None)
    return found


def _is_whole(terms: Mapping[Monomial, Coefficient]) -> bool:
    """Whether the sum is provably an integer: with every symbol written as divisor * k + remainder
    no fraction is left. H*W/4 is where H and W are even, (H + 1)*(W + 1)/4 where they are odd."""
    written: dict[Monomial, Coefficient] = {}
    for monomial, coefficient in terms.items():
        parts: dict[Monomial, Coefficient] = {(): coefficient}
        for atom, power in monomial:
            step, base = (
                (atom.divisor, atom.remainder % atom.divisor)
                if isinstance(atom, Symbol)
                else (1, 0)
            )
            parts = {
                (*m, (atom, p)) if p else m: c * comb(power, p) * step**p * base ** (power - p)
                for m, c in parts.items()
                for p in range(power + 1)
            }
        for m, c in parts.items():
            written[m] = written.get(m, 0) + c
    return all(Fraction(c).denominator == 1 for c in written.values())


SymDim.divided = floor_div
