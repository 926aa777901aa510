"""Convolutions in groups that do not fill vectors: forward and backward, whole and ragged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import executing, interpreting, machine_code, run_graph
from graphs import Builder
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import check, schedules, step_graph

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr, TensorVar
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.tensor import DType, TensorType


@st.composite
def drawn(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(input shape, attributes) of a convolution in groups."""
    rank, groups = draw(st.sampled_from([1, 2, 2, 3])), draw(st.integers(2, 24))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    attributes = {
        "channels": groups * draw(st.integers(1, 20)),
        "kernel": kernel,
        "stride": tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank)),
        "dilation": tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank)),
        "pad": "same",
        "groups": groups,
        "flip": draw(st.booleans()),
    }
    space = [draw(st.integers(3, 16)) for _ in range(rank)]
    return (draw(st.sampled_from([1, 2])), groups * draw(st.integers(1, 12)), *space), attributes


@pytest.mark.dear
@settings(deadline=None, max_examples=10)
@given(drawn())
def test_drawn_groups(layer: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    check(step_graph("conv", *layer), executing)


SMALL = [
    ((1, 24, 4, 5), {"channels": 24, "kernel": 3, "pad": 1, "groups": 6}),
    (
        (1, 48, 3, 3),
        {"channels": 24, "kernel": 1, "groups": 3},
    ),  # the last vector has no third group
    ((2, 30, 6), {"channels": 45, "kernel": 3, "pad": 1, "groups": 3}),
    ((1, 24, 6, 5), {"channels": 72, "kernel": 3, "pad": 1, "groups": 24}),
]


@pytest.mark.dear
@pytest.mark.parametrize(("shape", "attributes"), SMALL)
def test_loops_are_sound(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    graph = step_graph("conv", shape, {**attributes, "bias": False})
    assert schedules(graph)["layer"] <= {"direct", "grouped", "straddling", "gemm"}
    check(graph, interpreting)


WIDE = [
    ((1, 42, 4, 5), {"channels": 42, "kernel": 3, "pad": 1, "groups": 2}),  # over one bound
    ((1, 54, 3, 7), {"channels": 54, "kernel": 3, "pad": 1, "groups": 6}),  # over two
    ((2, 9, 5), {"channels": 63, "kernel": 3, "stride": 2, "pad": 1, "groups": 3}),
]


@pytest.mark.dear
@pytest.mark.parametrize(("shape", "attributes"), WIDE)
def test_vectors_over_the_bounds_of_wide_groups(
    shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    graph = step_graph("conv", shape, {**attributes, "bias": False})
    assert schedules(graph, "x86-64-v4")["layer"] <= {"straddling"}
    check(graph, interpreting)


@pytest.mark.parametrize("stride", [1, 2])
def test_both_directions_are_grouped(stride: int) -> None:
    attributes = {"channels": 64, "kernel": 3, "stride": stride, "pad": 1, "groups": 16}
    graph = step_graph("conv", (2, 64, 12, 12), {**attributes, "bias": False})
    found = schedules(graph, "x86-64-v4")
    assert found["layer"] == {"grouped"}
    assert found["layer.dx"] == {"grouped" if stride == 1 else "phases"}


def test_what_is_no_number_stays_in_its_group() -> None:
    """NaN and infinity spread as IEEE says: to what is computed from them, and to nothing else."""
    b = Builder()
    x = b("mul", b.input("x", 1, 32, 6, 6), b.parameter("s", 32, 1, 1))
    graph = b.output(y=b("conv", x, channels=32, kernel=3, groups=8, bias=False))
    random = np.random.default_rng(0)
    arrays = {
        "x": random.standard_normal((1, 32, 6, 6)).astype(np.float32),
        "s": np.ones((32, 1, 1), np.float32),
        "conv1.weight": random.standard_normal((32, 4, 3, 3)).astype(np.float32),
    }
    arrays["x"][0, 5], arrays["x"][0, 30] = np.nan, np.inf
    y = run_graph(graph, arrays, machine_code)["y"][0]
    spoiled = ~np.isfinite(y).reshape(8, -1).all(axis=1)
    assert spoiled.tolist() == [False, True, False, False, False, False, False, True]


@pytest.mark.parametrize("backward", [False, True])
def test_filters_of_groups_are_packed_side_by_side(backward: bool) -> None:
    """[G K, C, taps] as it is, or with the outputs of groups as the second axis."""
    groups, own, channels, lanes = 6, 3, 5, 4
    array = np.arange(1.0, groups * own * channels * 2 + 1)
    array = array.reshape((groups * channels, own, 2) if backward else (groups * own, channels, 2))
    order = (0, 2, 1, 3) if backward else ()
    pack = FilterPack((groups * own, channels, 2), lanes, 1, channels, (), order, (), groups)
    logical = array.reshape(groups, channels, own, 2).swapaxes(1, 2) if backward else array
    plain = FilterPack((groups * own, channels, 2), lanes, 1, channels)
    expected, once = np.zeros(pack.size), np.zeros(pack.size)
    plain.pack(logical.reshape(groups * own, channels, 2), expected)
    pack.pack(array, once)
    np.testing.assert_array_equal(once, expected)
    x = TensorVar("x0", TensorType(DType.F64, array.shape))
    for first, stage in pack.stages(x):
        made = evaluate(TensorExpr((x,), (stage,), ("t0",)), {"x0": array})["t0"]
        np.testing.assert_array_equal(made.ravel(), expected[first : first + made.size])
