"""Contractions by products of warp groups: their source and their PTX run on the processor, against
double precision; and what is multiplied otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from contractions_on_cards import check, lowered_for
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS, Caught, Order
from graphs import Builder
from group_units import FAULTS, group_matmul
from kernels import program_of
from layer_steps import step_graph

from convdsl.autodiff import gradients
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.group_mma import GroupForm
from convdsl.kernel.nodes import GroupMma, walk_statements
from convdsl.kernel.verify import KernelError
from convdsl.lowering.lower import Lowered
from convdsl.passes import run as run_passes
from convdsl.schedules.cuda import plan, tile
from convdsl.schedules.cuda.tile import Tile
from convdsl.tensor import DType
from convdsl.tensor.conversion import nearest_tf32

TF32, BF16 = (CudaTarget("sm_90a", precision) for precision in ("high", "medium"))
TARGETS = {"tf32": TF32, "bf16": BF16}


TILES = len([tile for tile in tile.tiles_for(BF16, DType.BF16, DType.BF16) if tile.grouped])


@pytest.fixture(autouse=True)
def only_groups(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Small products too, which would really be run by single warps; by the smallest tile, or by
    the one that the test asks for."""
    wanted = getattr(request, "param", TILES - 1)

    def tiles_for(target: CudaTarget, a: DType, b: DType) -> tuple[Tile, ...]:
        made = tile.tiles_for(target, a, b)
        grouped = tuple(t for t in made if t.grouped)
        return grouped[wanted : wanted + 1] or made

    plan.plan_for.cache_clear()
    monkeypatch.setattr(plan, "tiles_for", tiles_for)
    yield
    plan.plan_for.cache_clear()


def conv(
    shape: tuple[int, ...], channels: int, kernel: int | tuple[int, ...], **more: Any
) -> Graph:
    """A convolution of what another kernel made, between maps."""
    b = Builder()
    x = b("relu", b("conv", b.input("x", shape[0], 2, *shape[2:]), channels=shape[1], kernel=1))
    made = b("conv", x, **{"channels": channels, "kernel": kernel, "pad": "same", **more})
    return b.output(y=b("relu", made))


LAYERS: dict[str, Graph] = {
    "ragged channels": conv((2, 56, 9, 7), 112, 3),
    "strided": conv((1, 40, 11, 9), 70, 3, stride=2),
    "pixels": conv((3, 64, 5, 5), 33, 1),
    "dilated": conv((1, 16, 12, 10), 64, 3, dilation=3),
    "long": conv((1, 256, 5, 4), 20, 3),
    "three axes": conv((1, 8, 5, 6, 7), 18, (3, 1, 2), pad="valid"),
}


def products(lowered: Lowered) -> int:
    return sum(
        isinstance(statement, GroupMma)
        for kernel in lowered.program.kernels
        for statement in walk_statements(kernel.body)
    )


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions(layer: str, name: str) -> None:
    graph, target = LAYERS[layer], TARGETS[name]
    assert products(lowered_for(graph, target))
    order = list(ORDERS)[(list(LAYERS).index(layer) + list(TARGETS).index(name)) % len(ORDERS)]
    check(graph, target, order)


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16])
@pytest.mark.parametrize("op", ["conv", "linear"])
def test_training_steps(op: str, dtype: DType) -> None:
    """Of halves, by weights that are packed in calls; what is sent back, too."""
    shape, attributes = STEPS[op]
    half, exact = (step_graph(op, shape, attributes, of) for of in (dtype, DType.F64))
    target = CudaTarget("sm_90a")
    assert products(lowered_for(half, target))
    tolerance = 1.5e-2 if dtype is DType.BF16 else 2e-3
    check(half, target, "shuffled", tolerance=tolerance, exact=exact, scale=0.25)


def filters_step(images: int, **more: Any) -> Graph:
    """A step down the gradient of the first filters of two, between maps."""
    b = Builder()
    x = b("relu", b("conv", b.input("x", images, 3, 7, 5), channels=24, kernel=1))
    first = {"channels": 64, "kernel": 3, "pad": "same", **more}
    h = b("conv", x, name="first", bias=False, **first)
    y = b("conv", h, name="second", channels=8, kernel=1, bias=False)
    weight = b.graph.states["first.weight"].output
    (dw,) = gradients(b.graph, {y: y}, [weight], b.build)
    assert dw is not None
    b.update(weight, b("sub", weight, b("mul", dw, b.constant("rate", 1e-2, DType.F32))))
    return run_passes(b.output(y=y))


@pytest.mark.dear
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("images", [5, 8, 36])
def test_gradients_of_filters(images: int, name: str) -> None:
    """Both factors lie along channels: of halves products take them so, in TF32 with the images
    inside they lie along the depth."""
    graph, target = filters_step(images), TARGETS[name]
    lowered = lowered_for(graph, target)
    (chosen,) = (
        choice.task
        for choice in lowered.choices
        if choice.kernel.startswith("conv_grad_weight") and "_sum" not in choice.kernel
    )
    made = plan.plan_for(chosen, target)
    assert made is not None
    assert made.tile.grouped
    assert made.tile.across == (name == "bf16")
    assert [layout.axis for _, layout in made.laid] == ([] if made.tile.across else [0, 0])
    check(graph, target, "mixed")


@pytest.mark.dear
@pytest.mark.ladder
@pytest.mark.parametrize("name", TARGETS)
def test_gradients_of_filters_as_ptx(name: str) -> None:
    check(filters_step(12), TARGETS[name], "shuffled", ptx=True)


STEPS = {
    "conv": ((2, 24, 9, 6), {"channels": 64, "kernel": 3, "pad": "same"}),
    "linear": ((33, 64), {"channels": 72}),
}


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("only_groups", range(TILES), indirect=True)
def test_tiles(only_groups: None) -> None:
    """Of every size, with more rows and columns than there are."""
    for target in TARGETS.values():
        check(LAYERS["ragged channels"], target, "mixed")
    check(filters_step(5), BF16, "mixed")


SIZES = (70, 50, 90)


def wrong_by(fault: str, order: Order) -> float:
    """The largest error of a product by hand with a mistake."""
    program = program_of(group_matmul(GroupForm(DType.F32, 64), *SIZES, fault))
    random, (m, n, k) = np.random.default_rng(3), SIZES
    x, y = (nearest_tf32(random.standard_normal((rows, k + 2)).astype("f4")) for rows in (m, n))
    arrays = {"a": x.reshape(-1), "b": y.reshape(-1)}
    inputs = [arrays[port.name] for port in program.inputs]
    module = print_module(program, TF32)
    (found,) = run_on_cpu(program, module, np.empty(0, np.uint8), inputs, order=order)
    exact = x[:, :k].astype("f8") @ y[:, :k].astype("f8").T
    return float(np.max(np.abs(np.nan_to_num(found.reshape(m, n), nan=np.inf) - exact)))


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault: str) -> None:
    """By the verifier, by a detector, or by what comes out, in some order of threads."""
    seen = 0
    for order in ORDERS.values():
        try:
            seen += wrong_by(fault, order) > 1e-4
        except (KernelError, Caught):
            seen += 1
    assert seen


def test_without_a_fault() -> None:
    assert wrong_by("", ORDERS["mixed"]) < 1e-4


@pytest.mark.dear
@pytest.mark.ladder
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("layer", ["strided", "long"])
def test_as_ptx(layer: str, name: str) -> None:
    check(LAYERS[layer], TARGETS[name], "mixed", ptx=True)
