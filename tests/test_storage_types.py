"""Networks over types that are only stored, and over words: inputs, states, values, outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Builder

import convdsl
from convdsl import InputError
from convdsl.interop.element_types import TO_ONNX
from convdsl.ir.model import Model
from convdsl.runtime.saved import load_executable
from convdsl.tensor import HOST_DTYPES, DType, Kind
from convdsl.tensor.conversion import convert, narrow_bf16

Array = np.ndarray[Any, Any]
STORED = [dtype for dtype in HOST_DTYPES if not dtype.computes or dtype is DType.U32]

each_stored = pytest.mark.parametrize("dtype", STORED, ids=str)


def elements(dtype: DType, *shape: int, seed: int = 0) -> Array:
    """Small numbers that the type holds exactly, some negative where it can."""
    least = 0 if dtype.kind is Kind.UNSIGNED else -5
    whole = np.random.default_rng(seed).integers(least, 6, shape)
    return convert(whole, DType.I64, dtype)


def as_f64(x: Array, dtype: DType) -> Array:
    return convert(x, dtype, DType.F64)


def network(dtype: DType) -> Model:
    """y = cast(relu(x * w + b)) and z = its sum over space, the middle read by both."""
    b = Builder()
    x = b.input("x", 2, 5, 3, 7, dtype=dtype)
    w = b.parameter("w", 5, 1, 1, dtype=dtype)
    shift = b.constant("b", elements(dtype, 5, 1, 1, seed=2), dtype=dtype)
    scale = b("mul", w, b("add", w, w))
    middle = b("max", b("add", b("mul", x, scale), shift), shift)
    total = b("reduce_sum", middle, axes=(2, 3))
    single = b("cast", middle, dtype="f32")
    return Model("stored", b.output(y=middle, z=total, s=single))


def expected(x: Array, w: Array, dtype: DType) -> dict[str, Array]:
    """In double precision, rounded to the type wherever a value of it is made, as is done."""

    def held(value: Array) -> Array:
        with np.errstate(all="ignore"):
            kept = value if dtype.is_float else value.astype(np.int64)
        return as_f64(convert(kept, DType.F64 if dtype.is_float else DType.I64, dtype), dtype)

    wide = as_f64(w, dtype)
    shift = as_f64(elements(dtype, 5, 1, 1, seed=2), dtype)
    scale = held(wide * held(wide + wide))
    middle = np.maximum(held(held(as_f64(x, dtype) * scale) + shift), shift)
    total = held(middle.sum((2, 3)))
    return {"y": middle, "z": total, "s": middle}


@each_stored
@pytest.mark.parametrize("cpu", ["x86-64-v2", "native"])
def test_a_network_of_one_type(dtype: DType, cpu: str, tmp_path: Path) -> None:
    x, w = elements(dtype, 2, 5, 3, 7), elements(dtype, 5, 1, 1, seed=1)
    run = convdsl.compile(network(dtype), weights={"w": w}, cpu=cpu, threads=2)
    found = run(x)
    for name, value in expected(x, w, dtype).items():
        kind = DType.F32 if name == "s" else dtype
        np.testing.assert_array_equal(as_f64(found[name], kind), value, name)
    run.save(tmp_path / "net.cdsl")
    loaded = load_executable(tmp_path / "net.cdsl")
    assert {name: type.dtype for name, type in loaded.inputs.items()} == {"x": dtype}
    assert {name: type.dtype for name, type in loaded.outputs.items()} == {
        "y": dtype,
        "z": dtype,
        "s": DType.F32,
    }
    for name, array in loaded(x).items():
        np.testing.assert_array_equal(array, found[name])


@each_stored
def test_passes_change_nothing(dtype: DType) -> None:
    x, w = elements(dtype, 2, 5, 3, 7), elements(dtype, 5, 1, 1, seed=1)
    plain = convdsl.compile(network(dtype), weights={"w": w}, passes=())(x)
    for name, array in convdsl.compile(network(dtype), weights={"w": w})(x).items():
        np.testing.assert_array_equal(array, plain[name])


def test_products_of_halves_are_added_in_f32() -> None:
    """4096 ones: a sum in f16 would stay at 2048."""
    b = Builder()
    x = b.input("x", 1, 4096, dtype=DType.F16)
    y = b("linear", x, channels=3, bias=False)
    w = np.ones((3, 4096), np.float16)
    run = convdsl.compile(Model("m", b.output(y=y)), weights={"linear1.weight": w})
    np.testing.assert_array_equal(run(np.ones((1, 4096), np.float16)), [[4096.0] * 3])


def test_weights_of_other_types_are_converted() -> None:
    """A file of f32 for a network of bf16."""
    b = Builder()
    x = b.input("x", 1, 3, dtype=DType.BF16)
    w = b.parameter("w", 3, dtype=DType.BF16)
    model = Model("m", b.output(y=b("mul", x, w)))
    values = np.array([1.0, 1.01, -3.14159], np.float32)
    found = convdsl.compile(model, weights={"w": values})(narrow_bf16(np.ones((1, 3))))
    np.testing.assert_array_equal(found, narrow_bf16(values)[None])


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16], ids=str)
def test_random_weights(dtype: DType) -> None:
    """Those of integers come from a file."""
    b = Builder()
    x = b.input("x", 1, 300, dtype=dtype)
    y = b("linear", x, channels=50, bias=False)
    ones = convert(np.ones((1, 300)), DType.F64, dtype)
    found = as_f64(convdsl.compile(Model("m", b.output(y=y)), weights="random:3")(ones), dtype)
    assert 0.1 < np.abs(found).mean() < 10


def test_inputs_of_another_type_are_refused() -> None:
    b = Builder()
    model = Model("m", b.output(y=b("neg", b.input("x", 2, dtype=DType.BF16))))
    with pytest.raises(InputError, match="the bits of bf16"):
        convdsl.compile(model)(np.ones(2, np.float32))


@each_stored
def test_onnx_says_the_same(dtype: DType) -> None:
    """The exported file, with its weights and constants, in ONNX's own checker and reader."""
    b = Builder()
    x = b.input("x", 1, 3, dtype=dtype)
    w = b.parameter("w", 3, dtype=dtype)
    c = b.constant("c", elements(dtype, 3), dtype=dtype)
    model = Model("m", b.output(y=b("add", b("mul", x, w), c)))
    weights = elements(dtype, 3, seed=1)
    file = onnx.load_from_string(convdsl.export(model, weights={"w": weights}))
    onnx.checker.check_model(file, full_check=True)
    assert file.graph.input[0].type.tensor_type.elem_type == TO_ONNX[dtype]
    held = {
        i.name: onnx.numpy_helper.to_array(i).astype(np.float64) for i in file.graph.initializer
    }
    np.testing.assert_array_equal(held["w"], as_f64(weights, dtype))
    np.testing.assert_array_equal(held["c"], as_f64(elements(dtype, 3), dtype))


@each_stored
def test_numbers_of_the_text(dtype: DType) -> None:
    """A constant of one element becomes part of the kernel."""
    b = Builder()
    x = b.input("x", 2, 5, dtype=dtype)
    three = b.constant("three", convert(np.array(3), DType.I64, dtype), dtype=dtype)
    y = convdsl.compile(Model("m", b.output(y=b("mul", x, three))))(elements(dtype, 2, 5))
    np.testing.assert_array_equal(as_f64(y, dtype), 3 * as_f64(elements(dtype, 2, 5), dtype))
