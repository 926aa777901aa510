"""What a core keeps close."""

from __future__ import annotations

from convdsl.tensor.records import record


@record
class Caches:
    """Bytes of data that a core can call its own at the first and second level."""

    l1_bytes: int
    l2_bytes: int


TYPICAL = Caches(32 << 10, 512 << 10)
"""Where nobody tells: of named processors, so that their code is the same wherever it is made, and
of systems that do not say. Few cores of the last ten years have less."""
