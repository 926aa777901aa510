"""Activations far below zero, by the CUDA source: a unit or two of the smallest normal number."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_shim.graphs import OnCard
from executors import graph_of
from gradients import gradient_graph
from truths import errors, everywhere, flushed, truth

from convdsl.kernel.scalar import FUNCTIONS
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType

NAMES = {"silu": ("silu", {}), "mish": ("mish", {}), "gelu": ("gelu", {})} | {
    "tanh_gelu": ("gelu", {"approximate": "tanh"})
}


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes(name: str, dtype: DType) -> None:
    """Values within the record's units everywhere; slopes of NaN and far out, and in the tail."""
    op, attributes = NAMES[name]
    x = everywhere(dtype, 1 << 12)
    graph = graph_of(BY_NAME[op].call({"x": TensorType(dtype, x.shape)}, attributes))
    found = OnCard(graph).run({"x": x})[0]["y"]
    assert errors(found, truth(name, x)).max() <= FUNCTIONS[name].ulps

    graph = gradient_graph(graph, {"x": graph.inputs["x"]})
    slope = OnCard(graph).run({"x": x, "d_y": np.ones_like(x)})[0]["x"]
    np.testing.assert_array_equal(np.isnan(slope), np.isnan(x))
    far = np.abs(x) > 1000
    np.testing.assert_allclose(slope[far], x[far] > 0, 4e-7)
    if name in ("silu", "mish"):  # (1 + x) exp(x) to the last digit, below -60
        tail = (x < -60) & (x > -800)
        wide = x[tail].astype(np.longdouble)
        wanted = (1 + wide) * np.exp(wide)
        bound = 8 * np.finfo(x.dtype).eps * np.abs(wanted) + 2 * np.finfo(x.dtype).tiny
        assert (np.abs(flushed(slope[tail]) - wanted) <= bound).all()
