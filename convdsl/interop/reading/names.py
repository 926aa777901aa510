"""Names fit for layers, weights and inputs, each given once."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")


class Names:
    """Which names are taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unused(self, wanted: str) -> str:
        """A name like the one wanted that nothing has yet."""
        plain = _PLAIN.sub("_", wanted).strip(".") or "value"
        found, count = plain, 1
        while found in self._taken:
            count += 1
            found = f"{plain}_{count}"
        self._taken.add(found)
        return found
