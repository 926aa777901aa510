"""Passes on random branched graphs: verified throughout, and the numbers stay."""

from __future__ import annotations

import pytest
from graphs import assert_same_numbers
from random_graphs import random_graph

from convdsl.passes import PASSES, run
from convdsl.tensor import DType


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("block", range(10))
def test_numbers_survive_all_passes(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        graph = random_graph(seed, dtype=DType.F64)
        assert_same_numbers(graph, run(graph, verify=True), seed, tolerance=1e-9)


@pytest.mark.dear
@pytest.mark.parametrize("rewrite", PASSES, ids=lambda p: p.name)
def test_numbers_survive_each_pass_alone(rewrite) -> None:
    for seed in range(200, 212):
        graph = random_graph(seed, dtype=DType.F64)
        assert_same_numbers(graph, run(graph, (rewrite,), verify=True), seed, tolerance=1e-9)
