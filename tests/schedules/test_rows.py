"""Rows that are reduced and computed along, in one kernel while they are in the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, evaluate_graph, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.autodiff import gradients
from convdsl.backends.llvm.objects import find_target
from convdsl.diagnostics import ArtifactError
from convdsl.ir.graph import Graph
from convdsl.kernel.caches import Caches
from convdsl.kernel.nodes import For, Parallel, Prefetch, walk_statements
from convdsl.kernel.target import Target
from convdsl.kernel.text import format_kernel
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.runtime.cpu.processor import check_processor
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import evaluate

CPUS = ("native", "x86-64-v3", "x86-64-v2")


def alone(op: str, shape: tuple[int, ...], **attributes: Any) -> Graph:
    b = Builder()
    return rewritten(b.output(y=b(op, b.input("x", *shape), **attributes)))


def schedules_of(graph: Graph) -> list[str]:
    return [choice.schedule for choice in lower(graph, cpu_machine(find_target()), "t").choices]


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("softmax", (8, 1000), {"axis": 1}),
        ("softmax", (2, 12, 97, 97), {"axis": 3}),
        ("softmax", (2, 21, 9, 9), {"axis": 1}),
        ("log_softmax", (64, 50), {"axis": 0}),
        ("layer_norm", (1, 197, 768), {}),
        ("rms_norm", (2, 197, 768), {}),
        ("instance_norm", (1, 16, 14, 14), {}),
    ],
)
def test_one_kernel(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    """Batch 1 as well; nothing is brought into blocks or out of them."""
    assert schedules_of(alone(op, shape, **attributes)) == ["rows"]


def test_long_rows_are_vectors() -> None:
    """Dimensions met as one, in pieces: nothing is gathered."""
    graph = alone("instance_norm", (1, 16, 368, 204))
    target = replace(find_target(), caches=Caches(32 << 10, 2 << 20))
    (kernel,) = lower(graph, cpu_machine(target), "t").program.kernels
    assert "if" not in format_kernel(kernel)


def test_rows_that_no_cache_holds_are_kernels_of_their_own() -> None:
    assert "rows" not in schedules_of(alone("softmax", (2, 4 << 20), axis=1))


def asked(op: str, shape: tuple[int, ...], caches: Caches, **attributes: Any) -> dict[str, int]:
    """How often each buffer's lines are asked for, as the loops are written."""
    target = replace(find_target("x86-64-v3"), caches=caches)
    (kernel,) = lower(alone(op, shape, **attributes), cpu_machine(target), "t").program.kernels
    asking = [s for s in walk_statements(kernel.body) if isinstance(s, Prefetch)]
    return dict(Counter("y" if s.buffer.written else "x" for s in asking))


@pytest.mark.parametrize(
    ("op", "attributes", "buffers"),
    [
        ("softmax", {"axis": 1}, {"x", "y"}),
        ("log_softmax", {"axis": 1}, {"x", "y"}),
        ("layer_norm", {}, {"x", "y"}),
        ("rms_norm", {}, {"x"}),  # two passes: the second one writes itself
    ],
)
def test_lines_that_have_left_the_cache_are_asked_for(
    op: str, attributes: dict[str, Any], buffers: set[str]
) -> None:
    """Those of the next rows, and where this one is written; not where all of it stays."""
    shape = (96, 70)
    small = asked(op, shape, Caches(1 << 10, 8 << 10), **attributes)
    assert small.keys() == buffers
    assert asked(op, shape, Caches(32 << 10, 512 << 10), **attributes) == {}


