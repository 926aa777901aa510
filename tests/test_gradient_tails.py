"""Gradients far from zero: what they tend to, never NaN; softmax of numbers of thousands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import graph_of, machine_code, run_graph
from gradients import Array, gradient_graph
from graphs import evaluate_graph

from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType

SCALE = 1.0507009873554805

ENDS: dict[str, tuple[float, float]] = {
    "relu": (0, 1), "relu6": (0, 0), "leaky_relu": (0.01, 1), "elu": (0, 1), "selu": (0, SCALE),
    "celu": (0, 1), "gelu": (0, 1), "silu": (0, 1), "mish": (0, 1), "hardswish": (0, 1),
    "hardsigmoid": (0, 0), "sigmoid": (0, 0), "tanh": (0, 0), "hard_tanh": (0, 0),
    "softplus": (0, 1), "softsign": (0, 0), "erf": (0, 0), "reciprocal": (0, 0), "clip": (1, 1),
}  # fmt: skip
"""Slopes far on the left and far on the right."""

CASES = [(name, {}) for name in ENDS] + [("gelu", {"approximate": "tanh"})]
FAR = [1e4, 1e10, 1e30, 3e38, np.inf]


def slopes(op: str, attributes: dict[str, Any], x: Array, dy: Array) -> list[Array]:
    """dx by the oracle and by machine code."""
    dtype = next(d for d in (DType.F32, DType.F64) if d.numpy == x.dtype.name)
    graph = graph_of(BY_NAME[op].call({"x": TensorType(dtype, x.shape)}, attributes))
    graph = gradient_graph(graph, {"x": graph.inputs["x"]})
    arrays = {"x": x, "d_y": dy}
    return [evaluate_graph(graph, arrays)["x"], run_graph(graph, arrays, machine_code)["x"]]


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "attributes"), CASES, ids=str)
def test_what_activations_tend_to(op: str, attributes: dict[str, Any], dtype: Any) -> None:
    x = np.array([-v for v in FAR] + FAR, dtype)
    left, right = ENDS[op]
    wanted = [left] * len(FAR) + [right] * len(FAR)
    for found in slopes(op, attributes, x, np.ones_like(x)):
        np.testing.assert_allclose(found, wanted, 1e-6, 1e-7)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "reduce_log_sum_exp"])
def test_softmax_of_thousands(op: str, dtype: Any) -> None:
    """Against the formulas in double precision; some rows are level, some are one peak."""
    random = np.random.default_rng(4)
    x = np.concatenate(
        [
            random.uniform(-1e4, 1e4, (4, 6)),
            random.uniform(-1, 1, (4, 6)) + 1e4,
            random.uniform(-1, 1, (4, 6)) - 1e4,
            np.full((1, 6), -1e4),
            np.array([[1e4, 1e4, -1e4, -1e4, 0, 1e4]]),
        ]
    ).astype(dtype)
    wide = x.astype(np.float64)
    y = np.exp(wide - wide.max(1, keepdims=True))
    y /= y.sum(1, keepdims=True)
    if op == "reduce_log_sum_exp":
        dy = random.standard_normal(len(x)).astype(dtype)
        wanted = dy[:, None] * y
        found = slopes(op, {"axes": 1}, x, dy)
    else:
        dy = random.standard_normal(x.shape).astype(dtype)
        total = (dy * y).sum(1, keepdims=True)
        wanted = y * (dy - total) if op == "softmax" else dy - y * dy.sum(1, keepdims=True)
        found = slopes(op, {"axis": 1}, x, dy)
    close = 1e-12 if dtype is np.float64 else 1e-6
    for dx in found:
        # The logarithm of the sum is itself of thousands: exp(x - y) is exact to their last digit.
        rough = close if op == "softmax" else 1e4 * np.finfo(dtype).eps
        np.testing.assert_allclose(dx, wanted, rough, rough)
