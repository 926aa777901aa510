"""Normalisations that are written out: what they are, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from executors import machine_code, run_graph
from graphs import Builder, rewritten

from convdsl.ir.graph import Graph, Value
from convdsl.passes.canonicalise import Canonicalise
from convdsl.passes.fold_constants import FoldConstants
from convdsl.tensor import DType

Root = Callable[[Builder, Value, Value], Value]
Square = Callable[[Builder, Value, Value, Value], Value]


def inverse(b: Builder, s: Value) -> Value:
    return b("div", b.constant("one", 1.0, s.type.dtype), s)


def power(b: Builder, x: Value, exponent: float) -> Value:
    return b("pow", x, b.constant(f"exponent{exponent}", exponent, x.type.dtype))


ROOTS: dict[str, Root] = {
    "d / sqrt(v)": lambda b, d, v: b("div", d, b("sqrt", v)),
    "d * reciprocal(sqrt(v))": lambda b, d, v: b("mul", d, b("reciprocal", b("sqrt", v))),
    "d * (1 / sqrt(v))": lambda b, d, v: b("mul", d, inverse(b, b("sqrt", v))),
    "(1 / sqrt(v)) * d": lambda b, d, v: b("mul", inverse(b, b("sqrt", v)), d),
    "d / v ** 0.5": lambda b, d, v: b("div", d, power(b, v, 0.5)),
    "d * v ** -0.5": lambda b, d, v: b("mul", d, power(b, v, -0.5)),
}
SQUARES: dict[str, Square] = {
    "d * d": lambda b, d, x, m: b("mul", d, d),
    "d ** 2": lambda b, d, x, m: power(b, d, 2.0),
    "another x - m": lambda b, d, x, m: power(b, b("sub", x, m), 2.0),
    "m - x": lambda b, d, x, m: power(b, b("sub", m, x), 2.0),
}


def norm(
    b: Builder,
    x: Value,
    axes: tuple[int, ...],
    root: str = "d / sqrt(v)",
    square: str = "d * d",
    inner: tuple[int, ...] | None = None,
) -> Value:
    mean = b("reduce_mean", x, axes=axes, keepdims=True)
    d = b("sub", x, mean)
    squares = SQUARES[square](b, d, x, mean)
    variance = b("reduce_mean", squares, axes=inner or axes, keepdims=True)
    v = b("add", variance, b.constant("eps", 1e-5, x.type.dtype))
    return ROOTS[root](b, d, v)


def after(graph: Graph) -> Graph:
    return rewritten(graph, FoldConstants(), Canonicalise())


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.op_nodes()]


def exact(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    x = x.astype(float)
    d = x - x.mean(axes, keepdims=True)
    return d / np.sqrt((d * d).mean(axes, keepdims=True) + 1e-5)


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("square", SQUARES)
def test_spellings(root: str, square: str, dtype: DType) -> None:
    b = Builder()
    x = b.input("x", 2, 5, 19, dtype=dtype)
    graph = b.output(y=norm(b, x, (2,), root, square))
    found = after(graph)
    assert names(found) == ["layer_norm"]
    (node,) = found.op_nodes()
    assert node.call["eps"] == 1e-5
    given = np.random.default_rng(0).standard_normal((2, 5, 19)).astype(dtype.numpy) * 30 + 7
    y = run_graph(found, {"x": given}, machine_code)["y"]
    tolerance = 2e-5 if dtype is DType.F32 else 1e-12
    np.testing.assert_allclose(y, exact(given, (2,)), rtol=0, atol=tolerance)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("shape", "axes", "op"),
    [
        ((2, 5, 19), (2,), "layer_norm"),
        ((2, 5, 19), (1, 2), "layer_norm"),
        ((7, 9), (1,), "layer_norm"),
        ((9,), (0,), "layer_norm"),
        ((2, 3, 4, 5), (1, 2, 3), "layer_norm"),
        ((2, 3, 4, 5), (3,), "layer_norm"),
        ((2, 3, 4, 5), (2, 3), "instance_norm"),
        ((2, 3, 2, 4, 5), (2, 3, 4), "instance_norm"),
    ],
)
def test_axes(shape: tuple[int, ...], axes: tuple[int, ...], op: str) -> None:
    b = Builder()
    graph = after(b.output(y=norm(b, b.input("x", *shape), axes)))
    assert names(graph) == [op]
    given = np.random.default_rng(1).standard_normal(shape).astype("f4")
    y = run_graph(graph, {"x": given}, machine_code)["y"]
    np.testing.assert_allclose(y, exact(given, axes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("turned", [True, False])
def test_weight_and_bias(turned: bool) -> None:
    b = Builder()
    y = norm(b, b.input("x", 2, 5, 19), (2,))
    weight, bias = b.parameter("w", 19), b.parameter("b", 19)
    scaled = b("mul", weight, y) if turned else b("mul", y, weight)
    graph = b.output(y=b("add", bias, scaled) if turned else b("add", scaled, bias))
    found = after(graph)
    assert names(found) == ["layer_norm"]
    random = np.random.default_rng(2)
    arrays = {"x": random.standard_normal((2, 5, 19)).astype("f4")}
    arrays |= {key: random.standard_normal(19).astype("f4") for key in "wb"}
    wanted = exact(arrays["x"], (2,)) * arrays["w"] + arrays["b"]
    found_y = run_graph(found, arrays, machine_code)["y"]
    np.testing.assert_allclose(found_y, wanted, rtol=0, atol=2e-5)


def test_weights_of_other_shapes_stay_apart() -> None:
    """A weight of each token, and one number for all."""
    b = Builder()
    y = norm(b, b.input("x", 2, 5, 19), (2,))
    made = b("add", b("mul", y, b.parameter("w", 5, 1)), b.parameter("b", 1))
    assert names(after(b.output(y=made))) == ["layer_norm", "mul", "add"]


def looks_like(what: str) -> Graph:
    b = Builder()
    x = b.input("x", 2, 5, 19)
    match what:
        case "the mean of other axes":
            return b.output(y=norm(b, x, (2,), inner=(1, 2)))
        case "axes that are not the last":
            return b.output(y=norm(b, x, (1,)))
        case "a deviation that is read besides":
            y = norm(b, x, (2,))
            d = next(n.output for n in b.graph.op_nodes() if n.op.name == "sub")
            return b.output(y=y, z=b("relu", d))
        case "a mean that is a result":
            y = norm(b, x, (2,))
            mean = next(n.output for n in b.graph.op_nodes() if n.op.name == "reduce_mean")
            return b.output(y=y, z=mean)
        case "m - x over the root":
            mean = b("reduce_mean", x, axes=(2,), keepdims=True)
            d = b("sub", mean, x)
            variance = b("reduce_mean", b("mul", d, d), axes=(2,), keepdims=True)
            return b.output(y=b("div", d, b("sqrt", b("add", variance, b.constant("e", 1e-5)))))
        case "eps of each row":
            mean = b("reduce_mean", x, axes=(2,), keepdims=True)
            d = b("sub", x, mean)
            variance = b("reduce_mean", b("mul", d, d), axes=(2,), keepdims=True)
            return b.output(y=b("div", d, b("sqrt", b("add", variance, b.parameter("e", 5, 1)))))
        case _:
            mean = b("reduce_mean", x, axes=(2,), keepdims=True)
            other = b("sub", b.input("other", 2, 5, 19), mean)
            variance = b("reduce_mean", b("mul", other, other), axes=(2,), keepdims=True)
            root = b("sqrt", b("add", variance, b.constant("e", 1e-5)))
            return b.output(y=b("div", b("sub", x, mean), root))


@pytest.mark.parametrize(
    "what",
    [
        "the mean of other axes",
        "axes that are not the last",
        "a deviation that is read besides",
        "a mean that is a result",
        "m - x over the root",
        "eps of each row",
        "the deviation of another tensor",
    ],
)
def test_what_is_something_else_stays(what: str) -> None:
    graph = looks_like(what)
    assert not {"layer_norm", "instance_norm"} & set(names(after(graph)))
