"""What traffic costs beside arithmetic, for every bid that weighs the two."""

from __future__ import annotations

FAR = 10.0
"""Bytes a cycle from beyond the second-level cache."""
FROM_MEMORY = 7.0
"""Bytes a cycle from memory, of what is asked for ahead."""
NEARBY = 4
"""Second-level caches, within which what was written a moment ago is not in memory."""
_HIDDEN = 0.8  # of the shorter of two things at once, what goes on beside the longer one


def beside(one: float, other: float) -> float:
    """Cycles of two things at once: arithmetic and traffic."""
    return max(one, other) + (1 - _HIDDEN) * min(one, other)
