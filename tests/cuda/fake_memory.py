"""Memory of a card that is not there, over NumPy's. It begins as NaN.

What nobody holds any more goes back to CuPy's pool, which gives it to the next who asks on the
stream that it was allocated on: here, too, it is somebody else's from then on, in that stream's
order, and NaN.
"""

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


class Block:
    """Memory that somebody holds, or the pool again."""

    def __init__(self, fake: Fake, size: int) -> None:
        self.bytes, self.size = fake.card.allocate(size), size
        self.device, self.stream = fake.device[-1], fake.current[-1]
        self.held = True

    def free(self) -> None:
        self.held = False
        if self.stream.captured is None:
            self.stream.put(lambda: self.bytes.fill(0xFF))


class Pointer:
    """Device memory."""

    def __init__(self, fake: Fake, size: int) -> None:
        self.fake = fake
        self.block = Block(fake, size)
        self.ptr = self.block.bytes.ctypes.data
        fake.blocks[self.ptr] = self.block

    def __del__(self) -> None:
        if hasattr(self, "block"):  # there was memory
            self.block.free()

    @property
    def device(self) -> int:
        return self.block.device

    @property
    def bytes(self) -> np.ndarray:
        return self.block.bytes

    def copy_from_host(self, address: int, size: int) -> None:
        """On the null stream. What has been read may be on its way yet when this returns."""
        self.copy_from_host_async(address, size, self.fake.null[self.device])

    def copy_from_host_async(self, address: int, size: int, stream: Stream) -> None:
        assert stream.captured is None, "what is read when the graph is launched may be gone"
        source = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * size).from_address(address))
        taken, target = source.copy(), self.bytes
        self.fake.note(f"upload {size}")
        stream.put(lambda: np.copyto(target[:size], taken))

    def copy_from_device_async(self, source: Pointer | Part, size: int, stream: Stream) -> None:
        self.fake.note(f"copy {size}")
        for address in (self.ptr, source.ptr):
            stream.touch(self.fake.block_at(address)[0])
        target, taken = self.bytes, source.bytes
        stream.put(lambda: np.copyto(target[:size], taken[:size]))


@dataclass
class Part:
    """A place inside device memory."""

    fake: Fake
    ptr: int
    owner: Any = None  # who keeps it

    @property
    def device(self) -> int:
        return self.fake.block_at(self.ptr)[0].device

    @property
    def bytes(self) -> np.ndarray:
        return self.fake.bytes_at(self.ptr)

    copy_from_device_async = Pointer.copy_from_device_async


class ndarray:
    """An array on the card; `view` is its content, for tests to look at and to fill."""

    def __init__(
        self,
        fake: Fake,
        shape: Any,
        dtype: Any,
        address: int | None = None,
        strides: Any = None,
        owner: Any = None,
    ) -> None:
        self.fake, self.dtype = fake, np.dtype(dtype)
        self.shape = tuple(shape)
        self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.data = Pointer(fake, self.nbytes) if address is None else Part(fake, address, owner)
        self.view = np.ndarray(self.shape, self.dtype, self.data.bytes, 0, strides)
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
        view = self.view
        (stream or self.fake.current[-1]).put(lambda: np.copyto(view, taken))

    def __float__(self) -> float:
        return float(self.get())

    def get(self, stream: Stream | None = None) -> np.ndarray:
        self.fake.note(f"get {self.nbytes}")
        (stream or self.fake.current[-1]).synchronize()
        return self.view.copy()
