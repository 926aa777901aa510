"""Which lane holds which element of a matrix, from the PTX manual's formulas, written down here.

PTX ISA 9.x, "Matrix Fragments for mma.m16n8k8" and "... m16n8k16 with floating point type", and
"Warp-level matrix load instruction: ldmatrix". With g = laneid >> 2 (groupID) and t = laneid % 4
(threadID_in_group); elements from low to high, as the tables there have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_shim.card import ptx_of
from cuda_shim.modules import Library, compile_module, compile_ptx
from cuda_shim.running import ORDERS, Launched, Memory, launch

Array = np.ndarray[Any, Any]
Place = Callable[[int, int], tuple[int, int]]  # g, t -> row, column

ACCUMULATORS: Sequence[Place] = (
    lambda g, t: (g, t * 2),
    lambda g, t: (g, t * 2 + 1),
    lambda g, t: (g + 8, t * 2),
    lambda g, t: (g + 8, t * 2 + 1),
)
A_TF32: Sequence[Place] = (
    lambda g, t: (g, t),
    lambda g, t: (g + 8, t),
    lambda g, t: (g, t + 4),
    lambda g, t: (g + 8, t + 4),
)
B_TF32: Sequence[Place] = (
    lambda g, t: (t, g),
    lambda g, t: (t + 4, g),
)
A_HALF_8: Sequence[Place] = (
    lambda g, t: (g, t * 2),
    lambda g, t: (g, t * 2 + 1),
    lambda g, t: (g + 8, t * 2),
    lambda g, t: (g + 8, t * 2 + 1),
)
B_HALF_8: Sequence[Place] = (
    lambda g, t: (t * 2, g),
    lambda g, t: (t * 2 + 1, g),
)
A_HALF_16: Sequence[Place] = (
    *A_HALF_8,
    lambda g, t: (g, t * 2 + 8),
    lambda g, t: (g, t * 2 + 1 + 8),
    lambda g, t: (g + 8, t * 2 + 8),
    lambda g, t: (g + 8, t * 2 + 1 + 8),
)
B_HALF_16: Sequence[Place] = (
    *B_HALF_8,
    lambda g, t: (t * 2 + 8, g),
    lambda g, t: (t * 2 + 1 + 8, g),
)


@dataclass(frozen=True)
class Product:
    """One mma instruction. `shim` names the same in tensor_cores.h."""

    instruction: str
    shim: str
    depth: int
    element: str  # tf32, f16 or bf16
    a: Sequence[Place]
    b: Sequence[Place]
    arch: str = "sm_80"

    @property
    def packed(self) -> int:
        return 1 if self.element == "tf32" else 2


PRODUCTS = {
    "tf32 k8": Product(
        "m16n8k8.row.col.f32.tf32.tf32.f32", "Tf32", 8, "tf32", A_TF32, B_TF32
    ),
    "f16 k8": Product(
        "m16n8k8.row.col.f32.f16.f16.f32", "Halves<convdsl::Float16, 8>", 8, "f16",
        A_HALF_8, B_HALF_8, "sm_75",
    ),
    "bf16 k8": Product(
        "m16n8k8.row.col.f32.bf16.bf16.f32", "Halves<convdsl::BFloat16, 8>", 8, "bf16",
        A_HALF_8, B_HALF_8,
    ),
    "f16 k16": Product(
        "m16n8k16.row.col.f32.f16.f16.f32", "Halves<convdsl::Float16, 16>", 16, "f16",
        A_HALF_16, B_HALF_16,
    ),
    "bf16 k16": Product(
        "m16n8k16.row.col.f32.bf16.bf16.f32", "Halves<convdsl::BFloat16, 16>", 16, "bf16",
        A_HALF_16, B_HALF_16,
    ),
}  # fmt: skip


def fragments(matrix: Array, places: Sequence[Place]) -> Array:
    """What each lane holds, elements from low to high."""
    return np.array(
        [[matrix[place(lane >> 2, lane % 4)] for place in places] for lane in range(32)]
    )


def gathered(held: Array, places: Sequence[Place], shape: tuple[int, int]) -> Array:
    matrix = np.full(shape, np.nan)
    for lane in range(32):
        for i, place in enumerate(places):
            matrix[place(lane >> 2, lane % 4)] = held[lane, i]
    return matrix


def bits(values: Array, element: str) -> Array:
    """Elements as registers of 32 bits; the values are small integers, exact in every type."""
    if element == "tf32":
        return values.astype(np.float32).view(np.uint32)
    if element == "f16":
        halves = values.astype(np.float16).view(np.uint16)
    else:
        halves = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(halves).view(np.uint32)


def product_source(p: Product, multiply: str) -> str:
    a, b = len(p.a) // p.packed, len(p.b) // p.packed
    return f"""
