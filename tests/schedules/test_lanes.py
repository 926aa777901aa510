"""Channels that move between vectors: every lane arrives, and vectors move whole."""

from __future__ import annotations

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from gradients import gradient_graph
from graphs import Builder, random_arrays, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.kernel.nodes import Gather, Let, Shuffle, walk_statements
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType


def moved(extents: tuple[int, ...], how: str, space: tuple[int, ...], dtype: DType) -> Graph:
    """Operands through layers that leave them as they are, in vectors of channels; joined, moved by
    `how`, and through such a layer again."""
    b = Builder()

    def kept(x: Value) -> Value:
        channels = x.type.sizes[1]
        return b("conv", x, channels=channels, kernel=1, groups=channels, bias=False)

    made = [kept(b.input(f"x{i}", 2, c, *space, dtype=dtype)) for i, c in enumerate(extents)]
    whole = b("concat", *made, axis=1) if len(made) > 1 else made[0]
    return b.output(
        y=kept(b("channel_shuffle", whole, groups=int(how)) if how.isdigit() else whole)
    )


CASES = [
    ((58, 58), "join", (3, 5)),
    ((3, 1, 40), "join", (7,)),
    ((16, 5, 16, 33), "join", (4,)),
    ((1,) * 20, "join", (2, 2)),
    ((116,), "2", (3, 5)),
    ((30,), "3", (4,)),
    ((58, 58), "2", (2, 3)),
    ((64,), "16", (5,)),
]


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize(("extents", "how", "space"), CASES)
def test_every_lane_arrives(
    extents: tuple[int, ...], how: str, space: tuple[int, ...], dtype: DType
) -> None:
    graph = moved(extents, how, space, dtype)
    given = {
        f"x{i}": np.random.default_rng(i).integers(-99, 99, (2, c, *space)).astype(dtype.numpy)
        for i, c in enumerate(extents)
    }
    ones = {k: np.ones(v.type.sizes, dtype.numpy) for k, v in graph.states.items()}
    whole = np.concatenate(list(given.values()), axis=1)
    if how.isdigit():
        n, c, *_ = whole.shape
        apart = whole.reshape(n, int(how), c // int(how), *space)
        whole = np.ascontiguousarray(apart.swapaxes(1, 2)).reshape(whole.shape)
    for run in (machine_code, interpreted) if dtype is DType.F32 else (machine_code,):
        np.testing.assert_array_equal(run_graph(graph, given | ones, run)["y"], whole)


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize(
    ("extents", "how"), [((58, 58), "join"), ((116,), "2"), ((20, 20), "join")]
)
def test_vectors_are_shuffled_and_nothing_is_picked(
    extents: tuple[int, ...], how: str, cpu: str
) -> None:
    made = lower(moved(extents, how, (9, 9), DType.F32), cpu_machine(find_target(cpu)), "t")
    (at,) = (i for i, choice in enumerate(made.choices) if choice.schedule == "lanes")
    name = made.program.steps[at].kernel
    kernel = next(k for k in made.program.kernels if k.name == name)
    values = [s.value for s in walk_statements(kernel.body) if isinstance(s, Let)]
    assert any(isinstance(value, Shuffle) for value in values)
    assert not any(isinstance(value, Gather) for value in values)


def test_vectors_that_stay_whole_are_copied_as_they_are() -> None:
    made = lower(moved((32, 16), "join", (9, 9), DType.F32), cpu_machine(find_target()), "t")
    assert "lanes" not in [choice.schedule for choice in made.choices]


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("channels", [4, 20])
def test_a_ragged_last_vector_that_stays_whole_is_not_moved(channels: int) -> None:
    """The gradient of a mean over a whole map leaves channels where they are; what follows reads a
    plain tensor again and again."""
    b = Builder()
    x = b.input("x", 2, channels, 9, 10)
    squares = b("mul", x, x)
    mean = b("avg_pool", b("mul", squares, squares), kernel=(9, 10))
    graph = b.output(y=b("conv", mean, channels=channels, kernel=1, bias=False))
    graph = rewritten(gradient_graph(graph, {"x": x}))
    made = lower(graph, cpu_machine(find_target("x86-64-v3")), "t")
    assert "lanes" not in [choice.schedule for choice in made.choices]
    arrays = {n: a.astype(np.float32) for n, a in random_arrays(graph, 0, 0.5).items()}
    dy, w = arrays["d_y"], next(a for n, a in arrays.items() if n not in ("x", "d_y"))
    dx = np.einsum("nkhw,kc->nchw", dy, w[:, :, 0, 0]) / 90 * 4 * arrays["x"] ** 3
    found = run_graph(graph, arrays, machine_code, find_target("x86-64-v3"))["x"]
    np.testing.assert_allclose(found, dx, rtol=1e-4, atol=1e-7)
