"""A card that is not there: what it has, what was asked of it, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


@dataclass
class Card:
    """What there is, and what was asked of it."""

    arch: str = "sm_90"
    memory: int = 1 << 30
    cards: int = 1
    driver: int = 13000
    events: list[str] = field(default_factory=list)  # what was done, in order
    broken: dict[str, str] = field(default_factory=dict)  # what launching a function ends in
    used: int = 0
    lost: str = ""  # an error that stays
    taken: str = ""  # what making it current ends in
    trouble: str = ""  # what counting cards ends in
    refuses: dict[str, str] = field(default_factory=dict)  # what loading cubin or PTX ends in
    pinned: list[np.ndarray] = field(default_factory=list)  # memory of the host that is pinned

    def allocate(self, size: int) -> np.ndarray:
        if self.used + size > self.memory:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.used += size
        whole = np.full(size + 256, 0xFF, np.uint8)
        start = -whole.ctypes.data % 256
        return whole[start : start + size]

    def count(self, what: str) -> int:
        return sum(event.startswith(what) for event in self.events)
