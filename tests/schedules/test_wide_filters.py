"""Filters of many taps: depthwise in chunks, borders in stretches; and groups that are torn."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_convolutions import check, conv_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.text import format_kernel
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

OTHERS = ("reduction", "direct", "spectral")
"""Cheaper for few results, few channels, or very many taps."""

CPUS = ["native", "x86-64-v3", "x86-64-v2"]
Layer = tuple[tuple[int, ...], dict[str, Any]]


@st.composite
def wide(draw: st.DrawFn) -> Layer:
    """Depthwise, of 1 or 2 axes, with a row of many taps, of which some never reach the input."""
    rank, channels = draw(st.sampled_from([1, 2])), draw(st.integers(2, 36))
    taps, dilation = draw(st.integers(8, 40)), draw(st.sampled_from([1, 1, 2, 3]))
    reach = (taps - 1) * dilation + 1
    before = draw(st.integers(0, reach))
    after = draw(st.integers(0, reach))
    extent = draw(st.integers(max(1, reach - before - after), 90))
    attributes = {
        "channels": channels,
        "groups": channels,
        "kernel": (2, taps)[-rank:],
        "stride": (1, draw(st.sampled_from([1, 1, 2, 5])))[-rank:],
        "dilation": (1, dilation)[-rank:],
        "pad": ((1, 0), (before, after))[-rank:],
        "flip": draw(st.booleans()),
    }
    return (draw(st.sampled_from([1, 2])), channels, 3, extent)[:2] + (3, extent)[
        -rank:
    ], attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(deadline=None, max_examples=5)
@given(wide())
def test_depthwise_of_many_taps(cpu: str, layer: Layer) -> None:
    assert "depthwise" in check(conv_graph(*layer), cpu=cpu, without=OTHERS)


@settings(deadline=None, max_examples=3)
@given(wide())
def test_depthwise_of_many_taps_in_f64(layer: Layer) -> None:
    assert "depthwise" in check(conv_graph(*layer, DType.F64), DType.F64, without=OTHERS)


def test_chunks_of_taps_are_loops() -> None:
    """One chunk serves those that reach the whole tile, as the loop interpreter agrees."""
    layer = (1, 4, 150), {"channels": 4, "groups": 4, "kernel": 100, "pad": 0}
    check(conv_graph(*layer), loops=True, without=OTHERS)
    longer = (1, 4, 250), {"channels": 4, "groups": 4, "kernel": 200, "pad": 0}
    assert _lines(longer) <= _lines(layer) < 1200


@pytest.mark.dear(share=4)
def test_taps_of_borders_are_stretches() -> None:
    """Taps side by side that reach the same positions share their code."""
    layer = (1, 3, 60), {"channels": 5, "kernel": 41, "pad": ((20, 25),)}
    check(conv_graph(*layer), loops=True)
    check(conv_graph(*layer))
    assert _lines(layer) < 2500


def _lines(layer: Layer) -> int:
    machine = cpu_machine(find_target("x86-64-v4")).without(*OTHERS)
    lowered = lower(conv_graph(*layer), machine, "wide")
    return sum(format_kernel(kernel).count("\n") for kernel in lowered.program.kernels)


@st.composite
def torn(draw: st.DrawFn) -> Layer:
    """Groups whose outputs begin anywhere in a vector."""
    rank, groups = draw(st.sampled_from([1, 2, 2, 3])), draw(st.integers(2, 7))
    attributes = {
        "channels": groups * draw(st.integers(17, 70).filter(lambda k: k % 16)),
        "kernel": tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        "stride": tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank)),
        "pad": "same",
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    space = [draw(st.integers(3, 16)) for _ in range(rank)]
    return (draw(st.sampled_from([1, 2])), groups * draw(st.integers(4, 40)), *space), attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(deadline=None, max_examples=5)
@given(torn())
def test_torn_groups(cpu: str, layer: Layer) -> None:
    check(conv_graph(*layer), cpu=cpu)


@pytest.mark.dear
def test_loops_of_torn_groups_are_sound() -> None:
    layer = (1, 66, 5, 6), {"channels": 99, "kernel": 3, "pad": 1, "groups": 3}
    assert "direct" in check(conv_graph(*layer), loops=True)
    assert "direct" in check(conv_graph(*layer))
    doubles = conv_graph(*layer, DType.F64)
    assert "direct" in check(doubles, DType.F64, loops=True)
