"""Convolutions in the frequency domain: numbers against double precision, and who runs there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import Array, Builder, evaluate_graph, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules.test_winograd import outputs as run_lowered

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.schedules.contraction import match_convolution
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.spectral import Alone, emit_alone, plans_alone
from convdsl.schedules.cpu.winograd import emit_as
from convdsl.schedules.cpu.winograd_plan import Plan, plans
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Schedule, Task
from convdsl.schedules.winograd_tiling import spectral_tilings
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

CPUS = ["native", "x86-64-v3", "x86-64-v2"]


def forced(target: Target, wanted: Callable[[Plan | Alone], bool] = lambda made: True) -> Machine:
    """A machine that runs in the frequency domain whatever can be, by a plan of a kind."""

    def chosen(task: Task) -> Plan | Alone | None:
        found = (*plans_alone(task, target), *plans(task, target, spectral_tilings))
        return next((made for made in found if wanted(made)), None)

    def emit(task: Task, name: str) -> Any:
        made = chosen(task)
        assert made is not None
        if isinstance(made, Alone):
            return emit_alone(task, name, made)
        return emit_as(task, name, made)

    machine = cpu_machine(target)
    own = Schedule("spectral", lambda task: 0.0 if chosen(task) else None, emit)
    others = tuple(s for s in machine.schedules if s.name != "spectral")
    return replace(machine, schedules=(own, *others))


def length(made: Plan | Alone) -> tuple[int, ...]:
    return tuple(line.form.t for line in made.tiling.lines)


def conv(shape: tuple[int, ...], **attributes: Any) -> Graph:
    """Of a map that is made, as layers in between are, with an epilogue that reads another one."""
    b = Builder()
    y = b("conv", b("relu", b.input("x", *shape)), **attributes)
    return rewritten(b.output(y=b("relu", b("add", y, b.input("skip", *y.type.sizes)))))


def outputs(graph: Graph, machine: Machine, target: Target, arrays: Any, way: str) -> Array:
    lowered = lower(graph, machine, "test")
    assert "spectral" in {choice.schedule for choice in lowered.choices}
    return run_lowered(lowered, arrays, target, way)


def compare(graph: Graph, machine: Machine, target: Target, way: str = "machine code") -> float:
    """The largest error, in ranges of the output."""
    arrays = {name: a.astype(np.float32) for name, a in random_arrays(graph, seed=5).items()}
    doubles = {name: a.astype(np.float64) for name, a in arrays.items()}
    expected = evaluate_graph(graph, doubles)["y"]
    made = outputs(graph, machine, target, arrays, way)
    return float(np.abs(made - expected).max() / max(np.ptp(expected), 1e-30))


KERNELS = [(5, 5), (7, 7), (9, 5), (11, 11), (1, 25), (31, 1), (17, 2), (13, 13)]


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(input shape, attributes): channels by themselves, in groups, and all together."""
    kernel = draw(st.sampled_from(KERNELS))
    kind = draw(st.sampled_from(["alone", "alone", "groups", "whole"]))
    dilation = tuple(draw(st.sampled_from([1, 1, 1, 2])) for _ in kernel)
    pad = tuple((draw(st.integers(0, k)), draw(st.integers(0, k))) for k in kernel)
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    space = [draw(st.integers(e + 1, e + 20)) for e in least]
    channels = draw(st.integers(1, 40))
    groups = {"alone": channels, "groups": 2, "whole": 1}[kind]
    per_group = {"alone": 1, "groups": 32, "whole": channels}[kind]
    own = 1 if kind == "alone" else draw(st.sampled_from([16, 32]))
    attributes = {
        "channels": groups * own,
        "kernel": kernel,
        "dilation": dilation,
        "pad": pad,
        "groups": groups,
        "bias": draw(st.booleans()),
        "flip": draw(st.booleans()),
    }
    return (draw(st.sampled_from([1, 1, 2])), groups * per_group, *space), attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=8)
@given(layer=layers(), apart=st.booleans())
def test_drawn_layers(layer: Any, apart: bool, cpu: str) -> None:
    shape, attributes = layer
    target = find_target(cpu)
    machine = forced(target, lambda made: isinstance(made, Alone) or made.apart == apart)
    assert compare(conv(shape, **attributes), machine, target) <= 3e-6


