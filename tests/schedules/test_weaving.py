"""Few rows woven into one, and one taken apart into few: by vectors, ragged ends included."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.nodes import Let, Load, Store, walk_statements
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

CASES = [
    ((2, 40), (1, 0), 2),  # pairs
    ((40, 2), (1, 0), 2),
    ((2, 3, 7, 11), (0, 2, 3, 1), 3),  # channels last, and first again
    ((2, 7, 11, 3), (0, 3, 1, 2), 3),
    ((5, 16), (1, 0), 5),  # a single block
    ((3, 2, 4, 31), (0, 3, 1, 2), 8),  # two axes across
    ((3, 31, 2, 4), (0, 2, 3, 1), 8),
    ((3, 1, 2, 33), (1, 3, 2, 0), 6),  # across two axes in another order
    ((12, 35), (1, 0), 12),  # squares are turned
    ((35, 13), (1, 0), 13),
    ((15, 17), (1, 0), 15),
    ((17, 15), (1, 0), 15),
    ((2, 700), (1, 0), 2),  # several pieces
]


def lowered(shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType, cpu: str) -> Lowered:
    b = Builder()
    graph = b.output(y=b("transpose", b.input("x", *shape, dtype=dtype), axes=axes))
    return lower(graph, cpu_machine(find_target(cpu)), "t")


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64], ids=str)
@pytest.mark.parametrize(("shape", "axes", "rows"), CASES)
def test_rows_are_woven(
    shape: tuple[int, ...], axes: tuple[int, ...], rows: int, dtype: DType
) -> None:
    b = Builder()
    graph = b.output(y=b("transpose", b.input("x", *shape, dtype=dtype), axes=axes))
    x = np.arange(prod(shape)).astype(dtype.numpy).reshape(shape)
    for run in (machine_code, interpreted) if dtype is DType.F32 else (machine_code,):
        np.testing.assert_array_equal(run_graph(graph, {"x": x}, run)["y"], x.transpose(axes))


@pytest.mark.parametrize(("shape", "axes", "rows"), CASES)
def test_it_is_chosen_where_rows_are_few(
    shape: tuple[int, ...], axes: tuple[int, ...], rows: int
) -> None:
    """A block of positions is as many vectors as there are rows, each loaded and stored once."""
    made = lowered(shape, axes, DType.F32, "x86-64-v4")
    assert [choice.schedule for choice in made.choices] == ["weaving"]
    (kernel,) = made.program.kernels
    block = list(walk_statements(kernel.body[:1]))
    stores = [s for s in block if isinstance(s, Store)]
    loads = [s for s in block if isinstance(s, Let) and isinstance(s.value, Load)]
    assert len(stores) == len(loads) == rows
    assert all(store.valid is None for store in stores)


@pytest.mark.parametrize("shape", [(16, 16), (20, 40), (3, 8)])
def test_it_is_not_where_rows_fill_vectors_or_are_short(shape: tuple[int, ...]) -> None:
    made = lowered(shape, (1, 0), DType.F32, "x86-64-v4")
    assert "weaving" not in [choice.schedule for choice in made.choices]
