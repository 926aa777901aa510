"""Parts of concatenations that lie inside of the whole, a piece of every position: who makes them,
who else reads them, and what stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from contractions_on_cards import TOLERANCES, close, preferring
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_results, random_arrays, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering.test_second_target import packed

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget, Precision
from convdsl.kernel.interpret import interpret_program
from convdsl.kernel.verify import verify_kernel
from convdsl.kernel.verify_program import verify_program
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.tensor import DType

MAKERS: Mapping[str, Callable[[Builder, Any, int], Any]] = {
    "conv": lambda b, x, n: b("relu", b("conv", x, channels=n, kernel=3, pad=1)),
    "pointwise": lambda b, x, n: b("conv", x, channels=n, kernel=1, bias=False),
    "depthwise": lambda b, x, n: b(
        "conv", b("conv", x, channels=n, kernel=1), channels=n, kernel=3, groups=n, pad=1
    ),
    "widened": lambda b, x, n: b(
        "conv_transpose", b("max_pool", x, kernel=2), channels=n, kernel=2, stride=2
    ),
    "pooled": lambda b, x, n: b(
        "max_pool", b("conv", x, channels=n, kernel=1), kernel=3, stride=1, pad=1
    ),
    "cropped": lambda b, x, n: b(
        "slice", b("conv", x, channels=n, kernel=1, pad=1), axes=(2, 3), start=(1, 1), stop=(7, 9)
    ),
    "normed": lambda b, x, n: b("layer_norm", b("conv", x, channels=n, kernel=1), axis=1),
    "soft": lambda b, x, n: b("softmax", b("conv", x, channels=n, kernel=1), axis=1),
    "scaled": lambda b, x, n: b(
        "mul",
        (y := b("conv", x, channels=n, kernel=1)),
        b("sigmoid", b("avg_pool", y, kernel="global")),
    ),
}
SPACE = (6, 8)


def program(graph: Graph, target: CudaTarget, *names: str) -> Lowered:
    lowered = lower(graph, preferring(cuda_machine(target), *names), "test")
    for kernel in lowered.program.kernels:
        verify_kernel(kernel)
    verify_program(lowered.program)
    return lowered


def copies(lowered: Lowered) -> list[str]:
    return [name for choice in lowered.choices for name in choice.nodes if "concat" in name]


def check(graph: Graph, lowered: Lowered, target: CudaTarget, order: str = "shuffled") -> None:
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=3).items()}
    inputs = [arrays[port.name] for port in lowered.program.inputs]
    weights = packed(lowered, arrays)
    if order == "loops":
        found = interpret_program(lowered.program, weights, inputs, [])
    else:
        module = print_module(lowered.program, target)
        found = run_on_cpu(lowered.program, module, weights, inputs, [], ORDERS[order])
    truth, _ = evaluate_results(graph, {n: a.astype("f8") for n, a in arrays.items()})
    for port, array in zip(lowered.program.outputs, found, strict=True):
        close(array, truth[port.name], 3 * TOLERANCES[target.precision], port.name)


def joined(makers: list[str], widths: list[int], again: bool, images: int = 2) -> Graph:
    """Parts of an input, joined and read by a convolution; `again`: the first one, and the whole as
    a part of another one, are read besides."""
    b = Builder()
    x = b("relu", b("conv", b.input("x", images, 5, *SPACE), channels=8, kernel=1))
    parts = [MAKERS[m](b, x, n) for m, n in zip(makers, widths, strict=True)]
    whole = b("concat", *parts, axis=1)
    y = b("conv", whole, channels=12, kernel=3)
    if not again:
        return rewritten(b.output(y=y))
    more = b("concat", whole, b("conv", x, channels=20, kernel=1), axis=1)
    z = b("conv", parts[0], channels=6, kernel=1)
    return rewritten(b.output(y=y, z=b("avg_pool", b("relu", more), kernel=2), first=z))


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("schedules", [(), ("implicit_gemm", "phases"), ("winograd", "windows")])
def test_who_makes_a_part(maker: str, schedules: tuple[str, ...]) -> None:
    target = CudaTarget("sm_90")
    graph = joined(["pointwise", maker, maker], [8, 12, 4], again=True)
    lowered = program(graph, target, *schedules)
    assert not copies(lowered)
    check(graph, lowered, target)


@pytest.mark.dear
@settings(max_examples=5)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(list(MAKERS)), st.sampled_from([4, 8, 16, 24])),
        min_size=2,
        max_size=4,
    ),
    again=st.booleans(),
    precision=st.sampled_from(["highest", "high", "medium"]),
    order=st.sampled_from([*ORDERS, "loops"]),
)
def test_drawn(parts: list[tuple[str, int]], again: bool, precision: Precision, order: str) -> None:
    graph = joined([m for m, _ in parts], [n for _, n in parts], again, images=1 if again else 2)
    target = CudaTarget("sm_80", precision)
    check(graph, program(graph, target), target, order)


@pytest.mark.dear
@pytest.mark.parametrize("widths", [[6, 8], [8, 6], [3, 5]])
def test_filled_parts_stay_apart(widths: list[int]) -> None:
    """Kernels write what fills a part up."""
    graph = joined(["conv", "pointwise"], widths, again=False)
    target = CudaTarget("sm_80")
    lowered = program(graph, target)
    assert copies(lowered)
    check(graph, lowered, target)


def test_who_reads_a_part_writes_no_other() -> None:
    """Both lie in the same run of memory."""
    b = Builder()
    x = b("conv", b.input("x", 2, 8, *SPACE), channels=8, kernel=1)
    y = b("conv", x, channels=8, kernel=3, pad=1)
    inner = b("concat", x, b("relu", b("conv", y, channels=4, kernel=1)), axis=1)
    outer = b("concat", inner, b("conv", inner, channels=4, kernel=1), axis=1)
    graph = rewritten(b.output(y=b("conv", outer, channels=4, kernel=1)))
    lowered = program(graph, CudaTarget("sm_80"))
    assert copies(lowered) == [outer.node.name]
    check(graph, lowered, CudaTarget("sm_80"))


def test_two_results_of_one_kernel_are_no_parts_of_one_whole() -> None:
    b = Builder()
    x = b("conv", b.input("x", 2, 8, *SPACE), channels=16, kernel=1)
    one, two = b("split", x, axis=1, parts=2).node.outputs
    whole = b("concat", one, two, b("conv", two, channels=8, kernel=3, pad=1), axis=1)
    graph = rewritten(b.output(y=b("conv", whole, channels=4, kernel=1)))
    lowered = program(graph, CudaTarget("sm_80"))
    assert copies(lowered) == [whole.node.name]
    check(graph, lowered, CudaTarget("sm_80"))


def test_what_is_no_part() -> None:
    """An input, what is put in twice, and parts of which views are put out."""
    b = Builder()
    x = b.input("x", 2, 8, *SPACE)
    y = b("conv", x, channels=8, kernel=1)
    for parts in ((x, y), (y, y)):
        graph = rewritten(b.output(y=b("relu", b("concat", *parts, axis=1))))
        target = CudaTarget("sm_80")
        lowered = program(graph, target)
        check(graph, lowered, target)
    z = b("conv", x, channels=8, kernel=1)
    whole = b("conv", b("concat", y, z, axis=1), channels=4, kernel=1)
    graph = rewritten(b.output(w=whole, flat=b("flatten", z), z=z))
    lowered = program(graph, CudaTarget("sm_80"))
    check(graph, lowered, CudaTarget("sm_80"))


def test_halves_begin_at_vectors() -> None:
    """Four halves are eight bytes: the second part begins at none."""
    for widths, apart in (([8, 8], False), ([4, 12], True)):
        b = Builder()
        x = b("relu", b.input("x", 2, 8, *SPACE, dtype=DType.F16))
        parts = [b("conv", x, channels=n, kernel=1, bias=False) for n in widths]
        graph = rewritten(b.output(y=b("conv", b("concat", *parts, axis=1), channels=8, kernel=1)))
        lowered = program(graph, CudaTarget("sm_80"))
        assert bool(copies(lowered)) == apart
        assert np.isfinite(lowered.program.arena_bytes)
