"""Winograd convolutions: numbers against double precision, who runs them, what errors they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import in_f32, windows
from executors import interpreted, machine_code
from graphs import Array, Builder, evaluate_graph, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import Lowered, lower
from convdsl.runtime.cpu.code import aligned
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.winograd import emit_as
from convdsl.schedules.cpu.winograd_filters import WinogradPack
from convdsl.schedules.cpu.winograd_plan import Plan, plan, plans
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Schedule, Task
from convdsl.schedules.winograd import PointForm
from convdsl.schedules.winograd_tiling import AMPLIFICATION
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

CPUS = ["native", "x86-64-v3", "x86-64-v2"]


def forced(
    target: Target, wanted: Callable[[Plan], bool], rather: Callable[[Plan], bool] | None = None
) -> Machine:
    """A machine that runs by a plan of a kind whatever has one, of another kind if there is one."""

    def chosen(task: Task) -> Plan | None:
        found = [made for made in plans(task, target) if wanted(made)]
        return next((made for made in found if rather and rather(made)), *found[:1] or [None])

    def emit(task: Task, name: str) -> Any:
        made = chosen(task)
        assert made is not None
        return emit_as(task, name, made)

    machine = cpu_machine(target)
    own = Schedule("winograd", lambda task: 0.0 if chosen(task) else None, emit)
    others = tuple(s for s in machine.schedules if s.name != "winograd")
    return replace(machine, schedules=(own, *others))


WAYS = ["whole", "apart", "rows"]


def way_of(way: str) -> Callable[[Plan], bool]:
    """Whether a plan transforms inputs within each piece, before, or before with filters by who
    needs them, a row of products at a time."""
    return lambda made: ("rows" if made.rows else "apart" if made.apart else "whole") == way


def conv(shape: tuple[int, ...], **attributes: Any) -> Graph:
    """Of a map that is made, as layers in between are, with an epilogue that reads another one."""
    b = Builder()
    y = b("conv", b("relu", b.input("x", *shape)), **attributes)
    return rewritten(b.output(y=b("relu", b("add", y, b.input("skip", *y.type.sizes)))))


def found(graph: Graph, machine: Machine, target: Target, way: str = "machine code") -> Array:
    arrays = in_f32(graph)
    lowered = lower(graph, machine, "test")
    assert "winograd" in {choice.schedule for choice in lowered.choices}
    return outputs(lowered, arrays, target, way)


def outputs(lowered: Lowered, arrays: Any, target: Target, way: str = "machine code") -> Array:
    weights = aligned(lowered.program.weight_bytes)
    weights[:] = 0xFF
    lowered.pack_weights(arrays, weights)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in lowered.program.inputs]
    if way == "loops":
        return interpreted(lowered, weights, inputs)[0]
    return machine_code(lowered, weights, inputs, target)[0]


def compare(graph: Graph, machine: Machine, target: Target, way: str = "machine code") -> float:
    """The largest error, in ranges of the output before its activation."""
    arrays = in_f32(graph)
    doubles = {name: a.astype(np.float64) for name, a in arrays.items()}
    expected = evaluate_graph(graph, doubles)["y"]
    made = found(graph, machine, target, way)
    return float(np.abs(made - expected).max() / max(np.ptp(expected), 1e-30))


# Numbers

OUTPUTS = {3: (2, 4, 6), 5: (2, 4), 7: (2,), 1: (1,)}


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]:
    """(input shape, attributes, outputs of the form along each axis)."""
    window = draw(windows([(3, 3), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1), (3, 5)]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    space = [draw(st.integers(e + 1, e + 20)) for e in window.reach]
    channels = st.sampled_from([16, 32, 48]) if groups > 1 else st.integers(16, 70)
    attributes = {
        "channels": groups * draw(channels),
        **window.attributes,
        "groups": groups,
        "bias": draw(st.booleans()),
        "flip": draw(st.booleans()),
    }
    outputs = tuple(draw(st.sampled_from(OUTPUTS[k])) for k in window.kernel)
    if window.kernel[0] == window.kernel[1]:
        outputs = (outputs[0], outputs[0])
    batch = draw(st.sampled_from([1, 1, 2, 5]))
    return (batch, groups * draw(channels), *space), attributes, outputs


def along(made: Plan) -> tuple[int, ...]:
    return tuple(line.form.m for line in made.tiling.lines)


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=10)
@given(layer=layers(), way=st.sampled_from(WAYS))
def test_drawn_layers(layer: Any, way: str, cpu: str) -> None:
    shape, attributes, m = layer
    target = find_target(cpu)
    machine = forced(target, lambda made: along(made) == m, way_of(way))
    assert compare(conv(shape, **attributes), machine, target) <= 2e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kernel", "m"), [(3, 2), (3, 4), (5, 4)])
def test_forms_in_loops(kernel: int, m: int, way: str) -> None:
    """By the interpreter, which watches every access, with borders on all sides and blocks that end
    within a row."""
    target = find_target("x86-64-v3")
    kind = way_of(way)
    machine = forced(target, lambda made: along(made) == (m, m) and kind(made))
    graph = conv((2, 9, 5, 9), channels=12, kernel=kernel)
    assert compare(graph, machine, target, "loops") <= 1e-5


def test_one_dimension_and_three() -> None:
    target = find_target()
    machine = forced(target, lambda made: True)
    assert compare(conv((2, 40, 33), channels=24, kernel=3), machine, target) <= 2e-6
    graph = conv((1, 20, 5, 9, 12), channels=40, kernel=(1, 3, 3))
    assert compare(graph, machine, target) <= 2e-6


def test_large_filters_are_read_by_one_piece_each() -> None:
    target = find_target()
    for apart in (False, True):
        machine = forced(
            target, lambda made, apart=apart: made.apart == apart and along(made)[0] == 4
        )
        assert compare(conv((1, 300, 7, 7), channels=200, kernel=3), machine, target) <= 5e-6


LATE = {
    "3x3": ((2, 40, 20, 20), 70, (3, 3), (4, 4), False),
    "3x3 turned": ((2, 32, 13, 9), 48, (3, 3), (6, 6), True),
    "5x5 turned": ((1, 16, 9, 9), 16, (5, 5), (2, 2), True),
    "1x7 turned": ((1, 24, 9, 9), 80, (1, 7), (1, 2), True),
}


@pytest.mark.parametrize(
    ("layer", "way"),
    [(layer, way) for layer in LATE for way in WAYS if (layer, way) != ("1x7 turned", "rows")],
)
def test_filters_that_are_known_in_calls_only(layer: str, way: str) -> None:
    """Data gradients are of this kind, turned round; a kernel transforms what was packed, or who
    needs them does."""
    shape, channels, kernel, m, flip = LATE[layer]
    target = find_target()
    b = Builder()
    x = b("relu", b.input("x", *shape))
    late = {"weight": b.input("w", channels, shape[1], *kernel)}
    how = {"channels": channels, "kernel": kernel, "flip": flip, "bias": False}
    graph = b.output(y=b("conv", x, states=late, **how))
    rather = way_of(way)
    machine = forced(target, lambda made: along(made) == m and rather(made))
    assert compare(graph, machine, target) <= 2e-5


def test_filters_of_many_tiles_are_held_as_they_are_written() -> None:
    """Their transforms are a small part of what is done with them; where tiles are few they are
    not, and filters lie transformed. The plan that is taken is never much above the cheapest."""
    target = find_target("x86-64-v3", "x86_64-unknown-linux-gnu")
    for size, rows in ((60, True), (12, False)):
        graph = conv((1, 256, size, size), channels=256, kernel=3)
        choices = lower(graph, cpu_machine(target), "t").choices
        choice = next(choice for choice in choices if choice.schedule == "winograd")
        taken = plan(choice.task, target)
        assert taken is not None
        assert taken.rows == rows
        assert taken.read.size == 256 * 256 * (9 if rows else taken.tiling.products)
        assert taken.cycles <= 1.2 * min(made.cycles for made in plans(choice.task, target))


# Errors


def mixed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Elements of scales from a thousandth to a thousand, by channel."""
    scale = 10.0 ** rng.uniform(-3, 3, (1, shape[1], *[1] * (len(shape) - 2)))
    return (rng.standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("m", [(2, 2), (4, 4), (6, 6)], ids=str)
@pytest.mark.parametrize("channels", [16, 64, 512])
def test_errors_stay_within_a_ten_thousandth_of_the_range(
    m: tuple[int, int], channels: int, rows: bool
) -> None:
    target, rng = find_target(), np.random.default_rng(channels)
    b = Builder()
    graph = b.output(
        y=b("conv", b("relu", b.input("x", 1, channels, 14, 14)), channels=32, kernel=3)
    )
    arrays = in_f32(graph)
    arrays["x"] = mixed(rng, (1, channels, 14, 14))
    doubles = {name: a.astype(np.float64) for name, a in arrays.items()}
    expected = evaluate_graph(graph, doubles)["y"]
    machine = forced(target, lambda made: along(made) == m and made.rows == rows)
    lowered = lower(graph, machine, "test")
    error = np.abs(outputs(lowered, arrays, target) - expected).max()
    assert error <= 2e-5 * np.ptp(expected)


def test_no_form_amplifies_more_than_is_allowed() -> None:
    target = find_target()
    for kernel in (3, 5, (1, 7), (3, 5), (5, 7), (7, 7)):
        graph = conv((1, 32, 20, 20), channels=32, kernel=kernel)
        for choice in lower(graph, cpu_machine(target), "t").choices:
            for made in plans(choice.task, target):
                assert 0 < made.tiling.amplification <= AMPLIFICATION


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_no_number_stays_in_its_tiles(bad: float) -> None:
    """Where a window holds it the result is no finite number; it may spread over the tiles that
    read it, and no further."""
    target = find_target()
    b = Builder()
    x = b("neg", b.input("x", 1, 16, 20, 20))
    graph = b.output(y=b("conv", x, channels=16, kernel=3))
    lowered = lower(graph, forced(target, lambda made: along(made) == (4, 4)), "test")
    arrays = in_f32(graph)
    clean = outputs(lowered, arrays, target)
    arrays["x"][0, 3, 9, 9] = bad
    y = outputs(lowered, arrays, target)
    assert not np.isfinite(y[0, :, 8:11, 8:11]).any()
    outside = np.ones((20, 20), bool)
    outside[8:12, 8:12] = False  # the tile of rows and columns 8 to 11 alone reads 7 to 12
    np.testing.assert_array_equal(y[:, :, outside], clean[:, :, outside])


# Filters


@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
def test_filters_are_transformed_in_double_precision(flips: tuple[bool, bool]) -> None:
    """[G][tile][product][C][channel of the tile]; behind all whole tiles what is left of each G."""
    pack = WinogradPack((5, 3, 3, 5), (4, 2), flips, 2, 2, (2,))
    w = np.random.default_rng(0).standard_normal((10, 3, 3, 5)).astype(np.float32)
    out = np.full(pack.size, np.nan, np.float32)
    pack.pack(w, out)
    own = w[:, :, :: -1 if flips[0] else 1, :: -1 if flips[1] else 1].astype(float)
    g, h = (np.array(PointForm(m, r).g, float) for m, r in ((4, 3), (2, 5)))
    u = np.einsum("ir,kcrs,js->kijc", g, own, h).reshape(2, 5, 36, 3)
    u = np.concatenate([u, np.zeros((2, 1, 36, 3))], axis=1)  # filled up to vectors of 2
    whole = u[:, :4].transpose(0, 2, 3, 1).reshape(-1)
    rest = u[:, 4:].transpose(0, 2, 3, 1).reshape(-1)
    np.testing.assert_allclose(out, np.concatenate([whole, rest]), rtol=1e-6, atol=1e-6)
    assert pack.start(1, 0, 2) == whole.size // 2
    assert pack.start(1, 2, 1) == whole.size + rest.size // 2


# Who runs them


def schedules_of(graph: Graph, machine: Machine) -> set[str]:
    return {choice.schedule for choice in lower(graph, machine, "t").choices}


def test_layers_that_pay_and_layers_that_do_not() -> None:
    machine = cpu_machine(find_target("x86-64-v4", "x86_64-unknown-linux-gnu"))
    assert "winograd" in schedules_of(conv((1, 64, 56, 56), channels=64, kernel=3), machine)
    assert "winograd" in schedules_of(conv((1, 256, 14, 14), channels=256, kernel=3), machine)
    assert "winograd" in schedules_of(conv((8, 512, 7, 7), channels=512, kernel=3), machine)
    for shape, attributes in (
        ((1, 64, 56, 56), {"kernel": 1}),
        ((1, 64, 56, 56), {"kernel": 3, "stride": 2}),
        ((1, 512, 1, 1), {"kernel": 3}),
        ((1, 3, 56, 56), {"kernel": 3}),
    ):
        graph = conv(shape, channels=64, **attributes)
        assert "winograd" not in schedules_of(graph, machine)


def test_double_precision_is_left_alone() -> None:
    b = Builder()
    x = b("relu", b.input("x", 1, 64, 28, 28, dtype=DType.F64))
    graph = b.output(y=b("conv", x, channels=64, kernel=3))
    assert "winograd" not in schedules_of(graph, cpu_machine(find_target()))


def test_a_machine_without_it() -> None:
    machine = cpu_machine(find_target())
    graph = conv((1, 64, 56, 56), channels=64, kernel=3)
    without = machine.without("winograd")
    assert "winograd" in schedules_of(graph, machine)
    assert "winograd" not in schedules_of(graph, without)
    assert without.facts != machine.facts


def test_explanations_name_the_form_and_the_error() -> None:
    graph = conv((1, 64, 56, 56), channels=64, kernel=3)
    choices = lower(graph, cpu_machine(find_target()), "t").choices
    notes = {choice.schedule: choice.note for choice in choices}
    assert notes["winograd"].startswith("F(")
    assert ", errors x " in notes["winograd"]
    assert {note for schedule, note in notes.items() if schedule != "winograd"} == {""}
