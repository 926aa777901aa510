"""Who reads an element: indices solved for the axes that run through them.

A read x[phi(i, r)] made for every (i, r) sends a gradient to x[j] from all (i, r) with
phi(i, r) = j. What looks like a scatter is gathered by solving that for axes: some follow from j,
the others are summed over, and conditions say where there is a solution at all.

    p                     = j    p = j
    p * 2 + 1             = j    p = (j - 1) div 2, where 2 divides j - 1
    p * 4 + r, r < 3      = j    p = j div 4, r = j mod 4, where r < 3
    p * U + r * D - P     = j    the lattice of taps that meet a position (ADR 50)
    floor(p * E / n) + r  = j    the few p of an index that never falls (`rising`), r from p
    v div 8               = j    v = 8 j + s, summed over s < 8
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import gcd

from convdsl.kernel.expr import Axis, IndexCompare
from convdsl.kernel.rising import interval
from convdsl.tensor import Dim, Symbol, SymDim, bounds, ceil_div, floor_div, substitute, symbols_of
from convdsl.tensor.dim import Floor, make, terms_of


class Unsolved(Exception):
    """An index that cannot be solved for its axes in closed form."""


@dataclass(frozen=True, slots=True)
class Within:
    """0 <= index < extent has to hold; `low` and `high` say which half is not known to."""

    index: Dim
    extent: Dim
    low: bool
    high: bool

    @property
    def comparisons(self) -> tuple[IndexCompare, ...]:
        below = (IndexCompare("ge", self.index, 0),) if self.low else ()
        above = (IndexCompare("lt", self.index, self.extent),) if self.high else ()
        return (*below, *above)


@dataclass(slots=True)
class Preimage:
    """All (i, r) that an index maps to the position asked for.

    values: every axis, by name, over the position's axes and the free ones.
    free: axes that nothing determines.
    within: ranges that solved axes have to keep to.
    conditions: what has to hold besides, for there to be a solution.
    """

    values: dict[str, Dim] = field(default_factory=dict[str, Dim])
    free: list[Axis] = field(default_factory=list[Axis])
    within: list[Within] = field(default_factory=list[Within])
    conditions: list[IndexCompare] = field(default_factory=list[IndexCompare])


@dataclass(frozen=True, slots=True)
class Lattice:
    """The taps r at which i * stride + r * dilation = target, and the i that go with them.

    With g = gcd(stride, dilation), such taps exist only where g divides the target, and are
    r = first + step * t, t = 0 .. count - 1, as far as r < taps.
    """

    tap: Dim
    source: Dim
    condition: IndexCompare | None
    t: Axis
    overshoots: bool


def lattice(target: Dim, stride: int, dilation: int, taps: Dim, name: str) -> Lattice:
    """The lattice of a target, its axis called `name`."""
    common = gcd(stride, dilation)
    step, spacing = stride // common, dilation // common
    t = Axis(name, ceil_div(taps, step))
    reached = floor_div(target, common)
    inverse = pow(spacing, -1, step) if step > 1 else 0
    first = reached * inverse % step
    tap = first + t.i * step
    return Lattice(
        tap=tap,
        source=floor_div(reached - tap * spacing, step),
        condition=None if common == 1 else IndexCompare("eq", target % common, 0),
        t=t,
        overshoots=step > 1 and (not isinstance(taps, int) or taps % step != 0),
    )


def preimage(
    index: Sequence[Dim],
    at: Sequence[Axis],
    axes: Sequence[Axis],
    names: Callable[[], str],
    *,
    search: bool,
) -> Preimage:
    """Who reads position `at` through `index`, of all positions of `axes`.

    With `search`, positions along axes whose index cannot be solved are tried one by one: the few
    around the right ones where the index never falls along its axis, else all. Otherwise such raise
    Unsolved.
    """
    solver = _Solver(at, names)
    wanted = _split(index, axes, solver)
    pending = list(zip(wanted, at, strict=True))
    while pending:
        pending.sort(key=lambda pair: len(solver.unsolved_in(pair[0])))
        phi, axis = pending.pop(0)
        solver.equation(phi, axis, search=search)
    return solver.found(axes)


def _split(index: Sequence[Dim], axes: Sequence[Axis], solver: _Solver) -> list[Dim]:
    """The index with axes that are divided in it cut into their digits."""
    pieces: dict[str, Dim] = {}
    for axis in axes:
        digits = _digits(axis, index)
        parts = [Axis(solver.names(), extent) for extent in digits]
        value: Dim = 0
        for part in reversed(parts):  # the first is the lowest digit
            value = value * part.extent + (0 if part.extent == 1 else part.i)
            solver.unsolved[part.name] = part
        pieces[axis.name] = value
    solver.pieces = pieces
    return [substitute(d, pieces) for d in index]


def _digits(axis: Axis, index: Iterable[Dim]) -> list[Dim]:
    """Extents of the digits that an index takes an axis apart into, the lowest first; the axis as
    a whole where it is not divided, or not evenly."""
    if not isinstance(axis.extent, int):
        return [axis.extent]
    divisors = sorted({d for each in index for d in _divisors(axis, each)})
    extents: list[Dim] = []
    below = 1
    for divisor in (*divisors, axis.extent):
        if divisor % below or divisor < below:
            return [axis.extent]
        extents.append(divisor // below)
        below = divisor
    return extents


def _divisors(axis: Axis, index: Dim) -> Iterator[int]:
    """By what an index divides the axis itself."""
    for monomial, _ in terms_of(index):
        for atom, _ in monomial:
            if isinstance(atom, Floor):
                if atom.numerator == axis.i and isinstance(atom.denominator, int):
                    yield atom.denominator
                else:
                    yield from _divisors(axis, atom.numerator)
            elif not isinstance(atom, Symbol):
                for argument in atom.arguments:
                    yield from _divisors(axis, argument)


@dataclass(slots=True)
class _Solver:
    """What is known of the axes so far."""

    at: Sequence[Axis]
    names: Callable[[], str]
    pieces: dict[str, Dim] = field(default_factory=dict[str, Dim])  # axes by their digits
    unsolved: dict[str, Axis] = field(default_factory=dict[str, Axis])
    result: Preimage = field(default_factory=Preimage)

    def unsolved_in(self, phi: Dim) -> list[Axis]:
        found = sorted(s.name for s in symbols_of(phi) if s.name in self.unsolved)
        return [self.unsolved[name] for name in found]

    def found(self, axes: Sequence[Axis]) -> Preimage:
        """All axes; those that nothing has determined are free."""
        for axis in self.unsolved.values():
            if axis.extent == 1:
                self.result.values[axis.name] = 0
            else:
                self.result.free.append(axis)
        values = self.result.values
        self.result.values = {a.name: substitute(self.pieces[a.name], values) for a in axes}
        return self.result

    # One equation

    def equation(self, phi: Dim, at: Axis, *, search: bool) -> None:
        """phi = position on `at`, for the axes in phi."""
        phi = substitute(phi, self.result.values)
        linear = self._linear(phi)
        if linear is None:
            if not search:
                raise Unsolved(f"{phi} = {at.i} cannot be solved for its axes")
            if not self._rises(phi, at):
                self._require(phi, at.i)
            return
        coefficients, rest = linear
        self._solve(coefficients, at.i - rest)

    def _require(self, phi: Dim, target: Dim) -> None:
        """The axes in phi run freely where phi = target."""
        for axis in self.unsolved_in(phi):
            del self.unsolved[axis.name]
            self.result.free.append(axis)
        self.result.conditions.append(IndexCompare("eq", phi, target))

    def _rises(self, phi: Dim, at: Axis) -> bool:
        """Solve phi, or phi + r for another axis r, where it never falls along its only axis: a few
        positions of that are tried, and r follows."""
        axes = self.unsolved_in(phi)
        taps = [axis for axis in axes if axis.i in _terms(phi)]
        if len(axes) - len(taps) != 1 or len(taps) > 1:
            return False
        (main,) = (axis for axis in axes if axis not in taps)
        rising = phi - taps[0].i if taps else phi
        reach = taps[0].extent if taps else 1
        found = interval(rising, main, reach, at) if isinstance(reach, int) else None
        if found is None:
            return False
        place = found.start
        if found.length > 1:
            t = Axis(self.names(), found.length)
            self.result.free.append(t)
            place = place + t.i
        self._bind(main, place)
        rest = at.i - substitute(rising, {main.name: place})
        if taps:
            self._bind(taps[0], rest)
        else:
            self._vanishes(rest)
        return True

    def _linear(self, phi: Dim) -> tuple[list[tuple[int, Axis]], Dim] | None:
        """(coefficients of unsolved axes, what is left), or None where phi is not such a sum."""
        coefficients: list[tuple[int, Axis]] = []
        rest: Dim = 0
        for monomial, coefficient in terms_of(phi):
            term = make({monomial: coefficient})
            inside = self.unsolved_in(term)
            if not inside:
                rest = rest + term
                continue
            (atom, power), *others = monomial
            plain = isinstance(atom, Symbol) and power == 1 and not others
            if not plain or not isinstance(coefficient, int):
                return None
            coefficients.append((coefficient, inside[0]))
        return coefficients, rest

    def _solve(self, coefficients: list[tuple[int, Axis]], target: Dim) -> None:
        """sum of coefficient * axis = target"""
        left: list[tuple[int, Axis]] = []
        mirrored: dict[str, Axis] = {}
        for coefficient, axis in coefficients:
            if coefficient < 0:  # the axis counted from its end
                target = target - (axis.extent - 1) * coefficient
                mirrored[axis.name] = axis
            left.append((abs(coefficient), axis))
        left.sort(key=lambda pair: -pair[0])

        def take(axis: Axis, value: Dim) -> None:
            known = axis.extent - 1 - value if axis.name in mirrored else value
            self._bind(axis, known)

        while left:
            (scale, axis), others = left[0], left[1:]
            span = _span(others)
            if span is not None and span < scale:
                value = floor_div(target, scale)
                take(axis, value)
                target = target - value * scale
                left = others
                continue
            left, target = self._meet(left, target, take)
        self._vanishes(target)

    def _meet(
        self,
        left: list[tuple[int, Axis]],
        target: Dim,
        take: Callable[[Axis, Dim], None],
    ) -> tuple[list[tuple[int, Axis]], Dim]:
        """The longest axis solved for, one along a lattice, the others free."""
        (stride, main), (dilation, taps), *others = sorted(left, key=_longest_first)
        for scale, axis in others:
            free = Axis(self.names(), axis.extent)
            self.result.free.append(free)
            take(axis, free.i)
            target = target - free.i * scale
        found = lattice(target, stride, dilation, taps.extent, self.names())
        only = {found.t.name: 0} if found.t.extent == 1 else {}
        if not only:
            self.result.free.append(found.t)
        if found.condition is not None:
            self.result.conditions.append(found.condition)
        take(taps, substitute(found.tap, only))
        take(main, substitute(found.source, only))
        return [], 0

    def _bind(self, axis: Axis, value: Dim) -> None:
        del self.unsolved[axis.name]
        self.result.values[axis.name] = value
        within = self._range(value, axis.extent)
        if within is not None:
            self.result.within.append(within)

    def _range(self, value: Dim, extent: Dim) -> Within | None:
        if any(value == axis.i and extent == axis.extent for axis in self._running()):
            return None
        low, _ = bounds(value)
        last, _ = bounds(extent - 1 - value)
        within = Within(value, extent, low is None or low < 0, last is None or last < 0)
        return within if within.low or within.high else None

    def _running(self) -> Iterator[Axis]:
        yield from self.at
        yield from self.result.free

    def _vanishes(self, rest: Dim) -> None:
        """What is left of an equation is nothing."""
        if (isinstance(rest, SymDim) and bounds(rest) != (0, 0)) or (
            isinstance(rest, int) and rest
        ):
            self.result.conditions.append(IndexCompare("eq", rest, 0))


def _terms(value: Dim) -> list[Dim]:
    """What is added up, each with its coefficient."""
    return [make({monomial: coefficient}) for monomial, coefficient in terms_of(value)]


def _span(axes: Sequence[tuple[int, Axis]]) -> int | None:
    """The greatest sum of axes times scales; None where extents are not known."""
    total = 0
    for scale, axis in axes:
        if not isinstance(axis.extent, int):
            return None
        total += scale * (axis.extent - 1)
    return total


def _longest_first(pair: tuple[int, Axis]) -> tuple[int, int, int]:
    """Sizes that are not known count as longest; among equals the greatest scale is first."""
    scale, axis = pair
    return (1, -axis.extent, -scale) if isinstance(axis.extent, int) else (0, 0, -scale)
