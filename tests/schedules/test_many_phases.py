"""Phases that are alike run as one: strides of any size, whatever leaves the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn_convolutions import check as check_layer
from executors import executing, interpreting
from graphs import Builder
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import check, schedules, step_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import Parallel, walk_statements
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

CPUS = ["native", "x86-64-v3", "x86-64-v2"]
Layer = tuple[tuple[int, ...], dict[str, Any]]


def graph_of(layer: Layer, dtype: DType = DType.F32) -> Graph:
    """Transposed, its sum with a map of the same size, and an activation: places in an epilogue."""
    b, (shape, attributes) = Builder(), layer
    y = b("conv_transpose", b.input("x", *shape, dtype=dtype), **attributes)
    other = b.input("other", *y.type.shape, dtype=dtype)
    return b.output(y=b("silu", b("add", y, other)))


@st.composite
def transposed(draw: st.DrawFn) -> Layer:
    """Strides to 9, filters shorter and longer than them, groups of all kinds."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    most = {1: 9, 2: 8, 3: 4}[rank]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    own, made = draw(st.sampled_from([(1, 1), (5, 16), (16, 19), (3, 6), (20, 35)]))
    stride = tuple(draw(st.integers(2, most)) for _ in range(rank))
    kernel = tuple(draw(st.integers(1, 2 * s + 1)) for s in stride)
    attributes = {
        "channels": groups * made,
        "kernel": kernel,
        "stride": stride,
        "pad": tuple((draw(st.integers(0, (k - 1) // 2)),) * 2 for k in kernel),
        "output_pad": tuple(draw(st.integers(0, s - 1)) for s in stride),
        "groups": groups,
    }
    space = [draw(st.integers(2, 7)) for _ in range(rank)]
    return (draw(st.sampled_from([1, 2])), groups * own, *space), attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(deadline=None, max_examples=5)
@given(transposed())
def test_drawn_transposed(cpu: str, layer: Layer) -> None:
    check_layer(graph_of(layer), cpu=cpu)


@pytest.mark.dear
@settings(deadline=None, max_examples=3)
@given(transposed())
def test_drawn_transposed_in_f64(layer: Layer) -> None:
    check_layer(graph_of(layer, DType.F64), DType.F64)


ALIKE = [
    ((1, 20, 3, 4), {"channels": 24, "kernel": 8, "stride": 8}),
    ((1, 24, 3, 4), {"channels": 24, "kernel": 16, "stride": 8, "pad": 4, "groups": 24}),
    ((1, 4, 3, 4), {"channels": 16, "kernel": 1, "stride": 5}),  # zeros but for one phase
    ((2, 6, 3, 3), {"channels": 6, "kernel": 7, "stride": 5, "pad": 2, "groups": 3}),
    ((1, 40, 4, 3), {"channels": 66, "kernel": 5, "stride": 5, "groups": 2}),
]


@pytest.mark.dear
@pytest.mark.parametrize(("shape", "attributes"), ALIKE)
def test_loops_of_phases_are_sound(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    layer = (shape, attributes)
    assert "phases" in check_layer(graph_of(layer), loops=True)
    assert "phases" in check_layer(graph_of(layer))


@pytest.mark.dear
def test_data_gradients_of_large_strides() -> None:
    """Filters that change are packed in calls, the parts of phases in a row."""
    graph = step_graph(
        "conv", (2, 20, 60, 80), {"channels": 40, "kernel": 5, "stride": 5, "pad": 0}
    )
    assert schedules(graph)["layer.dx"] == {"phases"}
    check(graph, executing)
    small = step_graph("conv", (1, 3, 8, 12), {"channels": 16, "kernel": 4, "stride": 4, "pad": 0})
    check(small, interpreting)


GROUPS = [
    ((1, 80, 12, 13), {"channels": 272, "kernel": 2, "stride": 2, "groups": 2}),  # 17 vectors
    ((1, 54, 9, 11), {"channels": 112, "kernel": 3, "stride": 2, "groups": 2}),  # 7
    ((2, 33, 10, 10), {"channels": 264, "kernel": 2, "stride": 2, "groups": 3}),  # 11
]


@pytest.mark.dear
@pytest.mark.parametrize(("shape", "attributes"), GROUPS)
def test_groups_that_no_tile_divides_leave_vectors_over(
    shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    """Tiles of several vectors, and of those that are left, in every group and phase."""
    assert "phases" in check_layer(graph_of((shape, attributes)), cpu="x86-64-v3")
    channels = attributes["channels"] // attributes["groups"]
    b = Builder()
    how = {"channels": channels * 2, "kernel": 3, "pad": 1, "groups": 2, "stride": 2}
    graph = b.output(y=b("conv", b.input("x", 1, 30, 19, 18), **how))
    check_layer(graph, cpu="x86-64-v3")


def parallel_names(inputs: int, **attributes: Any) -> list[str]:
    """The counters of the loops that phases are shared out by, outermost first."""
    b = Builder()
    x = b.input("x", 1, inputs, 40, 41)
    graph = b.output(y=b("conv_transpose", x, kernel=2, stride=2, **attributes))
    machine = cpu_machine(find_target("x86-64-v3"))
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (k for k in kernels if "phase" in k.name)
    found = next(s for s in walk_statements(kernel.body) if isinstance(s, Parallel))
    return [var.name for var in found.vars]


def test_phases_meet_a_band_in_turn_where_their_filters_stay() -> None:
    """They write parts of the same lines; filters of all phases that do not stay in the
    second-level cache would be read again for every band."""
    near, far = parallel_names(64, channels=128), parallel_names(256, channels=512)
    assert near.index("band") < near.index("p0_phase") < near.index("p1_phase")
    assert far.index("p0_phase") < far.index("band")


def test_parts_in_a_row_are_packed_one_by_one() -> None:
    array = np.arange(2 * 3 * 6, dtype=np.float32).reshape(2, 3, 6)
    first, second = (0, 1, 2, 0, 1, 3, 1, 2, 2), (0, 1, 2, 0, 1, 3, 0, 2, 2)
    packs = [FilterPack((2, 3, 2), 4, 1, 3, part=part) for part in (first, second)]
    row = FilterPack((2, 3, 2), 4, 1, 3, part=first + second, repeats=2)
    apart = [np.empty(pack.size, np.float32) for pack in packs]
    for pack, out in zip(packs, apart, strict=True):
        pack.pack(array, out)
    found = np.empty(row.size, np.float32)
    row.pack(array, found)
    np.testing.assert_array_equal(found, np.concatenate(apart))
