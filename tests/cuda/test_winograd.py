"""Winograd convolutions on cards: their CUDA source and PTX run on the processor, against double
precision; who runs them; what compilers make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from contractions_on_cards import close
from cuda_shim.card import ptx_of
from cuda_shim.modules import compile_ptx
from cuda_shim.programs import run_launches, run_on_cpu
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_results, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import step_graph
from lowering.test_second_target import packed
from machine_code import compiled
from schedules.test_winograd import layers

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import ARCHITECTURES, REGISTERS_SM, CudaTarget
from convdsl.kernel.interpret import interpret_program
from convdsl.lowering.lower import Lowered, lower
from convdsl.lowering.recipe import packings_from_json, packings_to_json
from convdsl.schedules.cuda.frame import THREADS
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.schedules.cuda.winograd import emit_as
from convdsl.schedules.cuda.winograd_plan import Winograd, forms
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.winograd import PointForm
from convdsl.tensor.conversion import nearest_tf32

pytestmark = pytest.mark.drawn

A100, T4 = CudaTarget("sm_80"), CudaTarget("sm_75")
UNITS = CudaTarget("sm_90", "high")
MOST = {"highest": 2e-5, "high": 1.2e-3}
"""The largest error over the range of a result: F(6, 3) of drawn channels, as on processors; of
few channels F(2, 3) in TF32."""


@lru_cache(maxsize=16)
def forced(target: CudaTarget, outputs: tuple[int, ...] | None = None) -> Machine:
    """A card whose convolutions run by one form wherever it applies, or by any that is best."""

    def chosen(task: Task) -> Winograd | None:
        fitting = (
            made
            for made in forms(task, target)
            if outputs in (None, tuple(line.form.m for line in made.tiling.lines))
        )
        return min(fitting, key=lambda made: made.nanoseconds(target), default=None)

    def emit(task: Task, name: str) -> Scheduled:
        made = chosen(task)
        assert made is not None
        return emit_as(made, target, name)

    machine = cuda_machine(target)
    own = Schedule("winograd", lambda task: 0.0 if chosen(task) else None, emit)
    others = tuple(s for s in machine.schedules if s.name != "winograd")
    return replace(machine, schedules=(own, *others), facts=f"{machine.facts} {outputs}")


def conv(shape: tuple[int, ...], *, made: bool = True, **attributes: Any) -> Graph:
    """Of a map that another kernel made, so that its channels lie inside, or of the plain input;
    with an epilogue that reads another map."""
    b = Builder()
    x = b.input("x", *shape)
    if made:
        x = b("conv", x, channels=shape[1], kernel=1, bias=False)
    y = b("conv", x, **attributes)
    return rewritten(b.output(y=b("relu", b("add", y, b.input("skip", *y.type.sizes)))))


def check(
    graph: Graph,
    machine: Machine,
    target: CudaTarget,
    order: str = "forward",
    way: str = "source",
) -> Lowered:
    """Compare outputs and new states with double precision."""
    lowered = lower(graph, machine, "test")
    assert "winograd" in ran(lowered)
    arrays = {
        name: a.astype("f4") if a.dtype.kind == "f" else a
        for name, a in random_arrays(graph, seed=7).items()
    }
    program, weights = lowered.program, packed(lowered, arrays)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in program.inputs]
    states = {port.name: np.array(arrays[port.name], order="C") for port in program.states}
    held = list(states.values())
    if way == "loops":
        found = interpret_program(program, weights, inputs, held)
    else:
        module = print_module(program, target)
        if way == "source":
            found = run_on_cpu(program, module, weights, inputs, held, ORDERS[order])
        else:
            library = compile_ptx(ptx_of(module.source, target.arch))
            found = run_launches(program, module, library, weights, inputs, held, ORDERS[order])
    doubles = {n: a.astype("f8") if a.dtype.kind == "f" else a for n, a in arrays.items()}
    truth, new = evaluate_results(graph, doubles)
    pairs = {port.name: a for port, a in zip(program.outputs, found, strict=True)} | states
    for name, array in pairs.items():
        close(array, {**truth, **new}[name], MOST[target.precision], name)
    return lowered


def ran(lowered: Lowered) -> list[str]:
    return [choice.schedule for choice in lowered.choices]


# Numbers


@pytest.mark.dear
@settings(max_examples=6)
@given(layer=layers(), order=st.sampled_from(list(ORDERS)), made=st.booleans())
def test_drawn_layers(layer: Any, order: str, made: bool) -> None:
    """Groups, dilation, odd borders, two filters' sizes, filters turned round, ragged channels."""
    shape, attributes, outputs = layer
    small = (min(shape[0], 2), *shape[1:])
    check(conv(small, made=made, **attributes), forced(A100, outputs), A100, order)


