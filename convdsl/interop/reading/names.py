"""Names fit for layers, weights and inputs, each given once."""

from __future__ import annotations

import re

from convdsl.ir import build

_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")


class Names(build.Names):
    """Which names are taken, of those that the language can say."""

    def unused(self, wanted: str) -> str:
        """A name like the one wanted that nothing has yet."""
        return super().unused(_PLAIN.sub("_", wanted).strip(".") or "value")
