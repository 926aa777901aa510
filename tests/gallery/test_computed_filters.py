"""Filters that are computed: arXiv:1903.10520, arXiv:1912.04958 (equations 1 to 3), 1605.09673."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate

import convdsl
from convdsl.training.settings import complete

Array = np.ndarray[Any, Any]


def convolved(x: Array, filters: Array) -> Array:
    """One image, zeros around."""
    around = filters.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (around, around), (around, around)))
    return np.stack([correlate(padded, own, mode="valid")[0] for own in filters])


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_standardised(scale: float) -> None:
    random = np.random.default_rng(1)
    raw = scale * (random.standard_normal((32, 16, 3, 3)) + 2)
    x = random.standard_normal((2, 16, 14, 14))
    found = convdsl.compile("standardised_filters", {"raw.weight": raw.astype("f4")})(
        x.astype("f4")
    )
    over = (1, 2, 3)
    filters = raw - raw.mean(over, keepdims=True)
    filters /= np.sqrt((filters**2).mean(over, keepdims=True) + 1e-5)
    exact = np.stack([convolved(image, filters) for image in x])
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_gradients_of_what_is_standardised() -> None:
    """Mean 0 within each filter, and at right angles to it: scale and offset change nothing."""
    random = np.random.default_rng(2)
    raw = random.standard_normal((32, 16, 3, 3)).astype("f4")
    backward = convdsl.gradient(convdsl.load("standardised_filters"), wrt="raw.weight")
    x = random.standard_normal((2, 16, 14, 14)).astype("f4")
    slope = convdsl.compile(backward, {"raw.weight": raw}).by_name(x=x)["draw.weight"]
    slope, raw = slope.reshape(32, -1).astype("f8"), raw.reshape(32, -1)
    centred = raw - raw.mean(1, keepdims=True)
    length = np.linalg.norm(slope, axis=1)
    assert np.abs(slope.mean(1)).max() < 1e-6 * np.abs(slope).max()
    # eps = 1e-5 beside a variance of about 1 leaves a share of 1e-5.
    along = np.sum(slope * centred, 1) / length / np.linalg.norm(centred, axis=1)
    assert np.abs(along).max() < 3e-5


@pytest.mark.dear
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_modulated(batch: int) -> None:
    random = np.random.default_rng(batch)
    x, style = random.standard_normal((batch, 16, 14, 14)), random.standard_normal((batch, 8))
    weights = {
        "affine.weight": random.standard_normal((16, 8)),
        "affine.bias": np.ones(16),
        "filters.weight": random.standard_normal((32, 16, 3, 3)),
    }
    given = {"x": x.astype("f4"), "style": style.astype("f4")}
    bound = {key: array.astype("f4") for key, array in weights.items()}
    scales = style @ weights["affine.weight"].T + weights["affine.bias"]
    exact = []
    for image, scale in zip(x, scales, strict=True):
        filters = weights["filters.weight"] * scale[None, :, None, None]
        filters = filters / np.sqrt((filters**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        exact.append(convolved(image, filters))
    wanted = np.stack(exact)
    for name, parameters in (("modulated_filters", {"batch": batch}), ("modulated_maps", {})):
        found = convdsl.compile(convdsl.load(name, **parameters), bound)(**given)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_modulated_maps_keep_their_deviation(strength: float) -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((8, 16, 34, 34)).astype("f4")
    style = strength * random.standard_normal((8, 8)).astype("f4")
    model = convdsl.load("modulated_maps", size=34)
    found = convdsl.compile(model, "random:4")(x=x, style=style)[:, :, 1:-1, 1:-1]
    assert found.std((0, 2, 3)) == pytest.approx(np.ones(32), abs=0.05)


@pytest.mark.dear
def test_a_generator_learns_to_steer() -> None:
    """From pairs of images and slopes along drawn angles, to the two filters that make them."""
    slopes = np.outer([1, 4, 6, 4, 1], [-1, -2, 0, 2, 1]) / 96
    random = np.random.default_rng(5)
    model = convdsl.load("dynamic_filters", batch=8, size=8)
    said = {"loss": "mse(y, y_target)", "optimizer": "adam(lr = 0.01)", "augment": "[]"}
    session = convdsl.Session(model, complete(model, said), "random:0", cache=False)
    for step in range(400):
        images = random.standard_normal((8, 1, 8, 8))
        angles = random.uniform(0, 2 * np.pi, (8, 1))
        both = [convolved(i, np.stack([slopes, slopes.T])[:, None]) for i in images]
        target = [
            np.cos(a) * rows + np.sin(a) * columns
            for (rows, columns), (a,) in zip(both, angles, strict=True)
        ]
        batch = {"image": images, "angle": angles, "y_target": np.stack(target)[:, None]}
        given = {key: array.astype("f4") for key, array in batch.items()}
        loss = session.step(given, rate=0.1 * 0.98**step)["loss"]
    assert loss < 1e-5
    found = session.weights()["generator.weight"].T.reshape(2, 5, 5)
    np.testing.assert_allclose(found, np.stack([slopes, slopes.T]), atol=1e-3)


@pytest.mark.dear
def test_a_network_of_standardised_layers_learns() -> None:
    """Of one's own, from the file's block, from where its weights start."""
    text = """use "zoo:gallery/computed_filters.cnn": standardised_conv
    model own {
        input image: f32[N, 1, 8, 8]
        image -> for w in [8, 16] { standardised_conv(w, stride = 2) -> group_norm(4) -> relu }
              -> avgpool(global) -> flatten -> linear(3) -> output logits
    }"""
    model = convdsl.parse(text)
    said = {"loss": "cross_entropy(logits, label)", "optimizer": "adam(lr = 0.01)", "augment": "[]"}
    session = convdsl.Session(model, complete(model, said), "random:0", cache=False)
    random = np.random.default_rng(6)
    losses = []
    for _ in range(60):
        label = random.integers(0, 3, 32)
        image = random.standard_normal((32, 1, 8, 8)) + np.eye(8)[label + 2][:, None, :, None] * 2
        given = {"image": image.astype("f4"), "label": label}
        losses.append(session.step(given, rate=0.01)["loss"].item())
    assert np.mean(losses[-10:]) < 0.3 * losses[0]
