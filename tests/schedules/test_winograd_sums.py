"""Gradients of filters with fewer products: numbers against double precision, who is run so, what
errors that makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import in_f32, windows
from executors import executing, interpreting
from graphs import Array, Builder, evaluate_graph, rewritten
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_steps import check, schedules, step_graph

from convdsl.autodiff import gradients
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.runtime.cpu.code import aligned
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.winograd_sums import emit_as
from convdsl.schedules.cpu.winograd_sums_plan import Plan, plans
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.winograd_tiling import AMPLIFICATION
from convdsl.tensor import DType
from convdsl.toolchain import FEWER_PRODUCTS

pytestmark = pytest.mark.drawn

X86 = "x86_64-unknown-linux-gnu"


CPUS = ["native", "x86-64-v3", "x86-64-v2"]


def forced(target: Target, wanted: Callable[[Plan], Plan | None] = lambda made: made) -> Machine:
    """A machine that runs whatever has a plan by the first that is wanted, as it is changed."""

    def chosen(task: Task) -> Plan | None:
        found = (wanted(made) for made in plans(task, target))
        return next((made for made in found if made is not None), None)

    def emit(task: Task, name: str) -> Scheduled:
        made = chosen(task)
        assert made is not None
        return emit_as(task, name, made, target)

    machine = cpu_machine(target)
    own = Schedule("winograd_sums", lambda task: 0.0 if chosen(task) else None, emit)
    others = tuple(s for s in machine.schedules if s.name != "winograd_sums")
    return replace(machine, schedules=(own, *others))


def gradient(shape: tuple[int, ...], op: str = "conv", **attributes: Any) -> Graph:
    """That of a layer's filters alone, from its input and the gradient of its output."""
    b = Builder()
    x = b("neg", b.input("x", *shape))
    y = b(op, x, name="layer", bias=False, **attributes)
    (weight,) = (state.output for state in b.graph.states.values())
    dy = b("neg", b.input("dy", *y.type.sizes))
    (dw,) = gradients(b.graph, {y: dy}, [weight], b.build)
    assert dw is not None
    return rewritten(b.output(dw=dw))


