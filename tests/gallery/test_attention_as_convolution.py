"""Self-attention expresses convolution: theorem 1 of arXiv:1911.03584, and what it learns."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate
from sklearn.datasets import load_digits

import convdsl
from convdsl.training.settings import complete

Array = np.ndarray[Any, Any]

HARD = 46.0
"""exp(-46) is 1e-20: next to the nearest position all others weigh nothing in f32."""


def construction(filters: Array, bias: Array, alpha: float = HARD) -> dict[str, Array]:
    """The proof's weights: head h looks at tap h alone, its values are what that tap makes of a
    position, and the output adds the heads up. filters: [made, channels, K, K]."""
    made, channels, size, _ = filters.shape
    taps = list(product(range(size), repeat=2))
    centers = np.array(taps, "f4").T - size // 2
    return {
        "attention.center.weight": centers.reshape(1, -1, 1, 1),
        "attention.alpha.weight": np.full((1, len(taps), 1, 1), alpha, "f4"),
        "attention.value.weight": np.concatenate(
            [filters[:, :, i, j].reshape(made, channels, 1, 1) for i, j in taps]
        ),
        "attention.out.weight": np.tile(np.eye(made, dtype="f4"), len(taps))[:, :, None, None],
        "attention.out.bias": bias,
    }


def convolved(x: Array, filters: Array, bias: Array) -> Array:
    """In double precision, zeros around."""
    border = filters.shape[2] // 2
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), (border, border), (border, border)))
    sums = [
        [correlate(image, own.astype("f8"), mode="valid")[0] for own in filters] for image in padded
    ]
    return np.array(sums) + bias[:, None, None]


@pytest.mark.dear
@pytest.mark.parametrize(
    ("kernel", "size", "channels", "made"),
    [(1, 5, 3, 4), (3, 8, 8, 16), (3, 7, 1, 1), (3, 1, 5, 2), (5, 6, 4, 3), (7, 9, 2, 5)],
)
def test_any_convolution(kernel: int, size: int, channels: int, made: int) -> None:
    random = np.random.default_rng(kernel * size)
    filters = random.standard_normal((made, channels, kernel, kernel)).astype("f4")
    bias = random.standard_normal(made).astype("f4")
    x = random.standard_normal((2, channels, size, size)).astype("f4")
    model = convdsl.load(
        "attention_as_convolution", channels=channels, made=made, size=size, kernel=kernel
    )
    found = convdsl.compile(model, construction(filters, bias), cache=False)(x)
    wanted = convolved(x, filters, bias)
    assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.dear(share=4)
def test_the_limit_is_approached() -> None:
    """Lemma 2: the sharper, the nearer; at 46 nothing but rounding is left."""
    random = np.random.default_rng(0)
    filters, bias = random.standard_normal((3, 2, 3, 3)).astype("f4"), np.zeros(3, "f4")
    x = random.standard_normal((1, 2, 6, 6)).astype("f4")
    wanted = convolved(x, filters, bias)
    model = convdsl.load("attention_as_convolution", channels=2, made=3, size=6)
    errors = []
    for alpha in (0.5, 2.0, 8.0, HARD):
        found = convdsl.compile(model, construction(filters, bias, alpha), cache=False)(x)
        errors.append(float(np.abs(found - wanted).max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.5
    assert errors[-1] < 1e-5


@pytest.mark.dear(share=4)
def test_it_learns_where_a_filter_looks() -> None:
    """One head, begun at its own position, and a target that is the pixel two to the right and one
    above: gradients move the centre there, and the head becomes sharp."""
    text = """
    use "zoo:gallery/attention_as_convolution.cnn": quadratic
    model m {
        input x: f32[N, 1, 6, 6]
        weights = x -> quadratic(1) as look -> softmax(axis = 3)
        einsum(weights, x -> reshape([in.batch, 1, 1, 36]), "nhqk,nhck->nhcq")
            -> reshape([x.batch, 1, 6, 6]) -> slice([2, 3], start = [1, 0], stop = [6, 4])
            -> output y
    }
    """
    model = convdsl.parse(text)
    random = np.random.default_rng(3)
    said = {"loss": "mse(y, wanted)", "optimizer": "adam(lr = 0.03)", "schedule": "constant"}
    start = {
        "look.center.weight": np.array([0.0, 0.5], "f4").reshape(1, 2, 1, 1),
        "look.alpha.weight": np.full((1, 1, 1, 1), 0.3, "f4"),
    }
    session = convdsl.Session(model, complete(model, said), start, cache=False)
    losses = []
    for _ in range(400):
        x = random.standard_normal((32, 1, 6, 6)).astype("f4")
        batch = {"x": x, "wanted": np.ascontiguousarray(x[:, :, 0:5, 2:6])}
        losses.append(float(session.step(batch, rate=0.03)["loss"]))
    learned = session.weights()
    np.testing.assert_allclose(learned["look.center.weight"].ravel(), [-1, 2], atol=0.1)
    assert learned["look.alpha.weight"].item() > 1.5
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.dear
@pytest.mark.parametrize(
    ("content", "epochs", "least"),
    [(True, 3, 0.4), pytest.param(False, 12, 0.8, marks=pytest.mark.slow)],
)
def test_digits(content: bool, epochs: int, least: float) -> None:
    """The mean over positions sees no shape of a digit; attention by place makes it see one."""
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 1, 8, 8) / 16).astype("f4")
    trained = convdsl.train(
        convdsl.load("attention_digits", content=content),
        (x[:1200], labels[:1200]),
        validation=(x[1200:], labels[1200:]),
        epochs=epochs,
    )
    assert trained.history[-1]["val_accuracy"] > least
