"""Panels of filters and bands of positions, with caches so small that every way occurs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from drawn_convolutions import check, conv_graph, convolutions
from graphs import Builder, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.caches import Caches
from convdsl.kernel.cpu_abi import SHARES
from convdsl.kernel.expr import reads
from convdsl.kernel.nodes import (
    For,
    If,
    Let,
    Load,
    Parallel,
    Prefetch,
    Statement,
    statement_bodies,
)
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu import direct, gemm, sweeps
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.segments import border_segments
from convdsl.schedules.cpu.sweeps import Extent, Limits, choose_sweeps, sweep_abreast
from convdsl.schedules.cpu.tiles import Tile, choose_tile, columns_for, evenly
from convdsl.tensor import DType, TensorType, evaluate, symbols_of

sizes = st.sampled_from([1, 64, 4 << 10, 1 << 30])
TUNED = Limits(512 << 10, 32 << 10, 192 << 10, 5 << 20)


def test_limits_are_shares_of_a_core_s_caches() -> None:
    """The ones that the shares were tuned to, on the processor that they were tuned on."""
    target = replace(find_target("x86-64-v4"), caches=Caches(48 << 10, 1280 << 10))
    assert Limits.of(target) == TUNED


@pytest.mark.dear
@settings(max_examples=40)
@given(
    drawn=convolutions(),
    share=st.sampled_from([0, 1 << 30]),
    panel=sizes,
    band=sizes,
    few=st.integers(1, 9),
    many=st.sampled_from([1, 32, 200]),
    far=st.sampled_from([0, 1 << 30]),
    worth=st.sampled_from([0, 2]),
)
def test_every_way_of_sweeping(
    drawn: tuple[Any, Any],
    share: int,
    panel: int,
    band: int,
    few: int,
    many: int,
    far: int,
    worth: int,
) -> None:
    limits = mock.patch.object(Limits, "of", return_value=Limits(share, panel, band, far))
    with limits, mock.patch.multiple(sweeps, _FEW_UNITS=few, _UNITS=many, _WORTH=worth):
        check(conv_graph(*drawn))


@pytest.mark.dear
@settings(max_examples=30)
@given(
    batch=st.sampled_from([0, 0, 1, 3]),
    rows=st.integers(2, 60),
    inputs=st.integers(1, 150),
    channels=st.integers(1, 200),
    dtype=st.sampled_from([DType.F32, DType.F64]),
    share=st.sampled_from([0, 1 << 30]),
    panel=st.sampled_from([1, 100, 6000]),
    band=sizes,
    few=st.integers(1, 9),
)
def test_every_way_of_sweeping_matrices(
    batch: int,
    rows: int,
    inputs: int,
    channels: int,
    dtype: DType,
    share: int,
    panel: int,
    band: int,
    few: int,
) -> None:
    """Weights (batch 0) and operands of calls, panels that are cut along the sum, a residual."""
    b = Builder()
    if batch:
        x = b.input("x", batch, rows, inputs, dtype=dtype)
        made = b("matmul", x, b.input("w", batch, inputs, channels, dtype=dtype))
    else:
        made = b("linear", b.input("x", rows, inputs, dtype=dtype), channels=channels)
        made = b("add", made, b.input("skip", rows, channels, dtype=dtype))
    limits = mock.patch.object(Limits, "of", return_value=Limits(share, panel, band, 1 << 30))
    share_of_cache = Fraction(panel, find_target().caches.l2_bytes)
    with (
        limits,
        mock.patch.object(gemm, "_PANEL", share_of_cache),
        mock.patch.multiple(sweeps, _FEW_UNITS=few, _UNITS=few),
    ):
        check(rewritten(b.output(y=made)), dtype)


@pytest.mark.dear(share=4)
@settings(max_examples=200)
@given(
    filters=st.integers(1, 1 << 24),
    slab=st.integers(64, 1 << 17),
    blocks=st.integers(1, 64),
    others=st.integers(1, 100),
    pieces=st.integers(1, 200),
    inputs=st.integers(64, 1 << 23),
    sums=st.integers(64, 1 << 23),
)
def test_what_is_chosen_covers_everything_once(**drawn: int) -> None:
    extent = Extent(**drawn)
    chosen = choose_sweeps(extent, TUNED)
    assert (chosen.panels - 1) * chosen.panel < extent.blocks <= chosen.panels * chosen.panel
    assert (chosen.bands - 1) * chosen.size < extent.pieces <= chosen.bands * chosen.size
    if extent.filters <= TUNED.stay:
        assert chosen.panels == 1
    elif chosen.panels < extent.blocks:
        assert chosen.panel * extent.slab <= TUNED.panel


@pytest.mark.parametrize("others", [1, 2, 4, 7, 16])
def test_two_threads_have_as_much_to_do(others: int) -> None:
    """56 rows, whatever the number of other pieces: neither waits long for the other."""
    chosen = choose_sweeps(Extent(1 << 20, 1 << 14, 8, others, 56, 1 << 20, 1 << 16), TUNED)
    rows = [min(chosen.size, 56 - start) for start in range(0, 56, chosen.size)]
    works = rows * others
    cuts = [len(works) * k // (2 * SHARES) for k in range(2 * SHARES + 1)]
    clocks = [0, 0]
    for start, stop in pairwise(cuts):
        clocks[clocks.index(min(clocks))] += sum(works[start:stop])
    assert max(clocks) <= 1.15 * sum(works) / 2


def _statements(body: tuple[Statement, ...]) -> list[Statement]:
    found: list[Statement] = []
    for statement in body:
        found.append(statement)
        for nested in statement_bodies(statement):
            found += _statements(nested)
    return found


def test_large_filters_are_read_in_panels_and_asked_for_ahead() -> None:
    """One loop over panels around the positions; sums are fetched and put aside under tests."""
    graph = conv_graph((1, 512, 14, 14), {"channels": 512, "kernel": 3})
    machine = cpu_machine(find_target("x86-64-v4")).without("winograd")
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if kernel.registers)
    (parallel, *_) = [s for s in kernel.body if isinstance(s, Parallel)]
    (panels,) = parallel.body
    assert isinstance(panels, For)
    assert panels.var.name.startswith("panel")
    inside = _statements(panels.body)
    assert any(isinstance(s, Prefetch) and s.level == 2 for s in inside)
    assert any(isinstance(s, If) for s in inside)


def _loops(graph: Graph) -> tuple[list[int], list[str]]:
    """Of a convolution's first region: positions of its parallel loops, and the loops in it."""
    machine = cpu_machine(find_target("x86-64-v3", "x86_64-unknown-linux-gnu"))
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (k for k in kernels if k.name.startswith("conv"))
    (parallel, *_) = [s for s in kernel.body if isinstance(s, Parallel)]
    inside = [s for s in _statements(parallel.body) if isinstance(s, For)]
    names = [s.var.name.partition("_")[0] for s in inside]
    return [extent for extent in parallel.extents if isinstance(extent, int)], names


