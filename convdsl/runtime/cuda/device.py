"""A card as a device: the arrays that it takes, and states that live on it."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.kernel.program import Port
from convdsl.runtime.cuda.card import Card, card_errors, cupy, find_card, on_card
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
        if not (_says(value, "__cuda_array_interface__") or _says(value, "__dlpack__")):
            raise InputError(
                f"input `{name}` is a {type(value).__name__}: NumPy arrays are taken, and what says"
                " __cuda_array_interface__ or __dlpack__ (CuPy, PyTorch, JAX)"
            )
        found = cupy()
        with on_card(found, self.number):
            try:
                array = _array_of(found, value)
            except found.cuda.memory.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001  of whoever exchanges it: anything may be
                said = f"{error}" if str(error) else type(error).__name__
                raise InputError(f"input `{name}` cannot be read where it lies: {said}") from None
        if not is_host(array) and array.device.id != self.number:
            raise InputError(
                f"input `{name}` lies on cuda:{array.device.id}, the network runs on {self.name}"
            )
        return array

    def contiguous(self, array: Any) -> Any:
        if is_host(array):
            return np.asarray(array, order="C")  # one number stays []
        found = cupy()
        with on_card(found, self.number):
            return found.ascontiguousarray(array).reshape(array.shape)

    def on_host(self, array: Any) -> Array:
        if is_host(array):
            return array
        with on_card(cupy(), self.number):
            return array.get()

    def resident(self, array: Array) -> Any:
        found = cupy()
        with on_card(found, self.number):
            stream = found.cuda.get_current_stream()
            made = uploaded(found, self.contiguous(array), stream)
            stream.synchronize()  # the next call may be on another stream
            return made

    def wait(self) -> None:
        found = cupy()
        with on_card(found, self.number):
            found.cuda.get_current_stream().synchronize()


def uploaded(found: Any, array: Array, stream: Any) -> Any:
    """A NumPy array on the card that is current, in order on a stream."""
    made = found.empty(array.shape, array.dtype)
    put(found, made, array, stream)
    return made


def put(found: Any, target: Any, array: Array, stream: Any) -> None:
    """A NumPy array into one on the card, in order on a stream, and read when this returns. The
    driver reads memory that is pinned later, so that such is copied first."""
    kind = found.cuda.runtime.pointerGetAttributes(array.ctypes.data).type if array.nbytes else 0
    pinned = kind == found.cuda.runtime.memoryTypeHost
    target.set(array.copy() if pinned else array, stream=stream)


def _says(value: Any, protocol: str) -> bool:
    """Whether something has a protocol. PyTorch's tensors that need gradients have that of CUDA
    arrays, and fail when it is asked for."""
    try:
        return hasattr(value, protocol)
    except Exception:  # noqa: BLE001  what is wrong is told when it is read
        return True


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


@contextmanager
def uploading(found: Any) -> Generator[Any]:
    """A stream for what stays on the card, which is there for all streams when this is through: the
    current one, or where that is being captured one of its own."""
    stream = found.cuda.get_current_stream()
    if stream.is_capturing():
        stream = found.cuda.Stream(non_blocking=True)
    with stream:  # what is allocated belongs to it
        yield stream
        stream.synchronize()


@dataclass(frozen=True, slots=True)
class Home:
    """The stream that memory was allocated on, of the card of a number. CuPy gives it to the next
    who asks there as soon as nobody holds it, though calls on other streams may still read it."""

    found: Any
    number: int
    stream: Any

    def wait(self, events: Sequence[Any]) -> None:
        """Nothing that is put here later begins before these. Says nothing where that cannot be: at
        the end of the process, in one that was forked, and while somebody captures the stream."""
        if sys.is_finalizing() or not events:
            return
        with suppress(*card_errors(self.found)), self.found.cuda.Device(self.number):
            if not self.stream.is_capturing():
                for event in events:
                    self.stream.wait_event(event)


class CardState:
    """A state: on the host until a call first needs it, on the card from then on.

    done: recorded when the last call that changes it will have; None before the first.
    """

    def __init__(self, port: Port, number: int) -> None:
        self._port = port
        self._number = number
        self._host: Array | None = np.empty(port.type.sizes, port.type.dtype.numpy)
        self._card: Any = None
        self._home: Home | None = None
        self.done: Any = None

    def __del__(self) -> None:
        if self._home is not None and self.done is not None:
            self._home.wait([self.done])

    def read(self) -> Array:
        if self._host is not None:
            return self._host.copy()
        with on_card(cupy(), self._number):
            self._finish()
            return self._card.get()

    def write(self, array: Array) -> None:
        if self._host is not None:
            self._host[...] = array
            return
        found = cupy()
        with on_card(found, self._number):
            self._finish()
            whole = np.ascontiguousarray(array, self._port.type.dtype.numpy)
            stream = found.cuda.get_current_stream()
            self._card.set(whole.reshape(self._port.type.sizes), stream=stream)
            stream.synchronize()  # the next call may be on another stream

    def lent(self) -> CardState:
        return self

    def address(self) -> int:
        """Where it lies; uploaded now if it was not yet."""
        if self._host is not None:
            found = cupy()
            with uploading(found) as stream:
                self._home = Home(found, self._number, stream)
                self._card = uploaded(found, self._host, stream)
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
            self.done.synchronize()
