"""The NVIDIA card that kernels are made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from convdsl.tensor.records import record

Precision: TypeAlias = Literal["highest", "high", "medium", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)[:3]
"""How products of f32 are computed, in PyTorch's terms (`torch.set_float32_matmul_precision`): in
f32, in TF32, in bf16; sums are f32 in each. And in f16, which reaches too short a way for anything
but training with a scaled loss."""

PRODUCTS: Mapping[str, str] = MappingProxyType(
    dict(zip(PRECISIONS, ("float32", "TF32", "bf16"), strict=True))
)
"""What products are computed in, by the precision."""

PRECISION_OF: Mapping[str, Precision] = MappingProxyType(
    {name: name for name in get_args(Precision)}
)
"""By what users write."""

MIXED: Mapping[str, Precision] = MappingProxyType({"float16": "float16", "bfloat16": "medium"})
"""What products are computed in when training mixes precisions, by the type, in PyTorch's terms
(`torch.amp`)."""


@record
class Architecture:
    """What a compute capability gives, and what a card of it reaches by its data sheet.

    shared_bytes: what a block may have, beyond 48 KB by asking for it.
    shared_bytes_sm, threads_sm, blocks_sm: what a multiprocessor has for its blocks.
    card, multiprocessors, flops, tensor_flops, bandwidth: one card of this kind, its multiply-adds
        in f32 on the plain units and in 16 bits on the tensor units (two operations each, dense),
        and the bytes that its memory gives, per second.
    served: the bytes that its second-level cache gives, per second: 40 in a cycle for each
        multiprocessor. An A100 gives 47 by its white paper; on an H100 products of warps drew
        8.1e12 a second, those of warp groups 9.5e12.

    only: code is for cards of this capability alone, and may use what no later one has ("a" in the
        name).

    Sources: the table of technical specifications per compute capability in NVIDIA's CUDA C++
    Programming Guide, and the data sheets of the cards.
    """

    capability: int
    shared_bytes: int
    shared_bytes_sm: int
    threads_sm: int
    blocks_sm: int
    card: str
    multiprocessors: int
    flops: float
    tensor_flops: float
    bandwidth: float
    served: float
    only: bool = False

    @property
    def name(self) -> str:
        """As compilers call it: sm_80, sm_90a."""
        return f"sm_{self.capability}{'a' if self.only else ''}"

    def runs_on(self, capability: int) -> bool:
        """Whether code for it runs on a card: on those of this capability, later ones of the same
        generation, and later generations, whose drivers translate the PTX."""
        return capability == self.capability if self.only else capability >= self.capability


_H100 = Architecture(
    90, 227 << 10, 228 << 10, 2048, 32, "H100", 132, 67e12, 989e12, 3.35e12, 9.3e12
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        made.name: made
        for made in (
            Architecture(75, 64 << 10, 64 << 10, 1024, 16, "T4", 40, 8.1e12, 65e12, 320e9, 2.5e12),
            Architecture(
                80, 163 << 10, 164 << 10, 2048, 32, "A100", 108, 19.5e12, 312e12, 1555e9, 6.1e12
            ),
            Architecture(
                86, 99 << 10, 100 << 10, 1536, 16, "A10", 72, 31.2e12, 125e12, 600e9, 4.9e12
            ),
            Architecture(
                89, 99 << 10, 100 << 10, 1536, 24, "L4", 58, 30.3e12, 121e12, 300e9, 4.7e12
            ),
            _H100,
            replace(_H100, only=True),
            Architecture(
                100, 227 << 10, 228 << 10, 2048, 32, "B200", 148, 80e12, 2.25e15, 8e12, 11.6e12
            ),
            Architecture(
                120,
                99 << 10,
                100 << 10,
                1536,
                24,
                "RTX 5090",
                170,
                105e12,
                210e12,
                1.79e12,
                16.3e12,
            ),
        )
    }
)
"""Compute capabilities by the names that compilers give them."""

REGISTERS_SM = 65536
"""32-bit registers of a multiprocessor, of every architecture since sm_30."""

WARP = 32


@record
class CudaTarget:
    """What schedules and printers need to know of a card.

    arch: a name in `ARCHITECTURES`.
    precision: how products of f32 are computed.
    """

    arch: str = "sm_90"
    precision: Precision = "highest"

    @property
    def facts(self) -> Architecture:
        """What the architecture gives."""
        return ARCHITECTURES[self.arch]

    @property
    def capability(self) -> int:
        """80 for sm_80."""
        return self.facts.capability

    @property
    def has_async_copies(self) -> bool:
        """Copies from global to shared memory that do not wait (cp.async)."""
        return self.capability >= 80

    @property
    def has_group_products(self) -> bool:
        """Products of matrices in shared memory by warp groups (wgmma), which Hopper alone has."""
        return self.facts.only and self.capability == 90

    @property
    def has_bf16(self) -> bool:
        """Tensor units that multiply bf16 and TF32."""
        return self.capability >= 80
