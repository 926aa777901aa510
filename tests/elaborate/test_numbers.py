"""Numbers beside tensors take the tensors' type or are refused; none is rounded in silence."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import convdsl

NUMBERS = ["1", "-3", "1.0", "1.5", "-0.25", "1e300", "9223372036854775807", "1e19"]
VALUES = [1, -3, 1.0, 1.5, -0.25, 1e300, 9223372036854775807, 1e19]
CHOICES = {"f32": np.float32, "f64": np.float64, "i64": np.int64, "bool": np.bool_}
ARRAYS = {
    "f32": np.array([[-1.5, 0.0, 2.0]], np.float32),
    "f64": np.array([[-1.5, 0.0, 2.0]], np.float64),
    "i64": np.array([[-2, 0, 3]], np.int64),
    "bool": np.array([[True, False, True]]),
}


def fits(number: float, dtype: str) -> bool:
    if dtype.startswith("f"):
        return abs(number) <= float(np.finfo(CHOICES[dtype]).max)
    return number % 1 == 0 and -(2**63) <= number < 2**63


def run(dtype: str, body: str, *arrays: np.ndarray) -> np.ndarray:
    inputs = "\n".join(
        f"    input x{k}: {d}[1, 3]"
        for k, d in enumerate([dtype] if len(arrays) < 2 else [dtype, "bool"])
    )
    text = f"model m {{\n{inputs}\n    {body} -> output y\n}}\n"
    return convdsl.compile(convdsl.parse(text), {}, threads=1)(*arrays)


@pytest.mark.parametrize(("text", "number"), list(zip(NUMBERS, VALUES, strict=True)), ids=NUMBERS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i64"])
def test_beside_a_tensor(dtype: str, text: str, number: float) -> None:
    x = ARRAYS[dtype]
    functions = {"less": np.less, "equal": np.equal, "max": np.maximum}
    calls = {op: f"{op}(x0, {text})" for op in functions}
    if not fits(number, dtype):
        wider = "f32" if fits(number, "f32") else "f64"
        for call in calls.values():
            with pytest.raises(convdsl.CompileError, match=f"is no {dtype}") as caught:
                run(dtype, call, x)
            assert f"`cast({wider})`" in str(caught.value)
        return
    lines = "\n".join(f"    {call} -> output {op}" for op, call in calls.items())
    model = convdsl.parse(f"model m {{\n    input x0: {dtype}[1, 3]\n{lines}\n}}\n")
    found = convdsl.compile(model, {}, threads=1)(x)
    for op, function in functions.items():
        expected = function(x, np.full((1, 1), number, CHOICES[dtype]))
        np.testing.assert_array_equal(found[op], expected)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(
    ("a", "b"), list(product(["2", "-1", "1.5", "2e10", "0.0"], repeat=2)), ids=str
)
def test_where_of_two_numbers(a: str, b: str) -> None:
    """The mask that chooses says nothing of their type: it is their own, as NumPy's."""
    first, second = (eval(text, {"true": True}) for text in (a, b))
    expected = np.where(ARRAYS["bool"], first, second)
    found = run("bool", f"where(x0, {a}, {b})", ARRAYS["bool"])
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    kinds = {"f": "float32", "i": "int64"}
    assert found.dtype.name == kinds[expected.dtype.kind]


def test_where_of_a_tensor_and_a_number() -> None:
    found = run("i64", "where(x1, x0, 7)", ARRAYS["i64"], ARRAYS["bool"])
    np.testing.assert_array_equal(found, [[-2, 7, 3]])
    with pytest.raises(convdsl.CompileError, match=r"0\.5 is no i64"):
        run("i64", "where(x1, 0.5, x0)", ARRAYS["i64"], ARRAYS["bool"])


def test_where_first_after_an_input_line() -> None:
    text = """
    model m {
        input c: bool[1, 3]
        input a: f32[1, 3]
        where(c, a, 0.0) -> output y
    }
    """
    network = convdsl.compile(convdsl.parse(text), {}, threads=1)
    np.testing.assert_array_equal(network(ARRAYS["bool"], ARRAYS["f32"]), [[-1.5, 0.0, 2.0]])


def test_a_condition_on_the_line_after_an_input() -> None:
    for condition in ("H % 2 == 0", "(H % 2 == 0)", "(H % 2) == 0"):
        text = f"model m {{\n input x: f32[1, H]\n where {condition}\n x -> relu -> output y\n}}"
        network = convdsl.compile(convdsl.parse(text), {}, threads=1)
        with pytest.raises(convdsl.InputError, match="H % 2 == 0"):
            network(np.zeros((1, 3), np.float32))
