"""How values lie between kernels: what is blocked, what is plain, and that numbers do not care."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import run
from graphs import Builder, evaluate_graph, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.ir.groups import kernels_of
from convdsl.ir.opdef import OpError
from convdsl.ir.timing import Timing
from convdsl.kernel.layout import Layout
from convdsl.kernel.text import format_kernel
from convdsl.lowering.layouts import Layouts
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

X86 = "x86_64-unknown-linux-gnu"
WIDE = find_target("x86-64-v4", X86)  # sixteen lanes
Array = np.ndarray[Any, Any]


def layouts_of(graph: Graph) -> Layouts:
    return Layouts(graph, cpu_machine(WIDE), Timing(graph), kernels_of(graph))


def layout_of(value: Value, b: Builder) -> Layout:
    found = layouts_of(b.graph).of_value(value)
    assert found is not None
    return found


def attention(heads: int, tokens: int, width: int) -> Graph:
    """Heads of attention, as transformers write them."""
    b = Builder()
    x = b.input("x", 1, tokens, width)

    def projected() -> Value:
        h = b("linear", x, channels=width)
        h = b("reshape", h, shape=(1, tokens, heads, width // heads))
        return b("transpose", h, axes=(0, 2, 1, 3))

    q, k, v = projected(), projected(), projected()
    scores = b("matmul", q, b("transpose", k, axes=(0, 1, 3, 2)), name="scores")
    h = b("matmul", b("softmax", scores, axis=3), v, name="mixed")
    return b.output(y=h)


def heads(count: int) -> Callable[[Builder], Value]:
    def made(b: Builder) -> Value:
        a = b("relu", b.input("a", 1, count, 20, 24))
        scores = b("matmul", a, b("relu", b.input("b", 1, count, 24, 20)))
        return b("softmax", scores, axis=3)

    return made


def conv(channels: int, **more: Any) -> Callable[[Builder], Value]:
    return lambda b: b("conv", b.input("x", 1, 64, 9, 9), channels=channels, kernel=3, **more)


def transposed(channels: int, groups: int = 1) -> Callable[[Builder], Value]:
    return lambda b: b(
        "conv_transpose",
        b.input("x", 1, 64 if groups == 1 else groups, 9, 9),
        channels=channels,
        kernel=4,
        stride=2,
        groups=groups,
    )


def sampled(channels: int, mode: str = "bilinear") -> Callable[[Builder], Value]:
    return lambda b: b(
        "grid_sample",
        b.input("x", 1, channels, 9, 9),
        b.input("grid", 1, 7, 20, 2),
        mode=mode,
    )


def tokens(count: int) -> Callable[[Builder], Value]:
    return lambda b: b("linear", b("relu", b.input("x", 2, count, 48)), channels=64)


RULES: dict[str, tuple[Callable[[Builder], Value], bool]] = {
    "channels of a convolution": (conv(64), True),
    "few channels of a convolution": (conv(3), True),
    "a map made of them": (lambda b: b("sigmoid", conv(3)(b)), True),
    "pooled": (lambda b: b("max_pool", conv(3)(b), kernel=2), True),
    "few channels of a transposed convolution": (transposed(12), True),
    "so few that rows fill vectors better": (transposed(3), False),
    "one channel of a transposed convolution": (transposed(1), False),
    "channels apart, transposed": (transposed(32, groups=32), True),
    "an image": (lambda b: b("relu", b.input("x", 1, 3, 9, 9)), False),
    "a map of an input": (lambda b: b("relu", b.input("x", 1, 64, 9, 9)), False),
    "windows over short rows": (lambda b: b("max_pool", b.input("x", 1, 64, 9, 9), kernel=2), True),
    "windows over rows": (lambda b: b("max_pool", b.input("x", 1, 64, 9, 30), kernel=2), False),
    "every second row": (
        lambda b: b("slice", b.input("x", 1, 64, 9, 9), axes=[2], start=[0], step=[2]),
        False,
    ),
    "every second row of channels": (lambda b: b("slice", conv(64)(b), axes=[2], step=[2]), True),
    "a row less": (lambda b: b("slice", b.input("x", 1, 64, 9, 9), axes=[2], start=[1]), False),
    "channels last": (lambda b: b("transpose", conv(64)(b), axes=[0, 2, 3, 1]), False),
    "channels first again": (
        lambda b: b("transpose", b("relu", b.input("x", 1, 9, 9, 64)), axes=[0, 3, 1, 2]),
        True,
    ),
    "squares of neighbours": (lambda b: b("lrn", conv(64)(b), size=5), True),
    "squares of an image": (
        lambda b: b("reduce_sum_square", b("relu", b.input("x", 1, 3, 9, 9)), axes=[3]),
        False,
    ),
    "a mask": (lambda b: b("reduce_max", conv(64)(b), axes=[1]), False),
    "one head": (heads(1), False),
    "three heads": (heads(3), False),
    "sixteen heads": (heads(16), False),
    "few tokens": (tokens(5), False),
    "many tokens": (tokens(40), False),
    "sixteen heads, turned": (
        lambda b: b("transpose", heads(16)(b), axes=(0, 1, 3, 2)),
        False,
    ),
    "samples between elements of an input": (sampled(16), True),
    "of an image": (sampled(3), True),
    "of one plane": (sampled(1), False),
    "rows at positions that are data": (
        lambda b: b("take", b.input("x", 1, 64, 9, 9), b.input("i", 9, dtype=DType.I64), axis=3),
        False,
    ),
    "shuffled channels": (lambda b: b("channel_shuffle", conv(64)(b), groups=4), True),
    "of rank two": (lambda b: b("linear", b.input("x", 4, 48), channels=64), False),
}


@pytest.mark.parametrize("name", RULES)
def test_what_is_blocked(name: str) -> None:
    make, blocked = RULES[name]
    b = Builder()
    value = make(b)
    shape = value.type.sizes
    assert layout_of(value, b) == (Layout(shape, 1, 16) if blocked else Layout(shape))


def test_three_heads_are_not_padded() -> None:
    graph = rewritten(attention(3, 20, 24))
    layouts = layouts_of(graph)
    values = [v for node in graph.op_nodes() for v in node.outputs if v.type.shape[1] == 3]
    assert len(values) >= 5
    for value in values:
        layout = layouts.of_value(value)
        assert layout is not None
        assert layout.size == prod(value.type.sizes)
    choices = lower(graph, cpu_machine(WIDE), "t").choices
    by_node = {choice.nodes[0]: choice.schedule for choice in choices}
    assert by_node["scores"] == by_node["mixed"] == "gemm"


@pytest.mark.parametrize("wide", [DType.F64, DType.I64])
@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_one_wide_value_leaves_the_others_as_they_are(cpu: str, wide: DType) -> None:
    """A convolution's kernel is the same whether or not something else is counted in 64 bits."""
    target = find_target(cpu, X86)

    def kernel(with_wide: bool) -> str:
        b = Builder()
        h = b("relu", b.input("x", 1, 48, 9, 9))
        y = b("conv", h, channels=48, kernel=3, name="conv")
        b.output(y=y)
        if with_wide:
            b.output(mean=b("reduce_sum", b("cast", h, dtype=wide.value), axes=[2, 3]))
        program = lower(b.graph, cpu_machine(target).without("winograd"), "t").program
        step = next(step for step in program.steps if "conv" in step.nodes)
        kernels = {kernel.name: kernel for kernel in program.kernels}
        found = kernels[step.kernel]
        lanes = {registers.type.lanes for registers in found.registers}
        assert lanes == {target.lanes(DType.F32)}
        return format_kernel(found).partition("(")[2]

    assert kernel(with_wide=True) == kernel(with_wide=False)


