"""Filtering at roots of unity: the convolution theorem, in real numbers.

A convolution that wraps around after t positions is a product in the frequency domain,

    DFT(y)[k] = DFT(d)[k] conj(DFT(g)[k])        y[i] = sum over s of d[(i + s) mod t] g[s]

and of the t results m = t - r + 1 do not meet what wraps: they are those of filtering. Of real
numbers the frequencies 0 .. t/2 say all. At each of them but the first and last, the product of
a + i b and c + i d is that of three pairs of real numbers,

    (a + b) c,  a (d - c),  b (c + d)      real part: first - third, imaginary: first + second

so that t inputs make 3 t/2 - 1 products. Transforms are fast ones: halves of even and odd
positions, which meet in a butterfly (Cooley and Tukey 1965), down to one position or three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, pi, sin
from typing import TypeAlias

from convdsl.schedules.filtering import Form
from convdsl.schedules.steps import Steps, Sum

LENGTHS = (12, 16, 24, 32, 48, 64, 96)
"""Inputs of a tile. Below, rational points take fewer products; above, what lies between the two
transforms of a tile no longer fits in a second-level cache."""

_Term: TypeAlias = "tuple[float, int] | None"
"""A number times a value, by its place; None is zero."""

_Bin: TypeAlias = "tuple[_Term, _Term]"
"""Real and imaginary part of a frequency."""


@dataclass
class _Sums:
    """Sums as they are written down."""

    inputs: int
    sums: list[Sum] = field(default_factory=list[Sum])

    def add(self, *terms: tuple[float, _Term]) -> _Term:
        """Numbers times terms. What would be one value with either sign is no sum."""
        flat = [(n * term[0], term[1]) for n, term in terms if term is not None and n]
        if not flat:
            return None
        if len(flat) == 1 and abs(flat[0][0]) == 1:
            return flat[0]
        lead = 1.0 if any(number == 1 for number, _ in flat) else -1.0
        if not any(number == lead for number, _ in flat):
            lead = 1.0
        made: Sum = tuple((number * lead, at) for number, at in flat)
        self.sums.append(made)
        return lead, self.inputs + len(self.sums) - 1

    def steps(self, results: Sequence[_Term]) -> Steps:
        """What the results need, and no more."""
        final: list[int] = []
        for term in results:
            assert term is not None
            if term[0] != 1:
                self.sums.append(((term[0], term[1]),))
                term = 1.0, self.inputs + len(self.sums) - 1
            final.append(term[1])
        needed = set(final)
        for number in reversed(range(len(self.sums))):
            if self.inputs + number in needed:
                needed |= {at for _, at in self.sums[number]}
        kept = [n for n in range(len(self.sums)) if self.inputs + n in needed]
        places = {self.inputs + n: self.inputs + i for i, n in enumerate(kept)}
        places |= {i: i for i in range(self.inputs)}
        sums = (tuple((x, places[at]) for x, at in self.sums[n]) for n in kept)
        return Steps(self.inputs, tuple(sums), tuple(places[at] for at in final))

    def forward(self, x: Sequence[_Term]) -> list[_Bin]:
        """X[k] = sum over j of x[j] w^(j k), w = exp(-2 pi i / n), for k = 0 .. n/2.

        X[k] = E[k] + w^k O[k]        X[n/2 - k] = conj(2 E[k] - X[k])
        """
        n, add = len(x), self.add
        if n % 2:
            pairs = [
                (add((1, x[j]), (1, x[n - j])), add((1, x[j]), (-1, x[n - j])))
                for j in range(1, n // 2 + 1)
            ]
            angles = [[2 * pi * j * k / n for j in range(1, n // 2 + 1)] for k in range(n // 2 + 1)]
            return [
                (
                    add((1, x[0]), *((cos(at), p[0]) for at, p in zip(own, pairs, strict=True))),
                    add(*((-sin(at) if k else 0, p[1]) for at, p in zip(own, pairs, strict=True))),
                )
                for k, own in enumerate(angles)
            ]
        half, made = n // 2, dict[int, _Bin]()
        for k, (e, o) in enumerate(zip(self.forward(x[::2]), self.forward(x[1::2]), strict=True)):
            if k == 0:
                made[0] = add((1, e[0]), (1, o[0])), None
                made[half] = add((1, e[0]), (-1, o[0])), None
            elif 2 * k == half:
                made[k] = e[0], add((-1, o[0]))
            else:
                c, s = cos(2 * pi * k / n), -sin(2 * pi * k / n)
                real = add((1, e[0]), (c, o[0]), (-s, o[1]))
                imaginary = add((1, e[1]), (c, o[1]), (s, o[0]))
                made[k] = real, imaginary
                made[half - k] = add((2, e[0]), (-1, real)), add((-2, e[1]), (1, imaginary))
        return [made[k] for k in range(half + 1)]

    def back(self, y: Sequence[_Bin], n: int) -> list[_Term]:
        """x[j] = sum over all k of Y[k] w^(-j k) for j = 0 .. n - 1, from k = 0 .. n/2.

        E[k] = Y[k] + conj(Y[n/2 - k])        O[k] = w^-k (Y[k] - conj(Y[n/2 - k]))
        """
        add = self.add
        if n % 2:
            made: list[_Term] = []
            for j in range(n):
                terms = [(1.0, y[0][0])]
                for k in range(1, n // 2 + 1):
                    angle = 2 * pi * j * k / n
                    terms += [(2 * cos(angle), y[k][0]), (-2 * sin(angle) if j else 0, y[k][1])]
                made.append(add(*terms))
            return made
        half = n // 2
        even: list[_Bin] = [(add((1, y[0][0]), (1, y[half][0])), None)]
        odd: list[_Bin] = [(add((1, y[0][0]), (-1, y[half][0])), None)]
        for k in range(1, half // 2 + 1):
            (a, b), (c, d) = y[k], y[half - k]
            if 2 * k == half:
                even.append((add((2, a)), None))
                odd.append((add((-2, b)), None))
                continue
            even.append((add((1, a), (1, c)), add((1, b), (-1, d))))
            u, v = add((1, a), (-1, c)), add((1, b), (1, d))
            x, z = cos(2 * pi * k / n), sin(2 * pi * k / n)
            odd.append((add((x, u), (-z, v)), add((x, v), (z, u))))
        first, second = self.back(even, half), self.back(odd, half)
        return [term for pair in zip(first, second, strict=True) for term in pair]


@dataclass(frozen=True)
class FourierForm(Form):
    """m outputs of r taps by a transform of t = m + r - 1 inputs, an even number."""

    @property
    def products(self) -> int:
        return 3 * self.t // 2 - 1

    @property
    def said(self) -> str:
        return f"DFT({self.t})"

    @cached_property
    def _spectrum(self) -> tuple[Steps, tuple[float, ...]]:
        """What is made of inputs, and the sign of each of it. Filters have it too: so nothing is
        negated."""
        sums = _Sums(self.t)
        results: list[_Term] = []
        for a, b in sums.forward([(1.0, j) for j in range(self.t)]):
            results += [a] if b is None else [sums.add((1, a), (1, b)), a, b]
        signs = [term[0] for term in results if term is not None]
        return sums.steps([sums.add((n, t)) for n, t in zip(signs, results, strict=True)]), (
            *signs,
        )

    @cached_property
    def inputs(self) -> Steps:
        return self._spectrum[0]

    @cached_property
    def filters(self) -> Steps:
        """The transform's conjugate, over t: what going back leaves out."""
        sums = _Sums(self.r)
        signs = iter(sign / self.t for sign in self._spectrum[1])
        taps: list[_Term] = [(1.0, j) if j < self.r else None for j in range(self.t)]
        results: list[_Term] = []
        for k, (c, e) in enumerate(sums.forward(taps)):  # e is -d
            results.append(sums.add((next(signs), c)))
            if 0 < k < self.t // 2:
                second, third = next(signs), next(signs)
                results.append(sums.add((-second, c), (-second, e)))
                results.append(sums.add((third, c), (-third, e)))
        return sums.steps(results)

    @cached_property
    def outputs(self) -> Steps:
        sums = _Sums(self.products)
        bins: list[_Bin] = [((1.0, 0), None)]
        for k in range(1, self.t // 2):
            first, second, third = ((1.0, 3 * k - 2 + i) for i in range(3))
            bins.append((sums.add((1, first), (-1, third)), sums.add((1, first), (1, second))))
        bins.append(((1.0, self.products - 1), None))
        return sums.steps(sums.back(bins, self.t)[: self.m])
