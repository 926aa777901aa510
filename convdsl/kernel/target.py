"""The processor that kernels are made for."""

from __future__ import annotations

from convdsl.kernel.caches import TYPICAL, Caches
from convdsl.tensor import DType
from convdsl.tensor.records import record


@record
class Target:
    """What schedules and printers need to know of a processor."""

    triple: str
    cpu: str
    features: str  # LLVM's notation: +avx2,-avx512f
    vector_bytes: int  # width of the vectors that kernels use
    vector_registers: int
    caches: Caches = TYPICAL
    halves: bool = False  # whether an instruction makes f16 of f32, and back

    @property
    def architecture(self) -> str:
        """`x86_64`, `aarch64`, ..."""
        return self.triple.split("-")[0]

    @property
    def instructions(self) -> str:
        """What a processor must have to run code made for this one; caches are no part of it."""
        return f"{self.cpu} ({self.triple}) {self.features}"

    def lanes(self, dtype: DType) -> int:
        """Elements of a type in one vector."""
        return max(1, self.vector_bytes // dtype.bytes)

    def registers(self, lanes: int, dtype: DType) -> int:
        """How many registers a vector of so many lanes takes."""
        return max(1, lanes * dtype.bytes // self.vector_bytes)