def test_all_channels_meet_a_band_of_inputs_that_come_from_afar() -> None:
    """2048 channels of 65x65 positions were read from memory once for every 16 of 512. Maps of
    classifiers, and filters that stay in the cache, are swept as they were."""
    deep = conv_graph((1, 2048, 65, 65), {"channels": 512, "kernel": 1})
    extents, loops = _loops(deep)
    assert loops[:3] == ["panel", "kt", "tile"]
    assert extents[-2] <= 4  # times that the input is read
    assert extents[-1] >= 8  # bands
    wide, loops = _loops(conv_graph((1, 512, 65, 65), {"channels": 2048, "kernel": 1}))
    assert loops[:3] == ["panel", "kt", "tile"]
    assert 1 < wide[-2] <= 16  # sums of all 2048 channels would leave bands of a few positions
    for size, channels in ((14, 256), (65, 16)):
        near = conv_graph((1, 1024, size, size), {"channels": channels, "kernel": 1})
        assert "kt" not in _loops(near)[1]


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
@pytest.mark.parametrize(("side", "channels"), [((7, 9), 104), ((6, 11), 72), ((1, 64), 64)])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_abreast(side: tuple[int, int], channels: int, groups: int, dtype: DType) -> None:
    """Channels and positions that are left over, a residual and what follows; several samples."""
    b = Builder()
    x = b.input("x", 2, 96, *side, dtype=dtype)
    made = b("conv", x, channels=channels * groups, kernel=1, groups=groups)
    skip = b.input("skip", 2, channels * groups, *side, dtype=dtype)
    graph = rewritten(b.output(y=b("relu", b("add", made, skip))))
    limits = mock.patch.object(Limits, "of", return_value=Limits(0, 512, 4 << 10, 0))
    chosen: list[Any] = []
    real = sweeps.sweep_abreast

    def recorded(*given: Any) -> Any:
        chosen.append(real(*given))
        return chosen[-1]

    with (
        limits,
        mock.patch.multiple(sweeps, _FEW_UNITS=1, _WORTH=0),
        mock.patch.object(direct, "sweep_abreast", recorded),
    ):
        assert "direct" in check(graph, dtype)
    assert any(chosen)


