"""Positions that are data: found once a row, or in vectors; rows that lie in one piece are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.accesses import accesses
from convdsl.kernel.nodes import For, Kernel, LetIndex, Parallel
from convdsl.kernel.text import format_kernel
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]
ENDS = np.iinfo(np.int64)


def picking(op: str, shape: Sequence[int], positions: Sequence[int], **how: Any) -> Graph:
    b = Builder()
    x, at = b.input("x", *shape), b.input("positions", *positions, dtype=DType.I64)
    return run_passes(b.output(y=b(op, x, at, **how)))


def kernels_of(graph: Graph, cpu: str = "x86-64-v3") -> tuple[Kernel, ...]:
    return lower(graph, cpu_machine(find_target(cpu)), "t").program.kernels


def ran(graph: Graph, x: Array, positions: Array) -> Array:
    """By machine code, and by the interpreter, which agree."""
    arrays = {"x": x, "positions": positions}
    (y,), (same,) = (run_graph(graph, arrays, run).values() for run in (machine_code, interpreted))
    np.testing.assert_array_equal(y, same)
    return y


def positions_of(rng: np.random.Generator, shape: Sequence[int], extent: int) -> Array:
    """Positions from both ends, and some that the axis has not."""
    found = rng.integers(-extent, extent, shape)
    strange = np.array([ENDS.min, ENDS.max, extent, -extent - 1, 2 * extent])
    return np.where(rng.random(shape) < 0.1, rng.choice(strange, shape), found)


def meant(positions: Array, extent: int) -> Array:
    """What they stand for: counted from the end below zero, the nearer end beyond."""
    counted = [int(p) + extent if p < 0 else int(p) for p in positions.ravel()]
    return np.clip(np.array(counted, object), 0, extent - 1).astype(int).reshape(positions.shape)


@pytest.mark.parametrize("shape", [(3, 1), (2, 7), (5, 8), (4, 33), (1, 661)], ids=str)
def test_places_of_lanes(shape: tuple[int, int]) -> None:
    """Whole vectors, ragged ends, rows shorter than a vector."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype("f4")
    positions = positions_of(rng, shape, shape[1])
    expected = np.take_along_axis(x, meant(positions, shape[1]), 1)
    found = ran(picking("take_along", shape, shape, axis=1), x, positions)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 9, 5, 7), 1), ((4, 6, 6), 0), ((3, 5, 13), 2), ((6, 1, 3, 3), 1)]
)
def test_places_of_rows(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype("f4")
    positions = positions_of(rng, (11,), shape[axis])
    expected = np.take(x, meant(positions, shape[axis]), axis)
    found = ran(picking("take", shape, (11,), axis=axis), x, positions)
    np.testing.assert_array_equal(found, expected)


def test_positions_are_read_in_vectors() -> None:
    """Eight lanes read their positions once, as a vector, and bound them as one."""
    (kernel,) = kernels_of(picking("take_along", (64, 640), (64, 640), axis=1))
    read = [a for a in accesses(kernel.body) if a.buffer.dtype is DType.I64]
    assert [a.lanes for a in read] == [8]
    assert "min(max(" in format_kernel(kernel)


def test_planes_are_taken_whole() -> None:
    """Height and width are one row, whose place is found before it begins."""
    (kernel,) = kernels_of(picking("take", (2, 9, 6, 6), (5,), axis=1))
    (outer,) = kernel.body
    assert isinstance(outer, Parallel)
    assert [loop.name for loop in outer.vars] == ["n", "c"]
    inside = [s for s in outer.body if isinstance(s, For)]
    assert any(isinstance(s, LetIndex) for s in outer.body)
    assert not any(isinstance(s, LetIndex) for loop in inside for s in loop.body)


def test_reductions_keep_rows_of_whole_planes() -> None:
    """Rows of two are rows of all that lies side by side: vectors are full."""
    b = Builder()
    graph = run_passes(b.output(y=b("argmax", b.input("x", 2, 40, 32, 2), axis=1)))
    for kernel in kernels_of(graph):
        assert {registers.type.lanes % 4 for registers in kernel.registers} == {0}
    x = np.random.default_rng(3).integers(0, 9, (2, 40, 32, 2)).astype("f4")
    x[0, 3, 5, 1] = np.nan
    (y,) = run_graph(graph, {"x": x}, machine_code).values()
    np.testing.assert_array_equal(y, np.argmax(x, 1))
