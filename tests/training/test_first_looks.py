"""What is done before a long run, on networks and losses of known behaviour."""

from __future__ import annotations

import math

import numpy as np
import pytest

import convdsl
from convdsl.training.first_looks import RateTest, least_loss, overfit
from convdsl.training.session import Session
from convdsl.training.settings import complete

SMALL = """
model small {
    input image: f32[N, 1, 6, 6]
    image -> conv(8, 3x3) -> relu -> flatten -> linear(4) -> output logits
}
train { loss = cross_entropy(logits, label, label_smoothing = 0.1) }
"""


def session() -> Session:
    model = convdsl.parse(SMALL)
    return Session(model, complete(model), "random:0", threads=1)


def test_the_first_steps_of_a_search_say_nothing() -> None:
    """The average of the first few losses falls by chance, and steeply; later it falls for good."""
    rates = tuple(np.geomspace(1e-7, 10, 100))
    losses = np.full(100, 2.5)
    losses[:3] = 3.5, 2.9, 2.6
    losses[60:80] = np.linspace(2.5, 1.0, 20)
    losses[80:] = np.linspace(1.1, 9.0, 20)
    found = RateTest(rates, tuple(losses))
    assert found.steepest is not None
    assert rates[58] < found.steepest < rates[80]
    assert found.least == rates[79]


@pytest.mark.parametrize("least", [0, 5, 11])
def test_a_loss_that_only_grows_suggests_nothing(least: int) -> None:
    losses = tuple(abs(number - least) + 1.0 for number in range(100))
    assert RateTest(tuple(np.geomspace(1e-7, 10, 100)), losses).steepest is None


def test_the_least_loss_of_smoothed_labels() -> None:
    """A minimum over logits, found by looking: softmax equal to the smoothed labels."""
    share = np.array([0.925, 0.025, 0.025, 0.025])
    logits = np.log(share)[None]
    measured = session().loss(
        {"logits": logits.astype(np.float32)}, {"label": np.zeros(1, np.int64)}
    )
    assert least_loss(session()) == pytest.approx(measured, rel=1e-6)
    assert least_loss(session()) == pytest.approx(-(share * np.log(share)).sum())


@pytest.mark.parametrize(("rate", "learnt"), [(0.02, True), (0.0, False), (1e30, False)])
def test_samples_are_learnt_by_heart_in_spite_of_smoothing(rate: float, learnt: bool) -> None:
    draws = np.random.default_rng(0)
    batch = {
        "image": draws.standard_normal((6, 1, 6, 6)).astype(np.float32),
        "label": draws.integers(0, 4, 6),
    }
    found = overfit(session(), batch, rate, steps=300)
    assert found.learnt is learnt
    assert not learnt or found.last > 0.3
    assert math.isfinite(found.first)
