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
from convdsl.kernel.caches import Caches
from convdsl.kernel.cpu_abi import SHARES
from convdsl.kernel.expr import reads
from convdsl.kernel.nodes import For, If, Parallel, Prefetch, Statement, statement_bodies
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu import gemm, sweeps
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.cpu.segments import border_segments
from convdsl.schedules.cpu.sweeps import Extent, Limits, choose_sweeps
from convdsl.schedules.cpu.tiles import Tile, choose_tile, columns_for, evenly
from convdsl.tensor import DType, TensorType, evaluate, symbols_of

sizes = st.sampled_from([1, 64, 4 << 10, 1 << 30])
TUNED = Limits(512 << 10, 32 << 10, 192 << 10)


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
)
def test_every_way_of_sweeping(
    drawn: tuple[Any, Any], share: int, panel: int, band: int, few: int, many: int
) -> None:
    limits = mock.patch.object(Limits, "of", return_value=Limits(share, panel, band))
    with limits, mock.patch.multiple(sweeps, _FEW_UNITS=few, _UNITS=many):
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
    limits = mock.patch.object(Limits, "of", return_value=Limits(share, panel, band))
    share_of_cache = Fraction(panel, find_target().caches.l2_bytes)
    with (
        limits,
        mock.patch.object(gemm, "_PANEL", share_of_cache),
        mock.patch.multiple(sweeps, _FEW_UNITS=few, _UNITS=few),
    ):
        check(rewritten(b.output(y=made)), dtype)


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
