"""Finds sums over positions of products of two maps: gradients of filters.

    y[v, c, r..] = epilogue(sum over n, p.. of a[n, v, i(p, r)..] b[n, c, j(p, r)..])

with indices i and j that are sums of multiples of a position, a tap and a constant.

As of contractions, only indices count: neither which factor comes first, nor which of them the taps
move, nor whether it was a convolution's or a transposed one's.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from convdsl.kernel.expr import Axis, Read, Reduce, Stage
from convdsl.schedules.contraction import Contraction, coefficient, depends, find_contraction
from convdsl.schedules.emission import extent_of
from convdsl.tensor import Dim, floor_div, substitute
from convdsl.tensor.records import record


@record
class Place:
    """Where one factor is read along one spatial axis: position * step + tap * shift + start, of
    `extent`; `leaves`: zeros are read beyond."""

    step: int
    shift: int
    start: int
    extent: int
    leaves: bool


@record
class Positions:
    """One spatial axis that is summed over, and the tap that moves along it, if one does."""

    axis: Axis
    tap: Axis | None
    a: Place
    b: Place

    @property
    def extent(self) -> int:
        return extent_of(self.axis)

    @property
    def taps(self) -> int:
        return 1 if self.tap is None else extent_of(self.tap)

    @property
    def whole(self) -> bool:
        """Whether both factors are read from end to end, one element after the other."""
        plain = Place(1, 0, 0, self.extent, leaves=False)
        return self.a == self.b == plain


@record
class Correlation:
    """See above. `v` are the channels of `a`, all of them, `c` those of `b` that meet one of `v`:
    all of them, or `c` of its group; None where that is a single one. `n` is None for one image.
    """

    reduce: Reduce
    a: Read
    b: Read
    n: Axis | None
    v: Axis
    c: Axis | None
    groups: int
    space: tuple[Positions, ...]

    @property
    def images(self) -> int:
        return 1 if self.n is None else extent_of(self.n)

    @property
    def channels(self) -> int:
        """Of `b` that each of `v` meets."""
        return 1 if self.c is None else extent_of(self.c)

    @property
    def per_group(self) -> int:
        """Channels of `a` in a group."""
        return extent_of(self.v) // self.groups

    @property
    def taps(self) -> int:
        return prod(space.taps for space in self.space)

    @property
    def positions(self) -> int:
        """Terms of each sum."""
        return self.images * prod(space.extent for space in self.space)

    def first_channel(self, v: Dim) -> Dim:
        """The first channel of `b` that meets channel `v` of `a`."""
        return 0 if self.groups == 1 else floor_div(v, self.per_group) * self.channels


@lru_cache(maxsize=512)
def match_correlations(stage: Stage, *, stored: bool = False) -> tuple[Correlation, ...]:
    """The correlation that a stage is, vectors along either factor's channels; nothing if it is
    none."""
    found = find_contraction(stage, stored=stored)
    if found is None or found.guards or found.alone or not found.k:
        return ()
    ways = (_correlation(stage, found), _correlation(stage, found.turned))
    return tuple(way for way in ways if way is not None)


def _correlation(stage: Stage, found: Contraction) -> Correlation | None:
    a, b = found.a, found.b
    if len(a.index) != len(b.index) or len(a.index) < 3 or a.index[0] != b.index[0]:
        return None
    if any((read.outside or 0.0) != 0.0 for read in (a, b)):
        return None
    n = next((axis for axis in found.k if a.index[0] == axis.i), None)
    v = next((axis for axis in stage.axes if a.index[1] == axis.i), None)
    if v is None or extent_of(v) != a.tensor.type.sizes[1] or (n is None and a.index[0] != 0):
        return None
    own = next((x for x in stage.axes if x != v and depends(b.index[1], x)), None)
    groups = _groups(b.index[1], v, own)
    if groups is None or b.tensor.type.sizes[1] != groups * (1 if own is None else extent_of(own)):
        return None
    space = _space(stage, found)
    if space is None:
        return None
    used = [axis.name for axis in (n, *(s.axis for s in space)) if axis is not None]
    summed = [axis.name for axis in found.k]
    if sorted(name for name in used if name in summed) != sorted(summed):
        return None
    taps = [s.tap for s in space if s.tap is not None]
    others = [x for x in stage.axes if extent_of(x) > 1 and x not in (v, own)]
    if sorted(x.name for x in others) != sorted(x.name for x in taps):
        return None
    return Correlation(found.reduce, a, b, n, v, own, groups, space)


def _groups(index: Dim, v: Axis, c: Axis | None) -> int | None:
    """Number of groups G where index = (v // (V / G)) * C + c."""
    channels = 1 if c is None else extent_of(c)
    rest = index - (0 if c is None else c.i)
    if rest == 0:
        return 1
    total = extent_of(v)
    for groups in range(2, total + 1):
        if total % groups == 0 and floor_div(v.i, total // groups) * channels == rest:
            return groups
    return None


def _space(stage: Stage, found: Contraction) -> tuple[Positions, ...] | None:
    """The spatial axes, each with its own summed axis and tap."""
    space: list[Positions] = []
    sizes = zip(found.a.tensor.type.sizes[2:], found.b.tensor.type.sizes[2:], strict=True)
    for number, (ours, theirs) in enumerate(sizes):
        at = found.a.index[2 + number], found.b.index[2 + number]
        summed = [x for x in found.k if any(depends(index, x) for index in at)]
        moved = [x for x in stage.axes if any(depends(index, x) for index in at)]
        if len(summed) > 1 or len(moved) > 1:
            return None
        axis = summed[0] if summed else Axis(f"one{number}", 1)
        tap = moved[0] if moved else None
        a = _place(at[0], axis, tap, ours, found.a.outside is not None)
        b = _place(at[1], axis, tap, theirs, found.b.outside is not None)
        if a is None or b is None:
            return None
        space.append(Positions(axis, tap, a, b))
    return tuple(space)


def _place(index: Dim, axis: Axis, tap: Axis | None, extent: int, may: bool) -> Place | None:
    moving = extent_of(axis) > 1
    step = coefficient(index, axis) if moving else 1
    shift = 0 if tap is None else coefficient(index, tap)
    start = substitute(index, {axis.name: 0} | ({tap.name: 0} if tap is not None else {}))
    if step is None or shift is None or not isinstance(start, int):
        return None
    if (
        index != (axis.i * step if moving else 0) + (0 if tap is None else tap.i * shift) + start
        or step < 0
    ):
        return None
    taps = 1 if tap is None else extent_of(tap)
    ends = [
        start + far * step + t * shift for far in (0, extent_of(axis) - 1) for t in (0, taps - 1)
    ]
    leaves = min(ends) < 0 or max(ends) >= extent
    return None if leaves and not may else Place(step, shift, start, extent, leaves)
