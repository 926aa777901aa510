"""Element types of ONNX: halves at the edges of a graph, narrow integers that wrap."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from op_cases.draw import Draw

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, narrow_bf16, widen_bf16
from interop.runtimes import run_convdsl, run_onnxruntime

pytestmark = pytest.mark.drawn

HALVES = {TensorProto.FLOAT16: DType.F16, TensorProto.BFLOAT16: DType.BF16}
INTEGERS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


def file_of(nodes, inputs, outputs, weights=(), opset=17) -> onnx.ModelProto:
    """`inputs` and `outputs` by name: element type and shape."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, *type) for name, type in inputs.items()],
        [helper.make_tensor_value_info(name, *type) for name, type in outputs.items()],
        [a if isinstance(a, TensorProto) else numpy_helper.from_array(np.asarray(a), name)
         for name, a in dict(weights).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def bf16(name: str, values) -> TensorProto:
    bits = narrow_bf16(np.asarray(values, np.float32))
    return helper.make_tensor(name, TensorProto.BFLOAT16, bits.shape, bits.tobytes(), raw=True)


def half_network(element: int, draw: Draw) -> tuple[onnx.ModelProto, np.ndarray]:
    """conv, batch norm, relu, a residual, pooling and a linear layer, all of halves."""
    n, c, k = draw.integer(1, 2), draw.integer(1, 5), draw.pick(4, 8, 17)
    h, w = draw.integer(3, 9), draw.integer(3, 9)
    shapes = {"w": (k, c, 3, 3), "b": (k,), "g": (k,), "s": (k,), "m": (k,), "v": (k,),
              "l": (k, 10)}  # fmt: skip
    arrays = {name: draw.array(shape, -0.5, 0.5).astype("f4") for name, shape in shapes.items()}
    arrays["v"] = np.abs(arrays["v"]) + np.float32(0.5)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["h", "g", "s", "m", "v"], ["i"]),
        helper.make_node("Relu", ["i"], ["j"]),
        helper.make_node("Add", ["h", "j"], ["k"]),
        helper.make_node("GlobalAveragePool", ["k"], ["o"]),
        helper.make_node("Flatten", ["o"], ["p"]),
        helper.make_node("MatMul", ["p", "l"], ["y"]),
    ]
    made = {
        name: a.astype("f2") if element == TensorProto.FLOAT16 else bf16(name, a)
        for name, a in arrays.items()
    }
    proto = file_of(
        nodes,
        {"x": (element, ["N", c, h, w])},
        {"y": (element, ["N", 10])},
        made,
        draw.pick(15, 17),
    )
    return proto, draw.array((n, c, h, w)).astype("f4")


@pytest.mark.parametrize("seed", range(6))
def test_networks_of_f16(seed):
    proto, x = half_network(TensorProto.FLOAT16, Draw(seed))
    x = x.astype("f2")
    expected = run_onnxruntime(proto, {"x": x})["y"]
    model = model_of(proto, "net.onnx", {})
    assert model.notes == ("f16 numbers are computed with in f32",)
    found = convdsl.compile(model, threads=1, cache=False)(x)
    assert found.dtype == np.float16
    scale = np.abs(expected.astype("f4")).max()
    np.testing.assert_allclose(found.astype("f4"), expected.astype("f4"), atol=4e-3 * scale)


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_bf16(seed):
    """Against the same network in single precision over the same rounded numbers."""
    proto, x = half_network(TensorProto.BFLOAT16, Draw(seed))
    bits = narrow_bf16(x)
    single = onnx.ModelProto.FromString(proto.SerializeToString())
    for info in (*single.graph.input, *single.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in single.graph.initializer:
        wide = numpy_helper.to_array(tensor).astype("f4")
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    expected = run_onnxruntime(single, {"x": widen_bf16(bits)})["y"]
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)(bits)
    assert found.dtype == np.uint16
    scale = np.abs(expected).max()
    np.testing.assert_allclose(widen_bf16(found), expected, atol=5e-3 * scale)


@pytest.mark.parametrize(("element", "dtype"), HALVES.items())
def test_a_cast_to_a_half_rounds(element, dtype):
    """Also of numbers that it does not hold, of constants, and with nothing in between."""
    numbers = np.float32([0.1, 65504, 65519, 65520, 1e38, 3.4e38, 1e-7, 2049, -0.0, np.inf, np.nan])
    cast = helper.make_node("Cast", ["x"], ["h"], to=element)
    back = helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)
    output = {"y": (TensorProto.FLOAT, numbers.shape)}
    half = convert(numbers, DType.F32, dtype)
    expected = convert(half, dtype, DType.F32)
    of_data = file_of([cast, back], {"x": (TensorProto.FLOAT, numbers.shape)}, output)
    found = convdsl.compile(model_of(of_data, "net.onnx", {}), cache=False)(numbers)
    np.testing.assert_array_equal(found, expected)
    of_constants = file_of(
        [cast, back, helper.make_node("Add", ["y", "z"], ["s"])],
        {"z": (TensorProto.FLOAT, numbers.shape)},
        {"s": (TensorProto.FLOAT, numbers.shape)},
        {"x": numbers},
    )
    zero = np.zeros_like(numbers)
    found = convdsl.compile(model_of(of_constants, "net.onnx", {}), cache=False)(zero)
    np.testing.assert_array_equal(found, expected)


