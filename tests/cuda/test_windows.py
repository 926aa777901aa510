"""Depthwise convolutions, their gradients and pools on cards: several outputs a thread."""

from __future__ import annotations

from typing import Any

import pytest
from contractions_on_cards import check
from cuda_shim.graphs import schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import step_graph
from machine_code import compiled

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import ARCHITECTURES, CudaTarget
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda import windows
from convdsl.schedules.cuda.machine import cuda_machine

pytestmark = pytest.mark.drawn

A100 = CudaTarget("sm_80")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps run so as well, which would really leave a card idle."""
    monkeypatch.setattr(windows, "THREADS", 0)


def layer(op: str, shape: tuple[int, ...], **attributes: Any) -> Graph:
    """Of a map that another kernel made, with an epilogue that reads another one."""
    b = Builder()
    x = b("conv", b.input("x", shape[0], 2, *shape[2:]), channels=shape[1], kernel=1, bias=False)
    y = b(op, x, **attributes)
    return rewritten(b.output(y=b("relu", b("add", y, b.input("skip", *y.type.sizes)))))


def depthwise(shape: tuple[int, ...], **attributes: Any) -> Graph:
    return layer("conv", shape, channels=shape[1], groups=shape[1], **attributes)


@st.composite
def layers(draw: st.DrawFn) -> Graph:
    rank = draw(st.integers(1, 2))
    kernel = tuple(draw(st.sampled_from([1, 2, 3, 5, 7])) for _ in range(rank))
    kernel = (*kernel[:-1], max(2, kernel[-1]))
    attributes: dict[str, Any] = {
        "kernel": kernel,
        "stride": tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in kernel),
        "pad": tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel),
    }
    space = tuple(draw(st.integers(k + 2, k + 17)) for k in kernel)
    shape = (draw(st.integers(1, 2)), draw(st.integers(3, 21)), *space)
    op = draw(st.sampled_from(["conv", "conv", "max_pool", "avg_pool"]))
    return depthwise(shape, **attributes) if op == "conv" else layer(op, shape, **attributes)


@pytest.mark.dear
@pytest.mark.usefixtures("few")
@settings(max_examples=5)
@given(graph=layers(), order=st.sampled_from(sorted(ORDERS)))
def test_drawn_windows(graph: Graph, order: str) -> None:
    check(graph, A100, order, "windows")


LAYERS = {
    "3 by 3": depthwise((2, 10, 7, 14), kernel=3, pad="same"),
    "5 by 5": depthwise((1, 8, 6, 13), kernel=5, pad="same"),
    "7 by 7": depthwise((1, 6, 8, 11), kernel=7, pad="same"),
    "strided": depthwise((2, 9, 9, 15), kernel=3, stride=2, pad=1),
    "dilated": depthwise((1, 8, 9, 17), kernel=3, dilation=2, pad="same"),
    "along one axis": depthwise((2, 7, 29), kernel=5),
    "largest": layer("max_pool", (1, 12, 9, 16), kernel=3, stride=2),
    "means": layer("avg_pool", (1, 12, 9, 16), kernel=3, stride=1, pad=1),
}


@pytest.mark.dear
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    order = list(ORDERS)[list(LAYERS).index(name) % len(ORDERS)]
    assert "windows" in check(LAYERS[name], A100, order, "windows")


@pytest.mark.dear
@pytest.mark.usefixtures("few")
def test_steps() -> None:
    """What comes back is such a convolution too."""
    attributes = {"channels": 8, "groups": 8, "kernel": 3, "pad": "same"}
    ran = check(step_graph("conv", (2, 8, 9, 14), attributes), A100, "shuffled", "windows")
    assert ran.count("windows") >= 2


def test_where_there_is_work_for_all() -> None:
    attributes: dict[str, Any] = {"kernel": 3, "pad": "same"}
    assert "windows" in schedules_of(depthwise((32, 144, 56, 56), **attributes), A100)
    assert "windows" not in schedules_of(depthwise((1, 8, 14, 14), **attributes), A100)


@pytest.mark.dear
@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=[] if a == "sm_90" else [pytest.mark.slow]) for a in ARCHITECTURES],
)
@pytest.mark.parametrize("attributes", [{"kernel": 3}, {"kernel": 3, "stride": 2}, {"kernel": 7}])
def test_resources(arch: str, attributes: dict[str, Any]) -> None:
    """Nothing spills, and half of the threads that a multiprocessor may have fit."""
    target = CudaTarget(arch)
    graph = depthwise((64, 144, 56, 56), pad=1, **attributes)
    lowered = lower(graph, cuda_machine(target), "test")
    names = {c.kernel for c in lowered.choices if c.schedule == "windows"}
    assert names
    made = compiled(print_module(lowered.program, target).source, arch)
    for function in (made[name] for name in names):
        used = function.resources
        assert used.spills == used.local == 0, f"{function.name}: {used}"
        assert used.registers <= 128, f"{function.name}: {used}"
