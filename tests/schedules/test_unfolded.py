"""Convolutions that read no position twice: what they read is put side by side before."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_convolutions import check, conv_graph
from graphs import Builder
from hypothesis import assume, given
from hypothesis import strategies as st

from convdsl.backends.llvm.objects import find_target
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType


def strided(shape: tuple[int, ...], **attributes: Any) -> Any:
    """A convolution whose input is made by another, so that it lies in vectors of channels."""
    b = Builder()
    x = b("conv", b.input("x", *shape), channels=shape[1], kernel=1)
    made = b("conv", x, kernel=1, **attributes)
    return b.output(y=b("relu", b("add", made, b.input("skip", *made.type.sizes))))


@pytest.mark.dear
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    space=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    made=st.integers(1, 70),
    strides=st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_ragged_channels_and_any_steps(
    batch: int, channels: int, space: list[int], made: int, strides: list[int]
) -> None:
    """Also those of a step of one along some axis, and maps of which one position is read."""
    stride = tuple(strides[: len(space)])
    assume(max(stride) > 1)
    graph = strided((batch, channels, *space), channels=made, stride=stride)
    check(graph, without=("direct",) if channels > 15 and made > 15 else ())


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_it_is_chosen_where_rows_cut_tiles_off(dtype: DType) -> None:
    """Rows of 7 leave tiles of one position over; 49 positions side by side hardly do."""
    b = Builder()
    x = b("conv", b.input("x", 1, 256, 14, 14, dtype=dtype), channels=256, kernel=1)
    graph = b.output(y=b("conv", x, channels=512, kernel=1, stride=2))
    assert "unfolded" in check(graph, dtype)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_what_an_epilogue_reads_too_is_read_in_place(cpu: str) -> None:
    b = Builder()
    x = b("conv", b.input("x", 1, 64, 28, 28), channels=64, kernel=1)
    y = b("conv", x, channels=64, kernel=1, stride=2)
    other = b("max_pool", x, kernel=1, stride=2)
    graph = b.output(y=b("mul", y, other))
    lowered = lower(graph, cpu_machine(find_target(cpu)), "t")
    assert lowered.choices
    check(graph)


def test_groups() -> None:
    graph = strided((2, 64, 15, 15), channels=64, stride=2, groups=2)
    check(graph, without=("direct",))


@pytest.mark.parametrize(("channels", "made"), [(8, 128), (64, 32)])
def test_few_channels_are_read_as_they_lie(channels: int, made: int) -> None:
    """Inputs of a model are plain."""
    graph = conv_graph((1, channels, 15, 15), {"channels": made, "kernel": 1, "stride": 2})
    assert "unfolded" not in check(graph)


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3"])
def test_many_plain_channels_are_turned_first(cpu: str) -> None:
    """A tile would meet a line of each of 304 rows, for five positions."""
    graph = conv_graph((2, 304, 18, 18), {"channels": 64, "kernel": 1, "stride": 2})
    lowered = lower(graph, cpu_machine(find_target(cpu)), "t")
    assert "unfolded" in [choice.schedule for choice in lowered.choices]


@pytest.mark.dear
@given(
    batch=st.integers(1, 3),
    channels=st.integers(24, 70),
    space=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    made=st.integers(64, 150),
    strides=st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_plain_inputs_of_any_steps(
    batch: int, channels: int, space: list[int], made: int, strides: list[int]
) -> None:
    """Rows of one position, too, which nothing turns."""
    stride = tuple(strides[: len(space)])
    assume(max(stride) > 1)
    graph = conv_graph((batch, channels, *space), {"channels": made, "kernel": 1, "stride": stride})
    check(graph, without=("direct", "winograd", "planar", "spectral"))


@pytest.mark.dear
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 5),
    taps=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    more=st.integers(0, 2),
    made=st.integers(1, 40),
    outs=st.integers(1, 9),
    bias=st.booleans(),
)
def test_patches(
    batch: int, channels: int, taps: list[int], more: int, made: int, outs: int, bias: bool
) -> None:
    """Of any filters, and of steps that leave some of the input out."""
    stride = tuple(tap + more for tap in taps)
    assume(max(stride) > 1)
    space = [step * outs for step in stride]
    attributes = {
        "channels": made,
        "kernel": tuple(taps),
        "stride": stride,
        "bias": bias,
        "pad": "valid",
    }
    check(conv_graph((batch, channels, *space), attributes), without=("direct", "planar"))


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_large_patches_are_unfolded(cpu: str) -> None:
    """Those of vision transformers; the stem of ConvNeXt is small enough to be met in place."""
    for size, made, chosen in ((32, 768, True), (4, 96, False)):
        attributes = {"channels": made, "kernel": size, "stride": size, "pad": "valid"}
        lowered = lower(
            conv_graph((1, 3, 224, 224), attributes), cpu_machine(find_target(cpu)), "t"
        )
        assert (lowered.choices[0].schedule == "unfolded") is chosen
