"""Whole networks against PyTorch: same weights, same logits, in every way of running them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from reference_networks import make

import convdsl
from convdsl.passes import PASSES

TOLERANCE = 1e-4  # of the range of the outputs


@lru_cache(maxsize=1)
def _network(name: str) -> tuple[dict[str, Any], torch.nn.Module]:
    network = make(name)
    return {key: value.numpy() for key, value in network.state_dict().items()}, network


@pytest.mark.parametrize("batch", [1, pytest.param(3, marks=pytest.mark.drawn)])
@pytest.mark.parametrize("passes", [PASSES, ()], ids=["passes", "no-passes"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_logits_equal_pytorchs(name: str, passes: Any, batch: int) -> None:
    weights, network = _network(name)
    x = np.random.default_rng(batch).standard_normal((batch, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    results = []
    for threads in (1, 2):
        executable = convdsl.compile(name, weights, threads=threads, passes=passes)
        results.append(executable(x))
    worst = np.abs(results[0] - expected).max() / (expected.max() - expected.min())
    assert worst <= TOLERANCE
    np.testing.assert_array_equal(results[0], results[1])
