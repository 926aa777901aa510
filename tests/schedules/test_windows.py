"""Windows of any size over plain inputs: packed in vectors of channels, borders of any width."""

from __future__ import annotations

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, evaluate_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.nodes import (
    Gather,
    Kernel,
    statement_values,
    value_children,
    walk_statements,
)
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

WINDOWS = [
    (9, 1, 4, (2, 16, 12, 11)),  # borders wider than have code of their own
    (7, 2, 3, (1, 19, 13, 9)),  # a ragged last vector of channels
    (5, 1, 0, (1, 16, 6, 30)),
    (3, 3, 1, (1, 33, 7, 7)),  # windows that do not overlap
    (13, 1, 6, (1, 16, 5, 5)),  # no window stays inside
]


@pytest.mark.dear
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


ROWS = [  # over rows that vectors run along: kernel, stride, padding, dilation, shape
    (2, 2, 0, 1, (1, 16, 9, 41)),
    (3, 3, 0, 1, (2, 17, 10, 28)),
    (3, 2, 1, 1, (1, 3, 8, 67)),
    (3, 1, 1, 1, (1, 1, 5, 33)),
    (2, 5, 0, 1, (1, 20, 11, 96)),  # steps wider than windows
    (9, 9, 4, 1, (1, 2, 20, 158)),
    (7, 1, 3, 2, (1, 5, 14, 35)),  # borders on both sides of the same vector
    (13, 2, 6, 1, (1, 4, 15, 17)),
]


def _gathers(kernel: Kernel) -> bool:
    """Whether lanes are picked one by one."""
    pending = [v for s in walk_statements(kernel.body) for v in statement_values(s)]
    while pending:
        value = pending.pop()
        if isinstance(value, Gather):
            return True
        pending += value_children(value)
    return False


@pytest.mark.dear
@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation", "shape"), ROWS)
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_windows_along_rows_are_vectors_of_rows(
    op: str, kernel: int, stride: int, pad: int, dilation: int, shape: tuple[int, ...]
) -> None:
    """Rows that begin at any place, read in steps, with and without a border; nothing is packed and
    no lane is picked but where a whole vector leaves the input. NaN and infinities stay where
    they are."""
    b = Builder()
    how = {"kernel": kernel, "stride": stride, "pad": pad}
    how |= {"dilation": dilation} if op == "max_pool" else {}
    graph = b.output(y=b(op, b.input("x", *shape), **how))
    program = lower(graph, cpu_machine(find_target()), "t").program
    assert not any(step.nodes[0].startswith(("pack for", "output")) for step in program.steps)
    assert not any(map(_gathers, program.kernels))
    random = np.random.default_rng(1)
    x = random.standard_normal(shape).astype(np.float32) - 3
    if op == "max_pool":
        places = random.random(shape)
        x[places < 0.01], x[places > 0.99] = np.nan, -np.inf
    wanted = evaluate_graph(graph, {"x": x})["y"]
    for run in (machine_code, interpreted) if wanted.size < 1200 else (machine_code,):
        found = run_graph(graph, {"x": x}, run)["y"]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if op == "max_pool" else 1e-5)


def test_short_rows_that_overlap_are_packed_and_others_are_not() -> None:
    for kernel, stride, packs in ((5, 1, 1), (2, 2, 0)):
        b = Builder()
        x = b.input("x", 1, 32, 40, 9 if kernel == 5 else 8)
        graph = b.output(y=b("max_pool", x, kernel=kernel, stride=stride, pad=0))
        steps = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program.steps
        assert sum(step.nodes[0].startswith("pack for") for step in steps) == packs


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "stride", "packs"),
    [
        (272, 59, 2, 2, 1),
        (128, 56, 2, 2, 1),
        (64, 24, 3, 2, 1),
        (272, 32, 2, 2, 0),
        (128, 16, 2, 2, 0),
    ],
)
def test_strided_filters_that_pay_for_packing_are_packed(
    channels: int, filters: int, kernel: int, stride: int, packs: int
) -> None:
    b = Builder()
    x = b.input("x", 1, channels, 30, 30)
    pad = kernel // 2 if kernel > stride else 0
    graph = b.output(y=b("conv", x, channels=filters, kernel=kernel, stride=stride, pad=pad))
    steps = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").program.steps
    assert sum(step.nodes[0].startswith("pack for") for step in steps) == packs


@pytest.mark.parametrize(
    ("shape", "filters", "packs"),
    [
        ((1, 128, 56, 56), 32, 1),
        ((1, 64, 100, 100), 64, 1),
        ((1, 70, 27, 37, 37), 16, 1),  # far away
        ((1, 128, 14, 14), 16, 0),  # near
        ((1, 16, 190, 190), 16, 0),  # few rows
        ((1, 70, 192, 192), 4, 0),  # hardly any arithmetic
    ],
)
def test_many_channels_of_one_tap_are_packed(
    shape: tuple[int, ...], filters: int, packs: int
) -> None:
    b = Builder()
    graph = b.output(y=b("conv", b.input("x", *shape), channels=filters, kernel=1))
    steps = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").program.steps
    assert sum(step.nodes[0].startswith("pack for") for step in steps) == packs
