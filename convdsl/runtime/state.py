"""The arrays that a network changes: its states with an update, as a session owns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, expect
from convdsl.forking import compiling, open_lock
from convdsl.kernel.program import Port
from convdsl.kernel.signature import array_of
from convdsl.runtime.device import HOST, Held

Array = npt.NDArray[Any]


class Holds(Protocol):
    """Where states live."""

    def hold(self, port: Port) -> Held:
        """Memory for a state, its content unspecified."""
        ...


class State(Mapping[str, Array]):
    """States by key, each one plain array as in the weight file.

        network.state["conv1.weight"]              a copy
        network.state["conv1.weight"] = array      copied in; type and shape as declared
        network.state.copy()                       copies of all, of one moment
        network.state.replace(arrays)              several at one moment, all of them or none

    All specialisations of a network work on the same arrays. Calls, and what is done here, wait for
    each other, and so does a fork of the process: a child finds what a whole number of calls has
    left. They live on the device that the network runs on, and are NumPy arrays here.
    """

    def __init__(
        self, ports: Sequence[Port], arrays: Mapping[str, Array], device: Holds = HOST
    ) -> None:
        self._ports = {port.name: port for port in ports}
        self._held_by = {name: device.hold(port) for name, port in self._ports.items()}
        self.alone = open_lock()  # held by who reads or changes the arrays, at work
        self.replace({name: arrays[name] for name in self._ports})

    def __getitem__(self, name: str) -> Array:
        held = self._held_by[name]
        with self.alone, compiling():
            return held.read()

    def __setitem__(self, name: str, array: Array) -> None:
        self.replace({name: array})

    def __iter__(self) -> Iterator[str]:
        return iter(self._held_by)

    def __len__(self) -> int:
        return len(self._held_by)

    def copy(self) -> dict[str, Array]:
        """All states, as they are between two calls."""
        with self.alone, compiling():
            return {name: held.read() for name, held in self._held_by.items()}

    def replace(self, arrays: Mapping[str, Array]) -> None:
        """Set some states. InputError, and nothing is changed, where one of them does not fit."""
        expect("the states", arrays, Mapping)
        arrays = {name: array_of(f"state `{name}`", array) for name, array in arrays.items()}
        for name, array in arrays.items():
            self._check(name, array)
        with self.alone, compiling():
            for name, array in arrays.items():
                self._held_by[name].write(array)

    def lent(self, ports: Sequence[Port]) -> list[Any]:
        """The arrays themselves, in the order of the ports, for one call to read and to change
        while it is `alone`, as runners of the device take them."""
        for port in ports:
            assert self._ports[port.name].type == port.type, f"{port.name} is another state"
        return [self._held_by[port.name].lent() for port in ports]

    def _check(self, name: str, array: Array) -> None:
        if name not in self._ports:
            known = ", ".join(self._ports) or "none"
            raise InputError(f"no state `{name}` changes with the calls; those are: {known}")
        type = self._ports[name].type
        if array.dtype != np.dtype(type.dtype.numpy) or array.shape != type.sizes:
            raise InputError(f"state `{name}` is {type}, not {array.dtype}{list(array.shape)}")