def test_a_band_for_all_channels_stays_in_the_cache() -> None:
    """Sums of all channels beside the inputs of a panel; no such order for small inputs, of one
    tile, or where filters would be read more often than inputs are now; a team has its share."""
    extent = Extent(4 << 20, 4 << 10, 256, 32, 705, 33 << 20, 264 << 10)
    chosen = sweep_abreast(extent, TUNED, 32)
    assert chosen is not None
    assert chosen.abreast > 1
    assert 32 % chosen.abreast == 0
    assert (chosen.bands - 1) * chosen.size < extent.pieces <= chosen.bands * chosen.size
    wait = extent.sums * chosen.abreast + extent.inputs * chosen.panel // extent.blocks
    assert wait * chosen.size / extent.pieces <= 2 * TUNED.band
    assert sweep_abreast(replace(extent, inputs=4 << 20), TUNED, 32) is None
    assert sweep_abreast(extent, TUNED, 1) is None
    assert sweep_abreast(replace(extent, filters=512 << 20), TUNED, 32) is None
    few = sweep_abreast(replace(extent, pieces=1), TUNED, 32)
    assert few is not None
    assert few.bands * extent.others >= 8 * few.abreast  # pieces of work


def test_large_matrices_are_read_in_panels_and_asked_for_ahead() -> None:
    """Rows that are left over meet each panel with the others: none is read for them again."""
    b = Builder()
    graph = b.output(y=b("linear", b.input("x", 50, 3072), channels=768))
    kernels = lower(graph, cpu_machine(find_target("x86-64-v4")), "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if kernel.registers)
    (parallel,) = [s for s in kernel.body if isinstance(s, Parallel)]
    (panels,) = parallel.body
    assert isinstance(panels, For)
    assert panels.var.name.startswith("panel")
    tiles = [s for s in _statements(panels.body) if isinstance(s, Prefetch)]
    assert len(tiles) == 2  # of the tile of many rows, and of that of the last ones


@pytest.mark.parametrize(("rows", "asks"), [(1, False), (3, True), (5, True)])
def test_matrices_that_few_rows_sweep_once_are_asked_for_a_page_ahead(
    rows: int, asks: bool
) -> None:
    """Of vectors that a tile reads in order. One row is as fast as memory by itself."""
    b = Builder()
    graph = b.output(y=b("linear", b.input("x", rows, 600), channels=400))
    machine = cpu_machine(find_target("x86-64-v3", "x86_64-unknown-linux-gnu"))
    kernels = lower(graph, machine, "t").program.kernels
    asked = [s for k in kernels for s in _statements(k.body) if isinstance(s, Prefetch)]
    loads = [
        s.value
        for k in kernels
        for s in _statements(k.body)
        if isinstance(s, Let) and isinstance(s.value, Load) and s.value.type.lanes == 8
    ]
    assert bool(asked) == asks
    for prefetch in asked:
        ahead = {prefetch.index - load.index for load in loads if load.buffer == prefetch.buffer}
        assert ahead & {1024, 1024 + 16}  # elements of a page, from a line of the step on


@pytest.mark.parametrize("stride", [1, 2])
def test_rows_of_plain_inputs_are_asked_for_ahead(stride: int) -> None:
    """Rows that the next row of the output reads first; those of blocked inputs are streams."""
    b = Builder()
    first = b("conv", b.input("x", 1, 3, 60, 60), channels=32, kernel=3, stride=stride)
    graph = b.output(y=b("conv", first, channels=32, kernel=3, stride=2))
    machine = cpu_machine(find_target("x86-64-v4")).without("winograd")
    kernels = lower(graph, machine, "t").program.kernels
    found = [k for k in kernels if k.name.startswith("conv")]
    asked = [[s for s in _statements(k.body) if isinstance(s, Prefetch)] for k in found]
    assert asked[0]
    assert not asked[1]
    for prefetch in asked[0]:
        assert prefetch.buffer.name == "x0"
        here = dict.fromkeys((symbol.name for symbol in symbols_of(prefetch.index)), 3)
        steps = {
            name[:4]: evaluate(prefetch.index, {**here, name: 4}) - evaluate(prefetch.index, here)
            for name in here
        }
        assert steps.items() >= {"chan": 60 * 60, "p0": 60 * stride}.items()
        assert steps.get("tap", 60) == 60  # a loop where the stride is more than one row


def test_filters_of_few_channels_take_no_more_memory_than_they_need() -> None:
    graph = conv_graph((1, 3, 40, 40), {"channels": 32, "kernel": 3, "bias": False})
    machine = cpu_machine(find_target("x86-64-v4")).without("winograd")
    (packing,) = lower(graph, machine, "t").packings
    assert packing.pack.size == 32 * 3 * 9


def test_panels_of_a_product_are_shared_out() -> None:
    """Rows and vectors that are left over, a residual; by one thread, two and three."""
    b = Builder()
    made = b("linear", b.input("x", 50, 3000), channels=75)
    graph = rewritten(b.output(y=b("add", made, b.input("skip", 50, 75))))
    assert check(graph) == ["gemm"]


def test_small_filters_are_not() -> None:
    graph = conv_graph((1, 64, 14, 14), {"channels": 64, "kernel": 3})
    machine = cpu_machine(find_target("x86-64-v4")).without("winograd")
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if kernel.registers)
    assert not any(isinstance(s, Prefetch | If) for s in _statements(kernel.body))


