"""The arrays that a network changes: its states with an update, as a session owns them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.forking import Lock, enter_work, leave_work
from convdsl.kernel.program import Port

Array = npt.NDArray[Any]


class State(Mapping[str, Array]):
    """States by key, each one plain array as in the weight file.

        network.state["conv1.weight"]              a copy
        network.state["conv1.weight"] = array      copied in; type and shape as declared
        network.state.copy()                       copies of all, of one moment
        network.state.replace(arrays)              several at one moment, all of them or none

    All specialisations of a network work on the same arrays. Calls, and what is done here, wait for
    each other, and so does a fork of the process: a child finds what a whole number of calls has
    left.
    """

    def __init__(self, ports: Sequence[Port], arrays: Mapping[str, Array]) -> None:
        self._ports = {port.name: port for port in ports}
        self._arrays = {
            name: np.empty(p.type.sizes, p.type.dtype.numpy) for name, p in self._ports.items()
        }
        self._lock = Lock()
        self.replace({name: arrays[name] for name in self._ports})

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        with self._held():
            return array.copy()

    def __setitem__(self, name: str, array: Array) -> None:
        self.replace({name: array})

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def copy(self) -> dict[str, Array]:
        """All states, as they are between two calls."""
        with self._held():
            return {name: array.copy() for name, array in self._arrays.items()}

    def replace(self, arrays: Mapping[str, Array]) -> None:
        """Set some states. InputError, and nothing is changed, where one of them does not fit."""
        for name, array in arrays.items():
            self._check(name, array)
        with self._held():
            for name, array in arrays.items():
                self._arrays[name][...] = array

    @contextmanager
    def lent(self, ports: Sequence[Port]) -> Generator[list[Array]]:
        """The arrays themselves, in the order of the ports, for one call to read and to change."""
        for port in ports:
            assert self._ports[port.name].type == port.type, f"{port.name} is another state"
        with self._held():
            yield [self._arrays[port.name] for port in ports]

    @contextmanager
    def _held(self) -> Generator[None]:
        with self._lock:
            enter_work()
            try:
                yield
            finally:
                leave_work()

    def _check(self, name: str, array: Array) -> None:
        if name not in self._ports:
            known = ", ".join(self._ports) or "none"
            raise InputError(f"no state `{name}` changes with the calls; those are: {known}")
        type = self._ports[name].type
        given = np.asarray(array)
        if given.dtype != np.dtype(type.dtype.numpy) or given.shape != type.sizes:
            raise InputError(f"state `{name}` is {type}, not {given.dtype}{list(given.shape)}")
