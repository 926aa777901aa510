"""Convolutions whose maps only the caller reads make planes where turning blocks would take longer,
and patches of plain inputs are put side by side for them."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import check, run
from executors import runs_here
from graphs import Builder, evaluate_graph, random_arrays

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import lower
from convdsl.passes import PASSES
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

pytestmark = pytest.mark.handed_out


def patches(random: Random, dtype: DType = DType.F32) -> Graph:
    """Squares and rectangles of a few channels, maps that they do not divide, any channels out."""
    kernel = [random.choice([2, 3, 4, 5, 7, 8, 14, 16]), random.choice([2, 3, 4, 6, 8, 9, 16])]
    space = [k * random.randint(1, 5) + random.randint(0, k - 1) for k in kernel]
    b = Builder()
    x = b.input("x", random.choice([1, 4]), random.choice([1, 3, 4, 5]), *space, dtype=dtype)
    channels = random.choice([1, 7, 19, 33, 50])
    y = b("conv", x, channels=channels, kernel=kernel, stride=kernel, pad=0)
    return b.output(y=b("sigmoid", y) if random.random() < 0.5 else y)


def one_tap(random: Random, dtype: DType = DType.F32) -> Graph:
    """Few and many plain channels, more and fewer than a strip holds, in steps or not."""
    b = Builder()
    space = [random.randint(1, 23), random.randint(8, 40)]
    channels = random.choice([1, 3, 12, 24, 31, 40, 67])
    x = b.input("x", random.choice([1, 2]), channels, *space, dtype=dtype)
    stride = random.choice([1, 1, 2, 3])
    y = b("conv", x, channels=random.choice([17, 30, 64, 91]), kernel=1, stride=stride)
    return b.output(y=b("relu", y) if random.random() < 0.5 else y)


def windows(random: Random, dtype: DType = DType.F32) -> Graph:
    """Of a few plain channels, with borders."""
    b = Builder()
    x = b.input("x", 1, random.randint(1, 6), random.randint(5, 12), 29, dtype=dtype)
    pad = [(random.randint(0, 2), random.randint(0, 2)) for _ in range(2)]
    kernel = [random.randint(1, 5), random.randint(1, 5)]
    return b.output(y=b("conv", x, channels=random.choice([9, 20, 45]), kernel=kernel, pad=pad))


def gated(random: Random, dtype: DType = DType.F32) -> Graph:
    """Maps of one, two and three axes by values of their planes, which lie in blocks."""
    b = Builder()
    space = [random.randint(1, 9) for _ in range(random.choice([0, 1, 2]))] + [
        random.randint(5, 21)
    ]
    channels = random.choice([1, 5, 8, 16, 19, 33])
    x = b.input("x", random.choice([1, 3]), channels, *space, dtype=dtype)
    mean = b("avg_pool", x, kernel=space)
    gate = b("sigmoid", b("conv", mean, channels=channels, kernel=1))
    y = b("mul", x, gate) if random.random() < 0.5 else b("mul", gate, x)
    if random.random() < 0.4:
        y = b("add", y, b("conv", mean, channels=channels, kernel=1))
    if random.random() < 0.3:
        y = b("add", y, x)
    return b.output(y=b("relu", y) if random.random() < 0.5 else y)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", [patches, one_tap, windows, gated])
def test_drawn(kind: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In planes whatever that takes, for vectors of three widths, against double precision; now and
    then by the interpreter."""
    always = "convdsl.schedules.cpu.machine.is_handed_out_plain"
    monkeypatch.setattr(always, lambda stage, *_: stage.target.type.rank > 2)
    random = Random(f"{kind.__name__} {seed}")
    dtype = DType.F64 if seed % 5 == 0 else DType.F32
    cpu = ("native", "x86-64-v2", "x86-64-v4")[seed % 3]
    cpu = cpu if runs_here(find_target(cpu)) else "x86-64-v3"
    graph = run_passes(kind(random, dtype), PASSES)
    check(graph, dtype, cpu, loops=seed % 6 == 0)


def patch_layer(channels: int = 304, **how: Any) -> Builder:
    b = Builder()
    y = b("conv", b.input("x", 4, 1, 164, 164), channels=channels, kernel=4, stride=4, pad=0, **how)
    b.output(y=b("relu", y))
    return b


def schedules(b: Builder) -> list[str]:
    graph = run_passes(b.graph, PASSES)
    made = lower(graph, cpu_machine(find_target("x86-64-v3")), "handed_out")
    return [choice.schedule for choice in made.choices]


def layer(channels: int, space: int, made: int, **how: Any) -> Builder:
    b = Builder()
    x = b.input("x", 1, channels, space, space)
    b.output(y=b("conv", x, channels=made, **{"kernel": 1, **how}))
    return b


@pytest.mark.parametrize(
    "b", [layer(16, 80, 304), layer(32, 80, 96), layer(64, 56, 256), layer(3, 100, 64, kernel=3)]
)
def test_nothing_is_copied_behind_few_sums(b: Builder) -> None:
    assert schedules(b) == ["planar"]


