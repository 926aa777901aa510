"""Operators on small integers against onnxruntime, which quantises networks with its own tools."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization
from op_cases.draw import Draw

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.one_node import Node
from interop.runtimes import run_onnxruntime
from interop.test_element_types import file_of, integers

F, I32 = TensorProto.FLOAT, TensorProto.INT32
NUMBERS = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}

pytestmark = pytest.mark.drawn


def assert_same(expected, found, ties=0.0) -> None:
    """Equal integers; at ties of rounding one may be beside the other."""
    assert found.dtype == expected.dtype
    apart = np.abs(found.astype("i8") - expected.astype("i8"))
    assert apart.max(initial=0) <= (1 if ties else 0), apart.max()
    assert np.mean(apart > 0) <= ties


def convolution(draw):
    """Shapes of x and w, and attributes."""
    groups = draw.pick(1, 1, 2)
    c, k = groups * draw.integer(1, 4), groups * draw.integer(1, 5)
    kernel = (draw.integer(1, 3), draw.integer(1, 3))
    x = (draw.integer(1, 2), c, draw.integer(5, 9), draw.integer(5, 9))
    how = {"group": groups, "pads": [draw.integer(0, 2) for _ in range(4)]}
    return x, (k, c // groups, *kernel), how | {"strides": [draw.integer(1, 2)] * 2}


@pytest.mark.parametrize("seed", range(10))
def test_qlinear_conv(seed):
    draw = Draw(seed)
    x, w, how = convolution(draw)
    node = Node(draw, "QLinearConv", **how)
    a = draw.pick("uint8", "int8")
    b = "int8" if a == "int8" else draw.pick("uint8", "int8")
    node.tensor(x, a)
    per = (w[0],) if draw.chance() else ()
    # Of weights of eight bits onnxruntime's sums of pairs saturate where processors lack VNNI.
    node.reads((integers(draw, b, w) // 2).astype(b))
    node.reads(draw.array(per, 0.01, 0.1).astype("f4"))
    node.reads(np.zeros(per, b) if per else node.zero(b))
    node.linear(a, (), 0.5, 3)
    if draw.chance():
        node.reads(draw.rng.integers(-9999, 9999, w[0]).astype("i4"))
    assert_same(*node.run(NUMBERS[a]), ties=0.005)


@pytest.mark.parametrize("seed", range(8))
def test_conv_integer(seed):
    draw = Draw(seed)
    x, w, how = convolution(draw)
    node = Node(draw, "ConvInteger", **how)
    node.reads(integers(draw, "uint8", x), stored=False)
    node.reads(integers(draw, "uint8", w))
    if draw.chance():
        node.reads(node.zero("uint8"))
        if draw.chance():
            node.reads(node.zero("uint8"))
    assert_same(*node.run(I32))


@pytest.mark.parametrize("seed", range(12))
def test_matmul_integer(seed):
    """Two matrices or stacks of them, of which one may be a weight; points by row and column."""
    draw = Draw(seed)
    m, k, n = (draw.integer(1, 9) for _ in range(3))
    stack = draw.pick((), (2,), (2, 3))
    stored = bool(seed % 2)
    node = Node(draw, "MatMulInteger")
    a, b = draw.pick("uint8", "int8"), draw.pick("uint8", "int8")
    a = "uint8" if b == "uint8" else a
    node.reads(integers(draw, a, (*stack, m, k)), stored=False)
    node.reads(integers(draw, b, (k, n) if stored else (*stack, k, n)), stored)
    if draw.chance():
        node.reads(node.zero(a))
        node.reads(node.zero(b, (n,) if stored and draw.chance() else ()))
    assert_same(*node.run(I32))


def test_points_of_rows():
    """A zero point for each row of the left side: the operator's definition is followed here."""
    draw = Draw(3)
    a, b = integers(draw, "uint8", (4, 5)), integers(draw, "uint8", (5, 3))
    points = np.arange(4, dtype="u1")
    node = helper.make_node("MatMulInteger", ["a", "b", "z"], ["y"])
    proto = file_of(
        [node], {"a": (TensorProto.UINT8, a.shape)}, {"y": (I32, (4, 3))}, {"b": b, "z": points}
    )
    found = convdsl.compile(model_of(proto, "net.onnx", {}), cache=False)(a)
    np.testing.assert_array_equal(found, (a.astype("i4") - points[:, None]) @ b.astype("i4"))


