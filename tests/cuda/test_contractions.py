"""Implicit GEMM on cards: its CUDA source run on the processor, against double precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from contractions_on_cards import check, lowered_for, schedules_of
from cuda_shim.running import ORDERS
from drawn_convolutions import conv_graph
from graphs import Builder, rewritten
from layer_steps import step_graph
from schedules.test_products import Sums

from convdsl.ir.graph import Graph
from convdsl.kernel.accesses import accesses
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr, TensorVar
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.gemm import match_gemm
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.schedules.cuda.matrix_pack import MatrixPack, matrix_pack
from convdsl.schedules.cuda.plan import plan_for
from convdsl.tensor import DType, TensorType

F32, TF32, BF16 = (CudaTarget("sm_80", precision) for precision in ("highest", "high", "medium"))
TURING = CudaTarget("sm_75")
TARGETS = {
    "f32": F32,
    "tf32": TF32,
    "bf16": BF16,
    "sm_75": TURING,
    "f16": CudaTarget("sm_80", "float16"),
    "f16 on sm_75": CudaTarget("sm_75", "float16"),
}
pytestmark = pytest.mark.drawn(share=2)

each_target = pytest.mark.parametrize("name", TARGETS)


def one_target_each(names: Iterable[str]) -> list[ParameterSet]:
    """Every name with one of the targets, in turn; with the others where all are asked for."""
    return [
        pytest.param(name, target, marks=[] if (i + j) % len(TARGETS) == 0 else [pytest.mark.slow])
        for i, name in enumerate(names)
        for j, target in enumerate(TARGETS)
    ]


def conv(
    shape: tuple[int, ...], channels: int, kernel: int | tuple[int, ...], **more: Any
) -> Graph:
    """A convolution of what another kernel made, and so lies with its channels last."""
    b = Builder()
    attributes = {"channels": channels, "kernel": kernel, "pad": "same", **more}
    x = b("conv", b.input("x", shape[0], 2, *shape[2:]), channels=shape[1], kernel=1, bias=False)
    return b.output(y=b("conv", x, **attributes))


LAYERS: dict[str, Graph] = {
    "ragged channels": conv((2, 58, 9, 7), 112, 3),
    "three channels": conv((1, 3, 11, 13), 20, 7, stride=2),
    "one channel": conv((1, 1, 9, 9), 17, 5),
    "one position": conv((5, 40, 1, 1), 70, 1, pad="valid"),
    "seven by seven": conv((1, 36, 7, 7), 64, 3, stride=2),
    "one filter": conv((2, 24, 6, 6), 1, 3),
    "eleven by eleven": conv((1, 4, 13, 13), 24, 11, stride=4),
    "dilated": conv((1, 8, 12, 10), 16, 3, dilation=3),
    "groups": conv((1, 24, 6, 8), 36, 3, groups=3),
    "groups of two filters": conv((2, 30, 5, 5), 20, 3, groups=10),
    "one axis": conv((2, 20, 50), 33, 9, stride=3),
    "three axes": conv((1, 6, 5, 6, 7), 18, (3, 1, 2), pad="valid"),
    "plain input": conv_graph((2, 5, 9, 20), {"channels": 33, "kernel": 3, "pad": "same"}),
    "eight plain images": conv_graph((8, 3, 17, 15), {"channels": 20, "kernel": 7, "stride": 2}),
    "a filter turned around": conv((1, 12, 6, 6), 8, 3, flip=True),
}


@pytest.mark.dear
@pytest.mark.parametrize(("layer", "name"), one_target_each(LAYERS))
def test_convolutions(layer: str, name: str) -> None:
    order = list(ORDERS)[(list(LAYERS).index(layer) + list(TARGETS).index(name)) % len(ORDERS)]
    ran = check(LAYERS[layer], TARGETS[name], order)
    assert "implicit_gemm" in ran


BACKWARD: dict[str, Graph] = {
    "conv": step_graph("conv", (2, 8, 9, 6), {"channels": 58, "kernel": 3, "pad": "same"}),
    "strided": step_graph("conv", (1, 12, 9, 8), {"channels": 20, "kernel": 3, "stride": 2}),
    "groups": step_graph("conv", (2, 12, 7, 5), {"channels": 18, "kernel": 3, "groups": 3}),
    "strided groups": step_graph(
        "conv", (2, 16, 8), {"channels": 58, "kernel": 3, "stride": 2, "groups": 2}
    ),
    "pixels": step_graph("conv", (1, 20, 8, 8), {"channels": 36, "kernel": 1, "bias": False}),
    "linear": step_graph("linear", (33, 50), {"channels": 70}),
    "transposed": step_graph(
        "conv_transpose", (1, 9, 5, 6), {"channels": 12, "kernel": 4, "stride": 2}
    ),
}

STRIDED = ("strided", "transposed")


@pytest.mark.dear
@pytest.mark.parametrize(("layer", "name"), one_target_each(BACKWARD))
def test_training_steps(layer: str, name: str) -> None:
    ran = check(BACKWARD[layer], TARGETS[name], "shuffled")
    assert ran.count("implicit_gemm") >= 2


@pytest.mark.parametrize(
    ("layer", "name"), [p for p in one_target_each(BACKWARD) if p.values[0] in STRIDED]
)
def test_phases(layer: str, name: str) -> None:
    """What strides send back, each phase a product of its own."""
    ran = check(BACKWARD[layer], TARGETS[name], "mixed", "phases")
    assert ran.count("phases") >= 4


@pytest.mark.dear
@pytest.mark.drawn
@each_target
def test_phases_in_parts(name: str) -> None:
    """Few tiles and great depth: what adds the parts of a phase up is not given its filters, of
    which the phase takes a part only."""
    graph = step_graph("conv", (1, 8, 9, 8), {"channels": 700, "kernel": 3, "stride": 2})
    lowered = lowered_for(graph, TARGETS[name], "phases")
    ran = check(graph, TARGETS[name], "shuffled", "phases")
    assert ran.count("phases") >= 4
    assert any(kernel.name.endswith("_sum") for kernel in lowered.program.kernels)


FORMULAS = ["ij,jk->ik", "ij,kj->ik", "ji,jk->ik", "ji,kj->ik", "bij,bjk->bik", "bij,bkj->ikb",
            "aibj,bkaj->iak", "ij,j->i", "bhqd,bhkd->bhqk", "bhqk,bhkd->bqhd"]  # fmt: skip
SIZES = {"a": 2, "b": 3, "h": 2, "i": 37, "j": 23, "k": 19, "q": 17, "d": 12}


@pytest.mark.dear
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("inner", ["ab", pytest.param("", marks=pytest.mark.slow)])
def test_products(formula: str, inner: str) -> None:
    target = (F32, BF16)[FORMULAS.index(formula) % 2]
    assert "implicit_gemm" in check(Sums.of(formula, SIZES, inner=inner), target)


@pytest.mark.parametrize("name", ["f32", "bf16"])
def test_by_loops(name: str) -> None:
    """The loops mean the same: copies are waited for, warps are whole, nothing races."""
    check(conv((1, 6, 2, 3), 5, 2, pad="valid"), TARGETS[name], interpreted=True)


# Sums in parts


def split_of(graph: Graph, target: CudaTarget) -> list[int]:
    plans = [plan_for(c.task, target) for c in lowered_for(graph, target).choices]
    return [plan.splits for plan in plans if plan is not None]


@pytest.mark.dear
@each_target
def test_long_sums_are_cut_into_parts(name: str) -> None:
    """Few tiles and great depth: parts are added by a kernel of their own, whatever the order of
    blocks the same to the last bit."""
    graph, target = Sums.of("ij,kj->ik", {"i": 30, "j": 1500, "k": 18}, static="b"), TARGETS[name]
    assert split_of(graph, target)[0] > 1
    for order in ("forward", "shuffled"):
        assert check(graph, target, order)


def test_parts_run_the_epilogue_once() -> None:
    b = Builder()
    x = b("conv", b.input("x", 1, 2, 4, 4), channels=640, kernel=1, bias=False)
    y = b("relu", b("conv", x, channels=10, kernel=3, pad="same"))
    graph = b.output(y=y)
    assert split_of(graph, F32)[-1] > 1
    check(graph, F32)


# What leaves


@pytest.mark.dear
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_read_beside_sums_is_loaded_before_others_are_stored(name: str) -> None:
    """Several vectors at a time: a thread that stored one before it loads the next would wait for
    memory once for each, and no compiler may turn them round where they lie over each other."""
    b = Builder()
    x, r = (b("relu", b.input(key, 3, 48, 17, 9)) for key in "xr")
    y = b("relu", b("add", b("conv", x, channels=48, kernel=1), r))
    graph = rewritten(b.output(y=b("conv", y, channels=24, kernel=1)))
    lowered = lowered_for(graph, TARGETS[name])
    choice = next(c for c in lowered.choices if len(c.nodes) > 1)
    kernel = next(k for k in lowered.program.kernels if k.name.startswith(choice.kernel))
    (made,) = (buffer for buffer in kernel.buffers if buffer.written)
    (beside,) = (
        b for b in kernel.buffers if b.size == made.size and b.name not in ("x0", made.name)
    )
    both = (access for access in accesses(kernel.body) if access.buffer in (made, beside))
    stored = [access.write for access in both]
    assert stored.count(False) >= stored.count(True) >= 4
    turns = sum(before and not after for before, after in pairwise(stored))
    assert turns <= (stored.count(True) - 1) // 4
    check(graph, TARGETS[name])


# Packing


@pytest.mark.dear
@pytest.mark.parametrize("name", ["tf32", "bf16", "f16"])
def test_plain_images_are_laid_out_first(name: str) -> None:
    """And are copied by whole vectors, whichever axis comes to lie inside: here the images."""
    graph, target = LAYERS["eight plain images"], TARGETS[name]
    plans = [plan_for(c.task, target) for c in lowered_for(graph, target).choices]
    (plan,) = (plan for plan in plans if plan is not None)
    assert plan.laid
    assert min(plan.a.width, plan.b.width) == 4
    check(graph, target)


def packs_of(graph: Graph) -> list[tuple[MatrixPack, TensorType]]:
    found: list[tuple[MatrixPack, TensorType]] = []
    for choice in lowered_for(graph, TF32).choices:
        gemm = match_gemm(choice.task)
        if gemm is not None:
            for width, chunk in product((32, 128), (0, 8, 16)):
                pack = matrix_pack(gemm, width, 16, chunk)
                if pack is not None:
                    found.append((pack, gemm.b.tensor.type))
    return found


@pytest.mark.parametrize(
    "layer", ["ragged channels", "groups", "a filter turned around", "three axes"]
)
def test_both_ways_of_packing_are_one(layer: str) -> None:
    for pack, type in packs_of(LAYERS[layer]):
        pack = replace(pack, rounded=pack.width > 32)
        array = np.random.default_rng(0).standard_normal(type.sizes).astype("f4")
        out = np.full(pack.size, np.nan, "f4")
        pack.pack(array, out)
        source = TensorVar("x0", type)
        ((start, stage),) = pack.stages(source)
        found = evaluate(TensorExpr((source,), (stage,), ("t0",)), {"x0": array})["t0"]
        np.testing.assert_array_equal(out[start : start + found.size], found.reshape(-1))
        assert np.count_nonzero(out) >= array.size


# What it leaves alone


def test_other_types_are_left_to_others() -> None:
    graph = conv_graph((1, 4, 5, 5), {"channels": 6, "kernel": 3}, DType.F64)
    assert "implicit_gemm" not in schedules_of(lowered_for(graph, F32))


@pytest.mark.dear
@pytest.mark.parametrize("batch", [1, 32])
def test_channels_for_themselves_are_left_to_others(batch: int) -> None:
    """A product of one column for each channel would copy whole sectors for single elements."""
    b = Builder()
    x = b("conv", b.input("x", batch, 3, 56, 56), channels=96, kernel=1, bias=False)
    graph = b.output(y=b("conv", x, channels=96, kernel=3, pad="same", groups=96, bias=False))
    for target in TARGETS.values():
        choices = lower(graph, cuda_machine(target), "test").choices
        assert choices[1].schedule != "implicit_gemm"
