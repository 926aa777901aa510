"""Rounding to TF32, from the prelude: what NVRTC makes of it, on every kind of bits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from contractions_on_cards import lowered_for
from cuda_shim.card import ptx_of
from cuda_shim.modules import compile_ptx
from cuda_shim.running import Launched, Memory, launch
from layer_steps import step_graph
from machine_code import compiled
from resource_gate import functions_of

import convdsl
from convdsl.backends.cuda.printer import print_module
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.tensor.conversion import nearest_tf32

_GRADIENT = re.compile(r"conv_grad_weight_\d+\Z")
FOLDER = Path(convdsl.__file__).parent / "backends" / "cuda"
COUNT = 4096
KERNEL = f"""
{(FOLDER / "prelude.cuh").read_text()}
extern "C" __global__ void __launch_bounds__(128) rounded(const float* x, float* y) {{
    for (int i = threadIdx.x; i < {COUNT}; i += 128) y[i] = tf32(x[i]);
}}
"""


def numbers() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Drawn bits; ties and their neighbours; both zeros, denormals, the largest, infinities, NaN as
    processors and cards make them."""
    random = np.random.default_rng(5)
    bits = random.integers(0, 1 << 32, COUNT, np.uint32)
    bits[:1024] = bits[:1024] >> 13 << 13 | random.choice([0, 0xFFF, 0x1000, 0x1001, 0x1FFF], 1024)
    ends = [0, 1, 0xFFF, 0x1000, 0x7FFFFF, 0x800000, 0x7F7FEFFF, 0x7F7FF000, 0x7F7FFFFF, 0x7F800000,
            0x7FC00000, 0x7FFFFFFF]  # fmt: skip
    bits[1024 : 1024 + 2 * len(ends)] = [*ends, *(end | 1 << 31 for end in ends)]
    return bits.view(np.float32)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_rounding(arch: str) -> None:
    x, y = numbers(), np.zeros(COUNT, np.float32)
    memories = [Memory("x", x, written=False), Memory("y", y, written=True)]
    library = compile_ptx(ptx_of(KERNEL, arch))
    launch(library, Launched("rounded", (1, 1, 1), (128, 1, 1)), memories, noted=True)
    some = ~np.isnan(x)
    np.testing.assert_array_equal(
        y[some].view(np.uint32), nearest_tf32(x[some].copy()).view(np.uint32)
    )
    seen = np.isnan(x) & (x.view(np.uint32) & 0x7FE000 != 0)  # by the ten bits that units read
    assert seen.sum() >= 4
    assert np.isnan(y[seen]).all()


@pytest.mark.dear
def test_main_loops() -> None:
    """A filter's gradient rounds one of its factors in registers: cvt.rna.tf32 took 7.05 issue
    slots for each product."""
    target = CudaTarget("sm_80", "high")
    graph = step_graph("conv", (32, 64, 256, 256), {"channels": 64, "kernel": 3, "bias": False})
    source = print_module(lowered_for(graph, target).program, target).source
    (text,) = (t for name, t in functions_of(source).items() if _GRADIENT.match(name))
    (made,) = compiled(text, target.arch).values()
    loop = made.main_loop()
    assert loop is not None
    assert " tf32(" in text
    assert len(loop.codes) <= 5.5 * loop.count("HMMA")
