"""Drawn groups: maps in chains and diamonds after every kind of root, residuals read twice, several
values that leave; by machine code and the interpreter, against the oracle in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

Root = Callable[[Builder, Value], Value]

ROOTS: dict[str, Root] = {
    "direct": lambda b, x: b("conv", x, channels=11, kernel=3),
    "direct, several blocks": lambda b, x: b("conv", x, channels=40, kernel=3, stride=2),
    "pointwise": lambda b, x: b("conv", x, channels=20, kernel=1),
    "depthwise": lambda b, x: b("conv", x, channels=10, kernel=3, groups=10),
    "ragged groups": lambda b, x: b("conv", x, channels=15, kernel=3, groups=5),
    "torn groups": lambda b, x: b("conv", x, channels=5 * 21, kernel=3, groups=5),
    "transposed": lambda b, x: b("conv_transpose", x, channels=7, kernel=2, stride=2),
    "pooling": lambda b, x: b("max_pool", x, kernel=3, stride=2, pad=1),
    "reduction": lambda b, x: b("reduce_mean", x, axes=(3,), keepdims=True),
    "linear": lambda b, x: b("linear", b("flatten", x), channels=37),
    "map": lambda b, x: b("mul", x, x),
}


@dataclass
class Drawn:
    """Maps over the values of a group, drawn one by one."""

    b: Builder
    random: np.random.Generator
    values: list[Value]

    def one(self) -> Value:
        """A value of the group, rather a late one."""
        back = min(len(self.values), 1 + int(self.random.geometric(0.5)))
        return self.values[-back]

    def residual(self) -> Value:
        """An input of the same shape, every other time one that was read before."""
        known = self.b.graph.inputs
        name = f"skip{int(self.random.integers(2))}"
        type = self.values[0].type
        return known.get(name) or self.b.input(name, *type.shape, dtype=type.dtype)

    def channels(self) -> Value:
        type = self.values[0].type
        shape = [int(str(e)) if axis == 1 else 1 for axis, e in enumerate(type.shape)]
        name = f"scale{len(self.b.graph.states)}"
        return self.b.parameter(name, *shape, dtype=type.dtype)

    def grow(self) -> None:
        b, h = self.b, self.one()
        match int(self.random.integers(7)):
            case 0:
                made = b("silu", h)
            case 1:
                made = b("relu", h)
            case 2:
                made = b("add", h, self.one())
            case 3:
                made = b("mul", self.one(), h)
            case 4:
                made = b("sub", self.residual(), h)
            case 5:
                made = b("mul", h, self.channels())
            case _:
                made = b("where", b("greater", h, self.residual()), h, self.one())
        self.values.append(made)


def drawn(root: str, seed: int, dtype: DType) -> tuple[Graph, int]:
    """(graph, values that leave its group besides the last)."""
    random = np.random.default_rng([seed, *root.encode()])
    b = Builder()
    x = b.input("x", int(random.integers(1, 4)), 10, 7, int(random.integers(4, 10)), dtype=dtype)
    h = ROOTS[root](b, b("relu", x) if random.integers(2) else x)
    group = Drawn(b, random, [h])
    for _ in range(int(random.integers(2, 7))):
        group.grow()
    inner = [v for v in group.values[:-1] if random.integers(3) == 0]
    b.output(y=group.values[-1])
    for number, value in enumerate(inner):
        if random.integers(2):
            b.output(**{f"y{number}": value})
        else:
            b.output(**{f"sum{number}": b("reduce_sum", value, axes=(1,))})
    return rewritten(b.graph), len(inner)


@pytest.mark.dear
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize(
    "seed", [0, 1, 2, 5, *(pytest.param(n, marks=pytest.mark.drawn) for n in (3, 4))]
)
def test_a_group_equals_the_oracle(root: str, seed: int) -> None:
    dtype = DType.F64 if seed == 5 else DType.F32
    target = find_target(("native", "x86-64-v3", "x86-64-v2")[seed % 3])
    graph, _ = drawn(root, seed, dtype)
    arrays = {k: a.astype(dtype.numpy) for k, a in random_arrays(graph, seed=2).items()}
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})
    runs = [run(graph, arrays, target)[0]]
    if seed % 3 == 0:
        runs.append(run(graph, arrays, target, loops=True)[0])
    epsilon = float(np.finfo(dtype.numpy).eps)
    for name, array in expected.items():
        tolerance = 2048 * epsilon * max(1.0, float(np.abs(array).max()))
        for found in runs:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


@pytest.mark.dear
def test_the_draws_have_several_outputs_and_diamonds() -> None:
    """What the test above is about does occur in it."""
    several = diamonds = 0
    for root in ROOTS:
        for seed in range(6):
            graph, leaving = drawn(root, seed, DType.F32)
            several += leaving > 0
            users = [len(graph.users(v)) for n in graph.op_nodes() for v in n.outputs]
            diamonds += max(users) > 1
    assert several > 20
    assert diamonds > 30


def test_one_kernel_has_several_outputs() -> None:
    """What training needs: a convolution's own values, kept for the backward pass."""
    b = Builder()
    h = b("conv", b.input("x", 2, 10, 7, 9), channels=24, kernel=3)
    h2 = b("mul", h, b.parameter("s", 24, 1, 1))
    b.output(y=b("relu", h2), means=b("avg_pool", h, kernel="global"))
    graph = rewritten(b.graph, FuseElementwise())
    program = lower(graph, cpu_machine(find_target()), "t").program
    step = next(step for step in program.steps if "conv1" in step.nodes)
    kernel = next(kernel for kernel in program.kernels if kernel.name == step.kernel)
    assert step.nodes == ("conv1", "mul1", "relu1")
    assert [buffer.written for buffer in kernel.buffers][-3:] == [False, True, True]
