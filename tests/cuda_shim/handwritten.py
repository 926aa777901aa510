"""CUDA C written by hand, as the backend prints it, and small mistakes in it.

Each mistake is a replacement in a kernel's text, with the detector that must name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuda_shim.running import Launched

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sample:
    """A kernel, how it is launched, drawn operands, and what it writes to each output.

    operands: arrays by name, in the order of the parameters; outputs come after them.
    """

    source: str
    launched: Launched
    operands: Callable[[], dict[str, Array]]
    results: Callable[[Mapping[str, Array]], dict[str, Array]]
    tolerance: float = 1e-6


def _normal(*shape: int) -> Array:
    return np.random.default_rng(shape[0]).standard_normal(shape).astype(np.float32)


# What the samples call, for the shim and as inline assembly.
SHIM = """
#define copy(to, from, size, valid) convdsl_copy(to, from, size, valid)
#define commit() convdsl_commit()
template <int LEFT> static inline void wait() { convdsl_wait(LEFT); }
#define multiply(d, a, b) convdsl::mma<convdsl::Tf32>(__LINE__, d, a, b, d)
"""
ASSEMBLY = """
__device__ __forceinline__ void copy(void* to, const void* from, int size, int valid) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::
        "r"(at), "l"(from), "r"(valid) : "memory");
}
__device__ __forceinline__ void commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int LEFT> __device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory");
}
__device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
"""

SUMS = """
extern "C" __global__ void __launch_bounds__(64)
sums(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float part[64];
    int t = threadIdx.x;
    float sum = 0.0f;
    for (int i = t; i < 1000; i += 64) {
        sum += x[blockIdx.x * 1000 + i];
    }
    part[t] = sum;
    __syncthreads();
    for (int k = 32; k > 0; k >>= 1) {
        if (t < k) {
            part[t] += part[t + k];
        }
        __syncthreads();
    }
    if (t == 0) {
        y[blockIdx.x] = part[0];
    }
}
"""

SHUFFLES = """
extern "C" __global__ void __launch_bounds__(96)
shuffles(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float part[3];
    int t = threadIdx.x;
    float sum = x[blockIdx.x * 96 + t];
    sum += __shfl_xor_sync(0xffffffffu, sum, 16);
    sum += __shfl_xor_sync(0xffffffffu, sum, 8);
    sum += __shfl_xor_sync(0xffffffffu, sum, 4);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    if (t % 32 == 0) {
        part[t / 32] = sum;
    }
    __syncthreads();
    if (t == 0) {
        y[blockIdx.x] = part[0] + part[1] + part[2];
    }
}
"""

# Tiles of 16 x 24 of c = a b for a of 32 x 40 and b of 40 x 48, through three stages of copies of
# eight columns of a and rows of b each.
STAGES = """
__device__ void load(float* as, float* bs, const float* a, const float* b, int k, int t) {
    if (t < 32) {
        copy(as + t * 4, a + (blockIdx.y * 16 + t / 2) * 40 + k * 8 + t % 2 * 4, 16, 16);
    }
    if (t < 48) {
        copy(bs + t * 4, b + (k * 8 + t / 6) * 48 + blockIdx.x * 24 + t % 6 * 4, 16, 16);
    }
}

