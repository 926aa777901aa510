"""A card as a device: the arrays that it takes, and states that live on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import DeviceError, InputError
from convdsl.kernel.program import Port
from convdsl.runtime.cuda.card import Card, cupy, find_card
from convdsl.runtime.device import Held

Array = npt.NDArray[Any]


def is_host(array: Any) -> TypeGuard[Array]:
    """Whether an array is NumPy's."""
    return isinstance(array, np.ndarray)


_DLPACK_CPU = (1, 3, 11)  # kCPU, and host memory that is pinned by CUDA or by ROCm
_DLPACK_CUDA = 2


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One card. Nothing of CuPy is loaded before it is needed."""

    number: int = 0

    @property
    def name(self) -> str:
        return f"cuda:{self.number}"

    def card(self) -> Card:
        """The card. InputError where there is none."""
        return find_card(self.number)

    def hold(self, port: Port) -> Held:
        return CardState(port, self.number)

    def accept(self, name: str, value: Any) -> Any:
        """NumPy arrays as they are; what lies on a card as CuPy arrays of the same memory."""
        if is_host(value):
            return value
        if not hasattr(value, "__cuda_array_interface__") and not hasattr(value, "__dlpack__"):
            raise InputError(
                f"input `{name}` is a {type(value).__name__}: NumPy arrays are taken, and what says"
                " __cuda_array_interface__ or __dlpack__ (CuPy, PyTorch, JAX)"
            )
        found = cupy()
        try:
            array = _array_of(found, value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise InputError(f"input `{name}` cannot be read where it lies: {error}") from None
        if not is_host(array) and array.device.id != self.number:
            raise InputError(
                f"input `{name}` lies on cuda:{array.device.id}, the network runs on {self.name}"
            )
        return array

    def contiguous(self, array: Any) -> Any:
        if is_host(array):
            return np.asarray(array, order="C")  # one number stays []
        with cupy().cuda.Device(self.number):
            return cupy().ascontiguousarray(array).reshape(array.shape)

    def on_host(self, array: Any) -> Array:
        return array if is_host(array) else array.get()

    def resident(self, array: Array) -> Any:
        found = cupy()
        with found.cuda.Device(self.number):
            made = found.empty(array.shape, array.dtype)
            made.set(self.contiguous(array))
            return made

    def wait(self) -> None:
        found = cupy()
        try:
            found.cuda.get_current_stream().synchronize()
        except found.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(f"{self.name} has failed: {error}") from None


def _array_of(found: Any, value: Any) -> Any:
    """A CuPy array, or a NumPy array for what lies in the memory of the host."""
    if isinstance(value, found.ndarray):
        return value
    where = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else _DLPACK_CUDA
    if where in _DLPACK_CPU:
        return np.from_dlpack(value)
    if hasattr(value, "__dlpack__"):
        return found.from_dlpack(value)
    return found.asarray(value)


class CardState:
    """A state: on the host until a call first needs it, on the card from then on.

    done: recorded when the last call that changes it will have; None before the first.
    """

    def __init__(self, port: Port, number: int) -> None:
        self._port = port
        self._number = number
        self._host: Array | None = np.empty(port.type.sizes, port.type.dtype.numpy)
        self._card: Any = None
        self.done: Any = None

    def read(self) -> Array:
        if self._host is not None:
            return self._host.copy()
        self._finish()
        return self._card.get()

    def write(self, array: Array) -> None:
        if self._host is not None:
            self._host[...] = array
            return
        self._finish()
        whole = np.ascontiguousarray(array, self._port.type.dtype.numpy)
        self._card.set(whole.reshape(self._port.type.sizes))
        cupy().cuda.get_current_stream().synchronize()  # the next call may be on another stream

    def lent(self) -> CardState:
        return self

    def address(self) -> int:
        """Where it lies; uploaded now if it was not yet, on the current stream."""
        if self._host is not None:
            found = cupy()
            self._card = found.empty(self._host.shape, self._host.dtype)
            self._card.set(self._host)
            found.cuda.get_current_stream().synchronize()  # the next call may be on another stream
            self._host = None
        return int(self._card.data.ptr)

    def on_host(self) -> Array | None:
        """What it is where the card has not had it yet."""
        return self._host

    def copied(self, stream: Any) -> Any:
        """A copy on the card, in order on a stream."""
        found = cupy()
        made = found.empty(self._port.type.sizes, self._port.type.dtype.numpy)
        if self._host is not None:
            made.set(self._host, stream=stream)
        elif made.nbytes:
            made.data.copy_from_device_async(self._card.data, made.nbytes, stream)
        return made

    def _finish(self) -> None:
        """Wait for the call that changes it."""
        if self.done is not None:
            try:
                self.done.synchronize()
            except RuntimeError as error:
                raise DeviceError(f"cuda:{self._number} has failed: {error}") from None
