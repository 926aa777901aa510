"""Kinds of nodes that are whole-numbered in ONNX too: values as onnxruntime's, or NumPy's where it
has no kernel."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import convdsl
from convdsl.exporting import export
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

TYPES = {
    np.int64: TensorProto.INT64,
    np.int32: TensorProto.INT32,
    np.int8: TensorProto.INT8,
    np.uint8: TensorProto.UINT8,
}


def one(kind, dtype, shape, out, axes=None, **how):
    stored = [] if axes is None else [numpy_helper.from_array(np.int64(axes), "axes")]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *(tensor.name for tensor in stored)], ["y"], **how)],
        "net",
        [helper.make_tensor_value_info("x", TYPES[dtype], shape)],
        [helper.make_tensor_value_info("y", TYPES[dtype], out)],
        stored,
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(proto, x, expected):
    model = model_of(proto, "net.onnx", {})
    np.testing.assert_array_equal(convdsl.compile(model, threads=1)(x), expected)
    exported = ReferenceEvaluator(export(model)).run(None, {"x": x})[0]
    np.testing.assert_array_equal(exported, expected)


def numbers(dtype, shape):
    info = np.iinfo(dtype)
    x = np.random.default_rng(4).integers(info.min, info.max, shape, dtype, endpoint=True)
    x.flat[:4] = (0, info.min, info.max, 1)
    return x


SIGNS = [(kind, dtype) for kind in ("Neg", "Abs", "Sign") for dtype in TYPES]
SIGNS.remove(("Neg", np.uint8))  # of which ONNX has none


@pytest.mark.parametrize(("kind", "dtype"), SIGNS)
def test_signs(kind, dtype):
    x = numbers(dtype, (3, 5))
    expected = {"Neg": np.negative, "Abs": np.abs, "Sign": np.sign}[kind](x)
    check(one(kind, dtype, ["N", 5], ["N", 5]), x, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceL1", "ReduceSumSquare"])
@pytest.mark.parametrize("axes", [[1], [-1, 1], None])
def test_reductions(kind, dtype, axes):
    x = np.random.default_rng(6).integers(-40, 40, (2, 3, 5)).astype(dtype)
    out = [1, 1, 1] if axes is None else [2, 1, 5 if axes == [1] else 1]
    proto = one(kind, dtype, [2, 3, 5], out, axes)
    check(proto, x, run_onnxruntime(proto, {"x": x})["y"])


def test_means_are_cut_towards_zero():
    proto = one("ReduceMean", np.int64, ["N", 2], ["N"], [1], keepdims=0)
    check(proto, np.int64([[-3, 0], [3, 0], [-1, 0]]), np.int64([-1, 1, 0]))


def test_advice_is_of_the_file():
    with pytest.raises(convdsl.InputError, match="Sqrt.*in the file a Cast to FLOAT before it"):
        model_of(one("Sqrt", np.int64, [2], [2]), "net.onnx", {})
