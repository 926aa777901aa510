"""Quantised weights and activations against onnxruntime and the reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from op_cases.draw import Draw

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime
from interop.test_element_types import file_of, integers

F = TensorProto.FLOAT
NUMBERS = {
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32,
    "int16": TensorProto.INT16, "uint16": TensorProto.UINT16,
}  # fmt: skip


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(12))
def test_weights_of_a_layer(seed):
    """By tensor, by channel, in blocks; with and without zero points; they are weights then."""
    draw = Draw(seed)
    name = draw.pick("int8", "uint8", "int32", "int16", "uint16")
    blocked = seed % 4 == 3
    k, c = draw.integer(2, 9), draw.integer(1, 4)
    w = draw.rng.integers(0 if name[0] == "u" else -100, 100, (k, c, 3, 3)).astype(name)
    how = {"axis": draw.pick(0, -4)} if seed % 4 else {}
    shape = (k,) if how else ()
    if blocked:
        how = {"axis": 0, "block_size": 2}
        shape = ((k + 1) // 2, c, 3, 3)
    weights = {"w": w, "s": draw.array(shape, 0.01, 0.1).astype("f4")}
    if name != "int32" and draw.chance():
        weights["z"] = draw.rng.integers(0, 9, shape).astype(name)
    proto = file_of(
        [
            helper.make_node("DequantizeLinear", list(weights), ["d"], **how),
            helper.make_node("Conv", ["x", "d"], ["y"]),
        ],
        {"x": (F, ["N", c, 6, 5])},
        {"y": (F, ["N", k, 4, 3])},
        weights,
        opset=21,
    )
    x = draw.array((2, c, 6, 5)).astype("f4")
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    model = model_of(proto, "net.onnx", {})
    assert [node.op.name for node in model.graph.op_nodes()] == ["conv"]
    found = convdsl.compile(model, threads=1, cache=False)(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert exporting.translate(model)[1]


@pytest.mark.parametrize("name", ["uint4", "int4"])
def test_weights_of_four_bits(name):
    values = np.arange(12).reshape(3, 4) + (0 if name == "uint4" else -6)
    number = TensorProto.UINT4 if name == "uint4" else TensorProto.INT4
    stored = helper.make_tensor("w", number, values.shape, values.reshape(-1))
    scale = np.float32([0.5, 2, 3])
    proto = file_of(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0),
            helper.make_node("Mul", ["x", "d"], ["y"]),
        ],
        {"x": (F, [3, 4])},
        {"y": (F, [3, 4])},
        {"w": stored, "s": scale},
        opset=21,
    )
    found = convdsl.compile(model_of(proto, "net.onnx", {}), cache=False)(np.ones((3, 4), "f4"))
    np.testing.assert_array_equal(found, values * scale[:, None])


@pytest.mark.parametrize("seed", range(8))
def test_activations_between(seed):
    """Quantised and back, as tools of quantisation write it; numbers beyond the type and halves."""
    draw = Draw(seed)
    name = draw.pick("uint8", "int8")
    shape = (2, 5, 4) if seed % 2 else (5,)
    along = seed % 4 == 3
    s = draw.array((5,) if along else (), 0.05, 0.3).astype("f4")
    z = integers(draw, name, (5,)) if along else np.array(draw.integer(0, 9), name)
    how = {"axis": 1} if along else {}
    x = draw.array(shape, -60, 60).astype("f4")
    x.flat[:3] = np.float32([0.5, 1.5, 2.5]) * np.ravel(s)[0]
    proto = file_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **how),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **how),
        ],
        {"x": (F, shape)},
        {"q": (NUMBERS[name], shape), "y": (F, shape)},
        {"s": s, "z": z},
        opset=draw.pick(13, 19),
    )
    expected = run_onnxruntime(proto, {"x": x})
    found = convdsl.compile(model_of(proto, "net.onnx", {}), cache=False)(x)
    np.testing.assert_array_equal(found["q"], expected["q"])
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)


def test_the_zero_point_may_be_left_out():
    proto = file_of(
        [helper.make_node("QuantizeLinear", ["x", "s"], ["y"])],
        {"x": (F, [4])},
        {"y": (TensorProto.UINT8, [4])},
        {"s": np.float32(0.5)},
    )
    found = convdsl.compile(model_of(proto, "net.onnx", {}), cache=False)(
        np.float32([-3, 0.25, 0.75, 1e9])
    )
    np.testing.assert_array_equal(found, np.uint8([0, 0, 2, 255]))


def test_other_integers_are_refused():
    proto = file_of(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        {"x": (F, [4])},
        {"y": (TensorProto.UINT16, [4])},
        {"s": np.float32(0.5), "z": numpy_helper.from_array(np.uint16(3), "z")},
        opset=21,
    )
    with pytest.raises(convdsl.InputError, match="quantised to u8 and i8"):
        model_of(proto, "net.onnx", {})