LAYERS: Mapping[str, tuple[Graph, tuple[int, ...]]] = {
    "F(2, 3)": (conv((2, 10, 9, 7), channels=13, kernel=3, pad="same"), (2, 2)),
    "F(4, 3)": (conv((2, 10, 9, 7), channels=13, kernel=3, pad="same"), (4, 4)),
    "F(6, 3)": (conv((1, 7, 8, 13), channels=6, kernel=3, pad=2), (6, 6)),
    "F(4, 5)": (conv((1, 8, 9, 5), channels=9, kernel=5, pad="same"), (4, 4)),
    "one pixel": (conv((3, 5, 1, 1), channels=3, kernel=3, pad="same"), (4, 4)),
    "one channel": (conv((1, 1, 6, 11), channels=1, kernel=3), (2, 2)),
    "groups": (conv((2, 16, 6, 7), channels=24, kernel=3, groups=2, pad="same"), (4, 4)),
    "along one axis": (conv((2, 6, 5, 9), channels=8, kernel=(1, 7), pad="same"), (1, 2)),
    "a plain input": (conv((2, 6, 7, 9), made=False, channels=8, kernel=3, pad="same"), (4, 4)),
    "dilated": (conv((1, 6, 13, 9), channels=8, kernel=3, dilation=(2, 3), pad="same"), (4, 4)),
}


@pytest.mark.parametrize(
    ("layer", "order"),
    [
        pytest.param(layer, order, marks=[] if (i + j) % 4 == 0 else [pytest.mark.slow])
        for i, layer in enumerate(LAYERS)
        for j, order in enumerate(ORDERS)
    ],
)
def test_layers(layer: str, order: str) -> None:
    (graph, outputs), target = LAYERS[layer], (A100, T4)[list(LAYERS).index(layer) % 2]
    check(graph, forced(target, outputs), target, order)


@pytest.mark.dear
def test_by_loops() -> None:
    """The interpreter watches every access."""
    graph = conv((1, 3, 5), channels=2, kernel=3, pad="same")
    check(graph, forced(A100, (2,)), A100, way="loops")


SQUARE = (2, 2)
ROUNDED: Mapping[str, Graph] = {
    "ragged": conv((2, 10, 9, 7), channels=13, kernel=3, pad="same"),
    "dilated groups": conv((1, 16, 9, 8), channels=24, kernel=3, groups=2, dilation=2),
    "a plain input": conv((2, 6, 7, 9), made=False, channels=8, kernel=3, pad="same"),
    "long sums": conv((1, 520, 2, 2), channels=8, kernel=3, pad="same"),
    "step": step_graph("conv", (2, 9, 9, 6), {"channels": 14, "kernel": 3, "pad": "same"}),
    "groups in a step": step_graph(
        "conv", (1, 8, 7, 9), {"channels": 16, "kernel": 3, "groups": 2}
    ),
}


@pytest.mark.dear
@pytest.mark.parametrize("way", ["source", "ptx"])
@pytest.mark.parametrize("layer", ROUNDED)
def test_products_in_tf32(layer: str, way: str) -> None:
    """Known filters are rounded as they are packed, others and inputs as they are transformed."""
    check(ROUNDED[layer], forced(UNITS, SQUARE), UNITS, "shuffled", way)


def test_an_input_that_lies_rounded() -> None:
    """What nobody else reads is stored as TF32: the transform widens it."""
    b = Builder()
    x = b("relu", b.input("x", 1, 16, 6, 6))
    graph = b.output(y=b("conv", x, channels=16, kernel=3, pad="same"))
    lowered = check(graph, forced(UNITS, SQUARE), UNITS)
    types = {k.name: [str(e.dtype) for e in k.buffers] for k in lowered.program.kernels}
    (inputs,) = [types[name] for name in types if name.endswith("_inputs")]
    assert inputs == ["tf32", "tf32"]


