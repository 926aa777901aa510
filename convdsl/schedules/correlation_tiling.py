"""How the positions of a correlation are cut into the tiles of forms.

    y[r] = sum over tiles of sum over i of a[i] b[i + r]
         = A sum over tiles of (G a) * (B b)

One factor stands still, the taps move the other one. In a tile of m positions the first is a filter
of m taps over the second, with as many outputs as the correlation has taps: the form F(taps, m). A
is linear, and applied once, to what all tiles add up to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from convdsl.schedules.contraction import Space
from convdsl.schedules.correlation import Correlation, Place, Positions
from convdsl.schedules.forms import form
from convdsl.schedules.steps import Steps
from convdsl.schedules.winograd import PAIRS
from convdsl.schedules.winograd_tiling import AMPLIFICATION, Line, Tiling
from convdsl.tensor.records import record


@record
class SumLine(Line):
    """One spatial axis of a factor, which is `moved` or not."""

    moved: bool

    @property
    def own(self) -> int:
        """Positions of a tile."""
        return self.form.r

    @property
    def reach(self) -> int:
        return self.form.t if self.moved else self.form.r

    @property
    def steps(self) -> Steps:
        """What the factor is multiplied as."""
        return self.form.inputs if self.moved else self.form.filters


@record
class Cut:
    """The tiles of both factors, numbered alike. `flips`: along which axes the taps go down."""

    a: Tiling
    b: Tiling
    flips: tuple[bool, ...]

    @property
    def matrices(self) -> tuple[tuple[Steps, ...], tuple[Steps, ...], tuple[Steps, ...]]:
        """Along each active axis what makes a and b ready to be multiplied, and y of their
        products."""
        a, b = (
            tuple(x.steps for x in t.active if isinstance(x, SumLine)) for t in (self.a, self.b)
        )
        return a, b, tuple(line.form.outputs for line in self.a.active)


def cuts(found: Correlation) -> Iterator[Cut]:
    """One form for each axis of more than a tap, of one or two such; none that amplifies much."""
    taps = [s.taps for s in found.space]
    wide = [t for t in taps if t > 1]
    if len(wide) not in (1, 2):
        return
    second = next((b for b in (True, False) if all(_moves(s, b) for s in found.space)), None)
    if second is None:
        return
    flips = tuple((s.b if second else s.a).shift < 0 for s in found.space)
    for sizes in product(*map(_sizes, taps)):
        chosen = {m for m, t in zip(sizes, taps, strict=True) if t > 1}
        if len(wide) == 2 and len(set(wide)) == 1 and len(chosen) > 1:
            continue
        a = _tiling(found, [s.a for s in found.space], sizes, not second)
        b = _tiling(found, [s.b for s in found.space], sizes, second)
        if a.amplification <= AMPLIFICATION:
            yield Cut(a, b, flips)


def _sizes(taps: int) -> list[int]:
    """Positions of a tile in the forms that are tried."""
    return [1] if taps == 1 else [t - taps + 1 for t in PAIRS if t > taps]


def _moves(s: Positions, second: bool) -> bool:
    """Whether taps move the second factor alone (else the first), and neither is read in steps."""
    still, moved = (s.a, s.b) if second else (s.b, s.a)
    if still.step != 1 or moved.step != 1 or still.leaves or still.shift:
        return False
    return s.taps == 1 or moved.shift != 0


def _tiling(
    found: Correlation, places: Sequence[Place], sizes: Sequence[int], moved: bool
) -> Tiling:
    """Of one factor. What stands still is read at the positions that are summed over, and zero
    beyond these."""
    lines: list[Line] = []
    for s, place, m in zip(found.space, places, sizes, strict=True):
        other = s.b if place is s.a else s.a
        dilation = max(abs(place.shift), abs(other.shift)) or 1
        start = place.start + min(place.shift, 0) * (s.taps - 1)
        extent = place.extent if moved else start + s.extent
        space = Space(s.axis, s.tap, extent, 1, dilation, -start)
        lines.append(SumLine(space, form(s.taps, m), moved))
    return Tiling(found.images, tuple(lines))
