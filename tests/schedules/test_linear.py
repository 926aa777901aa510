"""Matrix products with a weight: odd sizes, batches, both dtypes, fused epilogues."""

from __future__ import annotations

import pytest
from drawn_convolutions import check
from graphs import Builder, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.tensor import DType

CPUS = ["native", "x86-64-v3", "x86-64-v2"]


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=12)
@given(
    rows=st.one_of(st.just(1), st.integers(1, 20)),
    inputs=st.integers(1, 70),
    channels=st.integers(1, 150),
    bias=st.booleans(),
    dtype=st.sampled_from([DType.F32, DType.F64]),
)
def test_drawn(rows: int, inputs: int, channels: int, bias: bool, dtype: DType, cpu: str) -> None:
    b = Builder()
    x = b.input("x", rows, inputs, dtype=dtype)
    schedules = check(b.output(y=b("linear", x, channels=channels, bias=bias)), dtype, cpu)
    assert schedules in (["gemm"], ["reduction"], ["generic"])
    assert schedules == ["gemm"] or channels < 8


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64, 100])
def test_with_a_residual(rows: int, channels: int) -> None:
    """The residual is as ragged as the sum, and has no filling to read."""
    b = Builder()
    h = b("linear", b.input("x", rows, 33), channels=channels)
    graph = b.output(y=b("relu", b("add", h, b.input("skip", rows, channels))))
    assert len(check(rewritten(graph))) == 1


def test_over_more_axes() -> None:
    b = Builder()
    check(b.output(y=b("linear", b.input("x", 2, 3, 37), channels=21)))
