"""A factor that lies along the sum: its panels are turned where they are used."""

from __future__ import annotations

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import Parallel, Space
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

SIZES = [  # leading axes, rows, sum, columns
    ((), 16, 32, 64),
    ((), 1, 40, 33),  # one row
    ((3,), 7, 19, 17),  # ragged along both
    ((2, 2), 13, 5, 3),  # shorter than a vector along both
    ((), 50, 1, 20),  # a sum of one term
    ((2,), 30, 100, 1),
    ((), 9, 70, 130),  # several panels, and a ragged last one
]


def product(
    outer: tuple[int, ...], m: int, k: int, n: int, dtype: DType = DType.F32, order: str = "last"
) -> Graph:
    """x y^T, y [outer.., n, k] or, with `order` heads, [outer[0], n, outer[1], k]."""
    b, rank = Builder(), len(outer) + 2
    x = b.input("x", *outer, m, k, dtype=dtype)
    if order == "heads":
        y = b.input("y", outer[0], n, outer[1], k, dtype=dtype)
        return rewritten(b.output(z=b("matmul", x, b("transpose", y, axes=(0, 2, 3, 1)))))
    y = b.input("y", *outer, n, k, dtype=dtype)
    turned = b("transpose", y, axes=(*range(rank - 2), rank - 1, rank - 2))
    return rewritten(b.output(z=b("relu", b("matmul", x, turned))))


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize(("outer", "m", "k", "n"), SIZES)
def test_products_with_what_lies_along_the_sum(
    outer: tuple[int, ...], m: int, k: int, n: int, dtype: DType
) -> None:
    graph = product(outer, m, k, n, dtype)
    random = np.random.default_rng(2)
    x, y = (random.standard_normal((*outer, rows, k)) for rows in (m, n))
    arrays = {"x": x.astype(dtype.numpy), "y": y.astype(dtype.numpy)}
    exact = np.maximum(arrays["x"].astype(float) @ arrays["y"].astype(float).swapaxes(-1, -2), 0)
    for run in (machine_code, interpreted):
        found = run_graph(graph, arrays, run)["z"]
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 if dtype is DType.F32 else 1e-13)


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
def test_heads_are_read_where_they_lie(cpu: str) -> None:
    """Keys [batch, tokens, heads, features] as a linear layer makes them; NaN stays in place."""
    graph = product((2, 3), 11, 21, 37, order="heads")
    random = np.random.default_rng(2)
    x = random.standard_normal((2, 3, 11, 21)).astype(np.float32)
    y = random.standard_normal((2, 37, 3, 21)).astype(np.float32)
    y[1, 5, 2, 20] = np.nan
    program = lower(graph, cpu_machine(find_target(cpu)), "t").program
    assert [step.schedule for step in program.steps] == ["gemm"]
    found = run_graph(graph, {"x": x, "y": y}, machine_code)["z"]
    wanted = x.astype(float) @ y.astype(float).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_panel_is_turned_once_for_all_rows() -> None:
    graph = product((4,), 100, 64, 200)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    assert [step.schedule for step in program.steps] == ["gemm"]
    (kernel,) = program.kernels
    (panel,) = [buffer for buffer in kernel.buffers if buffer.space is Space.PRIVATE]
    assert panel.size <= 64 * 16 * 8


def test_a_panel_that_does_not_fit_is_packed() -> None:
    graph = product((), 100, 9000, 64)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    assert len(program.steps) == 2
    kernels = [buffer for kernel in program.kernels for buffer in kernel.buffers]
    assert not any(buffer.space is Space.PRIVATE for buffer in kernels)


def test_few_panels_are_turned_for_bands_of_rows() -> None:
    """So that a team has something to share out."""
    graph = product((), 200, 40, 33)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    (kernel,) = program.kernels
    assert isinstance(kernel.body[0], Parallel)
    assert max(kernel.body[0].extents) == 3
    random = np.random.default_rng(4)
    x, y = (random.standard_normal((rows, 40)).astype(np.float32) for rows in (200, 33))
    found = run_graph(graph, {"x": x, "y": y}, machine_code)["z"]
    np.testing.assert_allclose(found, np.maximum(x.astype(float) @ y.T, 0), rtol=0, atol=1e-5)
