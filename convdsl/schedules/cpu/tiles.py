"""Register tiles of contractions: output blocks x columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from convdsl.kernel.target import Target


@dataclass(frozen=True, slots=True)
class Tile:
    """`blocks` vectors of output channels times `columns` output positions, in registers."""

    blocks: int
    columns: int


def tile_cycles(blocks: int, columns: int) -> float:
    """Cycles for one input element of the tile: two multiply-adds a cycle, or one broadcast of an
    input element, or two loads of filters; below seven, latency shows. The loop comes on top."""
    return max(blocks * columns / 2, columns + blocks / 2, 7.0) + 0.25


PATCH = 14  # positions that a tile of several rows may have
_FROM_MEMORY = 0.5  # cycles that a tile loses where multiply-adds broadcast from memory
_TAIL_WORTH = 1.03  # a tile that leaves blocks over must be this much better: few share the rest


def choose_tile(
    target: Target,
    blocks: int,
    columns: int,
    must_divide: bool = False,
    rows: int = 1,
    spare: bool = False,
    each: int = 1,
) -> Tile:
    """The tile that covers blocks x columns, or several whole rows of so many columns where rows
    are that many and narrow, in the fewest cycles; the larger one of equals, and
    one that divides the blocks rather than one that does not.

    A tile needs a register for each accumulator, one for each block of filters and one for the
    input element; not that one where a multiply-add can broadcast from memory (AVX-512), which
    takes a little longer, and not with `spare`, nor where a vector takes several registers
    (`each`): filling them all then halved the speed."""
    target = replace(target, vector_registers=target.vector_registers // each)
    spare = spare or each > 1
    whole = _best_tile(target, blocks, columns, rows, spare, must_divide=True)
    if must_divide:
        return whole[1]
    any_tile = _best_tile(target, blocks, columns, rows, spare, must_divide=False)
    return whole[1] if whole[0] <= any_tile[0] * _TAIL_WORTH else any_tile[1]


def _best_tile(
    target: Target, blocks: int, columns: int, rows: int, spare: bool, must_divide: bool
) -> tuple[float, Tile]:
    best: tuple[float, int, Tile] | None = None
    budget = target.vector_registers
    from_memory = target.architecture == "x86_64" and target.vector_bytes == 64 and not spare
    for k in range(1, min(blocks, 8) + 1):
        if must_divide and blocks % k:
            continue
        for q in range(1, min(max(columns, PATCH), 30) + 1):
            full = k * q + k == budget
            if k * q + k > budget or (full and not from_memory):
                break
            pieces = _pieces(columns, rows, q)
            if pieces is None:
                continue
            cycles = sum(
                (tile_cycles(part, width) + full * _FROM_MEMORY) * count * runs
                for part, count in split(blocks, k)
                for width, runs in pieces
            )
            key = (cycles, -k * q, Tile(k, q))
            if best is None or key[:2] < best[:2]:
                best = key
    assert best is not None
    return best[0], best[2]


def _pieces(columns: int, rows: int, width: int) -> list[tuple[int, int]] | None:
    """(width, how many) of the tiles that cover rows x columns: pieces of rows, or whole rows."""
    if width <= columns:
        return [(part, count * rows) for part, count in split(columns, width)]
    if width % columns or width // columns > rows or width > PATCH:
        return None
    return list(split(columns * rows, width))


def split(total: int, size: int) -> Iterable[tuple[int, int]]:
    """(size, how many) of the pieces of `total`: whole ones, then what is left."""
    whole, rest = divmod(total, size)
    if whole:
        yield size, whole
    if rest:
        yield rest, 1
