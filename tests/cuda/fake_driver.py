"""A card that is not there: the part of CuPy that convdsl calls, over NumPy's memory.

Streams and graphs keep their order and do nothing before they must: work waits in its stream until
somebody synchronises, so that who forgets to wait reads what was there before. A launch runs the
CUDA source on the processor, through the shim: what stands for a cubin here is the source itself
(`compile_source`). Memory begins as NaN. What a real driver refuses is refused: work under capture
on the default stream, addresses of nobody, too little memory, unknown functions.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda_shim.modules import Library, compile_module
from cuda_shim.running import FORWARD, Launched, Memory, launch

import convdsl
from convdsl.backends.cuda.nvrtc import Compiled, Resources

MARK = b"\x7fELF not of a card: "
_PRELUDE = (Path(convdsl.__file__).parent / "backends" / "cuda" / "prelude.cuh").read_text()
_FUNCTION = re.compile(r"__global__ void (?:__launch_bounds__\([\d, ]+\) )?(\w+)\(([^)]*)\)")
_TYPES = {
    "f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "u32": "uint32",
    "u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "f16": "uint16",
    "bf16": "uint16", "bool": "uint8",
}  # fmt: skip


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


def compile_source(source: str, arch: str) -> Compiled:
    """In the place of NVRTC's: machine code that this driver understands."""
    cubin = MARK + f"{arch}\n".encode() + source.encode()
    return Compiled(f"// {arch}\n{source}", cubin, "", {"": Resources(0, 0, 0, 0)})


@dataclass
class Card:
    """What there is, and what was asked of it."""

    arch: str = "sm_90"
    memory: int = 1 << 30
    cards: int = 1
    driver: int = 13000
    events: list[str] = field(default_factory=list)  # what was done, in order
    broken: dict[str, str] = field(default_factory=dict)  # what launching a function ends in
    used: int = 0
    lost: str = ""  # an error that stays
    trouble: str = ""  # what counting cards ends in
    refuses: dict[str, str] = field(default_factory=dict)  # what loading cubin or PTX ends in
    pinned: list[np.ndarray] = field(default_factory=list)  # memory of the host that is pinned

    def allocate(self, size: int) -> np.ndarray:
        if self.used + size > self.memory:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.used += size
        whole = np.full(size + 256, 0xFF, np.uint8)
        start = -whole.ctypes.data % 256
        return whole[start : start + size]

    def count(self, what: str) -> int:
        return sum(event.startswith(what) for event in self.events)


