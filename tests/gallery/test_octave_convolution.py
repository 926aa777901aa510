"""Octave convolution against equation 2 of arXiv:1904.05049, and what it saves."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate

import convdsl
from convdsl.analysis.report import analyse

Array = np.ndarray[Any, Any]


def convolved(x: Array, filters: Array) -> Array:
    """A 3x3 with zeros around, of one image."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return np.stack([correlate(padded, own, mode="valid")[0] for own in filters])


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(("channels", "width", "alpha", "size"), [(8, 12, 0.5, 6), (8, 8, 0.25, 2)])
def test_equation(channels: int, width: int, alpha: float, size: int) -> None:
    model = convdsl.load(
        "octave_convolution", channels=channels, width=width, alpha=alpha, size=size
    )
    random = np.random.default_rng(size)
    arrays = {key: random.standard_normal(type.shape[1:]) for key, type in model.inputs.items()}
    states = model.graph.states.items()
    weights = {key: random.standard_normal(s.type.sizes) for key, s in states}
    found = convdsl.compile(model, {k: a.astype("f4") for k, a in weights.items()}, cache=False)(
        **{key: array[None].astype("f4") for key, array in arrays.items()}
    )
    high, low = arrays["high"], arrays["low"]
    pooled = high.reshape(len(high), size // 2, 2, size // 2, 2).mean((2, 4))
    f = {key.split(".")[1]: array for key, array in weights.items()}
    across = convolved(low, f["low_to_high"]).repeat(2, 1).repeat(2, 2)
    wanted = {
        "fine": convolved(high, f["high_to_high"]) + across,
        "coarse": convolved(low, f["low_to_low"]) + convolved(pooled, f["high_to_low"]),
    }
    for key, exact in wanted.items():
        np.testing.assert_allclose(found[key][0], exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("alpha", [0.125, 0.25, 0.5, 0.75])
def test_what_it_saves(alpha: float) -> None:
    """As many weights; 1 - 3/4 alpha (2 - alpha) of the arithmetic, exactly; of the memory for maps
    1 - 3/4 alpha. Section 3.3."""
    octave, plain = (
        analyse(convdsl.load(name, **given), "all", {"N": 1}).totals
        for name, given in (("octave_convolution", {"alpha": alpha}), ("plain_convolution", {}))
    )
    share = Fraction(alpha)
    assert octave["params"] == plain["params"]
    saved = Fraction(octave["macs"], plain["macs"])
    assert saved == 1 - Fraction(3, 4) * share * (2 - share)
    outputs = convdsl.load("octave_convolution", alpha=alpha).outputs.values()
    held = sum(int(np.prod(type.shape[1:])) for type in outputs)
    assert Fraction(held, 64 * 16 * 16) == 1 - Fraction(3, 4) * share
