"""Code of a card that is not there: what stands for a cubin is the CUDA source itself, and a launch
runs it on the processor, through the shim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cuda.fake_card import CUDADriverError
from cuda_shim.modules import Library, compile_module
from cuda_shim.running import FORWARD, Launched, Memory, launch

import convdsl
from convdsl.backends.cuda.nvrtc import Compiled, Resources

if TYPE_CHECKING:
    from cuda.fake_driver import Fake
    from cuda.fake_streams import Stream

MARK = b"\x7fELF not of a card: "
_PRELUDE = (Path(convdsl.__file__).parent / "backends" / "cuda" / "prelude.cuh").read_text()
_FUNCTION = re.compile(r"__global__ void (?:__launch_bounds__\([\d, ]+\) )?(\w+)\(([^)]*)\)")
_TYPES = {
    "f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "u32": "uint32",
    "u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "f16": "uint16",
    "bf16": "uint16", "bool": "uint8",
}  # fmt: skip


def compile_source(source: str, arch: str) -> Compiled:
    """In the place of NVRTC's: machine code that this driver understands."""
    cubin = MARK + f"{arch}\n".encode() + source.encode()
    return Compiled(f"// {arch}\n{source}", cubin, "", {"": Resources(0, 0, 0, 0)})


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
        assert min(*grid, *block) > 0, "CUDA_ERROR_INVALID_VALUE"
        for address in args:
            stream.touch(fake.block_at(address)[0])
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
