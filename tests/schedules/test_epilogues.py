"""What is fused into the store of a contraction, a pooling, a reduction or a map equals what runs
by itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from drawn_convolutions import run
from graphs import Array, Builder, evaluate_graph, random_arrays, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.kernel.nodes import Fma, Set, walk_statements
from convdsl.lowering.lower import lower
from convdsl.ops import activation
from convdsl.passes.fuse_elementwise import FuseElementwise
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

Tail = Callable[[Builder, Value], Value]


def like(b: Builder, h: Value, name: str) -> Value:
    return b.input(name, *h.type.shape, dtype=h.type.dtype)


def per_channel(b: Builder, h: Value, name: str) -> Value:
    _, channels, *space = map(int, map(str, h.type.shape))
    return b.parameter(name, 1, channels, *(1 for _ in space), dtype=h.type.dtype)


def gate(b: Builder, h: Value) -> Value:
    """A runtime factor per channel, as of a squeeze-and-excitation block."""
    batch, channels, *space = h.type.shape
    return b.input("gate", batch, channels, *(1 for _ in space), dtype=h.type.dtype)


def long(b: Builder, h: Value) -> Value:
    h = b("batch_norm", b("mul", h, per_channel(b, h, "scale")))
    return b("relu6", b("add", h, like(b, h, "skip")))


def flags(b: Builder, h: Value) -> Value:
    """What leaves has another element type than the sums."""
    return b("greater", b("silu", h), like(b, h, "skip"))


def applied(name: str) -> Tail:
    return lambda b, h: b(name, h)


TAILS: dict[str, Tail] = {
    "batch norm": lambda b, h: b("relu", b("batch_norm", h)),
    "residual": lambda b, h: b("relu", b("add", h, like(b, h, "skip"))),
    "residual first": lambda b, h: b("relu", b("add", like(b, h, "skip"), h)),
    "scaled by channel": lambda b, h: b("mul", h, per_channel(b, h, "scale")),
    "gated": lambda b, h: b("mul", h, gate(b, h)),
    "with itself": lambda b, h: b("mul", h, h),
    "long": long,
    "flags": flags,
}
ACTIVATIONS = {op.name: applied(op.name) for op in activation.OPERATORS}
HEADS: dict[str, Tail] = {
    "direct": lambda b, x: b("conv", x, channels=11, kernel=3),
    "direct, tiles": lambda b, x: b("conv", x, channels=64, kernel=3, stride=2),
    "pointwise": lambda b, x: b("conv", x, channels=20, kernel=1),
    "depthwise": lambda b, x: b("conv", x, channels=10, kernel=3, groups=10),
    "ragged groups": lambda b, x: b("conv", x, channels=15, kernel=3, groups=5),
    "pooling": lambda b, x: b("avg_pool", x, kernel=3, stride=2, pad=1),
    "map": lambda b, x: b("add", x, per_channel(b, x, "shift")),
}
# Every head meets every tail; of activations, each meets two heads.
PAIRS = list(product(HEADS, TAILS))
PAIRS += [
    (list(HEADS)[(2 * number + one) % len(HEADS)], name)
    for number, name in enumerate(ACTIVATIONS)
    for one in range(2)
]


def joined(head: str, tail: str, inner: bool, dtype: DType) -> Graph:
    """`inner`: the input of the head is made by another operator, and thus blocked."""
    b = Builder()
    x = b.input("x", 2, 10, 7, 9, dtype=dtype)
    h = HEADS[head](b, b("relu", x) if inner else x)
    return b.output(y=(TAILS | ACTIVATIONS)[tail](b, h))


@pytest.mark.dear
@pytest.mark.parametrize(("head", "tail"), PAIRS)
def test_fused_equals_unfused(head: str, tail: str) -> None:
    position = PAIRS.index((head, tail))
    dtype = DType.F64 if position % 3 == 0 else DType.F32
    cpu = ("native", "x86-64-v3", "x86-64-v2")[position % 3 - 1]
    plain = joined(head, tail, inner=position % 2 == 0, dtype=dtype)
    fused = rewritten(plain, FuseElementwise())
    arrays = {k: a.astype(dtype.numpy) for k, a in random_arrays(plain, seed=2).items()}
    target = find_target(cpu)
    apart, many = run(plain, arrays, target)
    together, few = run(fused, arrays, target)
    assert len(few) < len(many)
    doubles = {k: a.astype(np.float64) for k, a in arrays.items()}
    expected = evaluate_graph(plain, doubles)["y"].astype(np.float64)
    tolerance = 256 * float(np.finfo(dtype.numpy).eps) * float(np.abs(expected).max())
    for found in (apart["y"], together["y"]):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.dear
def test_the_interpreter_agrees() -> None:
    for head in ("direct", "depthwise", "pooling"):
        fused = rewritten(joined(head, "long", inner=True, dtype=DType.F32), FuseElementwise())
        arrays = {k: a.astype("f4") for k, a in random_arrays(fused, seed=2).items()}
        slow: dict[str, Array] = run(fused, arrays, find_target(), loops=True)[0]
        fast: dict[str, Array] = run(fused, arrays, find_target())[0]
        np.testing.assert_allclose(fast["y"], slow["y"], rtol=1e-4, atol=1e-4)


def accumulations(graph: Graph) -> int:
    """Multiply-adds inside the loops of the convolution's kernel."""
    program = lower(rewritten(graph), cpu_machine(find_target("x86-64-v4")), "t").program
    (step,) = (step for step in program.steps if "conv1" in step.nodes)
    kernel = next(kernel for kernel in program.kernels if kernel.name == step.kernel)
    return sum(
        isinstance(statement, Set) and isinstance(statement.value, Fma)
        for statement in walk_statements(kernel.body)
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_sum_is_computed_once(name: str) -> None:
    """However often the activation reads it."""
    known = accumulations(joined("direct, tiles", "relu", inner=True, dtype=DType.F32))
    assert known > 0
    assert accumulations(joined("direct, tiles", name, inner=True, dtype=DType.F32)) == known
