"""Groups that end in reductions of what they compute: batch statistics, bias gradients, losses, the
mean of a squeeze; by machine code on one thread and two, by the interpreter, against the oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drawn_convolutions import run
from graphs import Builder, evaluate_graph, random_arrays, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.lowering.lower import lower
from convdsl.passes.fuse_elementwise import FuseElementwise
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

Part = Callable[[Builder, Value], Value]

ROOTS: dict[str, Part] = {
    "map": lambda b, x: b("silu", x),
    "direct": lambda b, x: b("conv", x, channels=24, kernel=3),
    "ragged": lambda b, x: b("conv", x, channels=11, kernel=3, stride=2),
    "blocks left over": lambda b, x: b("conv", x, channels=112, kernel=3),
    "pointwise": lambda b, x: b("conv", x, channels=40, kernel=1),
    "groups": lambda b, x: b("conv", b("concat", x, x, x, x), channels=32, kernel=3, groups=2),
    "large filters": lambda b, x: b(
        "conv", b("concat", *[b("add", x, x) for _ in range(20)]), channels=130, kernel=3
    ),
    "depthwise": lambda b, x: b(
        "conv", b("conv", x, channels=12, kernel=1), channels=12, kernel=3, groups=12
    ),
}
ENDINGS: dict[str, Part] = {
    "statistics": lambda b, h: b("reduce_mean", h, axes=(0, 2, 3)),
    "kept axes": lambda b, h: b("reduce_sum", h, axes=(0, 2, 3), keepdims=True),
    "squeeze": lambda b, h: b("sigmoid", b("avg_pool", h, kernel="global")),
    "loss": lambda b, h: b("sqrt", b("reduce_sum_square", h, axes=(0, 1, 2, 3))),
    "largest": lambda b, h: b("reduce_max", h, axes=(0, 2, 3)),
    "of each image": lambda b, h: b("reduce_mean", h, axes=(1, 2, 3)),
    "of each column": lambda b, h: b("reduce_sum", h, axes=(0, 1, 2)),
}


def ended(root: str, ending: str, *, stored: bool, dtype: DType = DType.F32) -> Graph:
    """`stored`: others read what the group computes at each position, too."""
    b = Builder()
    x = b("relu", b.input("x", 2, 12, 14, 15, dtype=dtype))
    h = b("relu6", ROOTS[root](b, x))
    b.output(y=ENDINGS[ending](b, h))
    if stored:
        b.output(h=h)
    return rewritten(b.graph, FuseElementwise(elements=1))


# Some roots meet every ending, the others two each.
PAIRS = [(root, ending) for root in ("map", "direct", "ragged", "depthwise") for ending in ENDINGS]
PAIRS += [
    (root, list(ENDINGS)[(2 * number + one) % len(ENDINGS)])
    for number, root in enumerate(list(ROOTS)[3:-1])
    for one in range(2)
]


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("root", "ending"), PAIRS)
def test_a_group_with_an_ending_equals_the_oracle(root: str, ending: str) -> None:
    number = 7 * list(ROOTS).index(root) + list(ENDINGS).index(ending)
    dtype = DType.F64 if number % 5 == 0 else DType.F32
    graph = ended(root, ending, stored=number % 2 == 0, dtype=dtype)
    arrays = {k: a.astype(dtype.numpy) for k, a in random_arrays(graph, seed=4).items()}
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})
    target = find_target(("native", "x86-64-v3", "x86-64-v2")[number % 3])
    runs = [run(graph, arrays, target)[0]]
    if root in ("map", "ragged", "blocks left over") and number % 3 == 0:
        runs.append(run(graph, arrays, target, loops=True)[0])
    for name, array in expected.items():
        tolerance = 4096 * float(np.finfo(dtype.numpy).eps) * max(1.0, float(np.abs(array).max()))
        for found in runs:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("root", "ending", "schedules"),
    [
        ("map", "statistics", {"reduction"}),
        ("map", "of each column", {"reduction"}),
        ("direct", "statistics", {"direct"}),
        ("direct", "squeeze", {"direct"}),
        ("groups", "loss", {"direct"}),
        ("direct", "of each column", {"direct", "reduction"}),
        ("depthwise", "squeeze", {"depthwise"}),
    ],
)
def test_where_it_ends_in_the_same_kernel(root: str, ending: str, schedules: set[str]) -> None:
    graph = ended(root, ending, stored=False)
    machine = cpu_machine(find_target("x86-64-v4")).without("winograd")
    program = lower(graph, machine, "t").program
    steps = [s for s in program.steps if any(name.startswith("relu6") for name in s.nodes)]
    assert len({step.nodes for step in steps}) == 1, "one group"
    assert {step.schedule for step in steps} == schedules


def test_what_is_only_reduced_is_not_stored() -> None:
    graph = ended("direct", "statistics", stored=False)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    kernel = next(k for k in program.kernels if k.name.startswith("conv"))
    (written,) = (buffer for buffer in kernel.buffers if buffer.written)
    assert written.size < 2 * 24 * 14 * 15


def test_two_statistics_of_one_value() -> None:
    b = Builder()
    h = b("conv", b("relu", b.input("x", 3, 10, 9, 11)), channels=20, kernel=3)
    s = b.parameter("s", 20, 1, 1)
    b.output(mean=b("reduce_mean", h, axes=(0, 2, 3)), y=b("relu", b("mul", h, s)))
    b.output(squares=b("reduce_sum_square", h, axes=(0, 2, 3)))
    graph = rewritten(b.graph, FuseElementwise(elements=1))
    arrays = {k: a.astype("f4") for k, a in random_arrays(graph, seed=1).items()}
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})
    found, _ = run(graph, arrays, find_target())
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
    program = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program
    assert len({step.nodes for step in program.steps if "conv1" in step.nodes}) == 1


def wide(channels: int, extent: int) -> Graph:
    """A convolution that fewer products would do for, as a gradient ends in that of a bias."""
    b = Builder()
    x = b("relu", b.input("x", 2, channels, extent, extent + 3))
    h = b("relu", b("conv", x, channels=channels, kernel=3))
    b.output(h=h, sums=b("reduce_sum", h, axes=(0, 2, 3)))
    return rewritten(b.graph, FuseElementwise(elements=1))


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_an_ending_is_apart_where_fewer_products_pay(cpu: str) -> None:
    machine = cpu_machine(find_target(cpu))
    made = [lower(wide(64, 28), m, "t").program for m in (machine, machine.without("winograd"))]
    schedules = [{s.schedule for s in p.steps if "conv1" in s.nodes} for p in made]
    assert schedules[0] == {"winograd", "reduction"}
    assert "direct" in schedules[1], schedules[1]


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("scale", [1.0, -1e-30, 1e12])
def test_sums_apart_from_fewer_products_equal_the_oracle(scale: float) -> None:
    graph = wide(32, 21)
    arrays = {k: a.astype("f4") for k, a in random_arrays(graph, seed=5).items()}
    arrays["x"] = arrays["x"] * np.float32(scale)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})
    found, schedules = run(graph, arrays, find_target())
    assert "winograd" in schedules
    for name, array in expected.items():
        largest = np.abs(array).max()
        assert largest > 0
        np.testing.assert_allclose(found[name] / largest, array / largest, atol=1e-5)
