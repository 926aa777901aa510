"""The shim runs CUDA C as a card would, and its detectors see mistakes: each of a permanent set."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_shim.handwritten import MISTAKES, SAMPLES, Sample
from cuda_shim.modules import ShimError, compile_module
from cuda_shim.running import ORDERS, Caught, Memory, Order, launch


def run_sample(sample: Sample, source: str, order: Order, *, noted: bool) -> None:
    """Raises Caught, by the detector "values" where results are not what they must be."""
    arrays = sample.operands()
    expected = sample.results({name: a.astype(np.float64) for name, a in arrays.items()})
    found = {name: np.full(a.shape, np.nan, np.float32) for name, a in expected.items()}
    memories = [Memory(name, a, written=False) for name, a in arrays.items()]
    memories += [Memory(name, a, written=True) for name, a in found.items()]
    launch(compile_module(source, noted=noted), sample.launched, memories, order, noted=noted)
    for name, array in found.items():
        error = float(np.abs(array - expected[name]).max())
        if not error <= sample.tolerance * float(np.abs(expected[name]).max()):
            raise Caught("values", f"{name} is {error} away")


@pytest.mark.parametrize("noted", [False, True], ids=["plain", "noted"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_right_in_every_order(name: str, order: str, noted: bool) -> None:
    run_sample(SAMPLES[name], SAMPLES[name].source, ORDERS[order], noted=noted)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_caught(name: str, order: str) -> None:
    mistake = MISTAKES[name]
    source = SAMPLES[mistake.sample].source
    assert source.count(mistake.old) == 1
    wrong = source.replace(mistake.old, mistake.new)
    with pytest.raises(Caught) as caught:
        run_sample(SAMPLES[mistake.sample], wrong, ORDERS[order], noted=True)
    assert caught.value.detector in mistake.caught, caught.value


def test_shared_memory_that_the_shim_does_not_know_is_refused() -> None:
    with pytest.raises(ShimError, match="shared memory"):
        compile_module("__shared__ float x, y;", noted=False)
