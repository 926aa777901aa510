"""ONNX's Pow of integers to fractional powers, as onnxruntime computes it: cut off."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_convdsl, run_onnxruntime

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def network(kind: str, inputs: dict[str, tuple[int, int]], known=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info(name, type, [n]) for name, (type, n) in inputs.items()],
        [helper.make_tensor_value_info("y", I64, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(known).items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def assert_as_onnxruntime(proto: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    found = run_convdsl(model_of(proto, "net.onnx", {}), arrays)["y"]
    np.testing.assert_array_equal(found, run_onnxruntime(proto, arrays)["y"])


@pytest.mark.parametrize("exponent", [0.5, 1.5, 2.5, 1 / 3, 0.0])
def test_fractional_powers_of_integers_are_cut_off(exponent):
    a = np.arange(0, 300)
    proto = network("Pow", {"a": (I64, a.size)}, {"b": np.float32(exponent)})
    assert_as_onnxruntime(proto, {"a": a})


def test_powers_that_are_whole_stay_whole():
    a = np.repeat(np.arange(0, 60), 6)
    b = np.tile(np.float32([0, 1, 2, 3, 4, 5]), 60)
    proto = network("Pow", {"a": (I64, a.size), "b": (F, b.size)})
    assert_as_onnxruntime(proto, {"a": a, "b": b})
