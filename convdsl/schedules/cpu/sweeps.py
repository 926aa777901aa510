"""In which order a direct convolution meets its filters and its positions.

Filters that fit the second-level cache are swept once for every register tile. Larger ones come
from memory, which should happen once: they are cut into panels that stay in the first-level
cache while all positions of a band are swept. Bands are rows of the output, or tiles where all
positions lie on one axis.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from convdsl.kernel.cpu_abi import SHARES
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.tiles import NEAR
from convdsl.tensor.records import record

LINE_BYTES = 64  # of a cache, on every processor that there is code for
PAGE_BYTES = 4096  # of memory: addresses are translated by the page
_STAY = Fraction(2, 5)  # of the second-level cache: for filters that are read again and again
_BAND = Fraction(3, 20)  # of the second-level cache: for sums, or inputs, that wait for a sweep
_UNITS = 32  # independent pieces of work that give a team enough to share out
_FEW_UNITS = 8  # the same where each piece reads large filters
_FAR = 4  # second-level caches: inputs that are this large come from afar for each tile of channels
_BESIDE = 2  # bands: for sums of all channels and inputs of a panel, of bands that all tiles sweep
_PIECES = 3  # bytes of filters, which come in order, for one of inputs, which lie in short pieces
_WORTH = 2  # times fewer of these that are worth another order
_BAND_COST = 0.005  # what one more band adds: panels are fetched again


@record
class Limits:
    """What may lie where, in bytes: shares of a core's caches. The shares are those that were
    fastest with 48 KB and 1.25 MB: 512 KB of filters, panels of 32 KB, bands of 192 KB."""

    stay: int  # filters in the second-level cache
    panel: int  # filters in the first-level cache
    band: int  # sums or inputs in the second-level cache
    far: int  # inputs of which little is left there, or behind it, when they are met again

    @staticmethod
    def of(target: Target) -> Limits:
        first, second = target.caches.l1_bytes, target.caches.l2_bytes
        return Limits(int(second * _STAY), int(first * NEAR), int(second * _BAND), second * _FAR)


@record
class Sweeps:
    """Filters are read in `panels` of `panel` blocks of input channels; positions are cut into
    `bands` of `size` pieces (rows or tiles), each swept by one panel after the other: by those of
    `abreast` tiles of channels in turn, before it is swept by the next."""

    panel: int
    panels: int
    size: int
    bands: int
    abreast: int = 1


@record
class Extent:
    """What is to be swept. Sizes in bytes."""

    filters: int  # all of them
    slab: int  # those of a register tile for one block of input channels
    blocks: int  # of input channels
    others: int  # tiles of channels, images and planes: pieces of work besides the bands
    pieces: int  # rows or tiles that bands are made of
    inputs: int  # of all positions
    sums: int  # of all positions, of one tile of channels


def choose_sweeps(extent: Extent, limits: Limits) -> Sweeps:
    """Panels that fit, and bands that fit and share out evenly."""
    stay = extent.filters <= limits.stay
    panel = extent.blocks
    if not stay:
        panels = -(-panel // max(1, min(panel, limits.panel // extent.slab)))
        panel = -(-panel // panels)
    waiting = extent.sums if panel < extent.blocks else extent.inputs
    least = max(-(-(_UNITS if stay else _FEW_UNITS) // extent.others), -(-waiting // limits.band))
    least = min(least, extent.pieces)
    size = min(
        (extent.pieces // bands for bands in range(least, min(2 * least + 2, extent.pieces) + 1)),
        key=lambda size: _share_cost(extent.others, extent.pieces, size),
    )
    return Sweeps(panel, -(-extent.blocks // panel), size, -(-extent.pieces // size))


def sweep_abreast(extent: Extent, limits: Limits, tiles: int) -> Sweeps | None:
    """The panels, and bands that the same panel of several `tiles` of channels, abreast, sweeps
    before the next one does: of large inputs, which come from afar once for all of these then. But
    filters are read again for each band, and sums of all that stand abreast wait beside the inputs
    of a panel. As many as read the fewest bytes; None where that saves nothing, or too few
    bands are left to share out."""
    panel = choose_sweeps(extent, limits).panel
    if panel == extent.blocks or extent.inputs < limits.far:
        return None
    best: tuple[int, Sweeps] | None = None
    once = extent.inputs * _PIECES
    for abreast in (n for n in range(2, tiles + 1) if tiles % n == 0):
        waiting = extent.sums * abreast + extent.inputs * panel // extent.blocks
        bands = -(-waiting // (_BESIDE * limits.band))
        size = max(1, extent.pieces // bands)
        bands = -(-extent.pieces // size)
        read = once * (tiles // abreast) + bands * extent.filters
        shared_out = bands * extent.others >= _FEW_UNITS * abreast
        if shared_out and (best is None or read < best[0]):
            best = read, Sweeps(panel, -(-extent.blocks // panel), size, bands, abreast)
    return best[1] if best and best[0] * _WORTH < tiles * once else None


@lru_cache(maxsize=4096)
def _share_cost(others: int, pieces: int, size: int) -> float:
    """Time of two threads that share the work out, in that of all its pieces halved."""
    bands = [min(size, pieces - start) for start in range(0, pieces, size)]
    works = [work for _ in range(min(others, 64)) for work in bands]
    shares = 2 * SHARES
    cuts = [len(works) * share // shares for share in range(shares + 1)]
    clocks = [0, 0]
    for start, stop in pairwise(cuts):
        clocks[clocks.index(min(clocks))] += sum(works[start:stop])
    return 2 * max(clocks) / sum(works) + _BAND_COST * len(bands)
