"""The first few along an axis, and all in order, in networks of keys."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder
from selections import drawn, first_few, same, selecting

from convdsl.backends.llvm.objects import find_target
from convdsl.diagnostics import ArtifactError
from convdsl.kernel.expr import Axis, IndexCompare, Read, Reduce, Stage, TensorVar, transform
from convdsl.kernel.ranks import Ranks, match_ranks, ranks
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.runtime.cpu.processor import check_processor
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.network import comparisons
from convdsl.schedules.cpu.ranks import plan
from convdsl.tensor import DType, TensorType

pytestmark = pytest.mark.drawn

F32, F64, I64 = DType.F32, DType.F64, DType.I64

PLACES = [
    ((300,), 0, 300), ((300,), 0, 1), ((4000,), 0, 3), ((5, 700), 1, 60), ((9, 40), 1, 33),
    ((3, 1200), 1, 130), ((40, 9), 0, 40), ((130, 17), 0, 4), ((2, 900, 19), 1, 20),
    ((2, 3, 5, 70), 1, 2), ((2, 70, 3), 1, 70), ((500, 6), 1, 3), ((7, 1), 1, 1), ((1, 7), 1, 7),
    ((2, 2), 0, 2), ((1,), 0, 1), ((40000,), 0, 5), ((6, 45, 5), 1, 7), ((7, 6, 31), 1, 3),
]  # fmt: skip


def schedules_of(graph: Any) -> list[str]:
    return [choice.schedule for choice in lower(graph, cpu_machine(find_target()), "t").choices]


def target_of(cpu: str) -> Target:
    target = find_target(cpu)
    try:
        check_processor(target, "")
    except ArtifactError:
        pytest.skip(f"needs an {cpu} processor")
    return target


@pytest.mark.parametrize(
    ("extent", "k", "line", "batch"), [(240, 1, 1, 0), (240, 5, 5, 0), (50000, 5, 0, 16)]
)
def test_a_few_stand_in_a_line(extent: int, k: int, line: int, batch: int) -> None:
    """Most of a long row is passed over instead."""
    target = find_target("x86-64-v3")
    graph = selecting((64, extent), 1, k, largest=True)
    way = plan(lower(graph, cpu_machine(target), "t").choices[-1].task, target)
    assert way is not None
    assert (way.line, way.batch) == (line, batch)


@pytest.mark.dear
@pytest.mark.parametrize("cpu", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("dtype", [F32, F64, I64], ids=str)
def test_every_form(dtype: DType, cpu: str) -> None:
    """Rows in lanes and lanes of one row; whole and in batches; vectors of every width."""
    target = target_of(cpu)
    for number, (shape, axis, k) in enumerate(PLACES):
        largest = number % 2 == 0
        graph = selecting(shape, axis, k, largest, dtype)
        x = drawn(shape, dtype, number)
        same(run_graph(graph, {"x": x}, machine_code, target), x, axis, k, largest)


@pytest.mark.parametrize("dtype", [DType.F16, DType.I8, DType.I32], ids=str)
def test_stored_types(dtype: DType) -> None:
    for shape, axis, k in [((4000,), 0, 3), ((130, 17), 0, 4), ((9, 40), 1, 40)]:
        x = drawn(shape, dtype, 1)
        graph = selecting(shape, axis, k, True, dtype)
        same(run_graph(graph, {"x": x}, machine_code), x, axis, k, True)


@pytest.mark.parametrize(
    ("shape", "axis", "k"), [((9, 40), 1, 33), ((70, 11), 0, 4), ((300,), 0, 2)]
)
@pytest.mark.parametrize("dtype", [F32, I64], ids=str)
def test_by_the_interpreter(dtype: DType, shape: Any, axis: int, k: int) -> None:
    x = drawn(shape, dtype, 3)
    same(
        run_graph(selecting(shape, axis, k, False, dtype), {"x": x}, interpreted), x, axis, k, False
    )


@pytest.mark.dear
@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("shape", [(3000,), (600, 9)])
def test_whatever_the_order_was(shape: Any, k: int) -> None:
    """Rising ones beat the bound at every step, equals and NaN at none."""
    rising = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    graph = selecting(shape, 0, k, True)
    equal = [np.full_like(rising, value) for value in (0, np.nan, -np.inf)]
    for x in (rising, -rising, *equal, np.where(rising % 5 == 0, np.nan, rising)):
        same(run_graph(graph, {"x": x}, machine_code), x, 0, k, True)


def test_between_maps() -> None:
    """What is ranked may be computed, and what is found goes on; nobody asks for the values."""
    b = Builder()
    x = b.input("x", 6, 50)
    values, positions = b("top_k", b("neg", x), axis=1, k=4).node.outputs
    graph = b.output(y=b("exp", values), p=positions)
    array = drawn((6, 50), F32, 5)
    found = run_graph(graph, {"x": array}, machine_code)
    wanted = first_few(-array, 1, 4, True)
    np.testing.assert_array_equal(found["p"], wanted["positions"])
    np.testing.assert_allclose(found["y"], np.exp(wanted["values"].astype("f8")), rtol=1e-6)
    for output in (0, 1):
        b = Builder()
        made = b("top_k", b.input("x", 3, 90), axis=1, k=5).node.outputs[output]
        graph = b.output(y=made)
        array = drawn((3, 90), F32, 6)
        expected = list(first_few(array, 1, 5, True).values())[output]
        np.testing.assert_array_equal(run_graph(graph, {"x": array}, machine_code)["y"], expected)


def test_one_kernel_that_is_not_quadratic() -> None:
    """A quarter of a million, all in order: comparing all pairs would take a minute."""
    graph = selecting((1 << 18,), 0, 1 << 18, False)
    assert schedules_of(graph) == ["ranks"]
    x = np.random.default_rng(2).standard_normal(1 << 18).astype("f4")
    same(run_graph(graph, {"x": x}, machine_code), x, 0, 1 << 18, False)


@pytest.mark.parametrize("count", range(1, 34))
def test_networks_sort(count: int) -> None:
    """What sorts all zeros and ones sorts everything (Knuth 5.3.4)."""
    random = np.random.default_rng(count)
    size = 1 << count
    numbers = np.arange(size) if count <= 12 else random.integers(0, size, 4000)
    bits = [(numbers >> i) & 1 for i in range(count)]
    for i, j in comparisons(count):
        bits[i], bits[j] = np.minimum(bits[i], bits[j]), np.maximum(bits[i], bits[j])
    assert all((a <= b).all() for a, b in pairwise(bits))


def ranking(largest: bool) -> Stage:
    i, j = Axis("i", 5), Axis("j", 5)
    x = TensorVar("x", TensorType(F32, (5,)))
    body = ranks(i, j, Read(x, (i.i,)), largest=largest)
    return Stage(TensorVar("y", TensorType(I64, (5,))), (i,), body)


@pytest.mark.parametrize("largest", [True, False])
def test_the_form(largest: bool) -> None:
    stage = ranking(largest)
    found = match_ranks(stage)
    assert isinstance(found, Ranks)
    assert (found.axis, found.largest) == (stage.axes[0], largest)


def test_other_forms() -> None:
    """Equals the other way around, half of the elements, another combination."""
    stage = ranking(True)

    def turned(e: Any) -> Any:
        return IndexCompare("gt", e.a, e.b) if isinstance(e, IndexCompare) else None

    assert isinstance(stage.body, Reduce)
    (term,) = stage.body.axes
    for body in (
        transform(stage.body, turned),
        Reduce("sum", (Axis(term.name, 3),), stage.body.body),
        Reduce("max", stage.body.axes, stage.body.body),
    ):
        assert match_ranks(Stage(stage.target, stage.axes, body)) is None
