"""How the positions of a convolution are cut into the tiles of forms.

Along an axis of stride 1 a tile makes m outputs from t inputs. With dilation d, tiles are of every
d-th position: the axis falls into d phases, which are convolutions without. An axis of one tap
has tiles of one position. All tiles of all images are numbered in one row, so that blocks of
them are full on small maps too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

from convdsl.kernel.counting import decide
from convdsl.kernel.expr import Axis
from convdsl.kernel.nodes import IndexTest
from convdsl.schedules.contraction import Convolution, Space
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.schedules.filtering import Form
from convdsl.schedules.forms import form
from convdsl.schedules.fourier import LENGTHS
from convdsl.tensor import Dim, ceil_div, dim_max, dim_min, floor_div
from convdsl.tensor.records import record

_OUTPUTS = {3: (2, 4, 6), 5: (2, 4), 7: (2,)}
"""For filters of so many taps, the outputs of the forms that are tried."""

AMPLIFICATION = 16.0
"""The largest growth of rounding errors that is allowed, in rms: F(6, 3) along both axes has 15.4.
Direct sums are off by 1e-7 to 1e-6 of the output's range."""


@record
class Line:
    """One spatial axis in tiles of a form."""

    space: Space
    form: Form

    @property
    def own(self) -> int:
        """Outputs that a tile has."""
        return self.form.m

    @property
    def reach(self) -> int:
        """Inputs that a tile reads."""
        return self.form.t

    @property
    def step(self) -> int:
        """From one position of a tile to the next."""
        return self.space.dilation if self.space.taps > 1 else 1

    @property
    def phases(self) -> int:
        return min(self.step, self.space.outs)

    @property
    def tiles(self) -> int:
        """Of a phase; the last of some phases may lie beyond the outputs."""
        return -(-self.space.outs // (self.step * self.own))

    @property
    def count(self) -> int:
        return self.phases * self.tiles

    def first(self, tile: Dim) -> Dim:
        """The first output of a tile."""
        phase = floor_div(tile, self.tiles)
        return phase + (tile - phase * self.tiles) * (self.own * self.step)

    def outputs(self, first: Dim) -> Dim:
        """How many outputs the tile has that begins there."""
        whole = (self.tiles - 1) * self.own * self.step + self.phases - 1
        if whole + (self.own - 1) * self.step < self.space.outs:
            return self.own
        return dim_min(self.own, ceil_div(self.space.outs - first, self.step))

    def output(self, first: Dim, number: Dim) -> Dim:
        return first + number * self.step

    def input(self, first: Dim, number: Dim) -> Dim:
        """Where the tile that makes outputs from `first` on finds an input."""
        return first + number * self.step - self.space.pad

    @property
    def has_inner(self) -> bool:
        """Whether some tile has all its inputs inside the map."""
        return any(not self.beyond(self.first(tile)) for tile in range(self.count))

    def beyond(self, first: Dim) -> list[Dim]:
        """How far its inputs reach beyond either end, where they may."""
        low, high = self.input(first, 0), self.input(first, self.reach - 1)
        ends = (-low, high - (self.space.extent - 1))
        return [end for end in ends if decide(IndexTest("le", end, 0)) is not True]


@record
class Tiling:
    """The tiles of a convolution: of images x rows x columns."""

    images: int
    lines: tuple[Line, ...]

    @staticmethod
    def of(conv: Convolution, outputs: Sequence[int]) -> Tiling:
        """With so many outputs along each axis."""
        lines = (Line(s, form(m, s.taps)) for s, m in zip(conv.space, outputs, strict=True))
        return Tiling(extent_of(conv.n), tuple(lines))

    @property
    def count(self) -> int:
        return self.images * prod(line.count for line in self.lines)

    @property
    def products(self) -> int:
        """Of a tile, for each pair of channels."""
        return prod(line.form.products for line in self.lines)

    @property
    def outputs(self) -> int:
        """Of a tile."""
        return prod(line.own for line in self.lines)

    @property
    def has_inner(self) -> bool:
        """Whether some tile has all its inputs inside the map."""
        return all(line.has_inner for line in self.lines)

    @property
    def amplification(self) -> float:
        """Of rounding errors."""
        return prod(line.form.amplification for line in self.lines)

    @property
    def rounding(self) -> float:
        """Of errors that come from rounding both factors."""
        return prod(line.form.rounding for line in self.lines)

    @property
    def forms(self) -> str:
        """What the form along each axis is called."""
        return " x ".join(line.form.said for line in self.active)

    @property
    def said(self) -> str:
        """The form along each axis, and how much larger than those of direct sums errors may be."""
        return f"{self.forms}, errors x {self.amplification:.1f}"

    @property
    def active(self) -> tuple[Line, ...]:
        """The axes along which something is transformed."""
        return tuple(line for line in self.lines if line.form.t > 1)

    def spread(self, i: Dim, j: Dim) -> list[Dim]:
        """A position of a tile on its active axes, one (j) or two, on all axes."""
        numbers = iter((j,) if len(self.active) == 1 else (i, j))
        return [next(numbers) if line.form.t > 1 else 0 for line in self.lines]

    def place(self, tile: Dim) -> tuple[Dim, list[Dim]]:
        """The image of a tile, and its first output along each axis."""
        firsts: list[Dim] = []
        for line in reversed(self.lines):
            above = floor_div(tile, line.count)
            firsts.insert(0, line.first(tile - above * line.count))
            tile = above
        return tile, firsts

    def there(self, firsts: Sequence[Dim]) -> list[Dim]:
        """How many outputs a tile has along each active axis."""
        pairs = zip(self.lines, firsts, strict=True)
        return [line.outputs(first) for line, first in pairs if line.form.t > 1]

    def leaves(self, firsts: Sequence[Dim]) -> IndexTest | None:
        """Whether some input of a tile lies beyond the map; None where that is so of no tile."""
        pairs = zip(self.lines, firsts, strict=True)
        ends = [end for line, first in pairs for end in line.beyond(first)]
        return IndexTest("gt", dim_max(*ends), 0) if ends else None

    def guards(self, index: Sequence[Dim]) -> tuple[IndexTest, ...]:
        """What must be asked before an input is read."""
        pairs = zip(index, self.lines, strict=True)
        return tuple(t for at, line in pairs for t in bounds_tests(at, line.space.extent))

    def bind(self, positions: Sequence[Dim]) -> Mapping[str, Dim]:
        """The output's axes at a position."""
        axes: list[Axis] = [line.space.out for line in self.lines]
        return {axis.name: at for axis, at in zip(axes, positions, strict=True)}


def tilings(conv: Convolution) -> Iterator[Tiling]:
    """One form for each axis of more than a tap, of one or two such; none that amplifies much."""
    taps = [s.taps for s in conv.space]
    wide = sum(t > 1 for t in taps)
    if wide not in (1, 2) or any(t > 1 and t not in _OUTPUTS for t in taps):
        return
    for outputs in product(*(_OUTPUTS.get(t, (1,)) for t in taps)):
        if wide == 2 and len(set(taps)) == 1 and len(set(outputs)) > 1:
            continue
        tiling = Tiling.of(conv, outputs)
        if tiling.amplification <= AMPLIFICATION:
            yield tiling


_LEAST_TAPS = 25
"""Of a filter that is worth the transforms of long tiles."""

_NEW = 0.25
"""Of the inputs of a tile, the least share that the next one does not read again."""


def spectral_tilings(conv: Convolution) -> Iterator[Tiling]:
    """The same at roots of unity: lengths of which a good part is outputs, none longer than the
    shortest that covers an axis."""
    wide = [s for s in conv.space if s.taps > 1]
    if len(wide) not in (1, 2) or conv.taps < _LEAST_TAPS:
        return
    for outputs in product(*(_lengths(s) if s.taps > 1 else [1] for s in conv.space)):
        yield Tiling.of(conv, outputs)


def _lengths(space: Space) -> list[int]:
    """Outputs of the tiles that may do."""
    outs = -(-space.outs // space.dilation)
    found: list[int] = []
    for length in LENGTHS:
        m = length - space.taps + 1
        if m >= _NEW * length:
            found.append(m)
            if m >= outs:
                break
    return found
