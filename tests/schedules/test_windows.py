"""Windows of any size over plain inputs: packed in vectors of channels, borders of any width."""

from __future__ import annotations

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

WINDOWS = [
    (9, 1, 4, (2, 16, 12, 11)),  # borders wider than have code of their own
    (7, 2, 3, (1, 19, 13, 9)),  # a ragged last vector of channels
    (5, 1, 0, (1, 16, 6, 30)),
    (3, 3, 1, (1, 33, 7, 7)),  # windows that do not overlap
    (13, 1, 6, (1, 16, 5, 5)),  # no window stays inside
]


@pytest.mark.parametrize(("kernel", "stride", "pad", "shape"), WINDOWS)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_windows_over_an_input(
    op: str, kernel: int, stride: int, pad: int, shape: tuple[int, ...]
) -> None:
    b = Builder()
    how = {"kernel": kernel, "stride": stride, "pad": pad}
    graph = b.output(y=b(op, b.input("x", *shape), **how))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    filling = -np.inf if op == "max_pool" else 0.0
    wide = np.pad(
        x.astype(float), [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=filling
    )
    windows = np.lib.stride_tricks.sliding_window_view(wide, (kernel, kernel), (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    expected = windows.max((-2, -1)) if op == "max_pool" else windows.mean((-2, -1))
    runs = (machine_code, interpreted) if np.prod(expected.shape) < 1200 else (machine_code,)
    for run in runs:
        found = run_graph(graph, {"x": x}, run)["y"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_overlaps_is_packed_and_what_does_not_is_not() -> None:
    for kernel, stride, packs in ((5, 1, 1), (2, 2, 0)):
        b = Builder()
        x = b.input("x", 1, 32, 40, 40)
        graph = b.output(y=b("max_pool", x, kernel=kernel, stride=stride, pad=0))
        steps = lower(graph, cpu_machine(find_target()), "t").program.steps
        assert sum(step.nodes[0].startswith("pack for") for step in steps) == packs