def test_each_line_is_asked_for_once() -> None:
    """Four rows side by side of 64 elements: four lines of each, here and in the next four."""
    caches = Caches(1 << 10, 8 << 10)
    target = replace(find_target("x86-64-v3"), caches=caches)
    graph = alone("softmax", (96, 64), axis=1)
    (kernel,) = lower(graph, cpu_machine(target), "t").program.kernels
    (rows,) = (s for s in kernel.body if isinstance(s, Parallel))
    places: dict[str, list[int]] = {"x": [], "y": []}
    for loop in (s for s in walk_statements((rows,)) if isinstance(s, For)):
        for s in loop.body:
            if isinstance(s, Prefetch):
                start = {var.name: 0 for var in rows.vars}
                for i in range(2):
                    at = evaluate(s.index, {**start, loop.var.name: i})
                    places["y" if s.buffer.written else "x"].append(at)
    assert sorted(places["y"]) == list(range(0, 256, 16))
    assert sorted(places["x"]) == list(range(256, 512, 16))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, str]:
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.sampled_from([1, 2, 3, 5, 9, 16, 17, 33, 40])) for _ in range(rank))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.sampled_from([150, 1025])))
    op = draw(
        st.sampled_from(["softmax", "log_softmax", "layer_norm", "rms_norm", "instance_norm"])
    )
    op = op if rank > (2 if op == "instance_norm" else 1) else "softmax"
    attributes = (
        {} if op == "instance_norm" else {"axis": draw(st.integers(int("norm" in op), rank - 1))}
    )
    b = Builder()
    x = b.input("x", *shape)
    y = b(op, x, **attributes)
    if draw(st.booleans()):
        (dx,) = gradients(b.graph, {y: b.input("dy", *shape)}, [x], b.build)
        assert dx is not None
        y = b("add", y, dx)
    return run_passes(b.output(y=y)), draw(st.sampled_from(CPUS))


def target_of(cpu: str) -> Target:
    target = find_target(cpu)
    try:
        check_processor(target, "")
    except ArtifactError:
        pytest.skip(f"needs an {cpu} processor")
    return target


@pytest.mark.dear
@given(case=cases(), loops=st.booleans())
@settings(max_examples=30, deadline=None)
def test_rows_equal_the_oracle(case: tuple[Graph, str], loops: bool) -> None:
    """With gradients, along any axis, in vectors of any width."""
    graph, cpu = case
    arrays = {name: x.astype("f4") for name, x in random_arrays(graph, seed=3).items()}
    wanted = evaluate_graph(graph, {name: x.astype("f8") for name, x in arrays.items()})["y"]
    small = loops and arrays["x"].size < 2000
    runner = interpreted if small else machine_code
    found = run_graph(graph, arrays, runner, target_of(cpu))["y"]
    single = evaluate_graph(graph, arrays)["y"]  # two numbers close to each other are hard
    allowed = 2e-6 * max(1.0, float(np.ptp(wanted))) + 8 * np.abs(single - wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed)


@pytest.mark.dear
@pytest.mark.parametrize("shape", [(40, 37), (3, 300), (9, 16), (30, 5)])
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_extremes(shape: tuple[int, int], axis: int) -> None:
    """Huge numbers, infinities of either sign, rows of nothing else, and NaN."""
    x = np.random.default_rng(1).standard_normal(shape).astype("f4") * 50
    x[0, 0], x[1, 1], x[2, 2], x[1, 2], x[2, 4] = 3e38, -np.inf, np.inf, np.nan, -3e38
    x[-1 if axis else slice(None), slice(None) if axis else -1] = -np.inf
    with np.errstate(all="ignore"):
        shifted = x.astype("f8") - x.max(axis, keepdims=True)
        total = np.exp(shifted).sum(axis, keepdims=True)
        softmax, log_softmax = np.exp(shifted) / total, shifted - np.log(total)
    # The difference from the largest number, up to 150, is rounded.
    for op, wanted, least in (
        ("softmax", softmax, np.finfo("f4").tiny),
        ("log_softmax", log_softmax, np.finfo("f4").eps),
    ):
        found = run_graph(alone(op, shape, axis=axis), {"x": x}, machine_code)["y"]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=float(least))


def test_errors_do_not_grow_with_rows() -> None:
    """Rows of 100,000 numbers whose mean is far from zero."""
    x = (np.random.default_rng(4).standard_normal((8, 100_000)) + 100).astype("f4")
    graph = alone("layer_norm", x.shape)
    weights = {k: np.zeros_like(w) + k.endswith("weight") for k, w in random_arrays(graph).items()}
    found = run_graph(graph, {**weights, "x": x}, machine_code)["y"]
    spread = np.sqrt(x.var(1, keepdims=True, dtype="f8") + 1e-5)
    wanted = (x - x.mean(1, keepdims=True, dtype="f8")) / spread
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)  # of numbers around 100
