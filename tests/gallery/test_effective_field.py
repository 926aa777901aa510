"""The effective field grows with the root of the depth: arXiv:1701.04128."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.pictures.fields import THRESHOLD, effective, theoretical, unit_of
from convdsl.pictures.looking import sight


def sizes(layers: int, weights: Any = None, **parameters: Any) -> tuple[float, float]:
    model = convdsl.load("effective_field", layers=layers, **parameters)
    seen = sight(model, "random:0")
    unit = unit_of(seen, model.graph.op_nodes()[-1].name)
    frame = theoretical(seen, unit)
    assert frame is not None
    equal = {name: np.full((1, 1, 3, 3), 1 / 9, "f4") for name in model.graph.states}
    return frame.right - frame.left, effective(seen, unit, weights or equal).size


@pytest.mark.parametrize("layers", [4, 12, 30])
def test_equal_weights(layers: int) -> None:
    """A Gaussian of variance 2/3 an axis and layer, cut where it is 4.55 % of its height."""
    gaussian = np.sqrt(2 * np.pi * np.log(1 / THRESHOLD) * 2 * layers / 3)
    whole, found = sizes(layers)
    assert whole == 2 * layers + 1
    assert found == pytest.approx(gaussian, rel=0.05)


@pytest.mark.dear
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_drawn_weights(activation: str) -> None:
    whole, found = sizes(20, "random:0", width=3, activation=activation)
    assert 0.2 * whole < found < 0.6 * whole
