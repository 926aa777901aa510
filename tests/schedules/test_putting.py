"""What is put at positions that are data, in one pass over a share of the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.nodes import For, If, Parallel, Statement, Store
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]
COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def schedules_of(graph: Any) -> set[str]:
    choices = lower(graph, cpu_machine(find_target()), "t").choices
    return {choice.schedule for choice in choices}


def numbers(shape: tuple[int, ...], dtype: DType, random: np.random.Generator) -> Array:
    """With what is special: huge, NaN, both zeros."""
    found = random.integers(-9, 10, shape).astype(dtype.numpy)
    if dtype.is_float:
        special = np.resize([np.nan, -0.0, 1e30, -np.inf, 0.0], found[..., ::7].shape)
        found[..., ::7] = special
    return found


def put(own: Array, at: Any, new: Any, by: str) -> None:
    with np.errstate(all="ignore"):
        own[at] = new if by == "last" else COMBINE[by](own[at], new)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize(("by", "dtype"), [("last", DType.F32), ("add", DType.F32),
                                           ("max", DType.F64), ("add", DType.I64)])  # fmt: skip
@pytest.mark.parametrize(
    ("shape", "many", "axis"),
    [
        ((37,), 50, 0),
        ((60, 70), 40, 0),
        ((3, 137), 90, 1),
        ((2, 61, 3, 5), 70, 1),
        ((1, 64, 19), 50, 1),
    ],
)
def test_along(
    shape: tuple[int, ...], many: int, axis: int, by: str, dtype: DType, runner: Any
) -> None:
    """Tiles, rests of vectors, fewer updates beside the axis than there is room for."""
    random = np.random.default_rng(5)
    own = [many if d == axis else max(1, extent - 1) for d, extent in enumerate(shape)]
    x, updates = (numbers(s, dtype, random) for s in (shape, tuple(own)))
    positions = random.integers(-shape[axis] - 2, shape[axis] + 2, own)
    b = Builder()
    given = [b.input("x", *shape, dtype=dtype), b.input("p", *own, dtype=DType.I64)]
    updated = b.input("u", *own, dtype=dtype)
    graph = b.output(y=b("put_along", *given, updated, axis=axis, by=by))
    assert schedules_of(graph) == {"putting"}
    wanted = x.copy()
    for place in np.ndindex(*own):
        p = positions[place] + shape[axis] * (positions[place] < 0)
        if 0 <= p < shape[axis]:
            put(wanted, (*place[:axis], p, *place[axis + 1 :]), updates[place], by)
    found = run_graph(graph, {"x": x, "p": positions, "u": updates}, runner)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize("by", ["last", "add", "min"])
@pytest.mark.parametrize(
    ("shape", "many", "said"),
    [
        ((99,), (80,), 1),
        ((600, 70), (50,), 1),
        ((601, 300), (900,), 1),  # four shares of places, the last one a rest
        ((8, 7, 33), (6, 8), 2),
        ((6, 5, 5, 2), (90,), 3),
    ],
)
def test_at(shape: tuple[int, ...], many: tuple[int, ...], said: int, by: str, runner: Any) -> None:
    """Places along one axis and several; whole rows and single elements."""
    random = np.random.default_rng(6)
    x = numbers(shape, DType.F32, random)
    updates = numbers((*many, *shape[said:]), DType.F32, random)
    rows = [random.integers(-extent - 1, extent + 1, many) for extent in shape[:said]]
    positions = np.stack(rows, axis=-1)
    b = Builder()
    given = [b.input("x", *shape), b.input("p", *positions.shape, dtype=DType.I64)]
    graph = b.output(y=b("put_at", *given, b.input("u", *updates.shape), by=by))
    assert "putting" in schedules_of(graph)
    wanted = x.copy()
    for place in np.ndindex(*many):
        row = positions[place] + np.array(shape[:said]) * (positions[place] < 0)
        if (row >= 0).all() and (row < shape[:said]).all():
            put(wanted, tuple(row), updates[place], by)
    found = run_graph(graph, {"x": x, "p": positions, "u": updates}, runner)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_shares_larger_than_a_cache() -> None:
    """Of many places few positions a share; of a wide row as many as give everybody one."""
    random = np.random.default_rng(7)
    for shape, many in (((3000, 2, 130), 50), ((2, 70000), 3)):
        x = random.standard_normal(shape).astype("f4")
        updates = random.standard_normal((many, *shape[1:])).astype("f4")
        positions = random.integers(0, shape[0], (many, 1))
        b = Builder()
        given = [b.input("x", *shape), b.input("p", many, 1, dtype=DType.I64)]
        graph = b.output(y=b("put_at", *given, b.input("u", *updates.shape), by="last"))
        wanted = x.copy()
        for number, (row,) in enumerate(positions):
            wanted[row] = updates[number]
        feeds = {"x": x, "p": positions, "u": updates}
        np.testing.assert_array_equal(run_graph(graph, feeds, machine_code)["y"], wanted)


def stores_of(body: Sequence[Statement], times: int = 1) -> Iterator[tuple[int, Store]]:
    """Each store of loops whose bounds are numbers, and how often it may happen."""
    for statement in body:
        match statement:
            case Store():
                yield times, statement
            case For(start=int() as start, stop=int() as stop):
                yield from stores_of(statement.body, times * (stop - start))
            case Parallel():
                yield from stores_of(statement.body, times * prod(statement.extents))
            case If():
                yield from stores_of(statement.then, times)
            case _:
                assert not isinstance(statement, For)


@pytest.mark.parametrize(
    ("shape", "updates", "axis"),
    [((40, 228), (40, 4), 1), ((6, 500, 9), (6, 3, 9), 1), ((700, 3), (5, 3), 0)],
)
def test_what_was_there_is_copied_in_whole_vectors(
    shape: tuple[int, ...], updates: tuple[int, ...], axis: int
) -> None:
    """Few elements are put into many, along short rows or none: the copy is what takes time."""
    b, target = Builder(), find_target()
    given = [b.input("x", *shape), b.input("p", *updates, dtype=DType.I64)]
    updated = b.input("u", *updates)
    graph = b.output(y=b("put_along", *given, updated, axis=axis, by="max"))
    (kernel,) = lower(graph, cpu_machine(target), "t").program.kernels
    vectors = alone = 0
    for count, store in stores_of(kernel.body):
        vectors += count * (store.value.type.lanes > 1)
        alone += count * (store.value.type.lanes == 1)
    lanes = target.lanes(DType.F32)
    assert vectors <= np.prod(shape) / lanes + 2 * shape[0]
    assert alone == np.prod(updates)