@pytest.mark.parametrize("seed", range(8))
def test_qlinear_matmul(seed):
    draw = Draw(seed)
    m, k, n = (draw.integer(1, 9) for _ in range(3))
    stack = draw.pick((), (2,), (2, 3))
    stored = bool(seed % 2)
    a = draw.pick("uint8", "int8")
    node = Node(draw, "QLinearMatMul")
    node.tensor((*stack, m, k), a)
    per = (n,) if stored and draw.chance() else ()
    node.reads(integers(draw, "int8", (k, n) if stored else (*stack, k, n)), stored)
    node.linear("int8", per)
    node.linear(a, (), 0.5, 3)
    assert_same(*node.run(NUMBERS[a]), ties=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_dynamic_quantisation(seed):
    """The range's ends may both lie on one side of zero, and be zero."""
    draw = Draw(seed)
    low, high = [(-3, 5), (1, 5), (-4, -2), (0, 0), (-1e30, 1e30), (-1e-3, 7)][seed]
    x = draw.array((3, 4, 5), low, high).astype("f4")
    proto = file_of(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])],
        {"x": (F, x.shape)},
        {"y": (TensorProto.UINT8, x.shape), "s": (F, ()), "z": (TensorProto.UINT8, ())},
    )
    expected = run_onnxruntime(proto, {"x": x})
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)(x)
    np.testing.assert_allclose(found["s"], expected["s"], rtol=1e-6)
    assert_same(expected["z"], found["z"])
    assert_same(expected["y"], found["y"], ties=0.02)


MICROSOFT = {
    "QLinearAdd": 2,
    "QLinearMul": 2,
    "QLinearSigmoid": 1,
    "QLinearLeakyRelu": 1,
    "QLinearSoftmax": 1,
    "QLinearGlobalAveragePool": 1,
    "QLinearAveragePool": 1,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", MICROSOFT)
def test_what_is_no_product(kind, seed):
    draw = Draw(seed)
    name = draw.pick("uint8", "int8")
    how = {
        "QLinearAveragePool": {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1]},
        "QLinearLeakyRelu": {"alpha": 0.1},
        "QLinearSoftmax": {"axis": 1, "opset": 13},
    }.get(kind, {})
    node = Node(draw, kind, "com.microsoft", **how)
    shape = (2, 3, 5, 6)
    for index in range(MICROSOFT[kind]):
        node.tensor(shape if index == 0 else draw.pick(shape, (3, 1, 1)), name)
    if kind == "QLinearSoftmax":
        node.reads(np.float32(1 / 256))
        node.reads(np.array(0 if name == "uint8" else -128, name))
    else:
        node.linear(name, (), 0.02, 0.2)
    assert_same(*node.run(NUMBERS[name]), ties=0.02)


