"""Activations that are written out: what they are, and what only looks like them."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
import pytest
from executors import machine_code, run_graph
from graphs import rewritten

import convdsl
from convdsl.ir.graph import Graph
from convdsl.passes.canonicalise import Canonicalise
from convdsl.passes.fold_constants import FoldConstants

ROOT = "1.4142135623730951"
CUBE = "0.7978845608028654 * (x + 0.044715 * {})"
GELU = (
    f"x * 0.5 * (1 + erf(x / {ROOT}))",
    "0.5 * (x * (erf(x * 0.7071067811865476) + 1))",
    f"x * (0.5 * (1.0 + erf(x / {ROOT})))",
    f"x * (0.5 + 0.5 * erf(x / {ROOT}))",
    f"x * (1 + erf(x / {ROOT})) / 2",
    f"(erf(x / {ROOT}) + 1) * x * 0.25 * 2",
)
TANH = (
    f"0.5 * x * (1 + tanh({CUBE.format('x * x * x')}))",
    f"x * (tanh({CUBE.format('pow(x, 3)')}) + 1) * 0.5",
    "0.5 * x * (1 + tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))",
    "x * (0.5 + 0.5 * tanh((1 + x * x * 0.044715) * (x * 0.7978845608)))",
)
OTHERS = (
    "x * 0.5 * (1 + erf(x / 1.414))",
    f"x * 0.5 * (1 - erf(x / {ROOT}))",
    f"x * (1 + erf(x / {ROOT}))",
    f"w * 0.5 * (1 + erf(x / {ROOT}))",
    f"x * 0.5 * (2 + erf(x / {ROOT}))",
    f"x * 0.5 * (1 + 2 * erf(x / {ROOT}))",
    f"x * x * 0.5 * (1 + erf(x / {ROOT}))",
    "0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x)))",
    "0.5 * x * (1 + tanh(0.7978845608 * x * (1 + 0.044715 * x * x * x)))",
    "0.5 * x * (1 + tanh(0.79 * (x + 0.044715 * x * x * x)))",
    "0.5 * x * (1 + tanh(0.7978845608 * (w + 0.044715 * x * x * x)))",
    "x * tanh(softplus(w))",
    "x * 0.5 * tanh(softplus(x))",
    "x * tanh(softplus(x, beta = 2))",
)


def graph_of(formula: str, dtype: str = "f32") -> Graph:
    inputs = f"input x: {dtype}[2, 3, 5]\n    input w: {dtype}[2, 3, 5]\n"
    text = f"model m {{\n    {inputs}    ({formula}) -> output y\n    w -> relu -> output z\n}}\n"
    return convdsl.parse(text).graph


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.op_nodes() if node.op.name != "relu"]


def arrays(dtype: type) -> dict[str, np.ndarray]:
    x = np.linspace(-6, 6, 30, dtype=np.float64).reshape(2, 3, 5)
    return {"x": x.astype(dtype), "w": (x[::-1] / 3).astype(dtype)}


@pytest.mark.dear
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("formula", [*GELU, *TANH, "tanh(softplus(x)) * x"])
def test_they_are_named(formula: str, dtype: str) -> None:
    graph = graph_of(formula, dtype)
    after = rewritten(graph, FoldConstants(), Canonicalise())
    short = (
        "tanh" in formula and CUBE[:18] not in formula and "soft" not in formula
    )  # told to ten digits, as of f32
    if short and dtype == "f64":
        assert "gelu" not in names(after)
        return
    assert names(after) == ["mish" if "softplus" in formula else "gelu"]
    given = arrays(np.dtype(np.float32 if dtype == "f32" else np.float64).type)
    before = run_graph(graph, given, machine_code)["y"]
    found = run_graph(after, given, machine_code)["y"]
    np.testing.assert_allclose(found, before, rtol=1e-5, atol=3e-7 if dtype == "f32" else 1e-14)


@pytest.mark.dear
@pytest.mark.parametrize("formula", OTHERS)
def test_what_is_something_else_stays(formula: str) -> None:
    graph = graph_of(formula)
    after = rewritten(graph, FoldConstants(), Canonicalise())
    assert not {"gelu", "mish"} & set(names(after))
    given = arrays(np.float32)
    before = run_graph(graph, given, machine_code)["y"]
    found = run_graph(after, given, machine_code)["y"]
    np.testing.assert_allclose(found, before, rtol=1e-5, atol=1e-6)


def test_what_others_read_stays() -> None:
    """A product inside that is an output itself, and a tensor of another shape."""
    text = f"""model m {{
    input x: f32[2, 3]
    input v: f32[3]
    let h = x / {ROOT}
    h -> output u
    (x * 0.5 * (1 + erf(h))) -> output y
    (x * 0.5 * (1 + erf(v / {ROOT}))) -> output other
    (v * 0.5 * (1 + erf(x / {ROOT}))) -> output third
}}
"""
    graph = convdsl.parse(text.replace("    let h", "    h")).graph
    after = rewritten(graph, Canonicalise())
    assert "gelu" not in [node.op.name for node in after.op_nodes()]


def test_the_tail_is_exact() -> None:
    graph = rewritten(graph_of(GELU[0]), Canonicalise())
    x = np.linspace(-13, -9, 30, dtype=np.float32).reshape(2, 3, 5)
    wanted = [v * 0.5 * erfc(-v / sqrt(2)) for v in x.astype(np.float64).ravel()]
    found = run_graph(graph, {"x": x, "w": x}, machine_code)["y"].ravel()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.dear
@pytest.mark.parametrize("step", ["in * 0.999", "in / 1.001", "in * x"])
def test_long_chains_of_products_are_no_trouble(step: str) -> None:
    body = f"x -> repeat 2000 {{ {step} }} -> output y"
    graph = convdsl.parse(f"model m {{\n    input x: f32[4]\n    {body}\n}}\n").graph
    assert len(rewritten(graph, Canonicalise()).op_nodes()) == 2000
