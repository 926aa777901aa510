"""Rows that are reduced and computed along: one kernel, which reads them once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_shim.graphs import OnCard, for_a_card, run_graph
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_graph, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.autodiff import gradients
from convdsl.ir.graph import Graph
from convdsl.passes import run as run_passes


def alone(op: str, shape: tuple[int, ...], **attributes: Any) -> Graph:
    """The operator between maps."""
    b = Builder()
    x = b("neg", b.input("x", *shape))
    return rewritten(b.output(y=b("relu", b(op, x, **attributes))))


def steps_of(graph: Graph) -> list[str]:
    """Schedules of steps that are no copies of outputs."""
    return [c.schedule for c in for_a_card(graph).choices if not c.kernel.startswith("copy")]


@pytest.mark.dear
@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("softmax", (8, 1000), {"axis": 1}),
        ("softmax", (4, 12, 197, 197), {"axis": 3}),
        ("softmax", (2, 21, 9, 9), {"axis": 1}),
        ("softmax", (50, 33), {"axis": 0}),
        ("log_softmax", (16, 1000), {"axis": 1}),
        ("layer_norm", (2, 197, 768), {}),
        ("instance_norm", (2, 16, 14, 14), {}),
        ("softmax", (4, 10_000), {"axis": 1}),
        ("layer_norm", (4, 20_480), {}),
        ("group_norm", (2, 64, 28, 28), {"groups": 8}),
        ("group_norm", (2, 96, 14, 14), {"groups": 32}),
        ("group_norm", (2, 24, 7, 9), {"groups": 1}),
        ("group_norm", (64, 48), {"groups": 6}),
        ("group_norm", (2, 8, 6, 5, 4), {"groups": 2}),
    ],
)
def test_one_kernel_reads_rows_once(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    graph = alone(op, shape, **attributes)
    lowered = for_a_card(graph)
    (choice,) = [c for c in lowered.choices if c.schedule == "rows"]
    assert steps_of(graph).count("rows") == 1
    assert all(s in ("rows", "vectors", "generic") for s in steps_of(graph))
    kernel = next(k for k in lowered.program.kernels if k.name == choice.kernel)
    assert not any("t1" in buffer.name for buffer in kernel.buffers if not buffer.written)


def test_rows_too_long_to_hold_are_kernels_of_their_own() -> None:
    assert "rows" not in steps_of(alone("softmax", (2, 100_000), axis=1))


@st.composite
def cases(draw: st.DrawFn) -> Graph:
    ops = ["softmax", "log_softmax", "layer_norm", "instance_norm", "group_norm"]
    op = draw(st.sampled_from(ops))
    rank = draw(st.integers(3, 4)) if op == "instance_norm" else draw(st.integers(2, 4))
    most = {2: 400, 3: 40, 4: 14}[rank]
    shape = [draw(st.integers(1, most)) for _ in range(rank)]
    more = {"axis": draw(st.integers(0, rank - 1))} if "softmax" in op else {}
    if op == "group_norm":
        more["groups"] = draw(st.integers(1, 5))
        shape[1] = more["groups"] * draw(st.integers(1, 13))
    return alone(op, tuple(shape), **more)


@pytest.mark.dear
@given(graph=cases(), order=st.sampled_from(sorted(ORDERS)))
@settings(max_examples=12, deadline=None)
def test_rows_equal_the_oracle(graph: Graph, order: str) -> None:
    arrays = random_arrays(graph, seed=2)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["y"]
    found = run_graph(graph, arrays, ORDERS[order])["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, abs(expected).max()))


@pytest.mark.dear
@pytest.mark.parametrize("groups", [1, 2, 4, 16])
@pytest.mark.parametrize("channels", [16, 48])
def test_groups_beside_convolutions(groups: int, channels: int) -> None:
    """Channels side by side in memory: of a group four at a time where it has as many."""
    b = Builder()
    h = b("conv", b.input("x", 2, 3, 7, 6), channels=channels, kernel=3)
    h = b("add", b("group_norm", h, groups=groups), h)
    graph = rewritten(b.output(y=b("conv", b("relu", h), channels=4, kernel=1)))
    assert steps_of(graph).count("rows") == 1
    arrays = random_arrays(graph, seed=5)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["y"]
    found = OnCard(graph).run_in(ORDERS, arrays)[0]["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_statistics_that_are_kept() -> None:
    """In training mean and scale of each group leave, for the gradients."""
    b = Builder()
    x = b.input("x", 3, 12, 5, 5)
    y = b("group_norm", x, groups=3)
    dy = b.input("dy", 3, 12, 5, 5)
    (dx,) = gradients(b.graph, {y: dy}, [x], b.build)
    assert dx is not None
    graph = run_passes(b.output(y=y, dx=dx))
    assert steps_of(graph)[0] == "rows"
    arrays = random_arrays(graph, seed=6)
    exact = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})
    for name, array in OnCard(graph).run_in(ORDERS, arrays)[0].items():
        np.testing.assert_allclose(array, exact[name], rtol=0, atol=2e-5 * abs(exact[name]).max())


@pytest.mark.parametrize("op", ["softmax", "layer_norm"])
def test_gradients(op: str) -> None:
    b = Builder()
    x = b.input("x", 6, 130)
    y = b(op, x, **({"axis": 1} if op == "softmax" else {}))
    dy = b.input("dy", 6, 130)
    (dx,) = gradients(b.graph, {y: dy}, [x], b.build)
    assert dx is not None
    graph = run_passes(b.output(dx=dx))
    arrays = random_arrays(graph, seed=4)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["dx"]
    found = run_graph(graph, arrays)["dx"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())
    assert "rows" in steps_of(graph)


def test_infinite_scores_and_nan() -> None:
    """Masked scores are -inf; a row of nothing else is NaN, as in NumPy."""
    b = Builder()
    graph = rewritten(b.output(y=b("softmax", b.input("x", 4, 70), axis=1)))
    x = np.zeros((4, 70), np.float32)
    x[0, ::2], x[1], x[2, 5] = -np.inf, -np.inf, np.nan
    with np.errstate(invalid="ignore"):
        expected = evaluate_graph(graph, {"x": x.astype("f8")})["y"]
    np.testing.assert_allclose(run_graph(graph, {"x": x})["y"], expected, rtol=1e-5)
