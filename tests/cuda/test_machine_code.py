"""What compilers make of contractions for each kind of card: resources, and what main loops issue.

The whole is `pytest -m ""`; each layer is always tried on one architecture in one precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import pytest
from contractions_on_cards import lowered_for
from graphs import Builder
from layer_steps import step_graph
from machine_code import Function, compiled

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import (
    ARCHITECTURES,
    PRECISIONS,
    REGISTERS_SM,
    CudaTarget,
    Precision,
)
from convdsl.kernel.mma import WARP
from convdsl.kernel.nodes import Blocks, Threads
from convdsl.schedules.cuda.factor import Form
from convdsl.schedules.cuda.plan import Plan, plan_for
from convdsl.tensor import DType

MOST_SLOTS = 8
"""Issue slots of a main loop for each product on the tensor units; in TF32, too, where what is no
weight is rounded in registers: two to three instructions for an element, as no card does it in
one."""

MOST_OF_SMALL = 20
"""The same of tiles whose warps have fewer than 64 x 64 sums, which small products get: they wait
for no issue slots, but fill the card with their blocks (ADR 211)."""

MOST_OF_GROUPS = 40
"""Issue slots of a main loop for each product of a warp group: one keeps the tensor units busy for
64 cycles or more, in which a multiprocessor issues 256."""

LEAST_FFMA, LEAST_SMALL = 0.75, 0.6
"""Their share of a main loop on the plain units: where threads have 8 x 8 sums, and fewer."""


Made = Callable[[DType], Graph]


def conv(shape: tuple[int, ...], channels: int, kernel: int, stride: int = 1) -> Made:
    def make(dtype: DType) -> Graph:
        b = Builder()
        given = b.input("x", shape[0], 2, *shape[2:], dtype=dtype)
        x = b("conv", given, channels=shape[1], kernel=1, bias=False)
        y = b("conv", x, channels=channels, kernel=kernel, stride=stride, pad="same", bias=True)
        return b.output(y=b("relu", y))

    return make


def plain(shape: tuple[int, ...], channels: int, kernel: int, stride: int = 1) -> Made:
    """A network's first layer: the channels of its input lie one after the other."""

    def make(dtype: DType) -> Graph:
        b = Builder()
        x = b.input("x", *shape, dtype=dtype)
        how = {"kernel": kernel, "stride": stride, "pad": "same"}
        return b.output(y=b("relu", b("conv", x, channels=channels, **how)))

    return make


def step(op: str, shape: tuple[int, ...], **attributes: Any) -> Made:
    return lambda dtype: step_graph(op, shape, attributes, dtype)


def wide(shape: tuple[int, ...], channels: int) -> Made:
    """Between two maps, so that its input is rounded where it is made."""

    def make(dtype: DType) -> Graph:
        b = Builder()
        given = b.input("x", shape[0], 2, *shape[2:], dtype=dtype)
        x = b("relu", b("conv", given, channels=shape[1], kernel=1))
        return b.output(y=b("relu", b("conv", x, channels=channels, kernel=3, pad="same")))

    return make


LAYERS: dict[str, Made] = {
    "3x3": conv((32, 64, 56, 56), 64, 3),
    "1x1": conv((32, 256, 28, 28), 128, 1),
    "one image": conv((1, 512, 7, 7), 512, 3),
    "strided": conv((8, 128, 28, 28), 256, 3, 2),
    "ragged": conv((4, 58, 28, 28), 116, 3),
    "step": step("conv", (16, 64, 28, 28), channels=128, kernel=3, bias=False),
    "linear": step("linear", (4096, 1024), channels=1000),
    "plain input": plain((8, 3, 112, 112), 64, 7, 2),
    "wide": wide((32, 256, 28, 28), 256),
    "few channels": plain((4, 1, 64, 64), 32, 3),
}
KINDS: dict[str, tuple[DType, Precision]] = {
    **{precision: (DType.F32, precision) for precision in PRECISIONS},
    "f16": (DType.F16, "highest"),
    "bf16": (DType.BF16, "highest"),
}
"""Precisions of f32, and types of two bytes."""

CASES = [
    pytest.param(
        layer,
        arch,
        kind,
        marks=[] if (i + j + k * 3) % 14 == 0 else [pytest.mark.slow],
    )
    for i, layer in enumerate(LAYERS)
    for j, arch in enumerate(ARCHITECTURES)
    for k, kind in enumerate(KINDS)
    if arch != "sm_75" or kind in ("highest", "f16")
]


@lru_cache(maxsize=4)
def functions(layer: str, dtype: DType, target: CudaTarget) -> list[tuple[Plan, Function, int]]:
    """The kernels of products with how they were planned, and the threads of a block."""
    lowered = lowered_for(LAYERS[layer](dtype), target)
    made = compiled(print_module(lowered.program, target).source, target.arch)
    threads = {
        kernel.name: prod(inner.extents)
        for kernel in lowered.program.kernels
        for grid in kernel.body
        if isinstance(grid, Blocks)
        for inner in grid.body
        if isinstance(inner, Threads)
    }
    for function in made.values():
        used = function.resources
        assert used.spills == used.local == 0, f"{function.name}: {used}"
        assert not used.serialised, function.name
        assert not {code for code in function.codes if code.startswith(("LDL", "STL"))}
    found = (
        (plan_for(c.task, target), c) for c in lowered.choices if c.schedule == "implicit_gemm"
    )
    return [
        (plan, made[c.kernel], threads[c.kernel])
        for plan, c in found
        if plan is not None and not _SUMS.search(c.kernel)
    ]


_SUMS = re.compile(r"_sum(_over_\w+)?\Z")
"""Kernels that add up the parts of long sums, perhaps over one of them."""


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(("layer", "arch", "kind"), CASES)
def test_products(layer: str, arch: str, kind: str) -> None:
    dtype, precision = KINDS[kind]
    target = CudaTarget(arch, precision)
    planned = functions(layer, dtype, target)
    assert planned
    for plan, function, threads in planned:
        held = plan.blocks_on(target)
        registers = -(-function.resources.registers // 8) * 8
        assert registers * threads * held <= REGISTERS_SM, f"{registers} x {threads} x {held}"
        loop = function.main_loop()
        if plan.steps_of_part < 3:
            continue  # no loop worth the name
        assert loop is not None, function.name
        if plan.tile.form is None:
            least = LEAST_FFMA if plan.tile.sums == 64 else LEAST_SMALL
            assert loop.count("FFMA") / len(loop.codes) >= least, function.name
        elif plan.tile.grouped:
            assert loop.count("HGMMA") == plan.tile.mmas, function.name
            assert loop.count("HMMA") == 0
            assert len(loop.codes) <= MOST_OF_GROUPS * plan.tile.mmas, function.name
        else:
            slots = len(loop.codes) / loop.count("HMMA")
            most = MOST_SLOTS if plan.tile.sums * WARP >= 64 * 64 else MOST_OF_SMALL
            assert slots <= most, f"{function.name}: {slots:.1f} slots, {plan.tile}"
        if {plan.a.form, plan.b.form} <= {Form.DEPTHS, Form.PACKED}:
            assert all(".128" in code for code in loop.of("LDS")), loop.of("LDS")
        if min(plan.a.width, plan.b.width) == plan.tile.vector:
            copies = loop.of("LDGSTS") if target.has_async_copies else loop.of("LDG")
            assert copies
            assert all(".128" in code for code in copies), copies
