"""Live ranges: from which step to which step of an execution order something must be kept.

A step is a pair (reads, writes) of any hashable keys; analysis counts values by it, lowering
plans buffers.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from convdsl.tensor import Dim

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LiveRange:
    """Steps first..last, both included."""

    first: int
    last: int

    def overlaps(self, other: LiveRange) -> bool:
        return self.first <= other.last and other.first <= self.last


def live_ranges(
    steps: Sequence[tuple[Collection[K], Collection[K]]],
    *,
    before: Collection[K] = (),
    after: Collection[K] = (),
) -> dict[K, LiveRange]:
    """The live range of every key.

    What a step reads and what it writes overlap there. Keys of `before` exist from the first
    step on, keys of `after` are wanted when the last one is done; what is written and never
    read lives in its own step. Raises ValueError for a read of what nothing has written.
    """
    end = max(len(steps) - 1, 0)
    first = dict.fromkeys(before, 0)
    last = dict.fromkeys(before, 0)
    for step, (reads, writes) in enumerate(steps):
        for key in reads:
            if key not in first:
                raise ValueError(f"step {step} reads {key!r}, which nothing has written")
            last[key] = step
        for key in writes:
            first.setdefault(key, step)
            last[key] = step
    for key in after:
        if key not in first:
            raise ValueError(f"{key!r} is wanted in the end and nothing has written it")
        last[key] = end
    return {key: LiveRange(first[key], last[key]) for key in first}


def occupancy(ranges: Mapping[K, LiveRange], sizes: Mapping[K, Dim], steps: int) -> list[Dim]:
    """The sum of the sizes alive at each of `steps` steps."""
    totals: list[Dim] = [0] * steps
    for key, live in ranges.items():
        for step in range(live.first, min(live.last, steps - 1) + 1):
            totals[step] = totals[step] + sizes[key]
    return totals
