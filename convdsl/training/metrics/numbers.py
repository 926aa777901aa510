"""Errors of numbers: the mean over all elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.tensor import TensorType
from convdsl.training.metrics.record import Arguments, Array, Mean, Shape, Values, listed


class MeanError:
    """The mean of what a rule makes of differences, under a name."""

    def __init__(self, name: str, rule: Callable[[Array], Array]) -> None:
        self._name = name
        self._rule = rule
        self._mean = Mean()

    def add(self, output: Array, target: Array) -> None:
        """Axes of extent 1 may be left out. Raises InputError for other shapes."""
        _compare(output.shape, target.shape)
        numbers = output.astype(np.float64).reshape(-1)
        self._mean.add(self._rule(numbers - target.astype(np.float64).reshape(-1)))

    def join(self, other: MeanError) -> None:
        self._mean.join(other._mean)

    def value(self) -> Values:
        return {self._name: self._mean.value}


def compare_numbers(output: TensorType, target: TensorType) -> None:
    """InputError where there is not a number for each."""
    _compare(output.shape, target.shape)


def _compare(output: Shape, target: Shape) -> None:
    if _plain(output) != _plain(target):
        found = f"outputs {listed(output)}, targets {listed(target)}"
        raise InputError(f"differences are of as many numbers: {found}")


def _plain(shape: Shape) -> Shape:
    return (*shape[:1], *(extent for extent in shape[1:] if extent != 1))


def mean_absolute_error(arguments: Arguments) -> MeanError:
    """|output - target|"""
    return MeanError("mean_absolute_error", np.abs)


def mean_squared_error(arguments: Arguments) -> MeanError:
    """(output - target)^2"""
    return MeanError("mean_squared_error", np.square)
