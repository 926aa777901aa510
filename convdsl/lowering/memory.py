"""The arena: where each intermediate tensor lies, tensors that never live together overlapping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from convdsl.ir.liveness import LiveRange

K = TypeVar("K", bound=Hashable)


def round_up(size: int, alignment: int) -> int:
    """Rounded up to a whole multiple."""
    return -(-size // alignment) * alignment


def plan_arena(
    ranges: Mapping[K, LiveRange], sizes: Mapping[K, int], alignment: int
) -> tuple[dict[K, int], int]:
    """(offset of each key, bytes in all), all of them multiples of `alignment`. Largest first,
    each at the lowest offset where it meets nothing that is alive together with it."""
    offsets: dict[K, int] = {}
    total = 0
    order = list(ranges)
    for key in sorted(order, key=lambda k: (-sizes[k], ranges[k].first)):
        size = round_up(sizes[key], alignment)
        taken = sorted(
            (offsets[other], offsets[other] + round_up(sizes[other], alignment))
            for other in offsets
            if ranges[other].overlaps(ranges[key])
        )
        place = 0
        for start, end in taken:
            if place + size <= start:
                break
            place = max(place, end)
        offsets[key] = place
        total = max(total, place + size)
    return offsets, total
