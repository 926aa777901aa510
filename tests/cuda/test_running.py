"""Running sums and maxima on cards: each position met once, in any order of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contractions_on_cards import check
from cuda_shim.graphs import OnCard, run_graph, schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_graph, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.autodiff import gradients
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.passes import run as run_passes
from convdsl.tensor import DType


def sums(shape: tuple[int, ...], dtype: DType = DType.F32, **attributes: Any) -> Graph:
    """Of what an operator made: of maps, with channels last."""
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    x = b("max_pool", x, kernel=1) if len(shape) > 2 and dtype.is_float else x
    return rewritten(b.output(y=b("cumsum", x, **attributes)))


@st.composite
def cases(draw: st.DrawFn) -> Graph:
    rank = draw(st.integers(1, 4))
    most = {1: 5000, 2: 300, 3: 40, 4: 20}[rank]
    shape = tuple(draw(st.integers(1, most)) for _ in range(rank))
    return sums(
        shape,
        draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I64, DType.I32, DType.I8])),
        axis=draw(st.integers(0, rank - 1)),
        exclusive=draw(st.booleans()),
        reverse=draw(st.booleans()),
    )


@pytest.mark.dear
@given(graph=cases(), order=st.sampled_from(sorted(ORDERS)))
@settings(max_examples=20, deadline=None)
def test_sums_equal_the_oracle(graph: Graph, order: str) -> None:
    assert "running" in check(graph, CudaTarget(), order, "running")


def test_who_is_quadratic_is_not_chosen() -> None:
    for shape, axis in (((8, 512), 1), ((512, 8), 0), ((2, 256, 4, 4), 1)):
        assert "running" in schedules_of(sums(shape, axis=axis))


LONG = {
    "a row": ((4099,), 0),
    "rows": ((3, 700), 1),
    "many short rows": ((40, 37), 1),
    "columns": ((515, 21), 0),
    "one column": ((300, 1), 0),
    "channels": ((2, 70, 3, 5), 1),
    "rows of maps": ((2, 6, 3, 90), 3),
}


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("name", LONG)
def test_every_order_gives_the_same_bits(name: str) -> None:
    shape, axis = LONG[name]
    graph = sums(shape, axis=axis)
    arrays = random_arrays(graph, seed=4)
    found, _ = OnCard(graph).run_in(ORDERS, arrays)
    truth = np.cumsum(arrays["x"].astype("f8"), axis=axis)
    assert np.abs(found["y"] - truth).max() <= 1e-5 * max(np.abs(truth).max(), 1.0)


def test_as_ptx() -> None:
    graph = sums((3, 700), axis=1, reverse=True)
    arrays = random_arrays(graph, seed=4)
    found, _ = OnCard(graph, ptx=True).run(arrays, ORDERS["shuffled"])
    truth = np.cumsum(arrays["x"][:, ::-1].astype("f8"), axis=1)[:, ::-1]
    np.testing.assert_allclose(found["y"], truth, rtol=0, atol=1e-4)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_infinite_or_nan_reaches_later_ones_alone(axis: int, exclusive: bool) -> None:
    x = np.ones((300, 300), np.float32)
    x[150, 7], x[9, 201] = np.inf, np.nan
    graph = sums(x.shape, axis=axis, exclusive=exclusive)
    found = run_graph(graph, {"x": x}, ORDERS["mixed"])["y"]
    expected = evaluate_graph(graph, {"x": x.astype("f8")})["y"]
    np.testing.assert_array_equal(found, expected)


def test_gradients_run_the_other_way() -> None:
    b = Builder()
    x, dy = b.input("x", 5, 130), b.input("dy", 5, 130)
    (dx,) = gradients(b.graph, {b("cumsum", x, axis=1): dy}, [x], b.build)
    assert dx is not None
    graph = run_passes(b.output(dx=dx))
    assert "running" in schedules_of(graph)
    arrays = random_arrays(graph, seed=4)
    truth = np.cumsum(arrays["dy"][:, ::-1].astype("f8"), axis=1)[:, ::-1]
    np.testing.assert_allclose(run_graph(graph, arrays)["dx"], truth, rtol=0, atol=1e-4)
