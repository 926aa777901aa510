"""Errors of numbers: the mean over all elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.training.metrics.record import Arguments, Array, Mean, Values


class MeanError:
    """The mean of what a rule makes of differences, under a name."""

    def __init__(self, name: str, rule: Callable[[Array], Array]) -> None:
        self._name = name
        self._rule = rule
        self._mean = Mean()

    def add(self, output: Array, target: Array) -> None:
        """Axes of extent 1 may be left out. Raises InputError for other shapes."""
        if _plain(output) != _plain(target):
            shapes = f"outputs {list(output.shape)} with targets {list(target.shape)}"
            raise InputError(f"{self._name} compares {shapes}")
        numbers = output.astype(np.float64).reshape(-1)
        self._mean.add(self._rule(numbers - target.astype(np.float64).reshape(-1)))

    def value(self) -> Values:
        return {self._name: self._mean.value}


def _plain(array: Array) -> tuple[int, ...]:
    return (len(array), *(extent for extent in array.shape[1:] if extent != 1))


def mean_absolute_error(arguments: Arguments) -> MeanError:
    """|output - target|"""
    return MeanError("mean_absolute_error", np.abs)


def mean_squared_error(arguments: Arguments) -> MeanError:
    """(output - target)^2"""
    return MeanError("mean_squared_error", np.square)
