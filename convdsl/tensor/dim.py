"""Exact symbolic integers: the sizes of tensors and the indices that walk them.

A `Dim` is a Python `int` or a `SymDim`, a polynomial with rational coefficients over
atoms: named symbols, and floors, minima and maxima of other polynomials. Its value is
always an integer. The form is canonical, so equality that can be proven is `==`.

The same class serves shapes (`N`, `H`), the index expressions of tensor expressions and
those of the loop IR: there is one home for integer algebra.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, gcd
from typing import NamedTuple, TypeAlias

Coefficient: TypeAlias = "int | Fraction"


class Symbol(NamedTuple):
    """A named unknown integer in minimum..maximum, known to be `remainder` modulo `divisor`. A
    tuple, because hashing and comparing those is most of what polynomials ask of their symbols."""

    name: str
    minimum: int = 1
    divisor: int = 1
    remainder: int = 0
    maximum: int | None = None

    def key(self) -> str:
        return self.name

    def admits(self, value: int) -> bool:
        """Whether the symbol may stand for a value."""
        is_within = value >= self.minimum and (self.maximum is None or value <= self.maximum)
        return is_within and (value - self.remainder) % self.divisor == 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Floor:
    """floor(numerator / denominator), denominator >= 1 in every binding, in lowest terms."""

    numerator: Dim
    denominator: Dim

    def key(self) -> str:
        return f"~floor({self.numerator})/{self.denominator}"

    def __str__(self) -> str:
        text = str(self.numerator)
        below = str(self.denominator)
        below = f"({below})" if " " in below or "*" in below else below
        return f"floor({f'({text})' if ' ' in text else text}/{below})"


@dataclass(frozen=True, slots=True)
class Extremum:
    """The smallest or largest of several dims, not all of them constant."""

    kind: str  # "min" or "max"
    arguments: tuple[Dim, ...]

    def key(self) -> str:
        return f"~{self}"

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.arguments))})"


Atom: TypeAlias = "Symbol | Floor | Extremum"
Monomial: TypeAlias = "tuple[tuple[Atom, int], ...]"

# Batch and channels come before space, as in N C D H W; other names follow alphabetically.
_ORDER = {name: rank for rank, name in enumerate("NCTDHWL")}


@lru_cache(maxsize=100_000)
def _atom_key(atom: Atom) -> tuple[int, str]:
    key = atom.key()
    return (_ORDER.get(key, len(_ORDER)), key)


def _normal(value: Coefficient) -> Coefficient:
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    return value


def _ratio(value: Coefficient, divisor: int) -> Coefficient:
    """value / divisor, without a fraction where it is none: those are slow."""
    if isinstance(value, int) and value % divisor == 0:
        return value // divisor
    return Fraction(value) / divisor


def _monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[int, str], ...]]:
    return (-sum(power for _, power in monomial), tuple(_atom_key(atom) for atom, _ in monomial))


class SymDim:
    """A polynomial over atoms. Immutable and canonical; build it with Python arithmetic."""

    __slots__ = ("_hash", "_sorted", "_terms", "_text")

    def __init__(self, terms: Mapping[Monomial, Coefficient]) -> None:
        self._terms: dict[Monomial, Coefficient] = {
            m: c if type(c) is int else _normal(c) for m, c in terms.items() if c
        }
        self._hash: int | None = None
        self._sorted: tuple[tuple[Monomial, Coefficient], ...] | None = None
        self._text: str | None = None

    @property
    def terms(self) -> tuple[tuple[Monomial, Coefficient], ...]:
        """The terms in canonical order, highest degree first, the constant last."""
        if self._sorted is None:
            self._sorted = tuple(
                sorted(self._terms.items(), key=lambda item: _monomial_key(item[0]))
            )
        return self._sorted

    @property
    def alone(self) -> Symbol | None:
        """The symbol that it is and nothing more, as the index of an axis mostly is; else None."""
        if len(self._terms) != 1:
            return None
        ((monomial, coefficient),) = self._terms.items()
        if coefficient != 1 or len(monomial) != 1:
            return None
        ((atom, power),) = monomial
        return atom if power == 1 and isinstance(atom, Symbol) else None

    @property
    def constant(self) -> Coefficient:
        return self._terms.get((), 0)

    # Arithmetic
    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self._moved(other) if other else self
        terms = dict(self._terms)
        for monomial, coefficient in other._terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _of(terms)

    def _moved(self, by: int) -> Dim:
        terms = dict(self._terms)
        terms[()] = terms.get((), 0) + by
        return _of(terms)

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            if other == 1:
                return self
            return _of({m: c * other for m, c in self._terms.items()}) if other else 0
        terms: dict[Monomial, Coefficient] = {}
        for left, a in self._terms.items():
            for right, b in terms_of(other):
                monomial = _multiply(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _of(terms)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self._moved(-other) if other else self
        terms = dict(self._terms)
        for monomial, coefficient in other._terms.items():
            terms[monomial] = terms.get(monomial, 0) - coefficient
        return _of(terms)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - floor_div(self, other) * other

    def __rmod__(self, other: int) -> Dim:
        return other - floor_div(other, self) * self

    __radd__ = __add__
    __rmul__ = __mul__

    # Identity
    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SymDim) and self._terms == other._terms)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._terms.items()))
        return self._hash

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        if self._text is None:
            text = ""
            for monomial, coefficient in self.terms:
                sign = "-" if coefficient < 0 else "+"
                term = _format_term(monomial, abs(coefficient))
                if not text:
                    text = term if sign == "+" else f"-{term}"
                else:
                    text += f" {sign} {term}"
            self._text = text
        return self._text


Dim: TypeAlias = "int | SymDim"


_LONG = re.compile(r"(?<![\w.])\d{4,}(?![\w.])")


@lru_cache(maxsize=10_000)
def separated(polynomial: str) -> str:
    """A polynomial as text, its numbers with separators of thousands: `2,850,816*N`."""
    return _LONG.sub(lambda number: f"{int(number[0]):,}", polynomial)


def terms_of(value: Dim) -> Iterable[tuple[Monomial, Coefficient]]:
    """The terms of a size: monomials and their coefficients."""
    if isinstance(value, SymDim):
        return value._terms.items()  # pyright: ignore[reportPrivateUsage]
    return (((), value),) if value else ()


def make(terms: Mapping[Monomial, Coefficient]) -> Dim:
    """A size of terms; an integer where no symbol is left."""
    return _of(dict(terms))


def _of(terms: dict[Monomial, Coefficient]) -> Dim:
    """The same of terms that nobody else has: they are kept as they are, if they are canonical."""
    for coefficient in terms.values():
        if not coefficient or type(coefficient) is not int:
            terms = {m: c if type(c) is int else _normal(c) for m, c in terms.items() if c}
            break
    if len(terms) < 2:
        if not terms:
            return 0
        constant = terms.get(())
        if isinstance(constant, int):
            return constant
    made = _blank(SymDim)
    made._terms, made._hash = terms, None  # pyright: ignore[reportPrivateUsage]
    made._sorted, made._text = None, None  # pyright: ignore[reportPrivateUsage]
    return made


_blank = SymDim.__new__


def _multiply(left: Monomial, right: Monomial) -> Monomial:
    if not left:
        return right
    if not right:
        return left
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


def _format_term(monomial: Monomial, coefficient: Coefficient) -> str:
    factors = [str(atom) if power == 1 else f"{atom}**{power}" for atom, power in monomial]
    top = Fraction(coefficient).numerator
    bottom = Fraction(coefficient).denominator
    if top != 1 or not factors:
        factors.insert(0, str(top))
    text = "*".join(factors)
    return text if bottom == 1 else f"{text}/{bottom}"


@lru_cache(maxsize=10_000)
def symbol(
    name: str,
    minimum: int = 1,
    divisor: int = 1,
    remainder: int = 0,
    maximum: int | None = None,
) -> SymDim:
    """A symbolic dim, e.g. `symbol("H", minimum=32, divisor=32)`."""
    return SymDim({((Symbol(name, minimum, divisor, remainder, maximum), 1),): 1})


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
            whole[monomial] = _ratio(coefficient, divisor)
            if base:  # coefficient * (monomial - base) divides evenly, coefficient * base may not
                whole[()] = whole.get((), 0) - _ratio(coefficient * base, divisor)
                rest[()] = rest.get((), 0) + coefficient * base
        else:
            rest[monomial] = rest.get(monomial, 0) + coefficient
    if len(rest) > 1 and any(sum(power for _, power in m) > 1 for m in rest):
        quotient = {m: _ratio(c, divisor) for m, c in rest.items()}
        if _is_whole(quotient):  # all of it together, where no term is by itself
            return _of(whole) + _of(quotient)
    return _of(whole) + _floor_atom(_of(rest), divisor)


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
    places = {atom: place for place, atom in enumerate(sorted(atoms, key=_atom_key))}

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
        coefficient = _normal(Fraction(rest[highest]) / Fraction(below[first]))
        found[monomial] = coefficient
        for other, c in below.items():
            key = _multiply(monomial, other)
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


def dim_min(*values: Dim) -> Dim:
    """The smallest of some sizes, as exact as is known."""
    return extremum("min", values)


def dim_max(*values: Dim) -> Dim:
    """The largest of some sizes, as exact as is known."""
    return extremum("max", values)


def extremum(kind: str, values: tuple[Dim, ...]) -> Dim:
    """The `min` or `max` of sizes, without those that another is provably beyond."""
    if len(set(values)) == 1:
        return values[0]
    kept: list[Dim] = []
    for value in values:
        if any(_dominates(kind, other, value) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(kind, value, other)]
        kept.append(value)
    if len(kept) == 1:
        return kept[0]
    return SymDim({((Extremum(kind, tuple(sorted(kept, key=str))), 1),): 1})


def _dominates(kind: str, winner: Dim, loser: Dim) -> bool:
    low, high = bounds(winner - loser)
    return (high is not None and high <= 0) if kind == "min" else (low is not None and low >= 0)


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
        whole = -_ratio(terms[key], atom.denominator)
        inner = [(m, c) for m, c in terms_of(atom.numerator) if m]
        if all(terms.get(m) == whole * c for m, c in inner):
            constant = dict(terms_of(atom.numerator)).get((), 0)
            for m in (key, *(m for m, _ in inner)):
                del terms[m]
            terms[()] = terms.get((), 0) - whole * constant
            yield 0, atom.denominator - 1, _normal(whole)
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
