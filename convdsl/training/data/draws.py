"""Random numbers that follow from where they are needed, never from what was drawn before.

    word k of a stream = Philox 4x64-10(key = seed, counter = (k, index, epoch, purpose))

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". The words are turned into
numbers here, so that neither NumPy's version nor the number of workers changes what is drawn.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_WORD = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # the second half of the key: these streams are nobody else's


class Purpose(IntEnum):
    """What a stream is for."""

    ORDER = 0  # of an epoch
    SAMPLE = 1  # the augmentation of a sample
    BATCH = 2  # what mixes a batch
    SPLIT = 3


class Draws:
    """One stream."""

    def __init__(self, seed: int, purpose: Purpose, epoch: int = 0, index: int = 0) -> None:
        self._counter = [0, index & _WORD, epoch & _WORD, int(purpose)]
        self._key = [seed & _WORD, _ODD]

    @cached_property
    def _bits(self) -> np.random.Philox:
        counter, key = np.array(self._counter, np.uint64), np.array(self._key, np.uint64)
        return np.random.Philox(counter=counter, key=key)

    def words(self, count: int) -> Array:
        """u64 [count]."""
        return self._bits.random_raw(count)

    def uniforms(self, count: int) -> Array:
        """f64 [count], each of k / 2**53, 0 <= k < 2**53, alike often."""
        return (self.words(count) >> np.uint64(11)) * 2.0**-53

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from low to high."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(self._bits.random_raw()) * count >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def happens(self, probability: float) -> bool:
        """True that often."""
        return self.uniform() < probability

    def order(self, count: int) -> Array:
        """A permutation of 0 .. count - 1, i64."""
        return np.argsort(self.words(count), kind="stable")

    def normals(self, count: int) -> Array:
        """Standard normal numbers, f64 [count]. Box, Muller 1958."""
        half = (count + 1) // 2
        radius = np.sqrt(-2 * np.log(1 - self.uniforms(half)))
        angle = 2 * math.pi * self.uniforms(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def beta(self, alpha: float) -> float:
        """A number from 0 to 1 of the distribution Beta(alpha, alpha); 0 or 1 for alpha = 0."""
        if alpha == 0:
            return float(self.below(2))
        a, b = self._log_gamma(alpha), self._log_gamma(alpha)
        return 1 / (1 + math.exp(min(700.0, b - a)))

    def _log_gamma(self, alpha: float) -> float:
        """The logarithm of a number of the distribution Gamma(alpha, 1). Marsaglia, Tsang 2000,
        "A simple method for generating gamma variables"; by logarithms, as powers of a small
        alpha vanish."""
        if alpha < 1:
            return self._log_gamma(alpha + 1) + math.log(1 - self.uniform()) / alpha
        d = alpha - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = float(self.normals(1)[0])
            v = (1 + c * x) ** 3
            if v > 0 and math.log(1 - self.uniform()) < x * x / 2 + d - d * v + d * math.log(v):
                return math.log(d * v)
