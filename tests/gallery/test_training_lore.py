"""What training texts say, as numbers: the short form of docs/gallery/training_lore.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import convdsl
from convdsl.training.settings import complete

DIGITS = load_digits()
X = ((DIGITS.images - DIGITS.images.mean()) / DIGITS.images.std()).astype("f4")[:, None]
ORDER = np.random.default_rng(0).permutation(len(X))
CHANCE = math.log(10)


def losses(
    optimizer: str, rate: float, steps: int = 60, weights: Any = "random:0", **parameters: Any
) -> list[float]:
    """Of batches of 64, from the same weights and in the same order each time."""
    model = convdsl.load("training_lore", **parameters)
    session = convdsl.Session(model, complete(model, {"optimizer": optimizer}), weights)
    found: list[float] = []
    for step in range(steps):
        part = ORDER[np.arange(step * 64, step * 64 + 64) % len(X)]
        batch = {"image": X[part], "label": DIGITS.target[part]}
        found.append(session.step(batch, rate=rate)["loss"].item())
    return found


def end(found: list[float]) -> float:
    return float(np.mean(found[-5:]))


@pytest.mark.dear
def test_normalised_networks_learn_at_rates_where_others_stay_at_chance() -> None:
    assert end(losses("sgd", 0.5)) < 0.5
    assert end(losses("sgd", 0.5, normalised=False)) == pytest.approx(CHANCE, abs=0.2)


@pytest.mark.dear
def test_the_scale_of_filters_does_not_matter_to_normalised_layers() -> None:
    """BN(a W u) = BN(W u): arXiv:1502.03167, section 3.3."""
    model = convdsl.load("training_lore")
    weights = convdsl.Session(model, complete(model, {}), "random:0").weights()
    scaled = {n: a * (8 if n.startswith("conv") else 1) for n, a in weights.items()}
    ours, theirs = (losses("sgd", 0.0, 1, w)[0] for w in (weights, scaled))
    assert theirs == pytest.approx(ours, rel=1e-3)
    plain = convdsl.load("training_lore", normalised=False)
    weights = convdsl.Session(plain, complete(plain, {}), "random:0").weights()
    scaled = {n: a * (8 if n.startswith("conv") else 1) for n, a in weights.items()}
    ours, theirs = (losses("sgd", 0.0, 1, w, normalised=False)[0] for w in (weights, scaled))
    assert theirs > 2 * ours


@pytest.mark.dear
@pytest.mark.parametrize(("activation", "learns"), [("sigmoid", False), ("elu", True)])
def test_activations(activation: str, learns: bool) -> None:
    found = end(losses("adam", 0.005, normalised=False, activation=activation))
    assert found < 0.5 if learns else found == pytest.approx(CHANCE, abs=0.05)


@pytest.mark.dear
def test_optimisers_start_from_the_same_loss() -> None:
    """To the last bit: the first batch meets the first weights."""
    rates = {"sgd(momentum = 0.9)": 0.05, "adam": 0.01, "lamb": 0.02, "lars": 10.0}
    curves = [losses(name, rate, 30) for name, rate in rates.items()]
    assert len({curve[0] for curve in curves}) == 1
    assert all(end(curve) < 0.7 * curve[0] for curve in curves)
    assert len({curve[1] for curve in curves}) == len(curves)
