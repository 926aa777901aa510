"""Samples run and held to their results."""

from __future__ import annotations

import numpy as np

from cuda_shim.handwritten import Sample
from cuda_shim.modules import Library
from cuda_shim.running import Caught, Memory, Order, launch


def run_sample(sample: Sample, library: Library, order: Order, *, noted: bool) -> None:
    """Raises Caught, by the detector "values" where results are not what they must be."""
    arrays = sample.operands()
    expected = sample.results({name: a.astype(np.float64) for name, a in arrays.items()})
    found = {name: np.full(a.shape, np.nan, np.float32) for name, a in expected.items()}
    memories = [Memory(name, a, written=False) for name, a in arrays.items()]
    memories += [Memory(name, a, written=True) for name, a in found.items()]
    launch(library, sample.launched, memories, order, noted=noted)
    for name, array in found.items():
        error = float(np.abs(array - expected[name]).max())
        if not error <= sample.tolerance * float(np.abs(expected[name]).max()):
            raise Caught("values", f"{name} is {error} away")
