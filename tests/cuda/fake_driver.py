"""A card that is not there: the part of CuPy that convdsl calls, over NumPy's memory.

Streams and graphs keep their order and do nothing before they must: work waits in its stream until
somebody synchronises, so that who forgets to wait reads what was there before. A launch runs the
CUDA source on the processor, through the shim: what stands for a cubin here is the source itself
(`compile_source`). Memory begins as NaN. What a real driver refuses is refused: work under capture
on the default stream, addresses of nobody, too little memory, unknown functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.fake_card import Card, CUDADriverError, CUDARuntimeError, OutOfMemoryError
from cuda.fake_memory import Attributes, Block, Pointer, ndarray
from cuda.fake_modules import Module, compile_source
from cuda.fake_streams import Event, Stream


class Fake:
    """The module `cupy`, over a card."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.blocks: dict[int, Block] = {}
        self.streams: dict[int, Stream] = {}
        self.device = [0]
        self.null = [Stream(self, number) for number in range(card.cards)]
        self._current = [[stream] for stream in self.null]

    @property
    def current(self) -> list[Stream]:
        """Streams that were entered on the device that is current, its null stream first."""
        for number in range(len(self.null), self.card.cards):
            self.null.append(Stream(self, number))
            self._current.append([self.null[-1]])
        return self._current[self.device[-1]]

    def module(self) -> ModuleType:
        made = ModuleType("cupy")
        made.__spec__ = ModuleSpec("cupy", None)
        made.__dict__.update(
            ndarray=ndarray,
            empty=lambda shape, dtype: ndarray(self, shape, dtype),
            asarray=self.asarray,
            ascontiguousarray=self.ascontiguousarray,
            from_dlpack=self.asarray,
            cuda=self.cuda(),
        )
        return made

    def cuda(self) -> ModuleType:
        made = ModuleType("cupy.cuda")
        runtime, driver = ModuleType("runtime"), ModuleType("driver")
        runtime.__dict__.update(
            CUDARuntimeError=CUDARuntimeError,
            memoryTypeHost=1,
            pointerGetAttributes=lambda address: Attributes(self.is_pinned(address)),
            driverGetVersion=lambda: self.card.driver,
            getDeviceCount=self.device_count,
            getDeviceProperties=lambda number: {
                "name": b"Fake card",
                "major": int(self.card.arch[3:]) // 10,
                "minor": int(self.card.arch[3:]) % 10,
                "totalGlobalMem": self.card.memory,
            },
        )
        driver.__dict__.update(
            CUDADriverError=CUDADriverError,
            funcSetAttribute=lambda f, attribute, value: self.note(
                f"attribute {attribute} {value}"
            ),
        )
        memory, function = ModuleType("memory"), ModuleType("function")
        memory.__dict__.update(OutOfMemoryError=OutOfMemoryError)
        function.__dict__.update(Module=lambda: Module(self))
        made.__dict__.update(
            runtime=runtime,
            driver=driver,
            memory=memory,
            function=function,
            alloc=lambda size: Pointer(self, size),
            set_allocator=lambda allocator: self.note("an allocator"),
            Stream=lambda non_blocking=False: Stream(self),
            Event=lambda disable_timing=False: Event(self),
            Device=lambda number=None: Device(self, number),
            get_current_stream=lambda: self.current[-1],
            get_elapsed_time=lambda start, end: (end.time - start.time) * 1e3,
        )
        return made

    def at(self, number: int) -> Device:
        return Device(self, number)

    def device_count(self) -> int:
        if not self.card.driver or self.card.trouble:
            raise CUDARuntimeError(self.card.trouble or "cudaErrorInsufficientDriver")
        return self.card.cards

    def note(self, what: str) -> None:
        self.card.events.append(what)

    def is_pinned(self, address: int) -> bool:
        places = ((a.ctypes.data, a.nbytes) for a in self.card.pinned)
        return any(start <= address < start + size for start, size in places)

    def asarray(self, value: Any) -> ndarray:
        """What lies on the card, whoever says so; the memory is shared."""
        if hasattr(value, "__cuda_array_interface__"):
            said = value.__cuda_array_interface__
            if said.get("mask") is not None:
                raise ValueError("CuPy currently does not support masked arrays.")
            if said.get("stream") is not None:
                self.streams[said["stream"]].synchronize()
            if said["typestr"].startswith(">"):
                raise ValueError("CuPy does not support the big-endian byte-order")
            dtype, place = np.dtype(said["typestr"]), said["data"][0]
            return ndarray(self, said["shape"], dtype, place, said.get("strides"), value)
        assert hasattr(value, "__dlpack__")
        value.__dlpack__(stream=self.current[-1].ptr)
        return value.shared

    def ascontiguousarray(self, array: ndarray) -> ndarray:
        if array.view.flags.c_contiguous:
            return array
        made = ndarray(self, array.shape, array.dtype)
        target, taken, stream = made.view, array.view, self.current[-1]
        for address in (made.data.ptr, array.data.ptr):
            stream.touch(self.block_at(address)[0])
        stream.put(lambda: np.copyto(target, taken))
        return made

    def bytes_at(self, address: int) -> np.ndarray:
        """From an address to the end of its block."""
        block, start = self.block_at(address)
        return block.bytes[start:]

    def block_at(self, address: int) -> tuple[Block, int]:
        """The block of an address, and how far into it this is."""
        for start, block in self.blocks.items():
            if start <= address < start + max(block.size, 1):
                return block, address - start
        raise CUDARuntimeError(f"cudaErrorIllegalAddress: {address:#x} is nobody's")


class Device:
    def __init__(self, fake: Fake, number: int | None) -> None:
        self.fake = fake
        self.id = fake.device[-1] if number is None else number

    @property
    def mem_info(self) -> tuple[int, int]:
        if self.fake.card.lost:
            raise CUDARuntimeError(self.fake.card.lost)
        return self.fake.card.memory - self.fake.card.used, self.fake.card.memory

    def __enter__(self) -> Device:
        if self.fake.card.taken:
            raise CUDARuntimeError(self.fake.card.taken)
        if self.id >= self.fake.card.cards:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.fake.device.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.device.pop()


@contextmanager
def there_is(card: Card) -> Iterator[Fake]:
    """While a card is there."""
    fake = Fake(card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", fake.module())
        patch.setattr("convdsl.backends.cuda.nvrtc.compile_source", compile_source)
        patch.setattr("convdsl.backends.cuda.nvrtc.check_nvrtc", lambda: "NVRTC of nobody")
        yield fake
