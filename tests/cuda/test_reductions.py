"""Reductions for a card: run from their source against the oracle, split by shape, exact enough."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_shim.graphs import for_a_card, run_graph, run_step, schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_graph, evaluate_results, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import step_graph

from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import Barrier, Exchange, walk_statements
from convdsl.tensor import DType

OPERATORS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_mean", "reduce_l2")


def reduced(
    op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType = DType.F32
) -> Graph:
    """A reduction between maps, of a value that an operator made (channels last from rank 3 on)."""
    b = Builder()
    h = b.input("x", *shape, dtype=dtype)
    h = b("neg", b("max_pool", h, kernel=1) if len(shape) > 2 else h)
    return rewritten(b.output(y=b("relu", b(op, h, axes=axes))))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, DType]:
    rank = draw(st.integers(1, 4))
    most = {1: 30000, 2: 300, 3: 60, 4: 24}[rank]
    shape = tuple(draw(st.integers(1, most)) for _ in range(rank))
    axes = tuple(axis for axis in range(rank) if draw(st.booleans())) or (rank - 1,)
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64]))
    return reduced(draw(st.sampled_from(OPERATORS)), shape, axes, dtype), dtype


@pytest.mark.dear
@given(case=cases(), order=st.sampled_from(sorted(ORDERS)))
@settings(max_examples=15, deadline=None)
def test_reductions_equal_the_oracle(case: tuple[Graph, DType], order: str) -> None:
    graph, dtype = case
    arrays = {k: a.astype(dtype.numpy) for k, a in random_arrays(graph, seed=3).items()}
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})["y"]
    found = run_graph(graph, arrays, ORDERS[order])["y"]
    terms = float(np.abs(arrays["x"]).sum())
    tolerance = 16 * float(np.finfo(dtype.numpy).eps) * max(terms, 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("shape", "axes", "steps", "meet"),
    [
        ((64, 1000), (1,), 1, Exchange),  # rows, a warp each
        ((8, 64, 28, 28), (0, 2, 3), 2, Barrier),  # statistics of channels
        ((8, 256, 7, 7), (2, 3), 1, Barrier),  # means of maps
        ((1 << 20,), (0,), 2, Exchange),  # everything
    ],
)
def test_how_they_are_shared_out(
    shape: tuple[int, ...], axes: tuple[int, ...], steps: int, meet: type
) -> None:
    graph = reduced("reduce_sum", shape, axes)
    lowered = for_a_card(graph)
    chosen = [c for c in lowered.choices if any("reduce" in name for name in c.nodes)]
    assert [c.schedule for c in chosen] == ["reduction"] * steps
    kernels = {kernel.name: kernel for kernel in lowered.program.kernels}
    first = kernels[chosen[0].kernel]
    assert any(isinstance(s, meet) for s in walk_statements(first.body))
    assert lowered.program == for_a_card(graph).program, "by shapes alone"


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("kind", ["constant", "uniform", "normal"])
def test_the_error_hardly_grows_with_the_terms(kind: str) -> None:
    """Of 2**22 terms added one after the other the last ones would be lost."""
    random, size = np.random.default_rng(0), 1 << 22
    x = {
        "constant": np.full(size, 0.1, np.float32),
        "uniform": random.random(size, dtype=np.float32),
        "normal": random.standard_normal(size, dtype=np.float32),
    }[kind]
    b = Builder()
    graph = rewritten(b.output(y=b("reduce_sum", b.input("x", size), axes=(0,))))
    found = run_graph(graph, {"x": x})["y"]
    units = np.finfo(np.float32).eps * np.abs(x.astype(np.float64)).sum()
    assert abs(float(found) - x.sum(dtype=np.float64)) <= 8 * units


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6])
def test_channels_that_fill_no_vector(channels: int) -> None:
    graph = reduced("reduce_sum", (2, channels, 12, 12), (0, 2, 3))
    arrays = random_arrays(graph, seed=3)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["y"]
    np.testing.assert_allclose(run_graph(graph, arrays)["y"], expected, rtol=0, atol=1e-4)


def test_nan_and_infinity_come_through() -> None:
    for op in OPERATORS[:3]:
        graph = reduced(op, (40, 300), (1,))
        x = np.zeros((40, 300), np.float32)
        x[3, 299], x[5, 0], x[7, 77] = np.nan, np.inf, -np.inf
        expected = evaluate_graph(graph, {"x": x})["y"]
        np.testing.assert_array_equal(run_graph(graph, {"x": x})["y"], expected)


@pytest.mark.dear
@pytest.mark.parametrize("shape", [(3, 8, 20, 20), (2, 6, 11, 9), (1, 4, 30, 31)])
def test_gradients_of_depthwise_filters(shape: tuple[int, ...]) -> None:
    """All taps of a channel at once, every position met once."""
    attributes = {"channels": shape[1], "kernel": 3, "groups": shape[1], "pad": 1}
    graph = step_graph("conv", shape, attributes)
    arrays = random_arrays(graph, seed=1)
    assert "reduction" in schedules_of(graph)
    outputs, states = run_step(graph, arrays)
    truth = evaluate_results(graph, {k: a.astype("f8") for k, a in arrays.items()})
    for found, expected in ((outputs, truth[0]), (states, truth[1])):
        for name, array in expected.items():
            span = float(np.max(np.abs(array), initial=1.0))
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * span, err_msg=name)