def spread_out(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Any:
    """Numbers of one kind, f32: of every size, all positive, few large ones, far from zero."""
    drawn = rng.standard_normal(shape)
    return {
        "normal": drawn,
        "positive": np.abs(drawn),
        "of every size": drawn * np.exp(2 * rng.standard_normal(shape)),
        "far from zero": drawn + 10,
        "whole": np.round(drawn * 64),
        "huge": drawn * 1e15,
    }[kind].astype("f4")


@pytest.mark.parametrize("filters", ["normal", "of every size"])
@pytest.mark.parametrize(
    "inputs", ["normal", "positive", "of every size", "far from zero", "whole", "huge"]
)
@pytest.mark.parametrize("channels", [64, 512])
def test_errors_in_tf32(channels: int, inputs: str, filters: str) -> None:
    """F(2, 3) with V and U rounded, by NumPy, over the range of the outputs."""
    rng, (a, g, b) = np.random.default_rng(channels), map(of_form, ("a", "g", "b"))
    x = spread_out(rng, inputs, (channels, 18, 18))
    w = spread_out(rng, filters, (8, channels, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(x.astype("f8"), (3, 3), (1, 2))
    truth = np.einsum("cijrs,kcrs->kij", windows, w.astype("f8"), optimize=True)
    tiles = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (1, 2))[:, ::2, ::2]
    v = nearest_tf32((b.astype("f4") @ tiles @ b.T.astype("f4")).astype("f4"))
    u = nearest_tf32((g @ w @ g.T).astype("f4"))
    m = np.einsum("cijab,kcab->kijab", v.astype("f8"), u.astype("f8"), optimize=True)
    y = (a @ m @ a.T).transpose(0, 1, 3, 2, 4).reshape(truth.shape)
    assert np.abs(y - truth).max() <= 1e-3 * np.abs(truth).max()


def of_form(matrix: str) -> Any:
    return np.array(getattr(PointForm(2, 3), matrix), float)


@pytest.mark.dear
@pytest.mark.parametrize("layer", ["F(4, 3)", "groups"])
def test_as_ptx(layer: str) -> None:
    graph, outputs = LAYERS[layer]
    check(graph, forced(A100, outputs), A100, "shuffled", "ptx")


STEPS: Mapping[str, Graph] = {
    "ragged": step_graph("conv", (2, 9, 9, 6), {"channels": 14, "kernel": 3, "pad": "same"}),
    "groups": step_graph("conv", (1, 8, 7, 9), {"channels": 16, "kernel": 3, "groups": 2}),
    "5 by 5": step_graph("conv", (1, 6, 9, 9), {"channels": 10, "kernel": 5, "pad": 1}),
}


@pytest.mark.dear
@pytest.mark.parametrize("outputs", [(2, 2), (4, 4)])
@pytest.mark.parametrize("step", STEPS)
def test_steps(step: str, outputs: tuple[int, ...]) -> None:
    """Filters that change are transformed in calls; gradients of data are such convolutions."""
    lowered = check(STEPS[step], forced(A100, outputs), A100, "mixed")
    names = {choice.kernel for choice in lowered.choices if choice.schedule == "winograd"}
    assert sum(name.endswith("_filters") for name in names) == 2


def test_long_sums_are_cut_into_parts() -> None:
    """Few tiles, many channels: parts of the products are added by one kernel more."""
    graph = conv((1, 520, 2, 2), channels=8, kernel=3, pad="same")
    lowered = check(graph, forced(A100, (2, 2)), A100, "shuffled")
    assert any(k.name.endswith("_products_sum") for k in lowered.program.kernels)


def test_a_map_that_the_epilogue_reads_too() -> None:
    b = Builder()
    x = b("conv", b.input("x", 2, 3, 6, 9), channels=10, kernel=1, bias=False)
    y = b("conv", x, channels=10, kernel=3, pad="same")
    check(rewritten(b.output(y=b("add", y, x))), forced(A100), A100)


def test_nothing_reaches_other_tiles() -> None:
    """An infinity stays within the outputs of the tiles that read it, NaN in another image, too."""
    b = Builder()
    x = b("relu", b.input("x", 2, 4, 12, 12))
    graph = b.output(y=b("conv", x, channels=4, kernel=3, pad="same"))
    lowered = lower(graph, forced(A100, (4, 4)), "test")
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=1).items()}
    clean = dict(arrays)
    for name, value in (("x", np.inf), ("x", np.nan)):
        arrays = {**clean, name: clean[name].copy()}
        arrays[name][0, 1, 0, 0] = value
        made, truth = (
            run_on_cpu(
                lowered.program, print_module(lowered.program, A100), packed(lowered, own),
                [own["x"]], [],
            )[0]
            for own in (arrays, clean)
        )  # fmt: skip
        changed = np.argwhere(made.view("u4") != truth.view("u4"))
        assert len(changed)
        assert changed[:, 0].max() == 0
        assert changed[:, 2:].max() < 4


# Who runs them


def layer(shape: tuple[int, ...], channels: int, **more: Any) -> Graph:
    attributes: dict[str, Any] = {"channels": channels, "kernel": 3, "pad": "same", **more}
    return conv(shape, **attributes)


def chosen(graph: Graph, target: CudaTarget = A100, *without: str) -> bool:
    return "winograd" in ran(lower(graph, cuda_machine(target).without(*without), "test"))


@pytest.mark.dear
def test_where_it_pays() -> None:
    deep = layer((32, 128, 28, 28), 128)
    for arch in ("sm_75", "sm_80", "sm_86", "sm_90", "sm_120"):
        assert chosen(deep, CudaTarget(arch)), arch
    assert not chosen(layer((32, 4, 28, 28), 4))  # the bytes of transforms are the most of it
    assert not chosen(layer((1, 512, 7, 7), 512), CudaTarget("sm_90"))  # those of filters are