def _segments(extent: int, **attributes: Any) -> dict[str, list[tuple[int, int]]]:
    b = Builder()
    graph = b.output(y=b("max_pool", b.input("x", 1, 16, extent, 20), **attributes))
    (node,) = graph.op_nodes()
    (stage,) = (
        BY_NAME["max_pool"]
        .call({"x": TensorType(DType.F32, (1, 16, extent, 20))}, dict(node.attributes))
        .kernel.stages
    )
    return border_segments(stage.axes, list(reads(stage.body)))


def test_borders_of_windows() -> None:
    """The positions whose windows leave the input, one by one; the others have no tests."""
    found = _segments(20, kernel=3, stride=1, pad=1)
    assert list(found.values()) == [[(0, 1), (1, 19), (19, 20)]] * 2
    assert _segments(20, kernel=2, stride=2) == {}
    found = _segments(3, kernel=3, stride=1, pad=1)  # nothing, or next to it, lies in between
    assert list(found.values()) == [[(0, 1), (1, 19), (19, 20)]]
    found = _segments(20, kernel=9, stride=1, pad=4)  # too much border for code of its own
    assert list(found.values()) == [[(0, 4), (4, 16), (16, 20)]] * 2
    assert _segments(20, kernel=19, stride=1, pad=9) == {}


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("size", [7, 14, 28])
def test_large_filters_leave_no_channels_over(cpu: str, size: int) -> None:
    """All positions would be swept once more for a few of them: every tile has as many blocks."""
    graph = conv_graph((1, 512, size, size), {"channels": 512, "kernel": 3})
    machine = cpu_machine(find_target(cpu, "x86_64-unknown-linux-gnu")).without("winograd")
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if kernel.registers)
    assert len([s for s in kernel.body if isinstance(s, Parallel)]) == 1


@pytest.mark.parametrize(("channels", "left"), [(728, 1), (344, 1), (88, 1), (512, 0), (200, 0)])
def test_blocks_that_no_tile_divides_are_left_over(channels: int, left: int) -> None:
    """91, 43 and 11 blocks: in pairs and one, not each by itself."""
    graph = conv_graph((1, 1024, 19, 19), {"channels": channels, "kernel": 1})
    machine = cpu_machine(find_target("x86-64-v3", "x86_64-unknown-linux-gnu"))
    kernels = lower(graph, machine, "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if kernel.registers)
    assert len([s for s in kernel.body if isinstance(s, Parallel)]) == 1 + left


def test_tiles_that_fill_all_registers_read_filters_from_memory() -> None:
    """4 x 7 sums, two vectors of filters, an element, one to spare; others are loaded for each
    of seven positions. At two loads a cycle 2 x 15 could not."""
    triple = "x86_64-unknown-linux-gnu"
    wide = find_target("x86-64-v4", triple)
    assert choose_tile(wide, 32, 7, must_divide=True) == Tile(4, 7, afresh=2)
    assert choose_tile(wide, 2, 15, must_divide=True).columns < 15
    arm = find_target("generic", "aarch64-linux-gnu")
    tile = choose_tile(arm, 32, 7, must_divide=True)
    assert tile.blocks * tile.columns + tile.blocks < arm.vector_registers


@given(st.integers(1, 400), st.integers(1, 30))
def test_pieces_are_even(total: int, most: int) -> None:
    """No fewer would do, and none is more than one larger than another."""
    pieces = evenly(total, most)
    sizes = [size for size, count in pieces for _ in range(count)]
    assert sum(sizes) == total
    assert len(sizes) == -(-total // most)
    assert max(sizes) - min(sizes) <= 1


def test_tiles_spare_the_second_level_cache() -> None:
    """Seven blocks x three columns read filters twice as fast as they come from there."""
    target = find_target("x86-64-v4")
    assert choose_tile(target, 7, 28, depth=16).blocks == 7
    assert choose_tile(target, 7, 28, depth=4096).blocks < 7
    wide = columns_for(target, 1, 40)
    assert wide > columns_for(target, 4, 40)
