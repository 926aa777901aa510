"""Fields as arithmetic: intervals that move with the position that sees them.

Along one axis the field of position o is

    lo, hi of phases[o mod T], both + (o div T) * advance

A path is one such field, a field the union of paths that move differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

from convdsl.analysis.access import Access, Span, Taps
from convdsl.tensor import Dim, dim_max, dim_min
from convdsl.tensor.records import record

LONGEST_PERIOD = 2**14


@record
class Interval:
    """Positions lo..hi."""

    lo: Dim
    hi: Dim

    def shifted(self, by: Dim) -> Interval:
        return Interval(self.lo + by, self.hi + by)

    def hull(self, other: Interval) -> Interval:
        return Interval(_least(self.lo, other.lo), _greatest(self.hi, other.hi))


def _least(a: Dim, b: Dim) -> Dim:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else dim_min(a, b)


def _greatest(a: Dim, b: Dim) -> Dim:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else dim_max(a, b)


_ratio = lru_cache(maxsize=10_000)(Fraction)


@record
class Path:
    """A field that moves along one axis of the value (None: is the same everywhere).

    A phase of None sees nothing: the holes of a transposed convolution. `gathered`: it is what all
    channels see together, since space was laid into channels; one of them sees less.
    """

    axis: int | None
    advance: int
    phases: tuple[Interval | None, ...]
    gathered: bool = False

    @property
    def rate(self) -> Fraction:
        return _ratio(self.advance, len(self.phases))

    def at(self, position: int) -> Interval | None:
        turns, phase = divmod(position, len(self.phases))
        interval = self.phases[phase]
        return interval and (interval.shifted(turns * self.advance) if turns else interval)


@record
class Field:
    """The union of paths that move differently; `aligned` as the module says."""

    paths: tuple[Path, ...]
    aligned: bool = True

    def at(self, positions: Mapping[int, int]) -> Interval | None:
        """What the value's element at `positions` (by axis) sees; None for nothing."""
        hull: Interval | None = None
        for path in self.paths:
            interval = path.at(0 if path.axis is None else positions[path.axis])
            if interval is not None:
                hull = interval if hull is None else hull.hull(interval)
        return hull


class UnavailableError(Exception):
    """No exact field is known."""


def compose(path: Path, access: Access) -> Path:
    """The field of what an access reads from a value whose field is `path`."""
    period = len(path.phases)
    turns = period // gcd(period, access.advance)
    length = len(access.phases) * turns
    if length > LONGEST_PERIOD:
        raise UnavailableError
    phases: list[Interval | None] = []
    for position in range(length):
        turn, phase = divmod(position, len(access.phases))
        phases.append(_hull(path, access.phases[phase], turn * access.advance))
    advance = path.advance * (access.advance * turns // period)
    return _shortest(Path(access.axis, advance, tuple(phases), path.gathered or access.gathered))


def _hull(path: Path, taps: Taps, shift: int) -> Interval | None:
    """The interval seen through all taps together."""
    if isinstance(taps, Span):
        (interval,) = path.phases if len(path.phases) == 1 else (None,)
        if interval is None:
            raise UnavailableError
        ends = [interval.shifted(end * path.advance) for end in (taps.first, taps.last)]
        ends = [end.shifted(shift * path.advance) for end in ends]
        low, high = ends if path.advance >= 0 else reversed(ends)
        return Interval(low.lo, high.hi)
    if not taps:
        return None
    period = len(path.phases)
    if period == 1:  # monotone: the ends decide
        (interval,) = path.phases
        if interval is None:
            return None
        ends = [(taps[end] + shift) * path.advance for end in (0, -1)]
        return Interval(interval.lo + min(ends), interval.hi + max(ends))
    if isinstance(taps, range) and len(taps) > 2 * period:  # monotone in every phase
        taps = (*taps[:period], *taps[-period:])
    result: Interval | None = None
    for tap in taps:
        interval = path.at(tap + shift)
        if interval is not None:
            result = interval if result is None else result.hull(interval)
    return result


def _shortest(path: Path) -> Path:
    """The same path with the shortest period."""
    length = len(path.phases)
    for period in range(1, length):
        if length % period or (path.advance * period) % length:
            continue
        advance = path.advance * period // length
        short = replace(path, advance=advance, phases=path.phases[:period])
        if all(short.at(o) == path.phases[o] for o in range(period, length)):
            return short
    return path


def union(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Paths that move alike become one."""
    paths = tuple(paths)
    if len(paths) == 1:
        return paths
    merged: dict[tuple[int | None, int, int], Path] = {}
    for path in paths:
        common = gcd(path.advance, len(path.phases))
        key = (path.axis, path.advance // common, len(path.phases) // common)
        merged[key] = _merge(merged[key], path) if key in merged else path
    return tuple(merged.values())


def _merge(a: Path, b: Path) -> Path:
    if a == b:
        return a
    length = lcm(len(a.phases), len(b.phases))
    if length > LONGEST_PERIOD:
        raise UnavailableError
    phases: list[Interval | None] = []
    for position in range(length):
        first, second = a.at(position), b.at(position)
        phases.append(first.hull(second) if first and second else first or second)
    advance, gathered = a.advance * length // len(a.phases), a.gathered or b.gathered
    return _shortest(Path(a.axis, advance, tuple(phases), gathered))
