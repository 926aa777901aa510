"""Maps and movements for a card: vectors where they lie along, tiles where they lie across."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_shim.graphs import TARGET, for_a_card, run_graph, run_step, schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_graph, evaluate_results, random_arrays, rewritten
from layer_steps import step_graph

from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import Barrier, Let, Load, Space, Store, walk_statements
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.tensor import DType, substitute

pytestmark = pytest.mark.drawn


def maps(b: Builder, *shape: int) -> Graph:
    """A value with its channels inside, put out row by row."""
    return b.output(y=b("max_pool", b.input("x", *shape), kernel=1))


def flat(b: Builder, *shape: int) -> Graph:
    h = b("max_pool", b.input("x", *shape), kernel=1)
    return b.output(y=b("relu", b("flatten", h)))


def turned(b: Builder, *shape: int) -> Graph:
    return b.output(y=b("silu", b("transpose", b.input("x", *shape), axes=(1, 0))))


def heads(b: Builder, *shape: int) -> Graph:
    """Positions and heads change places: rows stay."""
    return b.output(y=b("transpose", b.input("x", *shape), axes=(0, 2, 1, 3)))


def both(b: Builder, *shape: int) -> Graph:
    """One operand along, one across, one a number for each row."""
    x = b("transpose", b.input("x", *shape), axes=(1, 0))
    y = b("add", x, b.input("z", *shape[::-1]))
    return b.output(y=b("mul", y, b.input("s", shape[1], 1)))


def padded(b: Builder, *shape: int) -> Graph:
    x = b("pad", b.input("x", *shape), axes=(0, 1), pad=((1, 3), (2, 1)))
    return b.output(y=b("transpose", x, axes=(1, 0)))


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize(
    ("made", "shape", "schedule"),
    [
        (maps, (2, 37, 19, 21), "transposed"),
        (maps, (1, 64, 7, 7), "transposed"),
        (maps, (1, 17, 9, 9), None),
        (turned, (9, 300), None),
        (maps, (1, 3, 40, 40), None),
        (flat, (3, 40, 7, 9), "transposed"),
        (turned, (190, 123), "transposed"),
        (turned, (300, 1), "vectors"),
        (heads, (2, 20, 3, 64), "vectors"),
        (both, (130, 70), "transposed"),
        (padded, (90, 75), "transposed"),
    ],
)
def test_movements(
    made: Callable[..., Graph], shape: tuple[int, ...], schedule: str | None, order: str
) -> None:
    graph = rewritten(made(Builder(), *shape))
    arrays = random_arrays(graph, seed=1)
    if schedule is not None:
        assert schedule in schedules_of(graph)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["y"]
    found = run_graph(graph, arrays, ORDERS[order])["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_accesses_of_a_tile_lie_side_by_side() -> None:
    """Of global memory the last counter of threads moves by one element what is read, and what is
    written; rows of the tile are one longer than a warp."""
    lowered = for_a_card(rewritten(turned(Builder(), 256, 128)))
    (name,) = [c.kernel for c in lowered.choices if c.schedule == "transposed"]
    (kernel,) = [k for k in lowered.program.kernels if k.name == name]
    statements = list(walk_statements(kernel.body))
    assert any(isinstance(s, Barrier) for s in statements)
    stores = [s for s in statements if isinstance(s, Store)]
    assert {s.buffer.space for s in stores} == {Space.SHARED, Space.GLOBAL}
    loads = [s.value for s in statements if isinstance(s, Let) and isinstance(s.value, Load)]
    for access in (*stores, *loads):
        ahead = substitute(access.index, {"column": 1}) - substitute(access.index, {"column": 0})
        from_tile = isinstance(access, Load) and access.buffer.space is Space.SHARED
        assert ahead == (33 if from_tile else 1), access


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64, DType.U8, DType.F16])
@pytest.mark.parametrize("count", [1, 3, 4, 1023, 4096])
def test_vectors_and_what_is_left(count: int, dtype: DType) -> None:
    b = Builder()
    x = b.input("x", count, dtype=dtype)
    graph = rewritten(b.output(y=b("concat", x, x, axis=0)))
    x = np.random.default_rng(0).integers(0, 100, count).astype(dtype.numpy)
    np.testing.assert_array_equal(run_graph(graph, {"x": x})["y"], np.concatenate([x, x]))


def test_a_thread_loads_sixteen_bytes() -> None:
    b = Builder()
    graph = rewritten(b.output(y=b("add", b.input("x", 64, 1000), b.input("z", 64, 1000))))
    (kernel,) = for_a_card(graph).program.kernels
    lets = [s.value for s in walk_statements(kernel.body) if hasattr(s, "value")]
    assert {v.type.lanes for v in lets if isinstance(v, Load)} == {4}


def test_values_of_no_numbers() -> None:
    """NaN, infinities and both zeros come through vectors and what is left of them."""
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3.4e38], np.float32)
    b = Builder()
    graph = rewritten(b.output(y=b("abs", b("neg", b.input("x", 7)))))
    found = run_graph(graph, {"x": x})["y"]
    np.testing.assert_array_equal(found, np.abs(-x))
    assert not np.signbit(found[3:5]).any()


@pytest.mark.dear
def test_filters_that_change_lie_for_vectors() -> None:
    """A depthwise layer's are brought into rows of channels, once for each of their values."""
    graph = step_graph(
        "conv", (8, 64, 56, 56), {"channels": 64, "groups": 64, "kernel": 3, "pad": 1}
    )
    lowered = lower(graph, cuda_machine(TARGET), "test")
    steps = [(choice.nodes[0], choice.schedule) for choice in lowered.choices]
    assert ("layer.dx", "windows") in steps
    assert sum(name.startswith("pack for layer") for name, _ in steps) == 1  # both ways read them


@pytest.mark.parametrize("shape", [(2, 64, 24, 20), (3, 10, 33, 31)])
@pytest.mark.parametrize("more", [{"pad": 1}, {"pad": 2, "dilation": 2}, {"stride": 2, "pad": 1}])
def test_depthwise_layers(shape: tuple[int, ...], more: dict[str, int]) -> None:
    attributes = {"channels": shape[1], "groups": shape[1], "kernel": 3, **more}
    graph = step_graph("conv", shape, attributes)
    arrays = random_arrays(graph, seed=1)
    outputs, states = run_step(graph, arrays)
    truth = evaluate_results(graph, {k: a.astype("f8") for k, a in arrays.items()})
    for found, expected in ((outputs, truth[0]), (states, truth[1])):
        for name, array in expected.items():
            span = float(np.max(np.abs(array), initial=1.0))
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * span, err_msg=name)


@pytest.mark.parametrize("channels", [(3, 3), (4, 8), (5, 2), (1, 6)])
def test_channels_side_by_side(channels: tuple[int, int]) -> None:
    """Whole vectors where channels begin at vectors; what is filled up reads nothing beyond."""
    b = Builder()
    x, z = (
        b("max_pool", b.input(name, 1, count, 8, 8), kernel=3, pad=1)
        for name, count in zip("xz", channels, strict=True)
    )
    graph = rewritten(b.output(y=b("max_pool", b("concat", x, z, axis=1), kernel=3, pad=1)))
    arrays = random_arrays(graph, seed=1)
    expected = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})["y"]
    np.testing.assert_allclose(run_graph(graph, arrays)["y"], expected, rtol=0, atol=2e-6)