def integers(draw: Draw, name: str, shape) -> np.ndarray:
    """All over the range, its ends among them."""
    info = np.iinfo(name)
    x = draw.rng.integers(info.min, info.max, shape, name, endpoint=True)
    near = draw.rng.integers(-3, 4, shape).astype(name)
    x = np.where(draw.rng.random(shape) < 0.4, near, x)
    x.flat[0], x.flat[-1] = info.min, info.max
    return x


SHORT = {"uint8": "u8", "int8": "i8", "int32": "i32"}
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Equal", "Less", "GreaterOrEqual")


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("kind", ARITHMETIC)
def test_integers_wrap(name, kind):
    """NumPy's integers, quotients cut off; of data and data, data and constants, constants."""
    draw = Draw(*f"{name} {kind}".encode())
    a, b = integers(draw, name, (3, 40)), integers(draw, name, (40,))
    if kind == "Div":
        b = np.where(b == 0, 1, b)
        a = np.where((b == -1) & (a == np.iinfo(name).min), 0, a)  # NumPy warns
        q = np.floor_divide(a, b)
        expected = (q + ((q < 0) & (q * b != a))).astype(name)
    else:
        expected = {
            "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Min": np.minimum,
            "Max": np.maximum, "Equal": np.equal, "Less": np.less,
            "GreaterOrEqual": np.greater_equal,
        }[kind](a, b)  # fmt: skip
    element = INTEGERS[name]
    result = TensorProto.BOOL if expected.dtype == bool else element
    inputs = {"a": (element, a.shape), "b": (element, b.shape)}
    arrays = {"a": a, "b": b}
    for known in ((), ("b",), ("a", "b")):
        proto = file_of(
            [helper.make_node(kind, ["a", "b"], ["y"])],
            {k: v for k, v in inputs.items() if k not in known},
            {"y": (result, expected.shape)},
            {k: arrays[k] for k in known},
        )
        given = {k: v for k, v in arrays.items() if k not in known}
        found = run_convdsl(model_of(proto, "net.onnx", {}), given, cache=False)["y"]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("old", [*INTEGERS, "bool", "float32", "float64"])
@pytest.mark.parametrize("new", [*INTEGERS, "bool", "float32", "float64"])
def test_casts(old, new):
    """As the reference evaluator, of numbers that both types hold, and of integers that wrap."""
    draw = Draw(*f"{old} {new}".encode())
    if old in INTEGERS:
        x = integers(draw, old, (5, 30))
    elif old == "bool":
        x = draw.rng.random((5, 30)) < 0.5
    else:
        x = (draw.rng.integers(-100 if new != "uint8" else 0, 100, (5, 30)) / 2).astype(old)
    numbers = {**INTEGERS, "bool": TensorProto.BOOL, "float32": 1, "float64": 11}
    proto = file_of(
        [helper.make_node("Cast", ["x"], ["y"], to=numbers[new])],
        {"x": (numbers[old], x.shape)},
        {"y": (numbers[new], x.shape)},
    )
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    found = convdsl.compile(model_of(proto, "net.onnx", {}), cache=False)(x)
    assert found.dtype == np.dtype(new)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["uint8", "int8", "int32"])
def test_images_of_integers(name):
    """uint8 in, scaled, through a layer; as onnxruntime."""
    draw = Draw(1)
    w = draw.array((4, 3, 3, 3)).astype("f4")
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "d"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["y"]),
    ]
    proto = file_of(
        nodes,
        {"x": (INTEGERS[name], ["N", "H", "W", 3])},
        {"y": (TensorProto.FLOAT, None)},
        {"w": w, "d": np.float32(255)},
    )
    x = integers(draw, name, (2, 9, 8, 3))
    model = model_of(proto, "net.onnx", {})
    found = convdsl.compile(model, cache=False)(x)
    expected = run_onnxruntime(proto, {"x": x})["y"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
    text, _ = exporting.translate(model)
    assert f"input x: {SHORT[name]}[N, H, W, 3]" in text


@pytest.mark.parametrize("element", [TensorProto.UINT16, TensorProto.UINT64, TensorProto.INT16])
def test_integers_that_there_are_none_of(element):
    proto = file_of(
        [helper.make_node("Identity", ["x"], ["y"])], {"x": (element, [3])}, {"y": (element, [3])}
    )
    with pytest.raises(convdsl.InputError, match="input x holds U?INT"):
        model_of(proto, "net.onnx", {})
    proto = file_of(
        [helper.make_node("Cast", ["x"], ["y"], to=element)],
        {"x": (TensorProto.INT64, [3])},
        {"y": (element, [3])},
    )
    with pytest.raises(convdsl.InputError, match=f"elements of ONNX's type {element}"):
        model_of(proto, "net.onnx", {})
