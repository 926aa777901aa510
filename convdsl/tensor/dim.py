"""Exact symbolic integers: the sizes of tensors and the indices that walk them.

A `Dim` is a Python `int` or a `SymDim`, a polynomial with rational coefficients over
atoms: named symbols, and floors, minima and maxima of other polynomials. Its value is
always an integer. The form is canonical, so equality that can be proven is `==`.

The same class serves shapes (`N`, `H`), the index expressions of tensor expressions and
those of the loop IR: there is one home for integer algebra. Sums and products are here; what
is proven of their values is proof.py, and division, which asks it, division.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar, NamedTuple, TypeAlias

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
def atom_key(atom: Atom) -> tuple[int, str]:
    """What atoms are sorted by."""
    key = atom.key()
    return (_ORDER.get(key, len(_ORDER)), key)


def normal(value: Coefficient) -> Coefficient:
    """The same number, an `int` where it is whole."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    return value


def ratio(value: Coefficient, divisor: int) -> Coefficient:
    """value / divisor, without a fraction where it is none: those are slow."""
    if isinstance(value, int) and value % divisor == 0:
        return value // divisor
    return Fraction(value) / divisor


def _monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[int, str], ...]]:
    return (-sum(power for _, power in monomial), tuple(atom_key(atom) for atom, _ in monomial))


class SymDim:
    """A polynomial over atoms. Immutable and canonical; build it with Python arithmetic."""

    __slots__ = ("_hash", "_sorted", "_terms", "_text")

    divided: ClassVar[Callable[[Dim, Dim], Dim]]
    """floor(value / divisor), which division.py puts here: a floor in lowest terms asks what is
    proven of sizes, and that computes with them."""

    def __init__(self, terms: Mapping[Monomial, Coefficient]) -> None:
        self._terms: dict[Monomial, Coefficient] = {
            m: c if type(c) is int else normal(c) for m, c in terms.items() if c
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
        return of_terms(terms)

    def _moved(self, by: int) -> Dim:
        terms = dict(self._terms)
        terms[()] = terms.get((), 0) + by
        return of_terms(terms)

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            if other == 1:
                return self
            return of_terms({m: c * other for m, c in self._terms.items()}) if other else 0
        terms: dict[Monomial, Coefficient] = {}
        for left, a in self._terms.items():
            for right, b in terms_of(other):
                monomial = product(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return of_terms(terms)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self._moved(-other) if other else self
        terms = dict(self._terms)
        for monomial, coefficient in other._terms.items():
            terms[monomial] = terms.get(monomial, 0) - coefficient
        return of_terms(terms)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __floordiv__(self, other: Dim) -> Dim:
        return SymDim.divided(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return SymDim.divided(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - SymDim.divided(self, other) * other

    def __rmod__(self, other: int) -> Dim:
        return other - SymDim.divided(other, self) * self

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
    return of_terms(dict(terms))


def of_terms(terms: dict[Monomial, Coefficient]) -> Dim:
    """The same of terms that nobody else has: they are kept as they are, if they are canonical."""
    for coefficient in terms.values():
        if not coefficient or type(coefficient) is not int:
            terms = {m: c if type(c) is int else normal(c) for m, c in terms.items() if c}
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


def product(left: Monomial, right: Monomial) -> Monomial:
    """The monomial that two make together."""
    if not left:
        return right
    if not right:
        return left
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: atom_key(item[0])))


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