@pytest.mark.dear
def test_tensor_units_ask_for_more_channels() -> None:
    """And for forms that let rounding grow little; in bf16 it is never small enough."""
    deep, shallow = layer((32, 512, 28, 28), 512), layer((32, 128, 56, 56), 128)
    for arch in ("sm_80", "sm_90"):
        assert chosen(deep, CudaTarget(arch, "high"))
        assert not chosen(shallow, CudaTarget("sm_90", "high"))
        assert not chosen(deep, CudaTarget(arch, "medium"))
        assert not chosen(deep, CudaTarget(arch, "high"), "winograd")
    assert chosen(deep, CudaTarget("sm_75", "high"))  # which has f32 alone
    task = next(
        c.task for c in lower(deep, cuda_machine(UNITS), "t").choices if c.schedule == "winograd"
    )
    assert {made.said for made in forms(task, UNITS)} == {"F(2, 3) x F(2, 3), errors x 1.7"}


def test_it_can_be_forbidden() -> None:
    assert not chosen(layer((32, 128, 28, 28), 128), A100, "winograd")


@pytest.mark.parametrize("more", [{"stride": 2}, {"kernel": 1}, {"kernel": 9}, {"groups": 64}])
def test_what_it_leaves_alone(more: dict[str, Any]) -> None:
    assert "winograd" not in ran(lower(layer((2, 128, 14, 14), 128, **more), forced(A100), "test"))


def test_the_form_is_said() -> None:
    (own,) = [s for s in cuda_machine(A100).schedules if s.name == "winograd"]
    choices = lower(layer((32, 128, 28, 28), 128), cuda_machine(A100), "test").choices
    notes = {own.note(c.task) for c in choices if c.schedule == "winograd"}
    assert notes == {"F(6, 3) x F(6, 3), errors x 15.4"}


def test_kept_recipes_transform_filters() -> None:
    """What an artifact says of weights packs them as they were."""
    graph, outputs = LAYERS["groups"]
    machine = forced(A100, outputs)
    lowered = lower(graph, machine, "test")
    rows = packings_to_json(graph, machine, lowered.packings)
    assert "FilterMatrices" in {row["form"] for row in rows}
    assert packings_from_json(graph, machine, rows) == lowered.packings


# Machine code

GATED: Mapping[str, tuple[Graph, tuple[int, ...]]] = {
    "F(2, 3)": (layer((32, 64, 56, 56), 64), (2, 2)),
    "F(4, 3)": (layer((32, 64, 56, 56), 64), (4, 4)),
    "F(6, 3)": (layer((32, 62, 56, 56), 66), (6, 6)),
    "F(4, 5)": (layer((8, 48, 28, 28), 64, kernel=5), (4, 4)),
    "step": (
        step_graph("conv", (16, 64, 28, 28), {"channels": 128, "kernel": 3, "bias": False}),
        (4, 4),
    ),
}
CASES = [
    pytest.param(name, arch, marks=[] if (i + j) % 7 == 0 else [pytest.mark.slow])
    for i, name in enumerate(GATED)
    for j, arch in enumerate(ARCHITECTURES)
]


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("name", "arch"), CASES)
def test_resources(name: str, arch: str) -> None:
    """Nothing spills, two blocks of transforms fit a multiprocessor; products are multiply-adds."""
    gated(*GATED[name], CudaTarget(arch))


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", ["F(2, 3)", "step"])
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "sm_75"])
def test_resources_in_tf32(name: str, arch: str) -> None:
    gated(GATED[name][0], SQUARE, CudaTarget(arch, "high"))


def gated(graph: Graph, outputs: tuple[int, ...], target: CudaTarget) -> None:
    arch = target.arch
    lowered = lower(graph, forced(target, outputs), "test")
    module = print_module(lowered.program, target)
    made = compiled(module.source, arch)
    names = {choice.kernel for choice in lowered.choices if choice.schedule == "winograd"}
    assert len(names) >= 3
    joined = {launch.function for launch in module.launches if launch.steps > 1}
    assert names <= made.keys() or joined  # what waits for nobody shares a launch
    for function in (made[name] for name in {*names & made.keys(), *joined}):
        used = function.resources
        assert used.spills == used.local == 0, f"{function.name}: {used}"
        assert not {code for code in function.codes if code.startswith(("LDL", "STL"))}
        if function.name.endswith("_products"):
            loop = function.main_loop()
            assert loop is not None
            if target.precision == "highest":
                assert loop.count("FFMA") / len(loop.codes) >= 0.6, function.name
            else:
                assert len(loop.codes) / loop.count("HMMA") <= 9, function.name
        else:
            assert used.registers * THREADS * 2 <= REGISTERS_SM, f"{function.name}: {used}"
