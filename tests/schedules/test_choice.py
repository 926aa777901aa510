"""Which schedule runs what: decided by the structure of the arithmetic, not by names."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_convolutions import check, conv_graph
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

X86 = "x86_64-unknown-linux-gnu"


def schedules_of(graph: Graph, cpu: str = "x86-64-v3") -> list[str]:
    choices = lower(graph, cpu_machine(find_target(cpu, X86)), "test").choices
    return [choice.schedule for choice in choices if not choice.nodes[0].startswith("output ")]


LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "3x3": ((1, 64, 14, 14), {"channels": 64, "kernel": 3}, "winograd"),
    "3x3 strided": ((1, 64, 14, 14), {"channels": 128, "kernel": 3, "stride": 2}, "direct"),
    "3x3 dilated": ((1, 64, 14, 14), {"channels": 64, "kernel": 3, "dilation": 2}, "winograd"),
    "1x1": ((1, 64, 14, 14), {"channels": 256, "kernel": 1}, "direct"),
    "1x1 strided": ((1, 64, 14, 14), {"channels": 256, "kernel": 1, "stride": 2}, "unfolded"),
    "first layer": ((1, 3, 32, 32), {"channels": 64, "kernel": 7, "stride": 2}, "direct"),
    "ragged": ((1, 24, 14, 14), {"channels": 58, "kernel": 3}, "winograd"),
    "mirrored": ((1, 16, 14, 14), {"channels": 16, "kernel": 3, "flip": True}, "direct"),
    "grouped": ((1, 64, 14, 14), {"channels": 64, "kernel": 3, "groups": 4}, "direct"),
    "1-D": ((1, 16, 50), {"channels": 32, "kernel": 5}, "winograd"),
    "3-D": ((1, 8, 5, 6, 7), {"channels": 16, "kernel": 3}, "direct"),
    "depthwise": ((1, 32, 14, 14), {"channels": 32, "kernel": 3, "groups": 32}, "depthwise"),
    "depthwise ragged": ((1, 58, 9, 9), {"channels": 58, "kernel": 5, "groups": 58}, "depthwise"),
    "ragged groups": ((1, 12, 14, 14), {"channels": 12, "kernel": 3, "groups": 4}, "planar"),
    "reflected": ((1, 16, 14, 14), {"channels": 16, "kernel": 3, "pad_mode": "reflect"}, "gemm"),
}


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions(layer: str) -> None:
    shape, attributes, intended = LAYERS[layer]
    b = Builder()
    x = b("relu", b.input("x", *shape))
    graph = b.output(y=b("conv", x, **attributes))
    assert schedules_of(graph)[-1] == intended


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("layer", LAYERS)
def test_their_numbers(layer: str) -> None:
    shape, attributes, _ = LAYERS[layer]
    check(conv_graph(shape, attributes))


@pytest.mark.parametrize("rows", [1, 7])
def test_linear(rows: int) -> None:
    b = Builder()
    graph = b.output(y=b("linear", b.input("x", rows, 37), channels=21))
    assert schedules_of(graph) == ["gemm"]


@pytest.mark.parametrize("op", ["relu", "max_pool"])
def test_the_rest_is_generic(op: str) -> None:
    b = Builder()
    attributes = {"kernel": 2} if op == "max_pool" else {}
    graph = b.output(y=b(op, b.input("x", 1, 16, 8, 8), **attributes))
    assert set(schedules_of(graph)) <= {"flat", "generic"}


def test_names_do_not_matter() -> None:
    """A linear layer written as a convolution, and so on: only the arithmetic counts."""
    b = Builder()
    x = b("relu", b.input("x", 1, 16, 1, 1))
    graph = b.output(y=b("conv", x, channels=16, kernel=1, name="linear"))
    assert schedules_of(graph)[-1] == "direct"


def test_choices_say_what_was_predicted() -> None:
    machine = cpu_machine(find_target())
    graph = conv_graph((1, 64, 14, 14), {"channels": 64, "kernel": 3})
    lowered = lower(graph, machine.without("winograd"), "t")
    choice = next(choice for choice in lowered.choices if choice.schedule != "transpose")
    assert choice.schedule == choice.bids[0][0] == "direct"
    assert [name for name, _ in choice.bids] == ["direct", "generic"]
    costs = [cost for _, cost in choice.bids]
    assert costs == sorted(costs)
    assert costs[0] > 0
    known = {schedule.name for schedule in machine.schedules}
    own = {
        "winograd",
        "spectral",
        "direct",
        "depthwise",
        "grouped",
        "straddling",
        "gemm",
        "correlation",
        "winograd_sums",
    }
    own |= {"lanes", "phases", "planar", "putting", "ranks", "rows", "separable", "unfolded"}
    own |= {"weaving", "interlaced", "columns"}
    assert known == own | {"reduction", "scatter", "running", "transpose", "flat", "generic"}


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_register_tiles_fit_the_registers(cpu: str) -> None:
    target = find_target(cpu, X86)
    for dtype in (DType.F32, DType.F64):
        graph = conv_graph((1, 64, 14, 14), {"channels": 256, "kernel": 3}, dtype)
        machine = cpu_machine(target).without("winograd")
        kernels = lower(graph, machine, "t").program.kernels
        (kernel,) = (kernel for kernel in kernels if kernel.registers)
        lanes = target.lanes(DType.F32)
        each = target.registers(lanes, dtype)
        assert each == dtype.bytes // 4
        assert max(r.count for r in kernel.registers) * each < target.vector_registers
        assert {r.type.lanes for r in kernel.registers} == {lanes}
