"""Convolutions to few channels, straight and transposed, in vectors along rows."""

from __future__ import annotations

from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
from drawn_convolutions import check
from executors import machine_code, run_graph, runs_here
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import For, If, Let, Load, Parallel, Set, Store, walk_statements
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cpu import planar_plan
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.planar_plan import plan
from convdsl.tensor import DType


def straight(random: Random) -> Graph:
    """One to three axes, windows that hang over borders or not, an input of the model or blocks of
    channels, rows that are whole vectors or not."""
    rank = random.choice([1, 2, 2, 3])
    kernel = [random.randint(1, 4) for _ in range(rank)]
    dilation = [random.choice([1, 1, 2]) for _ in range(rank)]
    stride = [random.choice([1, 1, 2]) for _ in range(rank - 1)] + [1]
    pads = [(random.randint(0, k), random.randint(0, k)) for k in kernel]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    space = [r + random.randint(0, 4) for r in reach[:-1]] + [reach[-1] + random.randint(15, 60)]
    b = Builder()
    x = b.input("x", random.choice([1, 2]), random.randint(1, 5), *space)
    if random.random() < 0.5:
        x = b("conv", x, channels=random.choice([16, 21]), kernel=1)
    channels = random.choice([1, 2, 3])
    y = b("conv", x, channels=channels, kernel=kernel, dilation=dilation, stride=stride, pad=pads)
    return b.output(y=b("sigmoid", y) if random.random() < 0.5 else y)


