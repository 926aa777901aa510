"""Random graphs with no passes, all passes and each pass alone, against onnxruntime."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import random_graph

import convdsl
from convdsl.passes import PASSES
from interop.runtimes import as_model, assert_close, draw_inputs, run_convdsl, run_onnxruntime

WEIGHTS = "random:5"


def compare(seed: int, *ways, length: int = 8) -> None:
    model = as_model(random_graph(seed, length=length))
    arrays = draw_inputs(model, seed)
    expected = run_onnxruntime(convdsl.export(model, WEIGHTS), arrays)
    for passes in ways:
        assert_close(run_convdsl(model, arrays, WEIGHTS, passes=passes), expected)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(100, 103))
def test_each_pass_alone(seed):
    compare(seed, (), PASSES, *((one,) for one in PASSES))


@pytest.mark.slow
@pytest.mark.fuzz
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_any_graph(seed, length):
    """`make fuzz` draws 2,000. The same seed grows the same graph, as far as `length` goes."""
    compare(seed, (), PASSES, *((one,) for one in PASSES), length=length)
