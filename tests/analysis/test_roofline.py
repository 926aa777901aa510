"""Arithmetic intensity and rooflines, by hand on small graphs."""

from __future__ import annotations

import pytest
from graphs import Builder, rewritten

from convdsl.analysis.machine import MACHINES, Machine, find_machine
from convdsl.analysis.roofline import roofline
from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.tensor import symbol

TOY = Machine("toy", operations=1e9, bandwidth=1e8, source="made up")  # ridge at 10


def network(n=1) -> Graph:
    b = Builder()
    x = b.input("x", n, 16, 8, 8)
    h = b("relu", b("batch_norm", b("conv", x, channels=16, kernel=3, bias=False)))
    return b.output(y=b("add", h, b("conv", h, channels=16, kernel=1)))


MAP = 16 * 64 * 4  # bytes of one map


def test_each_operator_of_a_graph_as_written() -> None:
    roof = roofline(network(), TOY)
    rows = {k.name: k for k in roof.kernels}
    conv = rows["conv1"]
    assert conv.flops == 16 * 64 * (144 + 143)
    assert conv.bytes == 2 * MAP + 16 * 144 * 4
    assert conv.intensity == conv.flops / conv.bytes
    assert conv.bound == "compute"
    assert conv.seconds == conv.flops / 1e9
    assert conv.attainable == pytest.approx(1e9)
    relu = rows["relu1"]
    assert (relu.flops, relu.bytes) == (1024, 2 * MAP)
    assert relu.bound == "memory"
    assert relu.seconds == relu.bytes / 1e8
    assert roof.seconds == sum(k.seconds for k in roof.kernels)
    assert roof.flops == sum(k.flops for k in roof.kernels)


def test_fused_kernels_move_only_what_enters_and_leaves() -> None:
    roof = roofline(rewritten(network()), TOY)
    assert [k.ops for k in roof.kernels] == [("conv", "relu"), ("conv", "add")]
    first, second = roof.kernels
    assert first.bytes == 2 * MAP + 16 * 144 * 4 + 16 * 4
    assert second.bytes == 2 * MAP + 16 * 16 * 4 + 16 * 4  # the skip and the input are one map
    assert roof.seconds < roofline(network(), TOY).seconds


def test_movements_read_no_more_than_they_write() -> None:
    b = Builder()
    x = b.input("x", 1, 16, 8, 8)
    graph = b.output(y=b("slice", x, axes=1, stop=4), z=b("concat", x, x))
    slice_, concat = roofline(graph, TOY).kernels
    assert slice_.bytes == 2 * MAP // 4
    assert slice_.flops == 0
    assert slice_.intensity == 0
    assert concat.bytes == 3 * MAP  # one tensor read, however often


def test_sizes_must_be_known() -> None:
    with pytest.raises(InputError, match="N of conv1 is free"):
        roofline(network(symbol("N")), TOY)


def this_machine() -> Machine:
    return TOY


def test_machines() -> None:
    assert find_machine("a100", this_machine) is MACHINES["a100"]
    assert find_machine("measured", this_machine) is TOY
    given = find_machine("140/12.5", this_machine)
    assert (given.operations, given.bandwidth) == (140e9, 12.5e9)
    assert given.ridge == pytest.approx(11.2)
    with pytest.raises(InputError, match="did you mean a100"):
        find_machine("a1000", this_machine)
    for wrong in ("fast", "1/2/3", "1", "/", "a/b"):
        with pytest.raises(InputError, match="GFLOPS/GBS such as 140/12"):
            find_machine(wrong, this_machine)
    for wrong in ("0/1", "1/-1", "inf/1", "nan/1"):
        with pytest.raises(InputError, match="must be positive"):
            find_machine(wrong, this_machine)
