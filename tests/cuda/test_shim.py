"""The shim runs CUDA C as a card would, and its detectors see mistakes: each of a permanent set."""

from __future__ import annotations

import pytest
from cuda_shim.handwritten import MISTAKES, SAMPLES, SHIM
from cuda_shim.modules import ShimError, compile_module
from cuda_shim.running import ORDERS, Caught
from cuda_shim.samples import run_sample


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("noted", [False, True], ids=["plain", "noted"])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_right_in_every_order(name: str, noted: bool) -> None:
    library = compile_module(SHIM + SAMPLES[name].source, noted=noted)
    for order in ORDERS.values():
        run_sample(SAMPLES[name], library, order, noted=noted)


@pytest.mark.drawn(share=6)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_caught(name: str) -> None:
    mistake = MISTAKES[name]
    library = compile_module(SHIM + mistake.source, noted=True)
    for order in ORDERS.values():
        with pytest.raises(Caught) as caught:
            run_sample(SAMPLES[mistake.sample], library, order, noted=True)
        assert caught.value.detector in mistake.caught, caught.value


def test_shared_memory_that_the_shim_does_not_know_is_refused() -> None:
    with pytest.raises(ShimError, match="shared memory"):
        compile_module("__shared__ float x, y;", noted=False)
