"""The first few along an axis on a card: chunks in shared memory, runs that are merged."""

from __future__ import annotations

from typing import Any

import pytest
from cuda_shim.graphs import run_graph, schedules_of
from cuda_shim.running import ORDERS
from selections import drawn, same, selecting

from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

F32, F64, I64 = DType.F32, DType.F64, DType.I64


@pytest.mark.dear
@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize(
    ("shape", "axis", "k", "largest", "dtype"),
    [((3, 40), 1, 5, True, F32), ((3, 4500), 1, 7, False, F32), ((2500,), 0, 2500, True, F64),
     ((2, 5000, 2), 1, 2300, True, I64), ((4, 1, 3), 1, 1, True, F32),
     ((70, 30), 0, 70, False, F32)],
)  # fmt: skip
def test_chunks_and_runs(
    shape: Any, axis: int, k: int, largest: bool, dtype: DType, order: str
) -> None:
    graph = selecting(shape, axis, k, largest, dtype)
    assert set(schedules_of(graph)) == {"ranks"}
    x = drawn(shape, dtype, 4)
    same(run_graph(graph, {"x": x}, ORDERS[order]), x, axis, k, largest)