def transposed(random: Random) -> Graph:
    """Strides up to 4 in all axes, with and without phases that no tap meets."""
    rank = random.choice([1, 2, 2, 3])
    stride = [random.randint(1, 2 if rank == 3 else 4) for _ in range(rank)]
    kernel = [random.randint(1, 5 if rank < 3 else 3) for _ in range(rank)]
    dilation = [random.choice([1, 1, 2]) for _ in range(rank)]
    pads = [random.randint(0, d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    more = [random.randint(0, s - 1) for s in stride]
    space = [random.randint(1, 3) for _ in range(rank - 1)] + [random.randint(17, 40)]
    b = Builder()
    x = b.input("x", random.choice([1, 2]), random.randint(1, 5), *space)
    if random.random() < 0.5:
        x = b("conv", x, channels=random.choice([16, 21]), kernel=1)
    how: dict[str, Any] = {"stride": stride, "pad": pads, "output_pad": more, "dilation": dilation}
    y = b("conv_transpose", x, channels=random.choice([1, 2, 3]), kernel=kernel, **how)
    return b.output(y=b("relu", y) if random.random() < 0.5 else y)


def in_groups(random: Random) -> Graph:
    """Either of them, in groups of one to three channels to as many."""
    groups, own, made = random.choice([2, 3, 5, 8]), random.randint(1, 3), random.randint(1, 3)
    rank = random.choice([1, 2, 3])
    how: dict[str, Any] = {"kernel": [random.randint(1, 4) for _ in range(rank)], "groups": groups}
    space = [random.randint(4, 6) for _ in range(rank - 1)] + [random.randint(20, 50)]
    b = Builder()
    x = b.input("x", random.choice([1, 2]), groups * own, *space)
    if random.random() < 0.4:
        x = b("conv", x, channels=16 * groups, kernel=1)
    if random.random() < 0.5:
        how["stride"] = [random.choice([1, 2, 3]) for _ in range(rank)]
        return b.output(y=b("relu", b("conv_transpose", x, channels=groups * made, **how)))
    how["pad"] = [(random.randint(0, 3), random.randint(0, 2)) for _ in range(rank)]
    return b.output(y=b("conv", x, channels=groups * made, **how))


def ragged(random: Random) -> Graph:
    """Transposed ones to a few channels more than vectors of 8 or 16 hold."""
    b = Builder()
    x = b.input("x", random.choice([1, 2]), random.randint(1, 24), 3, random.randint(17, 40))
    stride = random.choice([1, 2, 4])
    how: dict[str, Any] = {"kernel": stride + random.choice([0, 1, 2]), "stride": stride}
    y = b("conv_transpose", x, channels=random.choice([9, 10, 11, 17, 18, 19, 21]), **how)
    return b.output(y=b("leaky_relu", y) if random.random() < 0.5 else y)


def torn(random: Random) -> Graph:
    """Groups of a plain input that begin and end within vectors."""
    groups, own, made = random.choice([2, 3, 4]), random.randint(1, 9), random.randint(5, 13)
    kernel = [random.choice([1, 1, 3]) for _ in range(2)]
    b = Builder()
    x = b.input("x", random.choice([1, 2]), groups * own, random.randint(4, 7), 23)
    how: dict[str, Any] = {"kernel": kernel, "groups": groups, "pad": [k // 2 for k in kernel]}
    y = b("conv", x, channels=groups * made, **how)
    return b.output(y=b("relu", y) if random.random() < 0.5 else y)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(48))
@pytest.mark.parametrize("kind", [straight, transposed, in_groups, ragged, torn])
def test_drawn(kind: Any, seed: int) -> None:
    """By machine code for the vectors of three widths and in both types, now and then by the
    interpreter, against double precision."""
    random = Random(f"{kind.__name__} {seed}")
    cpu = ("native", "x86-64-v4", "x86-64-v3")[seed % 3]
    dtype = DType.F64 if seed % 5 == 0 else DType.F32
    graph = kind(random)
    if dtype is DType.F64:
        b = Builder()
        x = b.input("x", 2, 3, 5, 37, dtype=DType.F64)
        graph = b.output(y=b("conv", x, channels=random.randint(1, 4), kernel=3, pad=seed % 3))
    if cpu == "x86-64-v4" and not runs_here(find_target(cpu)):
        cpu = "x86-64-v3"
    check(graph, dtype, cpu, loops=seed % 4 == 0)


def lowered(b: Builder, cpu: str = "x86-64-v4") -> Lowered:
    return lower(b.graph, cpu_machine(find_target(cpu)), "planar")


def schedules(b: Builder, cpu: str = "x86-64-v4") -> list[str]:
    return [choice.schedule for choice in lowered(b, cpu).choices]


@pytest.mark.dear
@pytest.mark.parametrize("drawn", [straight, transposed, in_groups])
def test_drawn_ones_are_of_the_kind(drawn: Any) -> None:
    """Most of them; the others have too many steps, or rows that are too short, or channels
    that fill vectors."""
    found = 0
    for seed in range(48):
        graph = drawn(Random(f"{drawn.__name__} {seed}"))
        made = lower(graph, cpu_machine(find_target("x86-64-v3")), "drawn")
        found += "planar" in [choice.schedule for choice in made.choices]
    assert found > 24


def layer(op: str, shape: tuple[int, ...], first: int = 0, **how: Any) -> Builder:
    b = Builder()
    x = b.input("x", *shape)
    if first:
        x = b("conv", x, channels=first, kernel=1)
    b.output(y=b(op, x, **how))
    return b


UP: dict[str, Any] = {"kernel": 4, "stride": 2, "pad": 1}


@pytest.mark.dear
@pytest.mark.parametrize(
    "b",
    [
        layer("conv_transpose", (1, 64, 32, 32), channels=3, **UP),  # the end of a generator
        layer("conv_transpose", (1, 64, 32, 32), channels=1, **UP),
        layer("conv", (1, 16, 32, 40), 64, channels=3, kernel=3),  # of a decoder
        layer("conv", (1, 16, 96, 90), 64, channels=2, kernel=1),  # of a segmentation
        layer("conv", (1, 8, 4000), 32, channels=1, kernel=7),  # of a vocoder
        layer("conv", (1, 1, 100, 100), channels=1, kernel=5),  # of an image
        layer("conv", (1, 12, 16, 40, 40), channels=4, kernel=3, pad=1, groups=4),
        layer("conv_transpose", (1, 64, 32, 32), channels=16, groups=4, **UP),
        layer("conv", (1, 64, 4000), channels=8, kernel=3, groups=8),
        layer("conv", (1, 256, 56, 56), channels=32, kernel=3, pad=1, groups=32),
    ],
)
def test_it_is_chosen(b: Builder) -> None:
    made = lowered(b)
    assert made.choices[-1].schedule == "planar"  # and nothing is copied behind it
    assert made.choices[-1].nodes[0].startswith("conv")


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("own", [4, 5, 6, 8, 12, 15, 16, 28])
@pytest.mark.parametrize("first", [0, 64])
def test_groups_that_end_within_vectors(own: int, first: int) -> None:
    """Where their input lies plain; blocks would be torn apart first."""
    b = layer("conv", (1, 8 * own, 40, 40), first, channels=8 * own, kernel=1, groups=8)
    assert ("planar" in schedules(b, "x86-64-v3")) == (own % 8 > 0 and not first)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("cpu", "channels", "planes"),
    [("x86-64-v3", n, n in (1, 4, 9, 11)) for n in (1, 4, 8, 9, 11, 12, 16, 24)]
    + [("x86-64-v4", n, n in (1, 8, 18, 21)) for n in (1, 8, 18, 21, 24, 32)],
)
def test_channels_that_leave_lanes_empty(cpu: str, channels: int, planes: bool) -> None:
    b = layer("conv_transpose", (1, 64, 32, 48), channels=channels, **UP)
    assert ("planar" in schedules(b, cpu)) == planes


@pytest.mark.parametrize(
    "b",
    [
        layer("conv", (1, 64, 32, 32), channels=64, kernel=3),
        layer("conv", (1, 48, 56, 56), channels=8, kernel=5),  # fewer products across channels
        layer("conv", (1, 64, 1, 1), channels=4, kernel=1),  # no rows
        layer("conv", (1, 64, 8, 8), channels=3, kernel=3),  # short ones
        layer("conv", (1, 64, 32, 32), channels=3, kernel=3, stride=2),
    ],
)
def test_it_is_not(b: Builder) -> None:
    assert "planar" not in schedules(b)


def test_taps_test_nothing() -> None:
    """Sums are straight loops: no branch, and a row is loaded once for all channels and phases."""
    made = lowered(layer("conv_transpose", (1, 64, 32, 64), channels=3, bias=False, **UP))
    (kernel,) = made.program.kernels
    statements = list(walk_statements(kernel.body))
    assert not any(isinstance(s, If) for s in statements)
    channels = [s for s in statements if isinstance(s, For) and s.var.name.startswith("c")]
    inner = [list(walk_statements(s.body)) for s in channels]
    (sums, *_) = [body for body in inner if any(isinstance(s, Set) for s in body)]
    products = sum(isinstance(s, Set) for s in sums)
    rows = sum(isinstance(s, Let) and isinstance(s.value, Load) for s in sums)
    vectors = products // (3 * 4)  # three channels, two phases of two taps
    assert vectors >= 1
    assert products == 3 * 4 * vectors
    assert rows == 3 * vectors  # of three places along the row
    stores = [s for s in statements if isinstance(s, Store) and s.buffer.name.startswith("t")]
    assert all(store.valid is None for store in stores)


def test_long_rows_are_met_in_strips() -> None:
    """What is held stays within half of the second-level cache."""
    target = find_target("x86-64-v4")
    made = lower(
        layer("conv", (1, 4, 40000), 32, channels=1, kernel=7).graph, cpu_machine(target), "x"
    )
    way = plan(made.choices[-1].task, target)
    assert way is not None
    assert way.strip < way.vectors
    assert way.channels * way.channel * 4 <= target.caches.l2_bytes // 2


def test_a_channel_is_no_multiple_of_a_page_further() -> None:
    """Rows of channels would meet in few sets of the first-level cache."""
    target = find_target("x86-64-v4")
    for wide in (14 * 16, 30 * 16, 62 * 16):
        b = layer("conv", (1, 4, 8, wide), 32, channels=1, kernel=(1, 3))
        way = plan(lower(b.graph, cpu_machine(target), "x").choices[-1].task, target)
        assert way is not None
        assert way.channel * 4 % 4096


def test_nothing_but_zeros_is_added_at_borders() -> None:
    """An infinity beside the border reaches its neighbours alone."""
    x = np.zeros((1, 1, 4, 40), "f4")
    x[0, 0, 0, 0] = np.inf
    b = Builder()
    graph = b.output(y=b("conv", b.input("x", 1, 1, 4, 40), channels=1, kernel=3, bias=False))
    y = run_graph(graph, {"x": x, "conv1.weight": np.ones((1, 1, 3, 3), "f4")}, machine_code)["y"]
    assert np.isinf(y[0, 0, :2, :2]).all()
    y[0, 0, :2, :2] = 0
    assert (y == 0).all()


def single(random: Random) -> Graph:
    """One tap along one axis at least: axes that lie as one are one, others are not."""
    rank, groups = random.choice([2, 3]), random.choice([1, 2, 4])
    kernel = [random.choice([1, 1, 3]) for _ in range(rank)]
    kernel[random.randrange(rank)] = 1
    space = [random.randint(3, 6) for _ in range(rank - 1)] + [random.randint(3, 40)]
    b = Builder()
    x = b.input("x", random.choice([1, 2]), groups * random.randint(1, 5), *space)
    how: dict[str, Any] = {"kernel": kernel, "groups": groups}
    how["pad"] = [(random.choice([0, 0, 1]), random.choice([0, 0, 1])) for _ in range(rank)]
    how["stride"] = [*(random.choice([1, 1, 2]) for _ in range(rank - 1)), 1]
    y = b("conv", x, channels=groups * random.randint(1, 3), **how)
    return b.output(y=b("relu", y) if random.random() < 0.5 else y)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(48))
def test_drawn_with_single_taps(seed: int) -> None:
    cpu = ("native", "x86-64-v3", "x86-64-v2")[seed % 3]
    check(single(Random(seed)), DType.F32, cpu, loops=seed % 4 == 0)


def way_of(shape: tuple[int, ...], cpu: str = "x86-64-v3", **how: Any) -> Any:
    target = find_target(cpu)
    choices = lower(layer("conv", shape, **how).graph, cpu_machine(target), "x").choices
    return plan(choices[0].task, target)


@pytest.mark.parametrize(
    ("shape", "kernel", "pad", "outs"),
    [
        ((1, 8, 30, 41), (1, 1), 0, (30 * 41,)),
        ((1, 8, 9, 30, 41), (1, 1, 1), 0, (9 * 30 * 41,)),
        ((1, 8, 9, 30, 41), (3, 1, 1), (1, 0, 0), (9, 30 * 41)),
        ((1, 8, 9, 30, 41), (1, 3, 3), (0, 1, 1), (9, 30, 41)),
        ((1, 8, 30, 41), (1, 1), 1, (32, 43)),  # borders are no part of x
    ],
)
def test_axes_without_taps_are_one(
    shape: tuple[int, ...], kernel: tuple[int, ...], pad: Any, outs: tuple[int, ...]
) -> None:
    assert way_of(shape, channels=3, kernel=kernel, pad=pad).planar.outs == outs


def test_groups_are_met_one_after_the_other() -> None:
    """What is read of a group's channels is read along, not a row of each of all groups."""
    made = lowered(layer("conv", (1, 68, 30, 41), channels=12, kernel=1, groups=4), "x86-64-v3")
    (loop,) = [s for s in made.program.kernels[0].body if isinstance(s, Parallel)]
    extents = {var.name: extent for var, extent in zip(loop.vars, loop.extents, strict=True)}
    assert extents["g"] == 4
    inside = {s.var.name for s in walk_statements(loop.body) if isinstance(s, For)}
    assert "g" not in inside


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_one_long_row_is_shared_out(groups: int) -> None:
    way = way_of((1, groups * 3, 90, 91), channels=2 * groups, kernel=1, groups=groups)
    units = -(-way.vectors // way.strip) * groups
    assert units >= 8
    assert way.strip % way.tile.vectors == 0


def test_rows_that_several_tiles_of_channels_meet_are_met_in_strips() -> None:
    """Of 21 channels a group to 11 in tiles of four: what one tile reads of a row is near when the
    next one does. One tile to all channels meets rows once."""

    def way(groups: int, channels: int, made: int) -> Any:
        b = layer("conv", (1, channels, 159, 159), channels=made, kernel=1, groups=groups)
        (choice,) = lowered(b, "x86-64-v3").choices
        return plan(choice.task, find_target("x86-64-v3"))

    several, once = way(4, 84, 44), way(4, 20, 12)
    near = find_target("x86-64-v3").caches.l1_bytes
    assert several.tile.channels < 11
    assert several.strip * several.lanes * 4 * 21 <= near
    assert (once.tile.channels, once.strip * 2 + once.tile.vectors > once.vectors) == (3, True)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("near", "stays"), [(1, 1e-6), (0, 0.01)])
@pytest.mark.parametrize("sizes", [(6, 10, 301), (18, 22, 299), (40, 26, 77)])
def test_strips_of_any_length(near: int, stays: float, sizes: tuple[int, int, int]) -> None:
    channels, made, long = sizes
    b = Builder()
    x = b.input("x", 2, channels, 3, long)
    graph = b.output(y=b("relu", b("conv", x, channels=made, kernel=1, groups=2)))
    with mock.patch.multiple(planar_plan, NEAR=near, _STAYS=stays):
        check(graph, DType.F32, "native")
