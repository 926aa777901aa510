"""Reductions over many positions: by machine code on one thread and two, by the interpreter,
against the oracle; how they are split, and how their errors grow."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import run
from graphs import Builder, evaluate_graph, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import Lowered, lower
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

OPERATORS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_mean", "reduce_l2")
CPUS = ("native", "x86-64-v3", "x86-64-v2")


def reduced(
    op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType = DType.F32, **more: bool
) -> Graph:
    """A reduction between maps, of a value that is blocked from rank 3 on, and no convolution."""
    b = Builder()
    h = b.input("x", *shape, dtype=dtype)
    if len(shape) > 2:
        h = b("conv", h, channels=shape[1], kernel=1, groups=shape[1], bias=False)
        h = b("max_pool", h, kernel=1)
    h = b("neg", h)
    return rewritten(b.output(y=b("relu", b(op, h, axes=axes, **more))))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, DType, str]:
    rank = draw(st.integers(1, 4))
    most = {1: 3000, 2: 200, 3: 40, 4: 20}[rank]
    shape = tuple(draw(st.integers(1, most)) for _ in range(rank))
    axes = tuple(axis for axis in range(rank) if draw(st.booleans())) or (rank - 1,)
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64]))
    op = draw(st.sampled_from(OPERATORS))
    graph = reduced(op, shape, axes, dtype, keepdims=draw(st.booleans()))
    return graph, dtype, draw(st.sampled_from(CPUS))


@pytest.mark.dear
@given(case=cases(), loops=st.booleans())
@settings(max_examples=40, deadline=None)
def test_reductions_equal_the_oracle(case: tuple[Graph, DType, str], loops: bool) -> None:
    graph, dtype, cpu = case
    arrays = {k: a.astype(dtype.numpy) for k, a in random_arrays(graph, seed=3).items()}
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})["y"]
    small = prod(arrays["x"].shape) < 4000
    found = run(graph, arrays, find_target(cpu), loops=loops and small)[0]["y"]
    terms = float(np.abs(arrays["x"]).sum())
    terms *= max([1.0, *(float(np.abs(a).max()) for k, a in arrays.items() if k != "x")])
    tolerance = 16 * float(np.finfo(dtype.numpy).eps) * max(terms, 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def lowered(graph: Graph, cpu: str = "x86-64-v4") -> Lowered:
    return lower(graph, cpu_machine(find_target(cpu)), "t")


def steps_of(graph: Graph, operator: str) -> list[str]:
    steps = lowered(graph).program.steps
    return [s.schedule for s in steps if any(name.startswith(operator) for name in s.nodes)]


@pytest.mark.parametrize(
    ("shape", "axes", "kernels"),
    [
        ((4, 64, 56, 56), (0, 1, 2, 3), 2),  # everything
        ((4, 64, 56, 56), (0, 2, 3), 2),  # statistics of a few channels
        ((1, 512, 28, 28), (2, 3), 1),  # as many results as a team wants
        ((1, 32, 56, 56), (2, 3), 2),  # few results
        ((1, 1000), (1,), 1),  # too few terms for two
    ],
)
def test_few_results_of_many_terms_are_split(
    shape: tuple[int, ...], axes: tuple[int, ...], kernels: int
) -> None:
    graph = reduced("reduce_sum", shape, axes)
    assert steps_of(graph, "reduce_sum").count("reduction") == kernels


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("length", [7, 8, 9, 16, 17, 31, 33, 45, 64, 67, 100])
@pytest.mark.parametrize("op", [*OPERATORS, "argmax", "reduce_log_sum_exp"])
def test_rows_are_met_in_several_vectors(op: str, length: int) -> None:
    """Of a plain map, along axes before its rows: whole lines are summed at a time."""
    b = Builder()
    how: dict[str, Any] = {"axis": 1} if op == "argmax" else {"axes": (1, 2)}
    graph = b.output(y=b(op, b.input("x", 2, 70, 3, length), **how))
    x = np.random.default_rng(length).standard_normal((2, 70, 3, length)).astype(np.float32)
    x[1, 5, 2, 3] = np.inf
    x[0, 1, 1, 2] = np.nan
    expected = evaluate_graph(graph, {"x": x.astype(np.float64)})["y"]
    for cpu in ("native", "x86-64-v3", "x86-64-v2"):
        found = run(graph, {"x": x}, find_target(cpu))[0]["y"]
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    kernel = lowered(graph, "x86-64-v3").program.kernels[0]
    lanes = {r.type.lanes for r in kernel.registers}
    if op not in ("argmax", "reduce_log_sum_exp"):
        assert lanes == {8 if length <= 8 else 16 if length <= 16 else 32}


def far_columns(op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType) -> Graph:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    how: dict[str, Any] = {"axis": axes[0]} if op == "argmax" else {"axes": axes}
    return rewritten(b.output(y=b("relu6", b(op, x, **how))))


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [
        ((2, 70, 43, 47), (1,), DType.F32),  # more rows than near sums take, and a ragged row
        ((3, 5, 64, 1000), (0, 2), DType.F32),  # several axes
        ((200, 2, 3100), (0,), DType.F64),
        ((4, 131, 1027), (1,), DType.F32),
        ((5, 64, 1024), (1,), DType.F32),  # as many as near sums take
        ((67, 1, 9001), (0,), DType.F32),  # several strips
    ],
)
@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min", "reduce_l2"])
def test_rows_pages_apart_are_added_into_strips(
    op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType
) -> None:
    """Infinities and NaN reach the columns that they stand in."""
    graph = far_columns(op, shape, axes, dtype)
    x = np.random.default_rng(len(op)).standard_normal(shape).astype(dtype.numpy)
    x.flat[[5, 1234, -1]] = np.inf, np.nan, -np.inf
    expected = evaluate_graph(graph, {"x": x.astype(np.float64)})["y"]
    made = lowered(graph, "x86-64-v3")
    assert [choice.schedule for choice in made.choices] == ["columns"]
    tolerance = 64 * float(np.finfo(dtype.numpy).eps)
    for cpu in ("native", "x86-64-v3", "x86-64-v2"):
        found = run(graph, {"x": x}, find_target(cpu))[0]["y"]
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=20 * tolerance)


def test_strips_by_the_interpreter() -> None:
    """What stays in the cache, made small, is summed so by the interpreter as well."""
    target = find_target("x86-64-v3")
    target = replace(target, caches=replace(target.caches, l1_bytes=8192, l2_bytes=8192))
    b = Builder()
    x = b.input("x", 67, 803)
    graph = b.output(y=b("reduce_mean", x, axes=(0,)))
    made = lower(graph, cpu_machine(target), "t")
    assert [choice.schedule for choice in made.choices] == ["columns"]
    values = np.random.default_rng(1).standard_normal((67, 803)).astype(np.float32)
    found = run(graph, {"x": values}, target, loops=True)[0]["y"]
    np.testing.assert_allclose(found, values.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 512, 512), (2, 4, 64, 300), (1, 1, 33, 2000)])
def test_windows_that_are_the_whole_map_share_nothing(shape: tuple[int, ...]) -> None:
    """One axis after the other would meet as many terms, and store those of the first."""
    b = Builder()
    graph = rewritten(b.output(y=b("avg_pool", b.input("x", *shape), kernel=shape[2:])))
    assert {choice.schedule for choice in lowered(graph, "x86-64-v3").choices} <= {
        "reduction",
        "flat",
    }


def test_how_it_is_split_follows_from_shapes() -> None:
    """The same kernels, and the same scratch, whoever runs them."""
    graph = reduced("reduce_sum", (4, 64, 56, 56), (0, 1, 2, 3))
    first, second = (lowered(graph).program for _ in range(2))
    assert first.kernels == second.kernels
    sizes = [b.size for k in first.kernels for b in k.buffers if b.name == "partial0"]
    assert len(set(sizes)) == 1
    assert sizes[0] >= 32 * 16


@pytest.mark.dear
@pytest.mark.parametrize("kind", ["constant", "uniform", "normal"])
@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 1 << 23])
def test_the_error_hardly_grows_with_the_terms(size: int, kind: str) -> None:
    """Of 2**23 terms added one after the other some would be lost altogether: 0.1 to a sum above
    2**19 is rounded by up to a thirty-second."""
    random = np.random.default_rng(0)
    x = {
        "constant": np.full(size, 0.1, np.float32),
        "uniform": random.random(size, dtype=np.float32),
        "normal": random.standard_normal(size, dtype=np.float32),
    }[kind]
    b = Builder()
    graph = rewritten(b.output(y=b("reduce_sum", b.input("x", size), axes=(0,))))
    found = run(graph, {"x": x}, find_target())[0]["y"]
    units = np.finfo(np.float32).eps * np.abs(x.astype(np.float64)).sum()
    assert abs(float(found) - x.sum(dtype=np.float64)) <= 16 * units


def test_nan_and_infinity_come_through() -> None:
    for op, expected in (("reduce_sum", np.nan), ("reduce_max", np.nan)):
        b = Builder()
        graph = rewritten(b.output(y=b(op, b.input("x", 5000), axes=(0,))))
        x = np.zeros(5000, np.float32)
        x[4321] = np.nan
        np.testing.assert_equal(run(graph, {"x": x}, find_target())[0]["y"], expected)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 1000), 1), ((3, 7, 33), 2), ((2, 70, 19), 1), ((1, 65), 1), ((4, 1), 1)],
)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_positions_are_found_in_vectors(
    op: str, shape: tuple[int, ...], axis: int, cpu: str
) -> None:
    """The first of equals, and a NaN before all; rows are met in vectors."""
    b = Builder()
    graph = b.output(y=b(op, b.input("x", *shape), axis=axis))
    draw = np.random.default_rng(sum(shape))
    x = draw.integers(-3, 4, shape).astype("f4")
    x.reshape(-1)[:: max(2, x.size // 3)] = np.nan
    found, schedules = run(graph, {"x": x}, find_target(cpu))
    np.testing.assert_array_equal(found["y"].reshape(-1), getattr(np, op)(x, axis).reshape(-1))
    if shape[axis] > 64:
        assert "generic" not in schedules


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min"])
def test_whole_numbers_are_exact_in_any_order(op: str) -> None:
    """Sums of i64 wrap around as NumPy's."""
    b = Builder()
    graph = b.output(y=b(op, b.input("x", 3, 901, dtype=DType.I64), axes=(1,)))
    x = np.random.default_rng(0).integers(-(2**62), 2**62, (3, 901))
    x[0, :3] = 2**62
    found, schedules = run(graph, {"x": x}, find_target("native"))
    wanted = {"reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min}[op](x, axis=1)
    np.testing.assert_array_equal(found["y"].reshape(-1), wanted)
    assert schedules == ["reduction"]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_maximum_of_a_single_cell(images: int, channels: int) -> None:
    """Its limits, and the image that it lies in, are data: no walk over whole maps."""
    b = Builder()
    x = b.input("x", images, channels, 4, 9)
    rois = b.input("rois", 1, 4)
    which = b.input("which", 1, dtype=DType.I64)
    operands = {"x": x, "regions": rois, "images": which}
    y = b.graph.apply(BY_NAME["roi_pool"], operands, {"size": (1, 1)}, name="pool").output
    graph = rewritten(b.output(y=y))
    array = np.random.default_rng(1).standard_normal((images, channels, 4, 9)).astype(np.float32)
    where = {"rois": np.float32([[1, 1, 6, 2]]), "which": np.int64([images - 1])}
    found = run(graph, {"x": array, **where}, find_target())[0]["y"]
    wanted = array[images - 1, :, 1:3, 1:7].max(axis=(1, 2))
    np.testing.assert_array_equal(found.reshape(-1), wanted)