def test_parts_of_several_scales_are_joined():
    draw = Draw(5)
    node = Node(draw, "QLinearConcat", "com.microsoft", axis=1)
    node.linear("uint8")
    for channels in (2, 1, 4):
        node.tensor((2, channels, 3), "uint8")
    assert_same(*node.run(NUMBERS["uint8"]), ties=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_qgemm(seed):
    draw = Draw(seed)
    m, k, n = (draw.integer(1, 9) for _ in range(3))
    turned = {"transA": draw.pick(0, 1), "transB": draw.pick(0, 1), "alpha": 0.75}
    node = Node(draw, "QGemm", "com.microsoft", **turned)
    node.tensor((k, m) if turned["transA"] else (m, k), "uint8")
    node.tensor((n, k) if turned["transB"] else (k, n), "uint8", stored=True)
    node.reads(draw.rng.integers(-99, 99, n).astype("i4") if draw.chance() else None)
    if seed % 2:
        node.linear("uint8", (), 0.5, 1)
        assert_same(*node.run(NUMBERS["uint8"]), ties=0.02)
    else:
        expected, found = node.run(F)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_products_that_become_numbers(seed):
    draw = Draw(seed)
    m, k, n = (draw.integer(1, 9) for _ in range(3))
    bias = draw.array((n,)).astype("f4")
    if seed % 2:
        node = Node(draw, "DynamicQuantizeMatMul", "com.microsoft")
        node.reads(draw.array((2, m, k)).astype("f4"), stored=False)
        node.tensor((k, n), "int8", stored=True, per=(n,))
    else:
        node = Node(draw, "MatMulIntegerToFloat", "com.microsoft")
        node.reads(integers(draw, "uint8", (2, m, k)), stored=False)
        node.reads(integers(draw, "int8", (k, n)))
        node.reads(np.float32(0.3))
        node.reads(draw.array((n,), 0.1, 1).astype("f4"))
        node.reads(node.zero("uint8"))
        node.reads(node.zero("int8"))
    node.reads(bias)
    expected, found = node.run(F)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_what_is_refused():
    """Sixteen bits, and channels that stand last."""
    draw = Draw(1)
    node = Node(draw, "QLinearGlobalAveragePool", "com.microsoft", channels_last=1)
    node.tensor((1, 3, 3, 2), "uint8")
    node.linear("uint8")
    with pytest.raises(convdsl.InputError, match="channels that stand last"):
        node.run(NUMBERS["uint8"])


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, arrays) -> None:
        self.arrays = iter([{"x": a} for a in arrays])

    def get_next(self):
        return next(self.arrays, None)


TEXT = """
model net {
    input x: f32[N, 3, 16, 16]
    a = x -> conv(8, 3x3, stride = 2) -> batchnorm -> relu
    b = a -> conv(8, 3x3, groups = 8) -> relu6 -> conv(8, 1x1)
    c = a + b -> silu -> avgpool(2x2) -> conv(12, 1x1) -> leaky_relu
    c -> avgpool(global) -> flatten -> linear(5) -> softmax -> output y
}
"""
WAYS = ("dynamic", "nodes of integers", "there and back", "there and back, by channel")


@pytest.mark.parametrize("way", WAYS)
def test_networks_that_a_tool_quantises(way, tmp_path):
    """Numbers near the file's own in onnxruntime: steps of quantisation may fall to the other
    side of a tie."""
    logging.disable(logging.WARNING)
    draw = Draw(7)
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    proto = onnx.load_model_from_string(convdsl.export(convdsl.parse(TEXT), "random:3"))
    onnx.save(proto, plain)
    x = draw.array((4, 3, 16, 16), -2, 2).astype("f4")
    if way == "dynamic":
        quantization.quantize_dynamic(plain, small, weight_type=quantization.QuantType.QUInt8)
    else:
        nodes = way == "nodes of integers"
        quantization.quantize_static(
            plain,
            small,
            Calibration([x[i : i + 1] for i in range(4)]),
            quant_format=quantization.QuantFormat.QOperator
            if nodes
            else quantization.QuantFormat.QDQ,
            per_channel=way.endswith("channel"),
            reduce_range=True,
        )
    logging.disable(logging.NOTSET)
    kinds = {node.op_type for node in onnx.load(small).graph.node}
    assert {"dynamic": "ConvInteger", WAYS[1]: "QLinearConv"}.get(way, "QuantizeLinear") in kinds
    (expected,) = run_onnxruntime(small.read_bytes(), {"x": x}).values()
    found = convdsl.compile(convdsl.load(small), threads=1, cache=False)(x)
    assert np.abs(found - expected).max() <= 0.02
    assert np.mean(np.abs(found - expected)) <= 0.002
