"""The arena: where each intermediate tensor lies, tensors that never live together overlapping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from convdsl.ir.liveness import LiveRange

K = TypeVar("K", bound=Hashable)
ALIGNMENT = 64


def aligned(size: int) -> int:
    """Rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan_arena(ranges: Mapping[K, LiveRange], sizes: Mapping[K, int]) -> tuple[dict[K, int], int]:
    """(offset of each key, bytes in all). Largest first, each at the lowest offset where it
    meets nothing that is alive together with it."""
    offsets: dict[K, int] = {}
    total = 0
    order = list(ranges)
    for key in sorted(order, key=lambda k: (-sizes[k], ranges[k].first)):
        size = aligned(sizes[key])
        taken = sorted(
            (offsets[other], offsets[other] + aligned(sizes[other]))
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