class Fake:
    """The module `cupy`, over a card."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.blocks: dict[int, Pointer] = {}
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
            return ndarray(self, said["shape"], np.dtype(said["typestr"]), said["data"][0])
        assert hasattr(value, "__dlpack__")
        value.__dlpack__(stream=self.current[-1].ptr)
        return value.shared

    def ascontiguousarray(self, array: ndarray) -> ndarray:
        if array.view.flags.c_contiguous:
            return array
        made = ndarray(self, array.shape, array.dtype)
        made.view[...] = array.view
        return made

    def bytes_at(self, address: int) -> np.ndarray:
        """From an address to the end of its block."""
        block, start = self.block_at(address)
        return block.bytes[start:]

    def block_at(self, address: int) -> tuple[Pointer, int]:
        """The block of an address, and how far into it this is."""
        for start, block in self.blocks.items():
            if start <= address < start + max(block.size, 1):
                return block, address - start
        raise CUDARuntimeError(f"cudaErrorIllegalAddress: {address:#x} is nobody's")


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
        return Device(self.fake, self.data.device)

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


class Stream:
    """Work in order."""

    numbers = iter(range(100, 1 << 30))

    def __init__(self, fake: Fake, null_of: int | None = None) -> None:
        self.fake = fake
        self.ptr = 0 if null_of is not None else next(self.numbers)
        self.device = fake.device[-1] if null_of is None else null_of
        self.waiting: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None

    def put(self, work: Callable[[], None]) -> None:
        if self.captured is None:
            self.waiting.append(work)
        else:
            self.captured.append(work)

    def synchronize(self) -> None:
        assert self.captured is None, "cudaErrorStreamCaptureUnsupported"
        while self.waiting:
            self.waiting.pop(0)()
        if self.fake.card.lost:
            raise CUDARuntimeError(self.fake.card.lost)

    def wait_event(self, event: Event) -> None:
        assert self.captured is None, "cudaErrorStreamCaptureIsolation"
        self.put(event.synchronize)

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self) -> None:
        assert self.ptr, "cudaErrorStreamCaptureUnsupported"
        self.captured = []

    def end_capture(self) -> Graph:
        work, self.captured = self.captured, None
        assert work is not None
        self.fake.note(f"captured {len(work)}")
        return Graph(self.fake, work)

    def __enter__(self) -> Stream:
        self.fake.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.current.pop()


@dataclass
class Graph:
    fake: Fake
    work: list[Callable[[], None]]

    def launch(self, stream: Stream | None = None) -> None:
        self.fake.note("graph")
        for one in self.work:
            (stream or self.fake.current[-1]).put(one)


class Event:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.stream: Stream | None = None
        self.place = 0

    def record(self, stream: Stream) -> None:
        assert stream.captured is None, "recorded in a capture"
        self.passed = False
        self.stream = stream
        stream.put(self._pass)

    def _pass(self) -> None:
        self.passed = True
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        while self.stream is not None and not self.passed and self.stream.waiting:
            self.stream.waiting.pop(0)()


class Device:
    def __init__(self, fake: Fake, number: int | None) -> None:
        self.fake = fake
        self.id = fake.device[-1] if number is None else number

    @property
    def mem_info(self) -> tuple[int, int]:
        return self.fake.card.memory - self.fake.card.used, self.fake.card.memory

    def __enter__(self) -> Device:
        if self.id >= self.fake.card.cards:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.fake.device.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.device.pop()


class Module:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.source = ""

    def load(self, image: bytes) -> None:
        kind = "cubin" if image.startswith(MARK) else "PTX"
        if kind in self.fake.card.refuses:
            raise CUDADriverError(self.fake.card.refuses[kind])
        if kind == "cubin":
            arch, _, source = image[len(MARK) :].partition(b"\n")
            here = self.fake.card.arch
            only = arch.endswith(b"a")
            made_for, own = int(arch[3:].rstrip(b"a")), int(here[3:])
            if made_for != own if only else made_for // 10 != own // 10:
                raise CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU")
            self.fake.note(f"module {arch.decode()}")
        else:
            assert image.endswith(b"\0"), "PTX is a C string"
            source = image[:-1].partition(b"\n")[2]
            self.fake.note("module PTX")
        self.source = source.decode()

    def get_function(self, name: str) -> Function:
        for found, parameters in _FUNCTION.findall(self.source):
            if found == name:
                return Function(self, name, parameters)
        raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")


class Function:
    ptr = 1

    def __init__(self, module: Module, name: str, parameters: str) -> None:
        self.module, self.name = module, name
        self.parameters = [
            (word.split("*")[0].replace("const", "").strip(), "const " in word)
            for word in parameters.split(",")
            if word.strip()
        ]
        self._library: Library | None = None

    def __call__(
        self, grid: tuple, block: tuple, args: tuple, shared_mem: int, stream: Stream
    ) -> None:
        fake = self.module.fake
        assert len(args) == len(self.parameters)
        assert stream.device == fake.device[-1], "cudaErrorInvalidResourceHandle"
        fake.note(f"launch {self.name}")
        if fake.card.broken.get(self.name, "").startswith("refused"):
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {fake.card.broken[self.name]}")
        stream.put(lambda: self._run(grid, block, args, shared_mem))

    def _run(self, grid: tuple, block: tuple, args: tuple, shared_mem: int) -> None:
        fake = self.module.fake
        fake.card.lost = fake.card.lost or fake.card.broken.get(self.name, "")
        if fake.card.lost:
            return
        if self._library is None:
            self._library = compile_module(self.module.source.replace(_PRELUDE, "", 1), noted=False)
        memories = [
            Memory(f"a{number}", self._typed(address, kind), not constant)
            for number, (address, (kind, constant)) in enumerate(
                zip(args, self.parameters, strict=True)
            )
        ]
        launched = Launched(self.name, grid, block, shared_mem)
        launch(self._library, launched, memories, FORWARD, noted=False)

    def _typed(self, address: int, kind: str) -> np.ndarray:
        data = self.module.fake.bytes_at(address)
        dtype = np.dtype(_TYPES[kind])
        return data[: data.nbytes // dtype.itemsize * dtype.itemsize].view(dtype)


@contextmanager
def there_is(card: Card) -> Iterator[Fake]:
    """While a card is there."""
    fake = Fake(card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", fake.module())
        patch.setattr("convdsl.backends.cuda.nvrtc.compile_source", compile_source)
        patch.setattr("convdsl.backends.cuda.nvrtc.check_nvrtc", lambda: "NVRTC of nobody")
        yield fake
