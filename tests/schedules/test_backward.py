"""The backward pass of contractions: which schedules run it, and that it is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from graphs import Builder

from convdsl.autodiff import gradients
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

NATIVE = find_target()


def step_graph(
    op: str, shape: tuple[int, ...], attributes: Mapping[str, Any], dtype: DType = DType.F32
) -> Graph:
    """x -> relu -> layer, and one step down the sum of the squares of what that makes: as in
    training, values on both sides lie as kernels make them, and weights change."""
    b = Builder()
    x = b("relu", b.input("x", *shape, dtype=dtype))
    y = b(op, x, name="layer", **attributes)
    weights = {key: state.output for key, state in b.graph.states.items()}
    dx, *dws = gradients(b.graph, {y: y}, [x, *weights.values()], b.build)
    for weight, dw in zip(weights.values(), dws, strict=True):
        assert dw is not None
        rate = b.constant("rate", 1e-2, dtype)
        b.update(weight, b("sub", weight, b("mul", dw, rate)))
    assert dx is not None
    return run_passes(b.output(y=y, dx=b("mul", dx, dx)))


def schedules(graph: Graph) -> dict[str, set[str]]:
    """Of every node of the backward pass, and the layer itself, the schedules that run it."""
    found: dict[str, set[str]] = {}
    for choice in lower(graph, cpu_machine(NATIVE), "step").choices:
        found.setdefault(choice.nodes[0], set()).add(choice.schedule)
    return found


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
    found = schedules(step_graph("conv", (2, 64, 12, 12), attributes))
    assert found["layer.dx"] == {"direct" if groups == 2 else "depthwise"}
