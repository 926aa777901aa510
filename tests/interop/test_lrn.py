"""Response normalisation: which side of an even size has one channel more.

onnxruntime refuses even sizes and the reference evaluator sums over others, so that the sums are
written out here as the specification has them.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import convdsl
from convdsl.exporting import export
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

pytestmark = pytest.mark.drawn

F = TensorProto.FLOAT
HOW = {"alpha": 0.5, "beta": 0.75, "bias": 2.0}


def specified(x: np.ndarray, size: int, before: int) -> np.ndarray:
    """x / (2 + 0.5 / size * sum over the channels c - before .. c - before + size - 1)^0.75"""
    squares, total = x.astype("f8") ** 2, np.zeros(x.shape)
    for c in range(x.shape[1]):
        total[:, c] = squares[:, max(0, c - before) : c - before + size].sum(1)
    return x / (2 + 0.5 / size * total) ** 0.75


def network(shape, size: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("LRN", ["x"], ["y"], size=size, **HOW)],
        "net",
        [helper.make_tensor_value_info("x", F, shape)],
        [helper.make_tensor_value_info("y", F, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def text(shape, size: int, extra: str) -> str:
    sizes = ", ".join(map(str, shape))
    how = f"{size}, alpha = 0.5, beta = 0.75, k = 2.0, extra = {extra}"
    return f"model m {{\n    input x: f32[{sizes}]\n    x -> lrn({how}) -> output y\n}}\n"


def assert_is(model: convdsl.Model, x: np.ndarray, expected: np.ndarray) -> None:
    """Run by us, and by onnxruntime once exported."""
    np.testing.assert_allclose(convdsl.compile(model, threads=1)(x), expected, rtol=2e-5)
    np.testing.assert_allclose(run_onnxruntime(export(model), {"x": x})["y"], expected, rtol=2e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 12])
@pytest.mark.parametrize("shape", [(2, 5, 3, 2), (1, 1, 2, 2), (1, 9, 4)])
def test_both_sides(size, shape):
    x = np.random.default_rng(size).uniform(-3, 3, shape).astype("f4")
    after = specified(x, size, (size - 1) // 2)
    before = specified(x, size, size // 2)
    assert_is(model_of(network(shape, size), "net.onnx", {}), x, after)
    assert_is(convdsl.parse(text(shape, size, "after")), x, after)
    assert_is(convdsl.parse(text(shape, size, "before")), x, before)


def test_an_odd_size_has_one_form():
    graphs = [convdsl.parse(text((1, 5, 2, 2), 5, extra)).graph for extra in ("before", "after")]
    calls = [node.call.attributes for graph in graphs for node in graph.op_nodes()]
    assert calls[0] == calls[1]
