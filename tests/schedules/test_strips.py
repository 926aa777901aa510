"""Outputs that leave the cache: their lines are asked for, few rows are swept by all panels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.caches import Caches
from convdsl.kernel.nodes import Kernel, Parallel, Prefetch, walk_statements
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

SMALL = Caches(1 << 10, 8 << 10)  # what a few rows fill


def small(cpu: str = "native") -> Target:
    return replace(find_target(cpu), caches=SMALL)


def scores(heads: int, rows: int, depth: int, columns: int, *, turned: bool) -> Graph:
    """Products of rows, scaled, as attention makes them."""
    b = Builder()
    x = b.input("x", heads, rows, depth)
    y = b.input("y", *((heads, columns, depth) if turned else (heads, depth, columns)))
    y = b("transpose", y, axes=(0, 2, 1)) if turned else y
    return rewritten(b.output(z=b("mul", b("matmul", x, y), b.constant("scale", 0.5))))


def product_of(graph: Graph, target: Target) -> Kernel:
    kernels = lower(graph, cpu_machine(target), "t").program.kernels
    return next(k for k in kernels if any(isinstance(s, Parallel) and _panels(s) for s in k.body))


def _panels(loop: Parallel) -> bool:
    return "kt" in {var.name for var in loop.vars}


def asked(kernel: Kernel) -> Iterator[Prefetch]:
    written = {b.name for b in kernel.buffers if b.written}
    for statement in walk_statements(kernel.body):
        if isinstance(statement, Prefetch) and statement.buffer.name in written:
            yield statement


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(
    ("heads", "rows", "depth", "columns"), [(2, 61, 8, 70), (1, 30, 33, 96), (3, 7, 5, 300)]
)
def test_results(heads: int, rows: int, depth: int, columns: int, *, turned: bool) -> None:
    """Ragged rows, columns and sums; the interpreter holds every access to its buffer."""
    random = np.random.default_rng(7)
    x = random.standard_normal((heads, rows, depth)).astype("f4")
    y = random.standard_normal((heads, depth, columns)).astype("f4")
    x[0, 0, 0], y[0, 1, 2] = np.inf, np.nan
    given = np.ascontiguousarray(y.swapaxes(1, 2)) if turned else y
    with np.errstate(invalid="ignore"):
        exact = 0.5 * (x.astype(float) @ y.astype(float))
    graph = scores(heads, rows, depth, columns, turned=turned)
    for run in (partial(machine_code, target=small()), interpreted):
        found = run_graph(graph, {"x": x, "y": given}, run, small())["z"]
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
def test_rows_are_written_whole(cpu: str) -> None:
    """All panels meet a band before the next; it holds the rows that a share of the cache holds."""
    kernel = product_of(scores(2, 96, 8, 96, turned=False), small(cpu))
    loop = next(s for s in kernel.body if isinstance(s, Parallel) and _panels(s))
    names = [var.name for var in loop.vars]
    extents = dict(zip(names, loop.extents, strict=True))
    assert extents["kt"] == 1
    bands = extents["band"]
    tallest = 12  # rows of a register tile
    assert bands >= 96 / tallest
    assert list(asked(kernel))


def test_lines_that_stay_are_not_asked_for() -> None:
    assert not list(asked(product_of(scores(2, 96, 8, 96, turned=False), find_target())))


def test_each_line_is_asked_for_once() -> None:
    """Rows of whole lines: one prefetch for each line of a tile, of 6 rows of 2 vectors here."""
    kernel = product_of(scores(2, 96, 8, 32, turned=False), small("x86-64-v3"))
    found = [(s.buffer.name, s.index) for s in asked(kernel)]
    assert len(set(found)) == len(found) == 6
