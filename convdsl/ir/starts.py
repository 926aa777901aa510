"""What weights start from, by the words that the language has for it.

An operator says how each of its weights starts (`StateSpec.init`); a text may say otherwise. How
arrays are filled is of `weights.initialisers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.tensor import TensorType


@dataclass(frozen=True, slots=True)
class Start:
    """A way to begin.

    doc: one line, for people.
    rank: the least number of axes of a weight that it makes sense for.
    """

    doc: str
    rank: int = 1

    def objection(self, type: TensorType) -> str | None:
        """Why a weight cannot start so."""
        if type.rank < self.rank:
            return f"takes filters [out, in, taps..] to fill, not {type}"
        return None


STARTS: Mapping[str, Start] = {
    "zeros": Start("0, as shifts"),
    "ones": Start("1, as scales"),
    "kaiming_uniform": Start("uniform, of variance 2 / fan-in; as weights of layers"),
    "fan_in_uniform": Start("uniform within 1 / sqrt(fan-in); as biases of layers"),
    "bilinear": Start("channel by channel the weights of bilinear interpolation", rank=3),
}
"""By name."""


def number_of(init: str) -> float | None:
    """The number that a weight starts from, `initial(0.5)`, as `init` says it; None where that is
    the name of an initialiser."""
    try:
        number = float(init)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
