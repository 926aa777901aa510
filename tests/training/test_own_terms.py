"""Terms of the loss that the network computes itself: `mean(output)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl
from convdsl.training.judging import disagreements, judged
from convdsl.training.settings import complete

TEXT = """model m {
    input x: f32[N, 4]
    y = x * (parameter([4], bare = true) as w) -> output near
    y * y -> output penalty
}
train {
    loss = LOSS
    optimizer = sgd(lr = 0.5)
    metrics = [mean_absolute_error]
}
"""
DRAWN = np.random.default_rng(3)
X, T = (DRAWN.standard_normal((6, 4)).astype(np.float32) for _ in range(2))


def model(loss: str) -> convdsl.Model:
    return convdsl.parse(TEXT.replace("LOSS", loss))


@pytest.mark.parametrize(
    "loss", ["mse(near, t) + 0.25 * mean(penalty)", "mean(penalty) / 4 + mse(near, t)"]
)
def test_a_step(loss: str) -> None:
    """w = 1: of mean((w x - t)^2) + mean((w x)^2) / 4 the value, and what descent leaves of w."""
    network = model(loss)
    session = convdsl.Session(network, complete(network), {"w": np.ones(4, np.float32)})
    found = session.step({"x": X, "t": T}, rate=0.5)["loss"]
    x, t = X.astype(np.float64), T.astype(np.float64)
    assert found == pytest.approx(((x - t) ** 2).mean() + (x**2).mean() / 4, rel=1e-6)
    slope = (2 * (x - t) * x + x * x / 2).sum(axis=0) / x.size
    np.testing.assert_allclose(session.weights()["w"], 1 - 0.5 * slope, rtol=1e-5)
    assert judged(network.graph, complete(network)) == ("near", "t")


def test_a_run(tmp_path: Path) -> None:
    """Nothing but the network's own term, and no target in the data."""
    text = TEXT.replace("LOSS", "mean(penalty)")
    network = convdsl.parse(text.replace("    metrics = [mean_absolute_error]\n", ""))
    assert disagreements(network) == ()
    trained = convdsl.train(network, {"x": X}, out=tmp_path / "run", epochs=2)
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]


@pytest.mark.parametrize("loss", ["mean", "mean(near, t)", "mse(near, t) + mean(near, penalty)"])
def test_of_what(loss: str) -> None:
    try:
        found = disagreements(model(loss))
    except convdsl.CompileError as error:
        found = error.diagnostics
    assert {d.code for d in found} == {"E0903"}
