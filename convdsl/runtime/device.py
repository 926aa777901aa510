"""Where code runs: which arrays it takes, and where the states of a network live."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.kernel.program import Port

Array = npt.NDArray[Any]


class Held(Protocol):
    """The one array of a state, from call to call. Nothing here is called by two at once."""

    def read(self) -> Array:
        """A copy, after all calls so far."""
        ...

    def write(self, array: Array) -> None:
        """Replace it; type and shape are the state's."""
        ...

    def lent(self) -> Any:
        """What a runner takes."""
        ...


class Device(Protocol):
    """A processor or a card."""

    @property
    def name(self) -> str:
        """As `--device` has it."""
        ...

    def hold(self, port: Port) -> Held:
        """Memory for a state, its content unspecified."""
        ...

    def accept(self, name: str, value: object) -> Any:
        """The array of an input, with `shape` and `dtype`. InputError for what is none."""
        ...

    def contiguous(self, array: Any) -> Any:
        """The same, row by row in memory."""
        ...

    def on_host(self, array: Any) -> Array:
        """The same as a NumPy array."""
        ...

    def resident(self, array: Array) -> Any:
        """The same in the device's memory."""
        ...

    def wait(self) -> None:
        """Until all calls so far, of CuPy's current stream, are through."""
        ...


class Plain:
    """A NumPy array."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def leave(self) -> None:
        """From now on memory of its own."""
        self._array = self._array.copy()

    def read(self) -> Array:
        return self._array.copy()

    def write(self, array: Array) -> None:
        self._array[...] = array

    def lent(self) -> Array:
        return self._array


def _how(value: object) -> str:
    """How an array is made of what is none."""
    match value:
        case dict():
            return ": by name they are network(**arrays)"
        case str() | Path():
            return ": np.load reads files"
        case list() | tuple():
            return ": np.asarray(..., dtype) makes one"
        case _:
            return ": .numpy() makes one" if callable(getattr(value, "numpy", None)) else ""


class Host:
    """The processors of this machine: NumPy arrays."""

    name = "cpu"

    def hold(self, port: Port) -> Held:
        return Plain(np.empty(port.type.sizes, port.type.dtype.numpy))

    def accept(self, name: str, value: object) -> Any:
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise InputError(f"input `{name}` is a {kind}, not a NumPy array{_how(value)}")
        return value  # pyright: ignore[reportUnknownVariableType]

    def contiguous(self, array: Any) -> Any:
        return np.asarray(array, order="C")  # one number stays []

    def on_host(self, array: Any) -> Array:
        return array

    def resident(self, array: Array) -> Any:
        return array

    def wait(self) -> None:
        """Calls return when they are through."""


HOST = Host()
