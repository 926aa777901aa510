"""Reductions by position and running ones: each a kernel by itself, whatever stands around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.expr import Axis, IndexCompare, Literal, Read, Reduce, Select, Stage, TensorVar
from convdsl.kernel.running import match_running
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, TensorType

pytestmark = pytest.mark.drawn

Array = np.ndarray[Any, Any]
F32, I64 = DType.F32, DType.I64


def schedules_of(graph: Any) -> list[str]:
    return [choice.schedule for choice in lower(graph, cpu_machine(find_target()), "t").choices]


def numpy_cumsum(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    x = np.flip(x, axis) if reverse else x
    total = np.cumsum(x.astype(np.float64), axis)
    total = total - x if exclusive else total
    return np.flip(total, axis) if reverse else total


@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((37,), 0), ((3, 50), 1), ((5, 33), 0), ((2, 19, 7), 1), ((2, 40, 3, 5), 1), ((2, 40, 6), 2),
     ((1, 1), 1), ((2, 3, 1), 2), ((2, 3, 70, 33), 1), ((4, 2100), 0)],
)  # fmt: skip
def test_running_sums(shape: Any, axis: int, exclusive: bool, reverse: bool, runner: Any) -> None:
    """Between maps that fuse: vectors along what is not walked, blocked axes and their rests."""
    b = Builder()
    x = b.input("x", *shape)
    total = b("cumsum", b("neg", x), axis=axis, exclusive=exclusive, reverse=reverse)
    graph = b.output(y=b("add", b("relu", total), x))
    array = np.random.default_rng(3).standard_normal(shape).astype("f4")
    wanted = np.maximum(numpy_cumsum(-array, axis, exclusive, reverse), 0) + array
    found = run_graph(graph, {"x": array}, runner)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_each_is_a_kernel_by_itself() -> None:
    b = Builder()
    x, at = b.input("x", 3, 40, 400), b.input("at", 3, 40, 400, dtype=I64)
    total = b("cumsum", b("neg", x), axis=2)
    put = b("put_along", b("relu", total), at, x, axis=2)
    graph = b.output(y=b("add", put, x))
    assert {"running", "putting"} <= set(schedules_of(graph))


def test_long_ones_are_walked_once() -> None:
    """A million steps: looking at every j for every i would take hours."""
    b = Builder()
    graph = b.output(y=b("cumsum", b.input("x", 1 << 20), axis=0))
    found = run_graph(graph, {"x": np.ones(1 << 20, "f4")}, machine_code)["y"]
    np.testing.assert_array_equal(found, np.arange(1, (1 << 20) + 1))


@pytest.mark.parametrize("shape", [(3, 36_003), (1, 2, 5, 9_001), (2, 3, 4_111)])
def test_wide_ones_are_walked_in_strips(shape: tuple[int, ...]) -> None:
    """Strips as long as each other, a shorter one, and what fills no vector."""
    b = Builder()
    axis = len(shape) - 2
    graph = b.output(y=b("cumsum", b.input("x", *shape), axis=axis))
    array = np.random.default_rng(4).integers(-9, 10, shape).astype("f4")
    array[..., 0, 70], array[..., -1, -1] = np.nan, np.inf
    found = run_graph(graph, {"x": array}, machine_code)["y"]
    np.testing.assert_array_equal(found, np.cumsum(array, axis))


@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize("dtype", [DType.I32, DType.I8, DType.F16])
@pytest.mark.parametrize(("shape", "axis"), [((2, 300), 1), ((90, 19), 0), ((1, 80, 3, 4), 1)])
def test_narrow_types_are_walked_once(
    shape: tuple[int, ...], axis: int, dtype: DType, runner: Any
) -> None:
    """Combined in the type that they are computed in, and stored in their own."""
    b = Builder()
    graph = b.output(y=b("cumsum", b.input("x", *shape, dtype=dtype), axis=axis))
    assert "running" in schedules_of(graph)
    array = np.random.default_rng(3).integers(-2, 3, shape).astype(dtype.numpy)
    found = run_graph(graph, {"x": array}, runner)["y"]
    np.testing.assert_array_equal(found, np.cumsum(array.astype("f4"), axis).astype(dtype.numpy))


def stage(sign: str, mirrored: bool, value: Any = None, start: float = 0.0, more: int = 0) -> Stage:
    i, j = Axis("i", 5), Axis("j", 5 + more)
    x = TensorVar("x", TensorType(F32, (5 + more,)))
    test = IndexCompare(sign, i.i, j.i) if mirrored else IndexCompare(sign, j.i, i.i)
    body = Reduce("sum", (j,), Select(test, value or Read(x, (j.i,)), Literal(start, F32)))
    return Stage(TensorVar("y", TensorType(F32, (5,))), (i,), body)


@pytest.mark.parametrize(
    ("sign", "mirrored", "backwards", "included"),
    [("le", False, False, True), ("lt", False, False, False), ("ge", False, True, True),
     ("gt", False, True, False), ("ge", True, False, True), ("gt", True, False, False),
     ("le", True, True, True), ("lt", True, True, False)],
)  # fmt: skip
def test_the_form(sign: str, mirrored: bool, backwards: bool, included: bool) -> None:
    found = match_running(stage(sign, mirrored))
    assert found is not None
    assert (found.backwards, found.included) == (backwards, included)


def test_other_forms() -> None:
    i = Axis("i", 5)
    here = Read(TensorVar("x", TensorType(F32, (5,))), (i.i,))
    for other in (stage("eq", False), stage("le", False, start=1.0), stage("le", False, more=1),
                  stage("le", False, here)):  # fmt: skip
        assert match_running(other) is None


@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize("by", ["last", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [F32, DType.F64, I64], ids=str)
def test_what_reaches_one_place(by: str, dtype: DType, runner: Any) -> None:
    """Positions from both ends and beyond (left out), many at one place; NaN and infinities."""
    random = np.random.default_rng(11)
    x = random.integers(-3, 4, (3, 9, 20)).astype(dtype.numpy)
    updates = random.integers(-3, 4, (3, 30, 20)).astype(dtype.numpy)
    if dtype.is_float:
        updates[0, :4, 0] = [np.nan, np.inf, -np.inf, 0]
    positions = random.integers(-12, 12, (3, 30, 20))
    wanted = x.copy()
    combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
    for a, i, c in np.ndindex(3, 30, 20):
        p = positions[a, i, c] + 9 * (positions[a, i, c] < 0)
        if 0 <= p < 9:
            own, new = wanted[a, p, c], updates[a, i, c]
            with np.errstate(all="ignore"):
                wanted[a, p, c] = new if by == "last" else combine[by](own, new)
    b = Builder()
    given = [b.input("x", 3, 9, 20, dtype=dtype), b.input("p", 3, 30, 20, dtype=I64)]
    updated = b.input("u", 3, 30, 20, dtype=dtype)
    graph = b.output(y=b("put_along", *given, updated, axis=1, by=by))
    found = run_graph(graph, {"x": x, "p": positions, "u": updates}, runner)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_places_beyond_every_axis_are_left_out() -> None:
    b = Builder()
    given = [b.input("x", 3, 4), b.input("p", 6, 2, dtype=I64), b.input("u", 6)]
    graph = b.output(y=b("put_at", *given))
    x, u = np.zeros((3, 4), "f4"), np.arange(1, 7, dtype="f4")
    places = np.array([[0, 4], [3, 0], [-4, 1], [2, -5], [-1, -1], [1, 1]])
    wanted = x.copy()
    wanted[2, 3], wanted[1, 1] = 5, 6
    for runner in (machine_code, interpreted):
        found = run_graph(graph, {"x": x, "p": places, "u": u}, runner)["y"]
        np.testing.assert_array_equal(found, wanted)
