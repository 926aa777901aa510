"""Sums by position for a card: in the written order, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_shim.graphs import run_graph, schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder

from convdsl.autodiff import gradients
from convdsl.ir.graph import Graph
from convdsl.passes import run as run_passes
from convdsl.tensor import DType


def summed(count: int, places: int, width: int) -> Graph:
    """The gradient of a table that rows are looked up in."""
    b = Builder()
    table, ids = b.input("table", places, width), b.input("ids", count, dtype=DType.I64)
    y = b("take", table, ids, axis=0)
    (dtable,) = gradients(b.graph, {y: b.input("dy", count, width)}, [table], b.build)
    assert dtable is not None
    return run_passes(b.output(y=dtable))


@pytest.mark.dear
@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize(
    ("count", "places", "width"), [(100, 50, 8), (333, 7, 12), (64, 400, 1), (1, 1, 5), (77, 3, 64)]
)
def test_the_order_of_terms_is_the_written_one(
    count: int, places: int, width: int, order: str
) -> None:
    graph = summed(count, places, width)
    assert count < 8 or "scatter" in schedules_of(graph)
    random = np.random.default_rng(0)
    ids = random.integers(0, places, count)
    dy = random.standard_normal((count, width)).astype(np.float32)
    expected = np.zeros((places, width), np.float32)
    np.add.at(expected, ids, dy)
    arrays = {"ids": ids, "dy": dy, "table": np.zeros((places, width), np.float32)}
    np.testing.assert_array_equal(run_graph(graph, arrays, ORDERS[order])["y"], expected)
