"""Powers of two beside a count."""

from __future__ import annotations


def power_from(count: int) -> int:
    """The least that is no less than the count; 1 for none."""
    return 1 << max(count - 1, 0).bit_length()


def power_to(count: int) -> int:
    """The largest that is no more than the count, at least 1."""
    return 1 << max(count, 1).bit_length() - 1
