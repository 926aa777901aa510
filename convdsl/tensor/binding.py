"""Symbolic sizes in use: their symbols, and putting values in for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import gcd
from typing import Any

from convdsl.tensor.dim import (
    Atom,
    Coefficient,
    Dim,
    Floor,
    Monomial,
    Symbol,
    SymDim,
    extremum,
    floor_div,
    make,
    terms_of,
)


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


def substitute(value: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """Replace symbols by name; what is not named stays symbolic."""
    if isinstance(value, int):
        return value
    alone = value.alone
    if alone is not None:
        return bindings.get(alone.name, value)
    terms: dict[Monomial, Coefficient] = {}
    for monomial, coefficient in value._terms.items():  # pyright: ignore[reportPrivateUsage]
        product: Dim = 1
        for atom, power in monomial:
            factor = _substitute_atom(atom, bindings)
            for _ in range(power):
                product = product * factor
        for found, inner in terms_of(product):
            terms[found] = terms.get(found, 0) + coefficient * inner
    return make(terms)


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
    if isinstance(value, int):
        return value
    return _evaluate(value, bindings, {"min": _least, "max": _greatest})


def _least(a: Any, b: Any) -> Any:
    return a + (b - a) * (b < a)


def _greatest(a: Any, b: Any) -> Any:
    return a + (b - a) * (b > a)


def _evaluate(
    value: SymDim, bindings: Mapping[str, Any], pick: Mapping[str, Callable[[Any, Any], Any]]
) -> Any:
    # All over one denominator, so that NumPy arrays stay integers.
    scale = 1
    for _, coefficient in value.terms:
        scale *= Fraction(coefficient).denominator // gcd(scale, Fraction(coefficient).denominator)
    total: Any = 0
    for monomial, coefficient in value.terms:
        product: Any = int(coefficient * scale)
        for atom, power in monomial:
            factor: Any
            if isinstance(atom, Symbol):
                factor = bindings[atom.name]
            elif isinstance(atom, Floor):
                factor = evaluate(atom.numerator, bindings) // evaluate(atom.denominator, bindings)
            else:
                factor = evaluate(atom.arguments[0], bindings)
                for argument in atom.arguments[1:]:
                    factor = pick[atom.kind](factor, evaluate(argument, bindings))
            product = product * factor**power
        total = total + product
    return total if scale == 1 else total // scale
