"""A factor along the sum, or in rows far apart: its panels are brought where they are used."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_convolutions import run
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
    ((), 9, 2100, 37),  # too deep for a panel: sums wait from one to the next
    ((2,), 5, 4099, 21),  # a ragged end in the last of them
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
    most = (1e-5 if dtype is DType.F32 else 1e-13) * max(1.0, k / 100)
    for execute in (machine_code, interpreted):
        found = run_graph(graph, arrays, execute)["z"]
        np.testing.assert_allclose(found, exact, rtol=0, atol=most)


@pytest.mark.dear(share=4)
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


def memory_of_panels(graph: Graph, cpu: str = "x86-64-v4") -> int:
    """Elements; all of the graph is one step."""
    program = lower(graph, cpu_machine(find_target(cpu)), "t").program
    assert [step.schedule for step in program.steps] == ["gemm"]
    (kernel,) = program.kernels
    return sum(buffer.size for buffer in kernel.buffers if buffer.space is Space.PRIVATE)


def test_a_factor_is_turned_whole_or_by_panels_along_the_sum() -> None:
    whole = memory_of_panels(product((), 100, 500, 64))
    assert whole % 500 == 0
    deep = memory_of_panels(product((), 100, 9000, 64))
    assert 0 < deep <= find_target("x86-64-v4").caches.l2_bytes // 4 // 4


def test_sums_that_are_more_than_the_factor_do_not_wait() -> None:
    """It is packed instead, which costs less than they do."""
    graph = product((), 20000, 9000, 24)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    assert len(program.steps) == 2
    kernels = [buffer for kernel in program.kernels for buffer in kernel.buffers]
    assert not any(buffer.space is Space.PRIVATE for buffer in kernels)


def in_rows(m: int, k: int, n: int, dtype: DType = DType.F32, outer: tuple[int, ...] = ()) -> Graph:
    """relu(x y), y [outer.., k, n]."""
    b = Builder()
    x = b.input("x", *outer, m, k, dtype=dtype)
    y = b.input("y", *outer, k, n, dtype=dtype)
    return rewritten(b.output(z=b("relu", b("matmul", x, y))))


ROWS = [  # leading axes, rows, sum, columns; all but the last of columns far from each other
    ((), 1, 300, 1040),  # in place, a page of each row at a time
    ((), 3, 150, 267),  # ragged in the sum, and along its rows
    ((), 40, 150, 267),  # copied
    ((2,), 33, 70, 1031),
    ((), 20, 17, 4000),  # few terms, long rows of the output: a few rows of it at a time
    ((), 50, 8, 2051),
    ((), 40, 150, 100),
]


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("cpu", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(("outer", "m", "k", "n"), ROWS)
def test_products_with_rows_that_lie_far_apart(
    outer: tuple[int, ...], m: int, k: int, n: int, cpu: str, dtype: DType
) -> None:
    """NaN stays in its row of x and in its column of y."""
    random = np.random.default_rng(3)
    x = random.standard_normal((*outer, m, k)).astype(dtype.numpy)
    y = random.standard_normal((*outer, k, n)).astype(dtype.numpy)
    x[..., m // 2, k - 1] = np.nan
    y[..., 0, n - 1] = np.nan
    found, _ = run(in_rows(m, k, n, dtype, outer), {"x": x, "y": y}, find_target(cpu))
    exact = np.maximum(x.astype(float) @ y.astype(float), 0)
    np.testing.assert_allclose(found["z"], exact, atol=1e-4 if dtype is DType.F32 else 1e-12)


def test_rows_far_apart_are_copied_where_many_rows_meet_them() -> None:
    assert memory_of_panels(in_rows(40, 150, 267))
    assert not memory_of_panels(in_rows(3, 150, 267))
    assert not memory_of_panels(in_rows(40, 150, 100))


def test_tiles_run_along_long_rows_of_the_output() -> None:
    """Not down its columns, each of which is in another page: bands of a tile of rows."""
    graph = in_rows(400, 8, 4096)
    program = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").program
    kernel = program.kernels[-1]
    assert isinstance(kernel.body[0], Parallel)
    (groups, bands) = kernel.body[0].extents
    assert groups == 1
    assert bands >= 400 // 6


def test_an_update_of_many_weights_is_in_place() -> None:
    """One that few samples make: no copy of them, whatever number of tiles their rows have."""
    for wide in (1568 * 16, 1040, 2051):
        b = Builder()
        x, dy = b.input("x", 8, wide), b.input("dy", 8, 64)
        (weight,) = (b.parameter("w", 64, wide),)
        dw = b("matmul", b("transpose", dy, axes=(1, 0)), x)
        b.graph.updates["w"] = b("sub", weight, b("mul", dw, b.constant("rate", 0.01)))
        graph = rewritten(b.output(z=b("relu", dy)))
        program = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").program
        assert not any(kernel.name.startswith("copy") for kernel in program.kernels), wide


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
