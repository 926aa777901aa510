"""The backward pass of contractions: which schedules run it, and that it is right."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import convolutions
from executors import executing, interpreting, machine_code, run_graph
from graphs import Builder, evaluate_graph, random_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import NATIVE, check, schedules, step_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

X86 = "x86_64-unknown-linux-gnu"


@pytest.mark.parametrize("bias", [True, False])
def test_updates_leave_activations_as_they_lie(bias: bool) -> None:
    """The gradient of a bias ends the kernel that makes what it sums; the bias is plain, that
    kernel's values are not."""
    graph = step_graph("conv", (2, 32, 40, 40), {"channels": 32, "kernel": 3, "bias": bias})
    found = schedules(graph)
    assert "generic" not in found["layer"]


def test_gradients_copy_nothing() -> None:
    """What flows through a sum as it is needs no stage of its own."""
    graph = step_graph("conv", (1, 16, 8, 8), {"channels": 16, "kernel": 3})
    derived = [node for node in graph.op_nodes() if node.op.name.startswith("conv.grad")]
    assert len(derived) == 3
    assert all(len(node.call.kernel.stages) == 1 for node in derived)


@pytest.mark.parametrize("groups", [2, 64])
def test_data_gradients_of_groups_are_convolutions(groups: int) -> None:
    attributes = {"channels": 64, "kernel": 3, "pad": "same", "groups": groups, "bias": False}
    found = schedules(step_graph("conv", (2, 64, 12, 12), attributes), "x86-64-v4")
    assert found["layer.dx"] == {"winograd" if groups == 2 else "depthwise"}


# Right, whatever is drawn


@st.composite
def transposed(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(input shape, attributes) of a transposed convolution."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    attributes = {
        "channels": groups * draw(st.integers(1, 40)),
        "kernel": kernel,
        "stride": stride,
        "dilation": tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank)),
        "pad": tuple((draw(st.integers(0, (k - 1) // 2)),) * 2 for k in kernel),
        "groups": groups,
    }
    space = [draw(st.integers(3, 12)) for _ in range(rank)]
    return (draw(st.sampled_from([1, 2])), groups * draw(st.integers(1, 40)), *space), attributes


@pytest.mark.dear
@settings(deadline=None, max_examples=25)
@given(convolutions())
def test_drawn_convolutions(drawn: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    check(step_graph("conv", *drawn), executing)


@pytest.mark.dear
@settings(deadline=None, max_examples=12)
@given(transposed())
def test_drawn_transposed_convolutions(drawn: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    check(step_graph("conv_transpose", *drawn), executing)


@pytest.mark.dear
@settings(deadline=None, max_examples=6)
@given(convolutions())
def test_drawn_convolutions_in_double(drawn: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    check(step_graph("conv", *drawn, dtype=DType.F64), executing, DType.F64)


SMALL = [
    ((2, 20, 5, 6), {"channels": 18, "kernel": 3, "pad": 1}),
    ((3, 3, 7, 7), {"channels": 16, "kernel": (3, 2), "stride": 2, "pad": 1}),
    ((1, 32, 4, 4), {"channels": 33, "kernel": 1}),
    ((2, 18, 6), {"channels": 18, "kernel": 5, "dilation": 2, "pad": 3, "groups": 18}),
    ((2, 12, 5, 5), {"channels": 24, "kernel": 3, "pad": 1, "groups": 3}),
    ((1, 32, 3, 4), {"channels": 64, "kernel": 3, "stride": 2, "pad": 1, "groups": 2}),
    ((2, 7, 9), {"channels": 25, "kernel": 3, "dilation": 2, "pad": "valid"}),
    ((2, 4, 4, 3, 5), {"channels": 17, "kernel": 2, "stride": (1, 2, 1), "pad": "valid"}),
]


@pytest.mark.parametrize(("shape", "attributes"), SMALL)
def test_loops_are_sound(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    """Iterations independent, accesses in bounds, the same numbers by the interpreter."""
    check(step_graph("conv", shape, attributes), interpreting)


@pytest.mark.parametrize(("shape", "attributes"), [s for s in SMALL if s[1]["kernel"] != 1])
def test_weight_gradients_are_correlations(
    shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    found = schedules(step_graph("conv", shape, {**attributes, "bias": False}), "x86-64-v4")
    assert found["layer.dweight"] == {"correlation"}


@pytest.mark.dear
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize(("shape", "attributes"), SMALL)
def test_narrower_vectors(shape: tuple[int, ...], attributes: dict[str, Any], cpu: str) -> None:
    """Channels of an operand may fill several blocks, and a part of one."""
    target = find_target(cpu, X86)
    graph = step_graph("conv", shape, {**attributes, "bias": False})
    check(graph, partial(executing, target=target), target=target)


STRIDED = [
    ("conv", (2, 32, 8, 9), {"channels": 32, "kernel": 3, "stride": 2, "pad": 1}),
    ("conv", (1, 20, 7, 7), {"channels": 9, "kernel": 1, "stride": (2, 3), "pad": "valid"}),
    ("conv", (4, 40, 60), {"channels": 40, "kernel": 5, "stride": 3, "pad": 2, "groups": 40}),
    ("conv", (1, 6, 8, 8), {"channels": 16, "kernel": 4, "stride": 4, "pad": "valid"}),
    ("conv", (1, 17, 5, 6, 5), {"channels": 18, "kernel": 3, "stride": (1, 2, 2), "pad": 1}),
    ("conv", (1, 64, 9, 9), {"channels": 64, "kernel": 2, "stride": 2, "dilation": 2, "pad": 1}),
    ("conv_transpose", (2, 32, 5, 5), {"channels": 20, "kernel": 2, "stride": 2}),
    ("conv_transpose", (1, 7, 4, 6), {"channels": 3, "kernel": 4, "stride": 2, "pad": 1}),
    ("conv_transpose", (1, 9, 8), {"channels": 18, "kernel": 3, "stride": 4}),
]


@pytest.mark.parametrize(("op", "shape", "attributes"), STRIDED)
def test_strides_are_taken_apart(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    """Each phase of a strided data gradient, or of a transposed convolution, is a convolution; of
    few channels their parts lie along the width instead."""
    graph = step_graph(op, shape, {**attributes, "bias": False})
    strided = "layer.dx" if op == "conv" else "layer"
    (schedule,) = schedules(graph, "x86-64-v4")[strided]
    assert schedule in ("phases", "planar")
    check(graph, executing)


@pytest.mark.parametrize(("op", "shape", "attributes"), STRIDED[2:4])
def test_phases_are_sound(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    check(step_graph(op, shape, {**attributes, "bias": False}), interpreting)


def test_weights_of_transposed_convolutions_are_packed_before() -> None:
    """What is known when weights are bound takes no step of a call."""
    b = Builder()
    x = b("relu", b.input("x", 1, 32, 6, 6))
    graph = b.output(y=b("conv_transpose", x, channels=16, kernel=2, stride=2))
    lowered = lower(graph, cpu_machine(NATIVE), "t")
    chosen = [c.schedule for c in lowered.choices if c.nodes == ("conv_transpose1",)]
    assert chosen == ["phases"]  # four that are alike
    assert not any("pack" in node for c in lowered.choices for node in c.nodes)
    arrays = {k: a.astype(np.float32) for k, a in random_arrays(graph, seed=1).items()}
    np.testing.assert_allclose(
        run_graph(graph, arrays, machine_code)["y"], evaluate_graph(graph, arrays)["y"], atol=1e-4
    )
