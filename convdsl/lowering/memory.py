"""The arena: where each intermediate tensor lies, tensors that never live together overlapping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from convdsl.ir.liveness import LiveRange

K = TypeVar("K", bound=Hashable)


def round_up(size: int, alignment: int) -> int:
    """Rounded up to a whole multiple."""
    return -(-size // alignment) * alignment


class _Placed(Generic[K]):
    """What has its place: what lives for a few steps by those, as nearly all of a deep network
    does, and the rest."""

    def __init__(self, ranges: Mapping[K, LiveRange]) -> None:
        self._ranges = ranges
        self._brief: dict[int, list[K]] = {}
        self._long: list[K] = []
        self._all: list[K] = []

    def add(self, key: K) -> None:
        self._all.append(key)
        if self._is_brief(key):
            for step in self._steps(key):
                self._brief.setdefault(step, []).append(key)
        else:
            self._long.append(key)

    def beside(self, key: K) -> set[K]:
        """What is alive together with a key."""
        live, brief = self._ranges[key], self._is_brief(key)
        asked = self._long if brief else self._all
        found = {other for other in asked if self._ranges[other].overlaps(live)}
        if brief:
            found.update(other for s in self._steps(key) for other in self._brief.get(s, ()))
        return found

    def _is_brief(self, key: K) -> bool:
        return self._ranges[key].last - self._ranges[key].first < _FEW

    def _steps(self, key: K) -> range:
        return range(self._ranges[key].first, self._ranges[key].last + 1)


_FEW = 16
"""Steps; any number gives the same plan."""


def plan_arena(
    ranges: Mapping[K, LiveRange], sizes: Mapping[K, int], alignment: int
) -> tuple[dict[K, int], int]:
    """(offset of each key, bytes in all), all of them multiples of `alignment`. Largest first,
    each at the lowest offset where it meets nothing that is alive together with it."""
    offsets: dict[K, int] = {}
    placed = _Placed(ranges)
    total = 0
    order = list(ranges)
    for key in sorted(order, key=lambda k: (-sizes[k], ranges[k].first)):
        size = round_up(sizes[key], alignment)
        taken = sorted(
            (offsets[other], offsets[other] + round_up(sizes[other], alignment))
            for other in placed.beside(key)
        )
        place = 0
        for start, end in taken:
            if place + size <= start:
                break
            place = max(place, end)
        offsets[key] = place
        placed.add(key)
        total = max(total, place + size)
    return offsets, total
