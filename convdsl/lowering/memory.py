"""The arena: where each intermediate tensor lies, tensors that never live together overlapping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from convdsl.ir.liveness import LiveRange

K = TypeVar("K", bound=Hashable)


def round_up(size: int, alignment: int) -> int:
    """Rounded up to a whole multiple."""
    return -(-size // alignment) * alignment


class _Placed:
    """What has its place: first and last step, first byte and last byte + 1 of each."""

    def __init__(self, most: int) -> None:
        self._columns = np.empty((4, most), np.int64)
        self._count = 0

    def add(self, live: LiveRange, start: int, end: int) -> None:
        self._columns[:, self._count] = live.first, live.last, start, end
        self._count += 1

    def lowest(self, live: LiveRange, size: int) -> int:
        """The lowest place for so many bytes that meets nothing alive at the same time."""
        first, last, *bytes_ = self._columns[:, : self._count]
        starts, ends = np.array(bytes_)[:, (first <= live.last) & (live.first <= last)]
        order = np.lexsort((ends, starts))
        below = np.concatenate(([0], np.maximum.accumulate(ends[order])))
        (gaps,) = np.nonzero(below[:-1] + size <= starts[order])
        return int(below[gaps[0]] if len(gaps) else below[-1])


def plan_arena(
    ranges: Mapping[K, LiveRange], sizes: Mapping[K, int], alignment: int
) -> tuple[dict[K, int], int]:
    """(offset of each key, bytes in all), all of them multiples of `alignment`. Largest first,
    each at the lowest offset where it meets nothing that is alive together with it."""
    offsets: dict[K, int] = {}
    placed = _Placed(len(ranges))
    total = 0
    for key in sorted(ranges, key=lambda k: (-sizes[k], ranges[k].first)):
        size = round_up(sizes[key], alignment)
        offsets[key] = place = placed.lowest(ranges[key], size)
        placed.add(ranges[key], place, place + size)
        total = max(total, place + size)
    return offsets, total
