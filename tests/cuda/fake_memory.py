"""Memory of a card that is not there, over NumPy's. It begins as NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cuda.fake_driver import Device, Fake
    from cuda.fake_streams import Stream


@dataclass
class Attributes:
    """Of an address: 1 for memory of the host that is pinned, 0 for other memory."""

    type: int


class Pointer:
    """Device memory."""

    def __init__(self, fake: Fake, size: int) -> None:
        self.fake, self.size = fake, size
        self.device = fake.device[-1]
        self.bytes = fake.card.allocate(size)
        self.ptr = self.bytes.ctypes.data
        fake.blocks[self.ptr] = self

    def copy_from_host(self, address: int, size: int) -> None:
        """On the null stream. What has been read may be on its way yet when this returns."""
        self.copy_from_host_async(address, size, self.fake.null[self.device])

    def copy_from_host_async(self, address: int, size: int, stream: Stream) -> None:
        assert stream.captured is None, "what is read when the graph is launched may be gone"
        source = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * size).from_address(address))
        taken = source.copy()
        self.fake.note(f"upload {size}")
        stream.put(lambda: np.copyto(self.bytes[:size], taken))

    def copy_from_device_async(self, source: Pointer | Part, size: int, stream: Stream) -> None:
        self.fake.note(f"copy {size}")
        stream.put(lambda: np.copyto(self.bytes[:size], source.bytes[:size]))


@dataclass
class Part:
    """A place inside device memory."""

    fake: Fake
    ptr: int

    @property
    def device(self) -> int:
        return self.fake.block_at(self.ptr)[0].device

    @property
    def bytes(self) -> np.ndarray:
        return self.fake.bytes_at(self.ptr)

    copy_from_device_async = Pointer.copy_from_device_async


class ndarray:
    """An array on the card; `view` is its content, for tests to look at and to fill."""

    def __init__(self, fake: Fake, shape: Any, dtype: Any, address: int | None = None) -> None:
        self.fake, self.dtype = fake, np.dtype(dtype)
        self.shape = tuple(shape)
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        self.data = Pointer(fake, size) if address is None else Part(fake, address)
        self.view = self.data.bytes[:size].view(self.dtype).reshape(self.shape)
        self.nbytes = size
        self.ndim = len(self.shape)

    @property
    def device(self) -> Device:
        return self.fake.at(self.data.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False)}

    def reshape(self, shape: tuple[int, ...]) -> ndarray:
        assert shape == self.shape
        return self

    def set(self, array: np.ndarray, stream: Stream | None = None) -> None:
        assert array.shape == self.shape
        assert array.dtype == self.dtype
        assert array.flags.c_contiguous
        pinned = self.fake.is_pinned(array.ctypes.data)
        taken = array if pinned else array.copy()  # pageable memory is read before this returns
        self.fake.note(f"set {self.nbytes}")
        (stream or self.fake.current[-1]).put(lambda: np.copyto(self.view, taken))

    def __float__(self) -> float:
        return float(self.get())

    def get(self, stream: Stream | None = None) -> np.ndarray:
        self.fake.note(f"get {self.nbytes}")
        (stream or self.fake.current[-1]).synchronize()
        return self.view.copy()
