"""Symbolic sizes in use: their symbols, and putting values in for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import lcm
from operator import itemgetter
from typing import Any, TypeAlias

from convdsl.tensor.dim import (
    Atom,
    Coefficient,
    Dim,
    Floor,
    Monomial,
    Symbol,
    SymDim,
    make,
    terms_of,
)
from convdsl.tensor.division import floor_div
from convdsl.tensor.extrema import extremum


def symbols_of(value: Dim) -> frozenset[Symbol]:
    """All symbols that the value depends on."""
    if isinstance(value, int):
        return frozenset()
    found: set[Symbol] = set()
    for monomial in value._terms:  # pyright: ignore[reportPrivateUsage]
        for atom, _ in monomial:
            if isinstance(atom, Symbol):
                found.add(atom)
            elif isinstance(atom, Floor):
                found |= symbols_of(atom.numerator) | symbols_of(atom.denominator)
            else:
                for argument in atom.arguments:
                    found |= symbols_of(argument)
    return frozenset(found)


def depends_on(value: Dim, name: str) -> bool:
    """Whether a value depends on a symbol of that name."""
    if isinstance(value, int):
        return False
    monomials = value._terms  # pyright: ignore[reportPrivateUsage]
    return any(monomial_depends_on(monomial, name) for monomial in monomials)


def monomial_depends_on(monomial: Monomial, name: str) -> bool:
    """Whether one of its factors does."""
    for atom, _ in monomial:
        if isinstance(atom, Symbol):
            if atom.name == name:
                return True
        elif isinstance(atom, Floor):
            if depends_on(atom.numerator, name) or depends_on(atom.denominator, name):
                return True
        elif any(depends_on(argument, name) for argument in atom.arguments):
            return True
    return False


def substitute(value: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """Replace symbols by name; what is not named stays symbolic."""
    if isinstance(value, int):
        return value
    alone = value.alone
    if alone is not None:
        return bindings.get(alone.name, value)
    terms: dict[Monomial, Coefficient] = {}
    for monomial, coefficient in value._terms.items():  # pyright: ignore[reportPrivateUsage]
        product = _substitute_monomial(monomial, bindings) if monomial else 1
        if product is None:
            terms[monomial] = terms.get(monomial, 0) + coefficient
            continue
        for found, inner in terms_of(product):
            terms[found] = terms.get(found, 0) + coefficient * inner
    return make(terms)


def _substitute_monomial(monomial: Monomial, bindings: Mapping[str, Dim]) -> Dim | None:
    """None where it stays as it is, if that is plain to see."""
    if len(monomial) == 1 and monomial[0][1] == 1:
        atom = monomial[0][0]
        if isinstance(atom, Symbol):
            return bindings.get(atom.name)
        return _substitute_atom(atom, bindings)
    product: Dim = 1
    for atom, power in monomial:
        factor = _substitute_atom(atom, bindings)
        for _ in range(power):
            product = product * factor
    return product


def _substitute_atom(atom: Atom, bindings: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Symbol):
        replacement = bindings.get(atom.name)
        return SymDim({((atom, 1),): 1}) if replacement is None else replacement
    if isinstance(atom, Floor):
        return floor_div(
            substitute(atom.numerator, bindings), substitute(atom.denominator, bindings)
        )
    return extremum(atom.kind, tuple(substitute(a, bindings) for a in atom.arguments))


def evaluate(value: Dim, bindings: Mapping[str, Any]) -> Any:
    """The value with every symbol bound; bindings may be ints or NumPy integer arrays."""
    return value if isinstance(value, int) else evaluator(value)(bindings)


Evaluator: TypeAlias = "Callable[[Mapping[str, Any]], Any]"
"""Bindings in, the value out."""


@lru_cache(maxsize=50_000)
def evaluator(value: Dim) -> Evaluator:
    """What `evaluate` does for one value. It is made once: an index is evaluated as often as its
    loops turn."""
    if isinstance(value, int):
        return lambda bindings: value
    if value.alone is not None:
        return itemgetter(value.alone.name)
    # All over one denominator, so that NumPy arrays stay integers.
    scale = lcm(*(coefficient.denominator for _, coefficient in value.terms))
    terms = [(monomial, int(coefficient * scale)) for monomial, coefficient in value.terms]
    linear = [(name, c) for m, c in terms if (name := _symbol(m)) is not None]
    others = [([_factor(*f) for f in m], c) for m, c in terms if m and _symbol(m) is None]
    constant = int(value.constant * scale)

    def whole(bindings: Mapping[str, Any]) -> Any:
        total: Any = constant
        for name, coefficient in linear:
            total = total + bindings[name] * coefficient
        for factors, coefficient in others:
            product: Any = coefficient
            for factor in factors:
                product = product * factor(bindings)
            total = total + product
        return total

    return whole if scale == 1 else lambda bindings: whole(bindings) // scale


def _symbol(monomial: Monomial) -> str | None:
    """The name of the symbol that a monomial is and nothing more."""
    if len(monomial) != 1:
        return None
    ((atom, power),) = monomial
    return atom.name if power == 1 and isinstance(atom, Symbol) else None


def _factor(atom: Atom, power: int) -> Evaluator:
    once = _atom(atom)
    return once if power == 1 else lambda bindings: once(bindings) ** power


def _atom(atom: Atom) -> Evaluator:
    if isinstance(atom, Symbol):
        return itemgetter(atom.name)
    if isinstance(atom, Floor):
        above, below = evaluator(atom.numerator), evaluator(atom.denominator)
        return lambda bindings: above(bindings) // below(bindings)
    first, *others = map(evaluator, atom.arguments)
    pick = _least if atom.kind == "min" else _greatest

    def picked(bindings: Mapping[str, Any]) -> Any:
        found = first(bindings)
        for other in others:
            found = pick(found, other(bindings))
        return found

    return picked


def _least(a: Any, b: Any) -> Any:
    return a + (b - a) * (b < a)


def _greatest(a: Any, b: Any) -> Any:
    return a + (b - a) * (b > a)