def errors(
    graph: Graph,
    machine: Machine,
    arrays: dict[str, Array] | None = None,
    way: Any = executing,
    target: Target | None = None,
) -> Array:
    """Of every element, in the most that it could be: |dy| |x| of its two channels."""
    arrays = arrays or in_f32(graph)
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})["dw"]
    made = outcome(graph, machine, arrays, way, target)
    x, dy = (norms(arrays[name]) for name in ("x", "dy"))
    groups = len(x) // expected.shape[1]
    own = np.repeat(x.reshape(groups, -1), len(dy) // groups, axis=0)
    bound = (dy[:, None] * own).reshape(*own.shape, *[1] * (expected.ndim - 2))
    return np.abs(made - expected) / np.maximum(bound, 1e-30)


def norms(maps: Array) -> Array:
    """Of every channel."""
    wide = maps.astype(np.float64)
    return np.sqrt(np.square(wide).sum(axis=(0, *range(2, wide.ndim))))


def outcome(
    graph: Graph,
    machine: Machine,
    arrays: dict[str, Array],
    way: Any = executing,
    target: Target | None = None,
) -> Array:
    lowered = lower(graph, machine, "test")
    assert "winograd_sums" in {choice.schedule for choice in lowered.choices}
    how = partial(way, target=target) if target else way
    call = how(lowered, aligned(lowered.program.weight_bytes))
    return call([arrays[port.name] for port in lowered.program.inputs], [])[0]


def sizes(made: Plan) -> tuple[int, ...]:
    """Positions of a tile."""
    return tuple(line.own for line in made.cut.a.lines)


# Numbers


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(input shape, attributes): ragged maps and channels, any borders."""
    kernels = [(3, 3), (3, 3), (3, 3), (5, 5), (2, 2), (4, 4), (1, 7), (7, 1), (1, 3), (3, 5), (3,)]
    window = draw(windows(kernels))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    space = [
        max(1, e - sum(p), draw(st.integers(e - 1, e + 18)))
        for e, p in zip(window.reach, window.pad, strict=True)
    ]
    channels = st.sampled_from([16, 32, 48]) if groups > 1 else st.integers(1, 70)
    attributes = {
        "channels": groups * draw(channels),
        **window.attributes,
        "groups": groups,
        "flip": draw(st.booleans()),
    }
    return (draw(st.sampled_from([1, 1, 2, 5])), groups * draw(channels), *space), attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(deadline=None, max_examples=12)
@given(layer=layers(), form=st.integers(0, 2), block=st.integers(1, 40), own=st.integers(1, 4))
def test_drawn_layers(layer: Any, form: int, block: int, own: int, cpu: str) -> None:
    """By any form, in blocks, shares and parts of any size."""
    shape, attributes = layer
    target = find_target(cpu)
    graph = gradient(shape, **attributes)
    tasks = [choice.task for choice in lower(graph, cpu_machine(target), "t").choices]
    forms = list(dict.fromkeys(sizes(made) for task in tasks for made in plans(task, target)))
    assume(forms)  # one channel of either, or one position, is another kind of sum
    size = forms[form % len(forms)]
    machine = forced(target, lambda made: cut_up(made, block, own) if sizes(made) == size else None)
    assert errors(graph, machine, target=target).max() <= 2e-6


def cut_up(made: Plan, block: int, own: int) -> Plan:
    """In blocks of so many tiles, `own` of them a share, and parts of a register tile."""
    total = made.cut.a.count
    block = min(block, total)
    blocks = -(-total // block)
    each = min(own, blocks)
    return replace(
        made,
        block=block,
        shares=-(-blocks // each),
        part=(min(made.tile.blocks, made.vectors[0]), 1),
    )


@pytest.mark.dear
@pytest.mark.parametrize("size", [2, 4, 6])
def test_loops_are_sound(size: int) -> None:
    """By the interpreter, which watches every access: borders on all sides, blocks that end within
    a row, parts and shares that are not full."""
    target = find_target("x86-64-v3", X86)
    graph = gradient((3, 20, 5, 9), channels=27, kernel=3, pad=((2, 1), (0, 2)))

    def wanted(made: Plan) -> Plan | None:
        return cut_up(made, 5, 2) if sizes(made) == (size, size) else None

    assert errors(graph, forced(target, wanted), way=interpreting).max() <= 1e-6


@pytest.mark.parametrize("second", [False, True])
def test_either_factor_may_be_in_vectors(second: bool) -> None:
    target = find_target("x86-64-v3", X86)
    graph = gradient((1, 8, 6, 6), channels=16, kernel=3)

    def wanted(made: Plan) -> Plan | None:
        return made if (made.found.per_group == 8) is second else None

    assert errors(graph, forced(target, wanted), way=interpreting).max() <= 1e-6


LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1-D": ((2, 24, 33), {"channels": 20, "kernel": 3}),
    "3-D, one axis of one tap": ((1, 16, 3, 9, 12), {"channels": 18, "kernel": (1, 3, 3)}),
    "groups": ((2, 32, 9, 9), {"channels": 48, "kernel": 3, "groups": 2}),
    "dilated": ((2, 16, 11, 14), {"channels": 16, "kernel": 3, "dilation": (2, 3)}),
    "map smaller than a tile": ((3, 16, 2, 1), {"channels": 16, "kernel": 3}),
    "turned": ((1, 9, 8, 8), {"channels": 16, "kernel": 3, "flip": True}),
    "few channels": ((2, 1, 12, 12), {"channels": 24, "kernel": 3}),
    "one output": ((2, 24, 12, 12), {"channels": 1, "kernel": 3}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_kinds_of_layers(layer: str) -> None:
    shape, attributes = LAYERS[layer]
    graph = gradient(shape, **attributes)
    assert errors(graph, forced(find_target())).max() <= 1e-6


def test_transposed_convolutions() -> None:
    """The other factor is the one that taps move."""
    graph = gradient((2, 16, 9, 7), "conv_transpose", channels=24, kernel=3, pad=1)
    machine, arrays = forced(find_target()), in_f32(graph)
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})["dw"]
    made = outcome(graph, machine, arrays)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6 * np.ptp(expected))


# Who runs so


def of_weights(graph: Graph, machine: Machine) -> set[str]:
    found = lower(graph, machine, "step").choices
    return {c.schedule for c in found if c.nodes[0] == "layer.dweight"}


def test_it_is_chosen_where_it_is_cheaper() -> None:
    graph = step_graph("conv", (8, 64, 32, 32), {"channels": 64, "kernel": 3})
    machine = cpu_machine(find_target())
    assert of_weights(graph, machine) == {"winograd_sums"}
    assert of_weights(graph, machine.without(*FEWER_PRODUCTS)) == {"correlation"}


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((8, 64, 32, 32), {"channels": 64, "kernel": 1}),
        ((8, 64, 32, 32), {"channels": 64, "kernel": 3, "stride": 2, "pad": 1}),
        ((8, 64, 32, 32), {"channels": 64, "kernel": 3, "groups": 64}),
        ((8, 64, 32, 32), {"channels": 64, "kernel": 3, "groups": 16}),
        ((2, 16, 8, 8, 8), {"channels": 16, "kernel": 3}),
    ],
)
def test_others_have_no_form(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    found = of_weights(step_graph("conv", shape, attributes), forced(find_target()))
    assert found == {"correlation"}


def test_double_precision_is_left_alone() -> None:
    graph = step_graph("conv", (2, 32, 12, 12), {"channels": 32, "kernel": 3}, DType.F64)
    assert of_weights(graph, forced(find_target())) == {"correlation"}


@pytest.mark.parametrize("bias", [False, True])
def test_weights_are_updated_where_sums_end(bias: bool) -> None:
    """The step runs in the kernel that makes rows of the sums."""
    graph = step_graph("conv", (4, 32, 24, 24), {"channels": 48, "kernel": 3, "bias": bias})
    found = schedules(graph)
    assert found["layer.dweight"] == {"winograd_sums"}
    assert "layer.dweight" not in {name for name in found if "update" in name}
    check(graph, executing)


# Errors


@pytest.mark.parametrize("size", [2, 4, 6])
@pytest.mark.parametrize("kind", ["normal", "by channel", "by position", "positive", "huge"])
def test_errors(kind: str, size: int) -> None:
    """Of many tiles; each pair of channels is by itself, so that scales of channels change
    nothing."""
    target, random = find_target(), np.random.default_rng(size)
    graph = gradient((4, 40, 28, 28), channels=24, kernel=3)
    arrays = {name: scaled(random, a.shape, kind) for name, a in in_f32(graph).items()}
    machine = forced(target, lambda made: made if sizes(made) == (size, size) else None)
    assert errors(graph, machine, arrays).max() <= 2e-6


def scaled(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    values = random.standard_normal(shape)
    match kind:
        case "by channel":
            values *= 10.0 ** random.uniform(-6, 6, (1, shape[1], 1, 1))
        case "by position":
            values *= 10.0 ** random.uniform(-3, 3, (1, 1, *shape[2:]))
        case "positive":
            values += 100
        case "huge":
            values *= 1e15
        case _:
            pass
    return values.astype(np.float32)


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_of_nothing(value: float) -> None:
    graph = gradient((2, 16, 12, 12), channels=16, kernel=3)
    arrays = in_f32(graph)
    arrays["dy"][:] = value
    assert not outcome(graph, forced(find_target()), arrays).any()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_no_number_stays_in_its_channels(bad: float) -> None:
    graph = gradient((2, 24, 12, 12), channels=16, kernel=3)
    arrays = in_f32(graph)
    arrays["x"][1, 5, 6, 6] = arrays["dy"][0, 3, 2, 2] = bad
    made = outcome(graph, forced(find_target()), arrays)
    touched = np.zeros(made.shape, bool)
    touched[3], touched[:, 5] = True, True
    np.testing.assert_array_equal(np.isfinite(made), ~touched)


def test_no_form_amplifies_more_than_is_allowed() -> None:
    target = find_target()
    for kernel in (2, 3, 4, 5, (1, 7), (3, 5), (7, 7)):
        graph = gradient((1, 32, 20, 20), channels=32, kernel=kernel, pad="same")
        for choice in lower(graph, cpu_machine(target), "t").choices:
            for made in plans(choice.task, target):
                assert 0 < made.cut.a.amplification <= AMPLIFICATION
