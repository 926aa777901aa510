"""Windows along one axis after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, evaluate_graph, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine


def pooled(op: str, shape: tuple[int, ...], **attributes: Any) -> Graph:
    b = Builder()
    return rewritten(b.output(y=b("relu6", b(op, b.input("x", *shape), **attributes))))


def schedules_of(graph: Graph) -> list[str]:
    return [choice.schedule for choice in lower(graph, cpu_machine(find_target()), "t").choices]


CASES = [
    ("max_pool", (2, 20, 31, 26), {"kernel": 9, "stride": 2}),
    ("max_pool", (1, 5, 19, 40), {"kernel": 7, "stride": 1, "pad": 3}),
    ("max_pool", (1, 16, 30, 30), {"kernel": (5, 9), "stride": (2, 1), "pad": (2, 4)}),
    ("max_pool", (1, 16, 30, 30), {"kernel": 6, "stride": 2, "dilation": 2, "ceil_mode": True}),
    ("max_pool", (1, 18, 12, 11, 13), {"kernel": 5, "stride": 1, "pad": 2}),
    ("avg_pool", (1, 33, 28, 28), {"kernel": 9, "stride": 1, "pad": 4}),
    ("avg_pool", (1, 16, 29, 40), {"kernel": 8, "stride": 3, "ceil_mode": True}),
    ("avg_pool", (2, 3, 10, 12, 11), {"kernel": 6, "stride": 1}),
]


@pytest.mark.dear
@pytest.mark.parametrize(("op", "shape", "attributes"), CASES)
def test_large_windows(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    """Any axes, steps and padding; NaN and infinities reach the windows that have them."""
    graph = pooled(op, shape, **attributes)
    assert "separable" in schedules_of(graph)
    random = np.random.default_rng(3)
    x = random.standard_normal(shape).astype("f4")
    if op == "max_pool":
        places = random.random(shape)
        x[places < 0.001], x[places > 0.999] = np.nan, -np.inf
    wanted = evaluate_graph(graph, {"x": x.astype("f8")})["y"]
    found = run_graph(graph, {"x": x}, machine_code)["y"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if op == "max_pool" else 1e-6)


def test_by_the_interpreter() -> None:
    graph = pooled("max_pool", (1, 4, 14, 13), kernel=7, stride=1, pad=2)
    x = np.random.default_rng(3).standard_normal((1, 4, 14, 13)).astype("f4")
    wanted = evaluate_graph(graph, {"x": x})["y"]
    np.testing.assert_array_equal(run_graph(graph, {"x": x}, interpreted)["y"], wanted)


def test_small_windows_are_met_as_they_are() -> None:
    """Three by three in steps of two has no more terms than nine."""
    graph = pooled("max_pool", (1, 16, 30, 30), kernel=3, stride=2, pad=1)
    assert "separable" not in schedules_of(graph)