extern "C" __global__ void __launch_bounds__(96)
stages(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c) {
    __shared__ __align__(16) float as[384];
    __shared__ __align__(16) float bs[576];
    int t = threadIdx.x;
    int row = t / 6;
    int column = t % 6 * 4;
    float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int s = 0; s < 2; s++) {
        load(as + s * 128, bs + s * 192, a, b, s, t);
        commit();
    }
    for (int k = 0; k < 5; k++) {
        wait<1>();
        __syncthreads();
        if (k + 2 < 5) {
            load(as + (k + 2) % 3 * 128, bs + (k + 2) % 3 * 192, a, b, k + 2, t);
        }
        commit();
        for (int i = 0; i < 8; i++) {
            float pixel = as[k % 3 * 128 + row * 8 + i];
            for (int j = 0; j < 4; j++) {
                acc[j] = fmaf(pixel, bs[k % 3 * 192 + i * 24 + column + j], acc[j]);
            }
        }
    }
    int at = (blockIdx.y * 16 + row) * 48 + blockIdx.x * 24 + column;
    *(float4*)(c + at) = make_float4(acc[0], acc[1], acc[2], acc[3]);
}
"""

# One warp a block: 16 rows of a (16 x 24) times eight columns of b (24 x 16), by tf32 products.
WARPS = """
extern "C" __global__ void __launch_bounds__(32)
warps(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c) {
    __shared__ __align__(16) float as[384];
    int t = threadIdx.x;
    int row = t >> 2;
    int column = t & 3;
    for (int i = 0; i < 12; i++) {
        as[i * 32 + t] = a[i * 32 + t];
    }
    __syncthreads();
    float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int k = 0; k < 24; k += 8) {
        unsigned x[4];
        unsigned w[2];
        x[0] = __float_as_uint(as[row * 24 + k + column]);
        x[1] = __float_as_uint(as[(row + 8) * 24 + k + column]);
        x[2] = __float_as_uint(as[row * 24 + k + column + 4]);
        x[3] = __float_as_uint(as[(row + 8) * 24 + k + column + 4]);
        w[0] = __float_as_uint(b[(k + column) * 16 + blockIdx.x * 8 + row]);
        w[1] = __float_as_uint(b[(k + column + 4) * 16 + blockIdx.x * 8 + row]);
        multiply(acc, x, w);
    }
    int at = row * 16 + blockIdx.x * 8 + column * 2;
    *(float2*)(c + at) = make_float2(acc[0], acc[1]);
    *(float2*)(c + at + 128) = make_float2(acc[2], acc[3]);
}
"""

# y[i] = x[i - 1] + x[i + 1] at the inner positions of 1001, by blocks of 128.
STENCIL = """
extern "C" __global__ void __launch_bounds__(128)
stencil(const float* __restrict__ x, float* __restrict__ y) {
    int i = blockIdx.x * 128 + threadIdx.x;
    float left = i >= 1 ? (i < 1002 ? x[i - 1] : 0.0f) : 0.0f;
    float right = i + 1 < 1001 ? x[i + 1] : 0.0f;
    if (i < 1001) {
        y[i] = left + right;
    }
}
"""


def _stencil(x: Array) -> Array:
    padded = np.pad(x, 1)
    return padded[:-2] + padded[2:]


SAMPLES: Mapping[str, Sample] = {
    "sums": Sample(
        SUMS,
        Launched("sums", (7, 1, 1), (64, 1, 1)),
        lambda: {"x": _normal(7, 1000)},
        lambda arrays: {"y": arrays["x"].sum(axis=1)},
    ),
    "shuffles": Sample(
        SHUFFLES,
        Launched("shuffles", (5, 1, 1), (96, 1, 1)),
        lambda: {"x": _normal(5, 96)},
        lambda arrays: {"y": arrays["x"].sum(axis=1)},
    ),
    "stages": Sample(
        STAGES,
        Launched("stages", (2, 2, 1), (96, 1, 1)),
        lambda: {"a": _normal(32, 40), "b": _normal(40, 48)},
        lambda arrays: {"c": arrays["a"] @ arrays["b"]},
    ),
    "warps": Sample(
        WARPS,
        Launched("warps", (2, 1, 1), (32, 1, 1)),
        lambda: {"a": _normal(16, 24), "b": _normal(24, 16)},
        lambda arrays: {"c": arrays["a"] @ arrays["b"]},
        tolerance=2e-3,
    ),
    "stencil": Sample(
        STENCIL,
        Launched("stencil", (8, 1, 1), (128, 1, 1)),
        lambda: {"x": _normal(1001)},
        lambda arrays: {"y": _stencil(arrays["x"])},
    ),
}


@dataclass(frozen=True)
class Mistake:
    """`old` becomes `new` in a sample; `caught` names the detectors, one of which sees it in every
    order. "values" is the comparison with float64."""

    sample: str
    old: str
    new: str
    caught: tuple[str, ...]

    @property
    def source(self) -> str:
        text = SAMPLES[self.sample].source
        assert text.count(self.old) == 1, self.old
        return text.replace(self.old, self.new)


_STORE = "part[t] = sum;\n"
_REDUCED = "            part[t] += part[t + k];\n        }\n        __syncthreads();"

MISTAKES: Mapping[str, Mistake] = {
    "missing barrier": Mistake(
        "sums", f"{_STORE}    __syncthreads();", _STORE, ("race of threads", "unwritten")
    ),
    "missing barrier in a loop": Mistake(
        "sums", _REDUCED, _REDUCED.replace("__syncthreads();", ""), ("race of threads",)
    ),
    "barrier in a branch": Mistake(
        "sums",
        _REDUCED,
        "            part[t] += part[t + k];\n            __syncthreads();\n        }",
        ("divergence",),
    ),
    "read of what nobody stored": Mistake("sums", _STORE, f"if (t < 63) {_STORE}", ("unwritten",)),
    "read past shared memory": Mistake(
        "sums", "int k = 32; k > 0", "int k = 64; k > 0", ("bounds",)
    ),
    "write past shared memory": Mistake(
        "sums", "part[t] = sum;", "part[t + 1] = sum;", ("bounds",)
    ),
    "read past the operand": Mistake("sums", "i < 1000", "i <= 1000", ("bounds", "values")),
    "write past the result": Mistake(
        "sums", "y[blockIdx.x] = part[0]", "y[blockIdx.x + 1] = part[0]", ("bounds",)
    ),
    "blocks write one element": Mistake(
        "sums", "y[blockIdx.x] = part[0]", "y[blockIdx.x / 2] = part[0]", ("race of blocks",)
    ),
    "blocks add to one element": Mistake(
        "sums", "y[blockIdx.x] = part[0]", "y[0] += part[0]", ("race of blocks",)
    ),
    "shuffle of half a warp": Mistake(
        "shuffles",
        "sum += __shfl_xor_sync(0xffffffffu, sum, 4);",
        "if (t & 1) sum += __shfl_xor_sync(0xffffffffu, sum, 4);",
        ("divergence",),
    ),
    "missing barrier between warps": Mistake(
        "shuffles", "    __syncthreads();\n", "", ("race of threads", "unwritten")
    ),
    "wait off by one": Mistake("stages", "wait<1>()", "wait<2>()", ("copy in flight",)),
    "commit missing": Mistake(
        "stages",
        "t);\n        commit();\n    }\n",
        "t);\n    }\n",
        ("copy in flight", "unwritten"),
    ),
    "store into a live stage": Mistake(
        "stages",
        "load(as + (k + 2) % 3 * 128",
        "load(as + (k + 1) % 3 * 128",
        ("race of threads", "copy in flight"),
    ),
    "stage that was read before": Mistake(
        "stages",
        "as[k % 3 * 128 + row",
        "as[(k + 2) % 3 * 128 + row",
        ("copy in flight", "unwritten", "race of threads"),
    ),
    "no barrier after the wait": Mistake(
        "stages",
        "wait<1>();\n        __syncthreads();",
        "wait<1>();",
        ("copy in flight", "unwritten", "race of threads"),
    ),
    "copy of half a piece": Mistake(
        "stages", "k * 8 + t % 2 * 4, 16, 16", "k * 8 + t % 2 * 4, 16, 8", ("values",)
    ),
    "copy to an odd place": Mistake(
        "stages", "as + t * 4, a", "as + t * 4 + 2, a", ("alignment", "bounds")
    ),
    "fragment's rows exchanged": Mistake(
        "warps", "as[(row + 8) * 24 + k + column])", "as[(row + 4) * 24 + k + column])", ("values",)
    ),
    "fragment's column": Mistake(
        "warps", "(k + column + 4) * 16", "(k + column + 2) * 16", ("values",)
    ),
    "fragment read past its tile": Mistake(
        "warps",
        "as[(row + 8) * 24 + k + column + 4])",
        "as[(row + 9) * 24 + k + column + 4])",
        ("bounds",),
    ),
    "result in another column": Mistake(
        "warps", "blockIdx.x * 8 + column * 2", "blockIdx.x * 4 + column * 2", ("race of blocks",)
    ),
    "unsigned wrap": Mistake("stencil", "i >= 1 ?", "i - 1u >= 0u ?", ("bounds",)),
    "border forgotten": Mistake("stencil", "i + 1 < 1001 ?", "i < 1001 ?", ("bounds",)),
    "rest of the grid": Mistake(
        "stencil", "    if (i < 1001) {", "    if (i < 1024) {", ("bounds",)
    ),
    "store where another block reads": Mistake(
        "stencil", "y[i] = left + right", "((float*)x)[i] = y[i] = left + right", ("bounds",)
    ),
    "value of a column left out": Mistake(
        "stencil", "y[i] = left", "if (i != 77) y[i] = left", ("values",)
    ),
}
