"""Which bytes of shared memory a product of a warp group reads, and which thread holds which sum,
from the PTX manual's formulas, written down here.

PTX ISA 9.x, "Register Fragments and Shared Memory Matrix Layouts" of wgmma: accumulator D of
.m64nNk8 and .m64nNk16; "Strides" and "Swizzling modes" of K-major operands, 128-byte swizzling;
"Matrix Descriptor". With warpId % 4 = w, laneid >> 2 = g, laneid % 4 = t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_shim.card import ptx_of
from cuda_shim.modules import Library, compile_module, compile_ptx
from cuda_shim.running import ORDERS, Launched, Memory, launch

from convdsl.backends.cuda.group_products import group_products, name_of_form
from convdsl.backends.cuda.printer import source_part
from convdsl.kernel.group_mma import GROUP_FORMS, GroupForm, swizzled
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, nearest_tf32

Array = np.ndarray[Any, Any]


def byte_of(row: int, byte: int) -> int:
    """Of a tile with 128 bytes a row, K-major, 128B swizzling: 8 x 8 pieces of 16 bytes, those of
    row i in the order 0 ^ i, 1 ^ i, ..., 7 ^ i; eight rows further on the next of these."""
    pattern = [[column ^ line for column in range(8)] for line in range(8)]
    piece = pattern[row % 8].index(byte // 16)
    return row // 8 * 1024 + row % 8 * 128 + piece * 16 + byte % 16


def across_of(row: int, depth: int, size: int) -> int:
    """Of a tile of halves with 128 bytes for 64 rows at one depth, MN-major, 128B swizzling: the
    same 8 x 8 pieces, eight depths of 64 rows; then eight depths further on (the stride byte
    offset, 1024) and, after all 64 of a step, the next 64 rows (the leading dimension byte offset).
    """
    pattern = [[column ^ line for column in range(8)] for line in range(8)]
    byte = row % 64 * size
    piece = pattern[depth % 8].index(byte // 16)
    return row // 64 * 64 * 128 + depth // 8 * 1024 + depth % 8 * 128 + piece * 16 + byte % 16


def place_of(thread: int, i: int) -> tuple[int, int]:
    """Row and column of element d_i of the accumulator."""
    w, g, t = thread // 32 % 4, thread % 32 >> 2, thread % 4
    row = 16 * w + g + (8 if i % 4 >= 2 else 0)
    return row, 8 * (i // 4) + 2 * t + i % 2


@pytest.mark.parametrize("form", GROUP_FORMS, ids=str)
def test_formulas(form: GroupForm) -> None:
    for thread in (0, 1, 4, 31, 32, 95, 127):
        assert form.sum_places(thread) == [place_of(thread, i) for i in range(form.sums)]
    for row, byte in ((0, 0), (1, 0), (7, 127), (9, 40), (63, 16)):
        assert swizzled(row * 128 + byte) == byte_of(row, byte)


# One group multiplies depths from the second 32 bytes on, and from the fourth; across, from the
# second sixteen lines on, and from the fourth.
KERNEL = """
extern "C" __global__ void __launch_bounds__(128)
once(const u32* __restrict__ a, const u32* __restrict__ b, float* __restrict__ d) {{
    extern __shared__ __align__(1024) u8 shared[];
    u32* const tile = (u32*)(shared);
    int t = threadIdx.x;
    for (int i = t; i < {a_words}; i += 128) tile[i] = a[i];
    for (int i = t; i < {b_words}; i += 128) tile[{a_words} + i] = b[i];
    show_products();
    __syncthreads();
    float sums[{count}];
    for (int i = 0; i < {count}; i++) sums[i] = 1.0f;
    open_products();
    {name}(sums, &tile[{first}], &tile[{a_words} + {first}]);
    {name}(sums, &tile[3 * {first}], &tile[{a_words} + 3 * {first}]);
    commit_products();
    wait_products<0>();
    settled<{count}>(sums);
    for (int i = 0; i < {count}; i++) d[t * {count} + i] = sums[i];
}}
"""


def library_of(form: GroupForm, *, ptx: bool) -> Library:
    words = {"a_words": 64 * 32, "b_words": form.columns * 32, "first": 512 if form.across else 8}
    text = KERNEL.format(name=name_of_form(form), count=form.sums, **words)
    parts = [source_part("arithmetic.cuh"), group_products([form]), text]
    if ptx:
        return compile_ptx(ptx_of("\n".join([source_part("prelude.cuh"), *parts]), "sm_90a"))
    return compile_module("\n".join(parts), noted=True)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("ptx", [False, True], ids=["source", "ptx"])
@pytest.mark.parametrize("form", GROUP_FORMS, ids=str)
def test_a_product(form: GroupForm, ptx: bool) -> None:
    random = np.random.default_rng(form.columns)
    size, line = form.dtype.bytes, 128 // form.dtype.bytes
    tiles, values = list[Array](), list[Array]()
    for rows in (64, form.columns):
        x = random.standard_normal((rows, line)).astype("f4")
        stored = nearest_tf32(x) if size == 4 else convert(x, DType.F32, form.dtype)
        bytes = np.zeros(rows * 128, np.uint8)
        for row in range(rows):
            for depth in range(line):
                at = across_of(row, depth, size) if form.across else byte_of(row, depth * size)
                bytes[at : at + size] = stored[row, depth : depth + 1].view(np.uint8)
        tiles.append(bytes.view(np.uint32))
        wide = stored if size == 4 else convert(stored, form.dtype, DType.F32)
        values.append(wide.astype("f8"))
    taken = [*range(form.k, 2 * form.k), *range(3 * form.k, 4 * form.k)]
    exact = 1 + values[0][:, taken] @ values[1][:, taken].T
    library, found = library_of(form, ptx=ptx), np.full(128 * form.sums, np.nan, "f4")
    memories = [
        Memory("a", tiles[0], False),
        Memory("b", tiles[1], False),
        Memory("d", found, True),
    ]
    shared = 64 * 128 + form.columns * 128
    launched = Launched("once", (1, 1, 1), (128, 1, 1), shared)
    for order in ORDERS.values():
        launch(library, launched, memories, order, noted=True)
        sums = found.reshape(128, form.sums)
        for thread in range(128):
            wanted = [exact[place_of(thread, i)] for i in range(form.sums)]
            np.testing.assert_allclose(sums[thread], wanted, rtol=1e-5, atol=1e-5)
