"""Random weights that depend on the seed and the weight's name alone.

Values come from the counter-based generator Philox (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), one stream per name, its raw 64-bit words turned into numbers
here: adding a layer changes no other layer's weights, and neither does NumPy's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 14  # words drawn at once: what is made of them stays in cache


@dataclass(frozen=True, slots=True)
class Filling:
    """What an initialiser knows: the array's shape, the layer's fan-in, its random stream."""

    shape: tuple[int, ...]
    fan_in: int
    seed: int
    name: str


Initialiser: TypeAlias = "Callable[[Filling, NDArray[Any]], None]"


def zeros(filling: Filling, out: NDArray[Any]) -> None:
    """0: shifts and running means."""
    out.fill(0)


def ones(filling: Filling, out: NDArray[Any]) -> None:
    """1: scales and running variances."""
    out.fill(1)


def quarter(filling: Filling, out: NDArray[Any]) -> None:
    """0.25: the slope that prelu starts from. He et al. 2015, arXiv:1502.01852."""
    out.fill(0.25)


def kaiming_uniform(filling: Filling, out: NDArray[Any]) -> None:
    """U(-b, b) with b = sqrt(6 / fan_in): keeps the variance across a layer followed by a
    rectifier. He et al. 2015, arXiv:1502.01852, eq. 10."""
    _uniform(filling, sqrt(6 / filling.fan_in), out)


def fan_in_uniform(filling: Filling, out: NDArray[Any]) -> None:
    """U(-b, b) with b = 1 / sqrt(fan_in): PyTorch's default of a convolution's bias."""
    _uniform(filling, 1 / sqrt(filling.fan_in), out)


def bilinear(filling: Filling, out: NDArray[Any]) -> None:
    """w[c, c, t..] = product over axes of 1 - |t - m| / f, 0 between channels

    f = ceil(taps / 2), m the middle of the taps: a transposed convolution of 2 f - f mod 2 taps and
    stride f enlarges f times by linear interpolation. Filters of groups have their one channel
    each. Long, Shelhamer, Darrell 2014, arXiv:1411.4038, section 3.3.
    """
    taps: NDArray[Any] = np.ones(())
    for count in out.shape[2:]:
        reach = (count + 1) // 2
        middle = reach - 1 if count % 2 else reach - 0.5
        line: NDArray[Any] = 1 - np.abs(np.arange(count, dtype=np.float64) - middle) / reach
        taps = taps[..., np.newaxis] * line
    out.fill(0)
    for channel in range(out.shape[0]):
        out[channel, channel % out.shape[1]] = taps


INITIALISERS: dict[str, Initialiser] = {
    "zeros": zeros,
    "ones": ones,
    "quarter": quarter,
    "kaiming_uniform": kaiming_uniform,
    "fan_in_uniform": fan_in_uniform,
    "bilinear": bilinear,
}


def fan_in(shape: tuple[int, ...]) -> int:
    """Inputs that one output sums over, for a weight [K, C, R, ...] or [K, C]; 1 for vectors."""
    return max(1, prod(shape[1:]))


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """`random:SEED`: every weight as its initialiser says."""

    seed: int

    @property
    def source(self) -> str:
        return f"random:{self.seed}"

    def make(
        self, name: str, shape: tuple[int, ...], dtype: str, init: str, fan: int
    ) -> NDArray[Any]:
        """The weight `name`; `fan` is the fan-in of the layer that it belongs to."""
        out: NDArray[Any] = np.empty(shape, dtype)
        from convdsl.ir.starts import number_of  # artifacts run without graphs

        number = number_of(init)
        if number is not None:
            out.fill(number)
        else:
            INITIALISERS[init](Filling(shape, fan, self.seed, name), out)
        return out


def _uniform(filling: Filling, bound: float, out: NDArray[Any]) -> None:
    digest = hashlib.sha256(filling.name.encode()).digest()
    key = [filling.seed, int.from_bytes(digest[:8], "little")]
    words = np.random.Philox(key=np.array(key, dtype=np.uint64))
    flat = out.reshape(-1)
    room = np.empty(min(_CHUNK, flat.size))
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        raw = words.random_raw(part.size)
        np.right_shift(raw, np.uint64(11), out=raw)
        unit = np.multiply(raw, 2.0**-53, out=room[: part.size])  # in [0, 1)
        unit *= 2
        unit -= 1
        np.multiply(unit, bound, out=part, casting="same_kind")
