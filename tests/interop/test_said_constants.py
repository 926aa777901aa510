"""Constants that text says: masks, huge whole numbers, numbers by themselves; and layers whose
names are those of scopes."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.exporting import export
from convdsl.interop.cnn_source import source
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def net(nodes, inputs, outputs, stored, opset=13) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(kind, i.split(), o.split(), **how) for kind, i, o, how in nodes],
        "net",
        [info(name, *type) for name, type in inputs.items()],
        [info(name, *type) for name, type in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(proto, given):
    """The file, its text with the weights of the text, and what is exported, as onnxruntime."""
    expected = run_onnxruntime(proto, given)
    model = model_of(proto, "net.onnx", {})
    text, arrays = source(model)
    said = convdsl.parse(text)
    executables = [
        convdsl.compile(model, threads=1),
        convdsl.compile(said, weights=arrays or None, threads=1),
    ]
    found = [dict(zip(expected, _arrays(e(*given.values())), strict=True)) for e in executables]
    found.append(run_onnxruntime(export(model), given))
    for outputs in found:
        for name, array in expected.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-6)


def _arrays(found):
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("mask", [[True, False, True], np.tril(np.ones((3, 3), bool)), True])
def test_masks_are_said(mask):
    stored = {"c": np.asarray(mask), "low": np.float32(-np.inf)}
    proto = net([("Where", "c x low", "y", {})], {"x": (F, [3, 3])}, {"y": (F, [3, 3])}, stored)
    check(proto, {"x": np.arange(9, dtype="f4").reshape(3, 3)})


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_whole_numbers_are_said_exactly(number):
    stored = {"c": np.int64([1, number])}
    proto = net([("Max", "x c", "y", {})], {"x": (I64, [2])}, {"y": (I64, [2])}, stored)
    check(proto, {"x": np.int64([0, -(2**62)])})


@pytest.mark.parametrize("fill", [np.float32(0), np.float32(-np.inf), np.int64(7), np.bool_(1)])
def test_open_sizes_are_filled_with_a_number(fill):
    nodes = [
        ("Shape", "x", "s", {}),
        ("ConstantOfShape", "s", "z", {"value": numpy_helper.from_array(fill.reshape(1))}),
        ("Cast", "z", "c", {"to": F}),
        ("Add", "x c", "y", {}),
    ]
    proto = net(nodes, {"x": (F, ["N", 3, "H"])}, {"y": (F, ["N", 3, "H"])}, {})
    check(proto, {"x": np.ones((2, 3, 4), "f4")})


def test_a_stored_number_is_repeated_as_often_as_sizes_say():
    nodes = [("Shape", "x", "s", {}), ("Expand", "c s", "y", {})]
    types = {"x": (F, ["N", "W"])}
    proto = net(nodes, types, {"y": (F, ["N", "W"])}, {"c": np.float32(0.1)})
    check(proto, {"x": np.ones((2, 5), "f4")})


BIASES = [np.float32([1, 2, 3, 4]), np.float32(0.7), np.float32([[5], [6]]), None]


@pytest.mark.parametrize("bias", BIASES, ids=["row", "number", "column", "none"])
@pytest.mark.parametrize("how", [{"alpha": 0.5}, {"beta": 2.0}, {"alpha": -1.5, "beta": 0.0}])
def test_products_with_factors_are_said_with_names_of_pytorch(bias, how):
    stored = {"fc.weight": np.random.default_rng(3).standard_normal((4, 3)).astype("f4")}
    stored |= {} if bias is None else {"fc.bias": bias}
    node = ("Gemm", " ".join(["x", *stored]), "y", {"transB": 1, **how})
    proto = net([node], {"x": (F, [2, 3])}, {"y": (F, [2, 4])}, stored)
    check(proto, {"x": np.float32([[1, 2, 3], [-1, 0, 4]])})


def test_what_counts_nothing_may_be_anything():
    stored = {"b": np.ones((3, 4), "f4"), "c": np.float32(np.nan)}
    proto = net(
        [("Gemm", "x b c", "y", {"beta": 0.0})], {"x": (F, [2, 3])}, {"y": (F, [2, 4])}, stored
    )
    check(proto, {"x": np.ones((2, 3), "f4")})


def test_tensors_beside_a_scope_of_their_name_are_said():
    nodes = [("Mul", "x norm.weight", "m", {}), ("Add", "m norm.bias", "y", {})]
    stored = {"norm.weight": np.float32([2, 3, 4]), "norm.bias": np.float32([1, 0, -1])}
    proto = net(nodes, {"x": (F, [2, 3])}, {"y": (F, [2, 3])}, stored)
    check(proto, {"x": np.float32([[1, 2, 3], [4, 5, 6]])})


@pytest.mark.parametrize(
    ("dtype", "weight"), [("f32", "[true]"), ("i64", "[1.5]"), ("bool", "[2]")]
)
def test_elements_of_other_types_are_refused(dtype, weight):
    text = (
        f"model m {{\n input x: f32[1]\n c = parameter([1], dtype = {dtype}, weight = {weight})\n"
    )
    text += " x + cast(c, f32) -> output y\n}\n"
    with pytest.raises(convdsl.CompileError, match=rf"{re.escape(weight[1:-1])} is no {dtype}"):
        convdsl.parse(text)
