"""What a metric is, and sums that do not depend on their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import nan
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.tensor import TensorType

Array: TypeAlias = npt.NDArray[Any]
Arguments: TypeAlias = Mapping[str, Any]
Values: TypeAlias = "dict[str, float | list[Any]]"
Shape: TypeAlias = "tuple[Any, ...]"


class Metric(Protocol):
    """Adds up what batches say, in any order and of any sizes. It can be pickled: what ranks of one
    job have counted is joined."""

    def add(self, output: Array, target: Array) -> None:
        """Take in a batch: an output of the network, and what it was to be. Raises InputError for
        shapes and labels that do not go together."""
        ...

    def join(self, other: Any) -> None:
        """Take in what another of its kind has taken in."""
        ...

    def value(self) -> Values:
        """What all batches together say, by name; a mean over nothing is NaN."""
        ...


@dataclass(frozen=True, slots=True)
class MetricBuilder:
    """What makes a metric from its arguments.

    compares: raises InputError for types of an output and a target that the metric cannot compare,
        as its `add` does for arrays of these.
    """

    make: Callable[[Arguments], Metric]
    compares: Callable[[TensorType, TensorType], None]


def listed(shape: Shape) -> str:
    """A shape for a message."""
    return f"[{', '.join(map(str, shape))}]"


_LEAST = -1074 - 53  # the exponent of the last bit of the least double, and then some
_HALF = 27  # bits of the lower half of a significand


class Mean:
    """The mean of doubles, rounded once: their sum is kept exactly, as an integer of 2^_LEAST."""

    def __init__(self) -> None:
        self._sum = 0
        self._count = 0
        self._odd = 0.0  # infinities and NaN

    def add(self, numbers: Array) -> None:
        """Significands are added in halves, by exponent: doubles hold such sums of 2^26 exactly."""
        numbers = np.asarray(numbers, np.float64).reshape(-1)
        self._count += numbers.size
        finite = np.isfinite(numbers)
        self._odd += float(numbers[~finite].sum())
        for part in np.array_split(numbers[finite], 1 + numbers.size // 2**20):
            self._add_finite(part)

    def _add_finite(self, numbers: Array) -> None:
        if not numbers.size:
            return
        fractions, exponents = np.frexp(numbers)
        significands = (fractions * 2.0**53).astype(np.int64)
        upper = significands >> _HALF
        lower = significands - (upper << _HALF)
        least = int(exponents.min())
        for half, shift in ((lower, 0), (upper, _HALF)):
            sums = np.bincount(exponents - least, half.astype(np.float64))
            for place, total in enumerate(sums.tolist()):
                self._sum += int(total) << (place + least - 53 - _LEAST + shift)

    def join(self, other: Mean) -> None:
        """Take in what another has."""
        self._sum += other._sum
        self._count += other._count
        self._odd += other._odd

    @property
    def value(self) -> float:
        if self._odd or self._odd != self._odd:
            return self._odd
        return float(Fraction(self._sum, self._count << -_LEAST)) if self._count else nan