# Numbers


class Mixed:
    """A graph of whole numbers small enough to be exact in every element type: whatever runs it
    must find the very same ones."""

    DTYPES = (DType.F32, DType.F64, DType.I64, DType.BOOL)

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.b = Builder()
        rank = self.random.choice([2, 3, 4, 5])
        space = [self.random.randint(1, 5) for _ in range(rank - 2)]
        channels = self.random.choice([1, 2, 3, 5, 8, 12, 16, 17, 24, 33, 40])
        batch = self.random.choice([1, 2])
        self.pool = [self.b.input("x", batch, channels, *space)]
        while len(self.pool) < 12:
            try:
                value = self.step()
            except OpError:
                continue
            if value is not None and prod(value.type.sizes) <= 4000:
                self.pool.append(value)
        outputs = self.pool[-3:]
        self.b.output(**{f"y{number}": value for number, value in enumerate(outputs)})

    def pick(self, *dtypes: DType) -> Value:
        found = [v for v in self.pool if not dtypes or v.type.dtype in dtypes]
        return self.random.choice(found[-4:])

    def step(self) -> Value | None:
        names = ("convolved", "cast", "joined", "turned", "reduced", "product", "chosen", "beside")
        return getattr(self, self.random.choice(names))()

    def small(self, value: Value) -> Value:
        return self.b("clip", value, low=-3.0, high=3.0)

    def convolved(self) -> Value | None:
        x = self.pick(DType.F32, DType.F64)
        if x.type.rank < 3:
            return self.small(self.b("linear", x, channels=self.random.randint(1, 40)))
        channels = x.type.sizes[1]
        apart = self.random.random() < 0.3
        groups = channels if apart else 1
        count = channels if apart else self.random.randint(1, 40)
        kernel = self.random.choice([1, 3])
        h = self.b("conv", x, channels=count, kernel=kernel, groups=groups, pad=kernel // 2)
        return self.small(h)

    def cast(self) -> Value:
        return self.b("cast", self.pick(), dtype=self.random.choice(self.DTYPES).value)

    def joined(self) -> Value | None:
        a = self.pick(DType.F32, DType.F64, DType.I64)
        same = [v for v in self.pool if v.type == a.type]
        h = self.b(self.random.choice(["add", "sub", "max"]), a, self.random.choice(same))
        return h if h.type.dtype is DType.I64 else self.small(h)

    def turned(self) -> Value:
        x = self.pick()
        axes = list(range(x.type.rank))
        self.random.shuffle(axes)
        return self.b("transpose", x, axes=tuple(axes))

    def reduced(self) -> Value:
        x = self.pick(DType.F32, DType.F64)
        axes = self.random.sample(range(x.type.rank), self.random.choice([1, 1, 2]))
        op = self.random.choice(["reduce_sum", "reduce_max", "reduce_min"])
        return self.small(self.b(op, x, axes=sorted(axes), keepdims=True))

    def product(self) -> Value | None:
        x = self.pick(DType.F32, DType.F64)
        last = tuple(range(x.type.rank - 2))
        turned = self.b("transpose", x, axes=(*last, x.type.rank - 1, x.type.rank - 2))
        return self.small(self.b("matmul", x, turned))

    def chosen(self) -> Value | None:
        a = self.pick(DType.F32, DType.F64)
        same = [v for v in self.pool if v.type == a.type]
        b = self.random.choice(same)
        return self.b("where", self.b("less", a, b), b, a)

    def beside(self) -> Value:
        a = self.pick()
        same = [v for v in self.pool if v.type == a.type]
        return self.b("concat", a, self.random.choice(same), axis=1)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("loops", [False, True])
def test_mixed_element_types(seed: int, loops: bool) -> None:
    graph = Mixed(seed).b.graph
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        name: random.integers(-2, 3, value.type.sizes).astype(value.type.dtype.numpy)
        for name, value in [
            *graph.inputs.items(),
            *((name, state.output) for name, state in graph.states.items()),
        ]
    }
    expected = evaluate_graph(graph, arrays)
    cpu = ["native", "x86-64-v2", "x86-64-v3"][seed % 3]
    found = run(rewritten(graph) if seed % 2 else graph, arrays, find_target(cpu), loops=loops)[0]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)
