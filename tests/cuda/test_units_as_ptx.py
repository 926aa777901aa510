"""Contractions from their PTX: what the inline assembly of the prelude does is run as well."""

from __future__ import annotations

import numpy as np
import pytest
from contractions_on_cards import TOLERANCES, close, lowered_for
from cuda_shim.card import ptx_of
from cuda_shim.modules import compile_ptx
from cuda_shim.programs import run_launches
from cuda_shim.running import ORDERS
from graphs import evaluate_results, random_arrays
from layer_steps import step_graph
from lowering.test_second_target import packed

from convdsl.backends.cuda.printer import print_module
from convdsl.kernel.cuda_target import CudaTarget

pytestmark = pytest.mark.ladder

LAYERS = {
    "conv": ("conv", (2, 8, 7, 6), {"channels": 20, "kernel": 3}),
    "strided": ("conv", (1, 12, 9, 8), {"channels": 20, "kernel": 3, "stride": 2}),
    "groups": ("conv", (2, 12, 7, 5), {"channels": 18, "kernel": 3, "groups": 3}),
    "linear": ("linear", (33, 50), {"channels": 70}),
}
TARGETS = {
    "sm_75": CudaTarget("sm_75"),
    "f32": CudaTarget("sm_80"),
    "tf32": CudaTarget("sm_80", "high"),
    "bf16": CudaTarget("sm_90", "medium"),
    "f16": CudaTarget("sm_80", "float16"),
    "f16 on sm_75": CudaTarget("sm_75", "float16"),
    "blackwell": CudaTarget("sm_120", "medium"),
}
SPOKEN = {"f32": "cp.async", "tf32": "tf32.tf32", "bf16": "bf16.bf16", "blackwell": "bf16.bf16",
          "f16": "m16n8k16.row.col.f32.f16", "f16 on sm_75": "m16n8k8.row.col.f32.f16"}  # fmt: skip


@pytest.mark.dear
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_step_of_a_layer(layer: str, name: str) -> None:
    op, shape, attributes = LAYERS[layer]
    graph, target = step_graph(op, shape, attributes), TARGETS[name]
    lowered = lowered_for(graph, target)
    program, module = lowered.program, print_module(lowered.program, target)
    ptx = ptx_of(module.source, target.arch)
    assert SPOKEN.get(name, "") in ptx
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=5).items()}
    doubles = {n: a.astype("f8") for n, a in arrays.items()}
    truth, new = evaluate_results(graph, doubles)
    weights, inputs = packed(lowered, arrays), [arrays[port.name] for port in program.inputs]
    for order in ORDERS.values():
        states = {p.name: np.array(arrays[p.name], order="C") for p in program.states}
        found = run_launches(
            program, module, compile_ptx(ptx), weights, inputs, list(states.values()), order
        )
        for port, array in zip(program.outputs, found, strict=True):
            close(array, truth[port.name], TOLERANCES[target.precision], port.name)
        for key, array in states.items():
            close(array, new[key], TOLERANCES[target.precision], key)