extern "C" __global__ void __launch_bounds__(32)
product(const unsigned* __restrict__ a, const unsigned* __restrict__ b,
        const float* __restrict__ c, float* __restrict__ d) {{
    int t = threadIdx.x;
    unsigned x[{a}], w[{b}];
    float z[4], y[4];
    for (int i = 0; i < {a}; i++) x[i] = a[t * {a} + i];
    for (int i = 0; i < {b}; i++) w[i] = b[t * {b} + i];
    for (int i = 0; i < 4; i++) z[i] = c[t * 4 + i];
    {multiply}
    for (int i = 0; i < 4; i++) d[t * 4 + i] = y[i];
}}
"""


def as_assembly(p: Product) -> str:
    a, b = len(p.a) // p.packed, len(p.b) // p.packed
    names = [f"%{n}" for n in range(8 + a + b)]
    lists = [names[:4], names[4 : 4 + a], names[4 + a : 4 + a + b], names[4 + a + b :]]
    text = ", ".join("{" + ", ".join(part) + "}" for part in lists)
    outs = ", ".join(f'"=f"(y[{i}])' for i in range(4))
    ins = [f'"r"(x[{i}])' for i in range(a)] + [f'"r"(w[{i}])' for i in range(b)]
    ins += [f'"f"(z[{i}])' for i in range(4)]
    return f'asm volatile("mma.sync.aligned.{p.instruction} {text};" : {outs} : {", ".join(ins)});'


def product_library(p: Product, way: str) -> Library:
    if way == "shim":
        multiply = f"convdsl::mma<convdsl::{p.shim}>(__LINE__, y, x, w, z);"
        return compile_module(product_source(p, multiply), noted=False)
    return compile_ptx(ptx_of(product_source(p, as_assembly(p)), p.arch))


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("way", ["shim", "ptx"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_fragments(name: str, way: str) -> None:
    p = PRODUCTS[name]
    random = np.random.default_rng(0)
    a, b = random.integers(-8, 9, (16, p.depth)), random.integers(-8, 9, (p.depth, 8))
    c = random.integers(-8, 9, (16, 8))
    held = [bits(fragments(a, p.a), p.element), bits(fragments(b, p.b), p.element)]
    given = fragments(c, ACCUMULATORS).astype(np.float32)
    d = np.full((32, 4), np.nan, np.float32)
    arrays = dict(zip("abc", (*held, given), strict=True))
    for order in ORDERS.values():
        memories = [Memory(key, array, written=False) for key, array in arrays.items()]
        memories.append(Memory("d", d, written=True))
        launch(
            product_library(p, way), Launched("product", (1, 1, 1), (32, 1, 1)), memories, order,
            noted=True and way == "ptx",
        )  # fmt: skip
        np.testing.assert_array_equal(gathered(d, ACCUMULATORS, (16, 8)), a @ b + c)


def matrices_source(count: int, transposed: bool, load: str) -> str:
    return f"""
extern "C" __global__ void __launch_bounds__(32)
matrices(const unsigned* __restrict__ x, unsigned* __restrict__ y) {{
    __shared__ __align__(16) unsigned tile[{count * 32}];
    int t = threadIdx.x;
    for (int i = 0; i < {count}; i++) tile[i * 32 + t] = x[i * 32 + t];
    __syncthreads();
    unsigned r[{count}];
    const unsigned* row = tile + t % {count * 8} * 4;
    {load}
    for (int i = 0; i < {count}; i++) y[t * {count} + i] = r[i];
}}
"""


def matrices_library(count: int, transposed: bool, way: str) -> Library:
    if way == "shim":
        load = f"convdsl::ldmatrix<{count}, {str(transposed).lower()}>(__LINE__, r, row, t);"
        return compile_module(matrices_source(count, transposed, load), noted=True)
    names = ", ".join(f"%{n}" for n in range(count))
    outs = ", ".join(f'"=r"(r[{n}])' for n in range(count))
    trans = ".trans" if transposed else ""
    instruction = f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16"
    where = '"r"((unsigned)__cvta_generic_to_shared(row))'
    load = f'asm volatile("{instruction} {{{names}}}, [%{count}];" : {outs} : {where});'
    return compile_ptx(ptx_of(matrices_source(count, transposed, load), "sm_80"))


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("way", ["shim", "ptx"])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "transposed"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_from_shared_memory(count: int, transposed: bool, way: str) -> None:
    """Lane 8 m + r gives the address of row r of matrix m; each lane is handed the elements
    (g, 2 t) and (g, 2 t + 1) of every matrix, or of its transpose."""
    x = np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)
    y = np.zeros(32 * count, np.uint32)
    memories = [
        Memory("x", x.reshape(-1).view(np.uint32), written=False),
        Memory("y", y, written=True),
    ]
    library = matrices_library(count, transposed, way)
    for order in ORDERS.values():
        launch(library, Launched("matrices", (1, 1, 1), (32, 1, 1)), memories, order, noted=True)
        found = y.view(np.uint16).reshape(32, count, 2)
        for lane in range(32):
            g, t = lane >> 2, lane % 4
            for m in range(count):
                matrix = x[m].T if transposed else x[m]
                assert found[lane, m].tolist() == [matrix[g, t * 2], matrix[g, t * 2 + 1]]