def test_patches_are_put_side_by_side_in_planes() -> None:
    """A copy of rows of taps, and the sums."""
    assert schedules(patch_layer()) == ["unfolded", "unfolded"]


@pytest.mark.parametrize(
    "b", [layer(64, 28, 64, kernel=3, pad=1), layer(512, 7, 512, kernel=3, pad=1)]
)
def test_many_sums_stay_in_blocks(b: Builder) -> None:
    assert schedules(b)[-1] == "transpose"


@pytest.mark.parametrize("affine", [False, True])
def test_planes_by_a_value_of_each_are_not_turned(affine: bool) -> None:
    """A gate, a scale and a shift: of blocks of channels, for a map that lies plain and is handed
    out."""
    b = Builder()
    x = b.input("x", 2, 60, 23, 23)
    mean = b("avg_pool", x, kernel=23)
    y = b("mul", x, b("sigmoid", b("conv", mean, channels=60, kernel=1)))
    b.output(y=b("add", y, b("conv", mean, channels=60, kernel=1)) if affine else y)
    assert "transpose" not in schedules(b)
    graph = run_passes(b.graph, PASSES)
    made = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").program
    assert made.arena_bytes < 60 * 23 * 23 * 4


@pytest.mark.parametrize(
    "b",
    [
        layer(32, 56, 64, kernel=3, pad=1),  # only the caller reads it
        layer(64, 14, 10, kernel=3, pad=1),  # few channels, whoever reads it
    ],
)
def test_schedules_that_are_forbidden_weigh_nothing(b: Builder) -> None:
    """Blocks that Winograd's fewer products alone are worth are none without it (`--no-winograd`),
    and the sums are the same."""
    machine = cpu_machine(find_target("x86-64-v3"))
    forbidden = "winograd", "winograd_sums", "spectral"
    graph = run_passes(b.graph, PASSES)
    chosen = [c.schedule for c in lower(graph, machine, "t").choices]
    left = [c.schedule for c in lower(graph, machine.without(*forbidden), "t").choices]
    assert "winograd" in chosen
    assert left == ["planar"]
    arrays = {k: a.astype(np.float32) for k, a in random_arrays(graph, seed=5).items()}
    expected = evaluate_graph(graph, {k: a.astype(np.float64) for k, a in arrays.items()})["y"]
    found, _ = run(graph, arrays, find_target("x86-64-v3"), without=forbidden)
    np.testing.assert_allclose(found["y"], expected, rtol=0, atol=2e-5 * np.ptp(expected))


def test_what_is_read_besides_stays_in_blocks() -> None:
    """By an operator, or beside the map: another in blocks."""
    b = Builder()
    x = b.input("x", 1, 16, 80, 80)
    y = b("conv", x, channels=304, kernel=1)
    b.output(y=y, z=b("max_pool", y, kernel=2))
    assert "planar" not in schedules(b)
    b = Builder()
    x = b.input("x", 1, 16, 80, 80)
    other = b("max_pool", b("conv", x, channels=304, kernel=1), kernel=3, stride=1, pad=1)
    b.output(y=b("add", b("conv", x, channels=304, kernel=1), other))
    assert "planar" not in schedules(b)


def test_what_is_read_besides_may_come_later() -> None:
    """In the order of operators, though not in that of groups."""
    b = Builder()
    x = b.input("x", 1, 16, 40, 40)
    y = b("conv", x, channels=304, kernel=1)
    later = b("sigmoid", b.input("z", 1, 304, 40, 40))
    graph = run_passes(b.output(y=b("mul", y, later)), PASSES)
    check(graph)


@pytest.mark.parametrize("b", [layer(40, 21, 50), patch_layer(19), layer(3, 40, 30, kernel=3)])
def test_values_that_are_no_numbers_stay_where_they_are(b: Builder) -> None:
    """Infinities, NaN and huge values reach the sums whose windows read them, and no others."""
    arrays = {k: a.astype(np.float32) for k, a in random_arrays(b.graph, seed=3).items()}
    x, random = arrays["x"].reshape(-1), np.random.default_rng(4)
    for value in (np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0, -0.0):
        x[random.integers(x.size, size=5)] = value
    found, _ = run(b.graph, arrays, find_target("native"))
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = evaluate_graph(b.graph, {k: a.astype(np.float64) for k, a in arrays.items()})
    there = np.isfinite(wanted["y"])
    np.testing.assert_array_equal(found["y"][~there], wanted["y"][~there].astype(np.float32))
    near = there & (np.abs(wanted["y"]) < 1e20)
    np.testing.assert_allclose(found["y"][near], wanted["y"][near], rtol=1e-4, atol=1e-4)
    far = there & ~near
    np.testing.assert_allclose(found["y"][far], wanted["y"][far], rtol=1e-4)