@pytest.mark.dear
@pytest.mark.parametrize("t", [12, 16, 24, 32, 48, 64, 96])
def test_every_length(t: int) -> None:
    """Along one axis, and along two where that is quick; a window as large as it may be."""
    target = find_target()
    machine = forced(target, lambda made: t in length(made))
    taps = 3 * t // 4
    if taps >= 25:
        line = conv((1, 20, 3 * t), channels=20, groups=20, kernel=taps, pad=taps // 2)
        assert compare(line, machine, target) <= 2e-6
    square = conv((1, 9, 40, 2 * t), channels=9, groups=9, kernel=(5, taps), pad=(2, taps // 2))
    assert compare(square, machine, target) <= 2e-6


@pytest.mark.parametrize("groups", [1, 12])
def test_in_loops(groups: int) -> None:
    """By the interpreter, which watches every access, with borders on all sides."""
    target = find_target("x86-64-v3")
    machine = forced(target, lambda made: length(made) == (12, 12))
    graph = conv((2, 12, 5, 9), channels=12, kernel=5, groups=groups)
    assert compare(graph, machine, target, "loops") <= 2e-6


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("groups", [1, 20])
def test_filters_that_are_known_in_calls_only(groups: int, flip: bool) -> None:
    """Data gradients are of this kind, turned round."""
    target = find_target()
    b = Builder()
    x = b("relu", b.input("x", 2, 20, 19, 21))
    late = {"weight": b.input("w", 20, 20 // groups, 7, 9)}
    how = {"channels": 20, "kernel": (7, 9), "groups": groups, "flip": flip, "bias": False}
    graph = b.output(y=b("conv", x, states=late, **how))
    assert compare(graph, forced(target), target) <= 3e-6


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_no_number_stays_in_its_tiles(bad: float) -> None:
    target = find_target()
    b = Builder()
    x = b("neg", b.input("x", 1, 16, 30, 30))
    graph = b.output(y=b("conv", x, channels=16, kernel=5, groups=16))
    machine = forced(target, lambda made: length(made) == (16, 16))
    arrays = {name: a.astype(np.float32) for name, a in random_arrays(graph, seed=5).items()}
    clean = outputs(graph, machine, target, arrays, "machine code")
    arrays["x"][0, 3, 20, 20] = bad
    y = outputs(graph, machine, target, arrays, "machine code")
    assert not np.isfinite(y[0, 3, 18:23, 18:23]).any()
    outside = np.ones((30, 30), bool)
    outside[12:24, 12:24] = False  # the tile of rows and columns 12 to 23 reads 10 to 25
    np.testing.assert_array_equal(y[0, 3][outside], clean[0, 3][outside])
    others = [c for c in range(16) if c != 3]
    np.testing.assert_array_equal(y[:, others], clean[:, others])


# Who runs there


def schedules_of(graph: Graph, machine: Machine) -> set[str]:
    return {choice.schedule for choice in lower(graph, machine, "t").choices}


@pytest.mark.dear
def test_layers_that_pay_and_layers_that_do_not() -> None:
    machine = cpu_machine(find_target("x86-64-v4", "x86_64-unknown-linux-gnu"))
    for shape, attributes in (
        ((1, 64, 56, 56), {"channels": 64, "kernel": 7}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": 11}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": (1, 31)}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": 31, "groups": 64}),
    ):
        assert "spectral" in schedules_of(conv(shape, **attributes), machine)
        assert "spectral" not in schedules_of(
            conv(shape, **attributes), machine.without("spectral")
        )
    for shape, attributes in (
        ((1, 64, 56, 56), {"channels": 64, "kernel": 3}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": 5}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": 7, "stride": 2}),
        ((1, 64, 56, 56), {"channels": 64, "kernel": 7, "groups": 64}),
        ((1, 3, 56, 56), {"channels": 64, "kernel": 7}),
        ((1, 64, 7, 7), {"channels": 64, "kernel": 13, "groups": 64}),
    ):
        assert "spectral" not in schedules_of(conv(shape, **attributes), machine)


def test_double_precision_is_left_alone() -> None:
    b = Builder()
    x = b("relu", b.input("x", 1, 64, 56, 56, dtype=DType.F64))
    graph = b.output(y=b("conv", x, channels=64, kernel=11))
    assert "spectral" not in schedules_of(graph, cpu_machine(find_target()))


def test_tiles_are_no_longer_than_what_they_cover() -> None:
    """Outputs are a quarter of a tile at the least, and no tile follows one that covers an axis."""
    for extent, kernel in ((14, 7), (56, 31), (200, 5)):
        graph = conv((1, 16, extent, extent), channels=16, groups=16, kernel=kernel)
        (conv_task,) = [
            choice.task
            for choice in lower(graph, cpu_machine(find_target()), "t").choices
            if match_convolution(choice.task.root)
        ]
        found = match_convolution(conv_task.root)
        assert found is not None
        lines = {line for tiling in spectral_tilings(found) for line in tiling.lines}
        assert lines
        assert all(line.form.m >= line.form.t / 4 for line in lines)
        covering = [line.form.t for line in lines if line.form.m >= extent]
        assert len(set(covering)) <= 1


def test_explanations_name_the_length() -> None:
    graph = conv((1, 64, 56, 56), channels=64, kernel=11)
    choices = lower(graph, cpu_machine(find_target()), "t").choices
    notes = {choice.schedule: choice.note for choice in choices}
    assert notes["spectral"].startswith("DFT(")
    assert ", errors x 0." in notes["spectral"]
