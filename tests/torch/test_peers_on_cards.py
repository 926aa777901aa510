"""PyTorch as benchmarks.gpu runs it, on the processor: that it can, and computes the same."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from benchmarks import gpu


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TORCH", "cpu")


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1"])
def test_forward(name: str) -> None:
    x = gpu.sample(name, 2)
    found = gpu.torch_forward(name, x, "highest")()
    expected = convdsl.compile(name, "random:0")(x)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-5 * scale)


def test_a_step_of_training() -> None:
    """Goes down, once the first steps, of a large rate and noise, are behind it."""
    step = gpu.torch_training("lenet5", gpu.sample("lenet5", 8), "highest")
    losses = [step() for _ in range(15)]
    assert losses[-1] < losses[0]
