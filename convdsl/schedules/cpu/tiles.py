"""Register tiles of contractions: output blocks x columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, lru_cache, partial

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Load, Value
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.memory import FAR
from convdsl.tensor.records import record


@record
class Tile:
    """`blocks` vectors of output channels times `columns` output positions, in registers. For the
    filters of its last blocks there may be none: every multiply-add reads those `afresh`."""

    blocks: int
    columns: int
    afresh: int = 0

    def filters(
        self, b: Builder, blocks: int, columns: int, load: Callable[[int], Load]
    ) -> list[Value]:
        """The vectors of filters that a part of the tile meets."""
        whole = (blocks, columns) == (self.blocks, self.columns)
        held = blocks - self.afresh * whole
        return [
            b.let(load(i)) if i < held else replace(load(i), afresh=True) for i in range(blocks)
        ]


def tile_cycles(target: Target, blocks: int, columns: int) -> float:
    """Cycles for one input element of the tile: two multiply-adds a cycle, or one broadcast of an
    input element, or two loads of filters; below seven, latency shows. The loop comes on top.

    Vectors of 32 bytes and less are broadcast two a cycle on x86, and their multiply-adds wait for
    each other below four: 2 x 4 and 2 x 5 are at the peak of a Zen 3, as 2 x 6 and 3 x 4 are."""
    work = blocks * columns / 2
    if target.architecture == "x86_64" and target.vector_bytes < 64:
        return max(work, (columns + blocks) / 2, 4.0) + 0.25
    return max(work, columns + blocks / 2, 7.0) + 0.25


def swept_cycles(target: Target, blocks: int, columns: int, depth: int) -> float:
    """The same where each block has `depth` vectors of filters, which all tiles meet. What the
    first-level cache does not keep from one tile to the next comes from the second, or from
    beyond that."""
    cycles, each = tile_cycles(target, blocks, columns), blocks * target.vector_bytes
    if depth * each > target.caches.l2_bytes * _STAYS:
        return max(cycles, each / FAR)
    far = depth * each > target.caches.l1_bytes * NEAR
    return max(cycles, each / FROM_SECOND) if far else cycles


@record
class Room:
    """The registers for a tile, and whether multiply-adds may read filters from memory."""

    registers: int
    folds: bool
    spare: bool  # no tile takes them all

    def over(self, blocks: int, columns: int) -> int:
        """Registers that a tile needs beyond those there are: one for each accumulator, one for
        each block of filters, one for the input element."""
        return blocks * columns + blocks + 1 - self.registers

    def afresh(self, blocks: int, columns: int) -> int:
        """Of how many blocks the filters come from memory at every column, for want of registers:
        where no two are free, LLVM moves accumulators about. Two loads a cycle are to be had."""
        wanted = max(0, self.over(blocks, columns) + _FREE) * self.folds
        fetched = blocks * columns - columns - blocks  # beyond an element a column and all filters
        return min(wanted, max(0, fetched // (columns - 1))) if columns > 1 else 0

    def holds(self, blocks: int, columns: int) -> bool:
        """Whether a tile has room."""
        over = self.over(blocks, columns)
        return over <= 0 or (over == 1 and not self.spare and self.afresh(blocks, columns) > 0)


NEAR = Fraction(2, 3)  # of the first-level cache: for filters that are met again and again
FROM_SECOND = 24.0  # bytes a cycle from the second-level cache: 21 on a Zen 5, 30 on an Ice Lake
_STAYS = 0.5  # of the second-level cache: what is found there again
PATCH = 14  # positions that a tile of several rows may have
_FREE = 2  # registers: for the next element, and for what LLVM keeps through a loop
_FROM_MEMORY = 0.5  # cycles that a tile loses that would not fit otherwise
_TAIL_WORTH = 1.03  # a tile that leaves blocks over must be this much better: few share the rest


@lru_cache(maxsize=4096)  # equal layers ask alike, each several times
def choose_tile(
    target: Target,
    blocks: int,
    columns: int,
    must_divide: bool = False,
    rows: int = 1,
    spare: bool = False,
    each: int = 1,
    even: bool = False,
    depth: int = 0,
) -> Tile:
    """The tile that covers blocks x columns, or several whole rows of so many columns where rows
    are that many and narrow, in the fewest cycles; the larger one of equals, and
    one that divides the blocks rather than one that does not.

    A tile needs a register for each accumulator, one for each block of filters and one for the
    input element; one less where multiply-adds read the filters of one block from memory (AVX-512),
    which takes a little longer, and not with `spare`, nor where a vector takes several registers
    (`each`). `even`: columns are cut by `evenly`.
    `depth`: vectors of filters that a tile meets of each block, as of `swept_cycles`."""
    folds = target.architecture == "x86_64" and target.vector_bytes == 64 and each == 1
    room = Room(target.vector_registers // each, folds, spare)
    pieces = _even_pieces if even else _pieces
    swept = cache(partial(swept_cycles, target, depth=depth))
    whole = _best_tile(room, blocks, (columns, rows), pieces, swept, must_divide=True)
    if must_divide:
        return whole[1]
    any_tile = _best_tile(room, blocks, (columns, rows), pieces, swept, must_divide=False)
    return whole[1] if whole[0] <= any_tile[0] * _TAIL_WORTH else any_tile[1]


def columns_for(target: Target, blocks: int, columns: int, each: int = 1, depth: int = 0) -> int:
    """The columns of a tile of just so many blocks."""
    room = max(1, (target.vector_registers // each - 1) // blocks - 1)

    def cycles(width: int) -> float:
        pieces = evenly(columns, width)
        return sum(swept_cycles(target, blocks, own, depth) * n for own, n in pieces)

    return min(range(1, min(room, columns) + 1), key=lambda width: (cycles(width), -width))


def _best_tile(
    room: Room,
    blocks: int,
    positions: tuple[int, int],
    pieces_of: Callable[[int, int, int], list[tuple[int, int]] | None],
    cycles_of: Callable[[int, int], float],
    must_divide: bool,
) -> tuple[float, Tile]:
    """Of columns x rows of positions, cut into tiles of some width by `pieces_of`, each of which
    takes so many cycles a step."""
    columns, rows = positions
    best: tuple[float, int, Tile] | None = None
    for k in range(1, min(blocks, 8) + 1):
        if must_divide and blocks % k:
            continue
        for q in range(1, min(max(columns, PATCH), 30) + 1):
            if not room.holds(k, q):
                break
            pieces = pieces_of(columns, rows, q)
            if pieces is None:
                continue
            step = (room.over(k, q) > 0) * _FROM_MEMORY
            cycles = _covered(blocks, k, pieces, lambda b, w, step=step: cycles_of(b, w) + step)
            key = (cycles, -k * q, Tile(k, q, room.afresh(k, q)))
            if best is None or key[:2] < best[:2]:
                best = key
    assert best is not None
    return best[0], best[2]


def _covered(
    blocks: int,
    own: int,
    pieces: Sequence[tuple[int, int]],
    cycles_of: Callable[[int, int], float],
) -> float:
    """Cycles of a step of all tiles: of `own` blocks, and of those that are left."""
    return sum(
        cycles_of(part, width) * count * runs
        for part, count in split(blocks, own)
        for width, runs in pieces
    )


def covered_cycles(
    target: Target, tile: Tile, blocks: int, columns: int, rows: int = 1, depth: int = 0
) -> float:
    """Cycles of a step of all the tiles that cover blocks x columns x rows, as `choose_tile` cut
    them."""
    pieces = _pieces(columns, rows, tile.columns)
    assert pieces is not None
    return _covered(blocks, tile.blocks, pieces, partial(swept_cycles, target, depth=depth))


def tile_count(tile: Tile, blocks: int, columns: int, rows: int = 1) -> int:
    """How many tiles that are."""
    pieces = _pieces(columns, rows, tile.columns)
    assert pieces is not None
    return -(-blocks // tile.blocks) * sum(runs for _, runs in pieces)


def _pieces(columns: int, rows: int, width: int) -> list[tuple[int, int]] | None:
    """(width, how many) of the tiles that cover rows x columns: pieces of rows, or whole rows."""
    if width <= columns:
        return [(part, count * rows) for part, count in split(columns, width)]
    if width % columns or width // columns > rows or width > PATCH:
        return None
    return list(split(columns * rows, width))


def _even_pieces(columns: int, rows: int, width: int) -> list[tuple[int, int]] | None:
    if width > columns:
        return None
    return [(part, count * rows) for part, count in evenly(columns, width)]


def evenly(total: int, most: int) -> list[tuple[int, int]]:
    """(size, how many) of the fewest pieces of at most `most`, that differ by one at most: a piece
    of one or two by itself would wait for its own sums."""
    count = -(-total // most)
    less, more = divmod(total, count)
    return [(size, n) for size, n in ((less + 1, more), (less, count - more)) if n]


def split(total: int, size: int) -> Iterable[tuple[int, int]]:
    """(size, how many) of the pieces of `total`: whole ones, then what is left."""
    whole, rest = divmod(total, size)
    if whole:
        yield size, whole
    if rest:
        yield rest, 1
