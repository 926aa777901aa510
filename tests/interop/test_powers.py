"""ONNX's Pow of every pair of types, its exponent known or not, as onnxruntime computes it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.interop.onnx_import import convert
from interop.runtimes import run_convdsl, run_onnxruntime

pytestmark = pytest.mark.drawn

TYPES = {
    "f32": (TensorProto.FLOAT, np.float32),
    "f64": (TensorProto.DOUBLE, np.float64),
    "i64": (TensorProto.INT64, np.int64),
}
PAIRS = [("f32", "f32"), ("f64", "f64"), ("i64", "i64"), ("f32", "i64"), ("f32", "f64")]


def model_of(base: str, exponent: str, shape: list[int], known: np.ndarray | None):
    inputs = [helper.make_tensor_value_info("a", TYPES[base][0], shape)]
    constants = []
    if known is None:
        inputs.append(helper.make_tensor_value_info("b", TYPES[exponent][0], shape))
    else:
        constants.append(numpy_helper.from_array(known.astype(TYPES[exponent][1]), "b"))
    graph = helper.make_graph(
        [helper.make_node("Pow", ["a", "b"], ["y"])],
        "net",
        inputs,
        [helper.make_tensor_value_info("y", TYPES[base][0], shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operands(base: str, exponent: str) -> tuple[np.ndarray, np.ndarray]:
    whole = "i64" in (base, exponent)
    a = [-3, -2, -1, 0, 1, 2, 3, 7] + ([] if base == "i64" else [-0.0, 0.3, -2.5, np.inf, np.nan])
    b = [0, 1, 2, 3, 5, 11] + ([] if exponent == "i64" else [-1, -2, 0.5, -0.5, 1 / 3, np.inf])
    b += [-1, -3] if whole and base != "i64" else []
    grid = np.meshgrid(np.array(a), np.array(b))
    with np.errstate(all="ignore"):
        first, second = (part.ravel() for part in grid)
        return first.astype(TYPES[base][1]), second.astype(TYPES[exponent][1])


@pytest.mark.parametrize(("base", "exponent"), PAIRS)
def test_powers_of_inputs(base: str, exponent: str) -> None:
    a, b = operands(base, exponent)
    proto = model_of(base, exponent, [a.size], None)
    compare(proto, {"a": a, "b": b})


@pytest.mark.parametrize(("base", "exponent"), [*PAIRS, ("i64", "f32")])
def test_powers_to_known_exponents(base: str, exponent: str) -> None:
    a, b = operands(base, exponent if base != "i64" else "i64")
    for value in np.unique(b):
        here = a[b == value]
        proto = model_of(base, exponent, [here.size], np.array([value]))
        compare(proto, {"a": here})


def compare(proto, arrays: dict[str, np.ndarray]) -> None:
    expected = run_onnxruntime(proto, arrays)["y"]
    model = convert(proto, "net", {})
    found = run_convdsl(model, arrays, model.weights)["y"]
    assert found.dtype == expected.dtype
    exact = found.dtype.kind != "f"
    rtol = 0 if exact else 4 * float(np.finfo(found.dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_squares_of_negative_numbers_in_the_language() -> None:
    model = convdsl.parse(
        "model m {\n input a: f32[N, 3]\n input b: f32[N, 3]\n"
        "(a - b) ** 2 -> reduce_mean(all) -> output mse\n a ** b -> output power\n}"
    )
    a = np.array([[-2, 0, 1], [-2, 0, np.nan]], np.float32)
    b = np.array([[3, -1, np.nan], [0.5, 0, 0]], np.float32)
    found = run_convdsl(model, {"a": a, "b": b})
    np.testing.assert_array_equal(found["power"], [[-8, np.inf, 1], [np.nan, 1, 1]])
    found = run_convdsl(model, {"a": np.full((2, 3), -3.0, np.float32), "b": np.ones_like(b)})
    assert found["mse"] == 16
