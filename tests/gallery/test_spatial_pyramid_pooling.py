"""Spatial pyramid pooling: bins by the paper's windows, one length, and training at two sizes."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.training.settings import complete

Array = np.ndarray[Any, Any]

POOLING = """
use "zoo:gallery/spatial_pyramid_pooling.cnn": spatial_pyramid
model m {
    input x: f32[N, 3, H, W]
    x -> spatial_pyramid as spp -> output y
}
"""


def by_windows(image: Array, levels: tuple[int, ...]) -> Array:
    """Windows of ceil(a / n) with steps of floor(a / n), as section 2.3 has them."""
    _, height, width = image.shape
    parts: list[Array] = []
    for n in levels:
        rows, columns = (
            [slice(i * (a // n), i * (a // n) + ceil(a / n)) for i in range(n)]
            for a in (height, width)
        )
        parts.append(np.stack([image[:, r, c].max((1, 2)) for r in rows for c in columns], 1))
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("height", "width"), [(13, 13), (12, 12), (6, 18), (13, 24)])
def test_bins_of_the_paper(height: int, width: int) -> None:
    """Figure 6 is of 13 x 13."""
    x = np.random.default_rng(height).standard_normal((2, 3, height, width)).astype("f4")
    found = convdsl.compile(convdsl.parse(POOLING), cache=False)(x)
    wanted = np.stack([by_windows(image, (6, 3, 2, 1)) for image in x])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.dear
@pytest.mark.parametrize("size", [(8, 8), (17, 40), (31, 9)])
def test_one_length(size: tuple[int, int]) -> None:
    model = convdsl.load("spatial_pyramid_pooling", height=size[0], width=size[1])
    x = np.zeros((1, 3, *size), "f4")
    assert convdsl.compile(model, "random:0", cache=False)(x).shape == (1, 10)
    assert model.graph.states["fc.weight"].type.sizes == (10, 32 * 50)


@pytest.mark.dear
def test_two_sizes_train_one_network() -> None:
    """Section 2.3: one size and another in turn. A bright square is told from a bright stripe at
    both, and at a third size that training never met."""
    random = np.random.default_rng(0)

    def batch(size: int, count: int = 16) -> tuple[Array, Array]:
        x = 0.3 * random.standard_normal((count, 3, size, size)).astype("f4")
        labels = random.integers(0, 2, count)
        for image, label in zip(x, labels, strict=True):
            i, j = random.integers(0, size - 6, 2)
            image[:, i : i + (2 if label else 5), j : j + 5] += 2
        return x, labels

    given = {"classes": 2, "channels": 4}
    settings = {"optimizer": "adam(lr = 0.01)", "augment": "[]"}
    weights: Any = "random:0"
    for turn in range(8):
        size = (16, 24)[turn % 2]
        model = convdsl.load("spatial_pyramid_pooling", height=size, width=size, **given)
        session = convdsl.Session(model, complete(model, settings), weights, cache=False)
        for _ in range(12):
            x, label = batch(size)
            session.step({"image": x, "label": label}, rate=0.01)
        weights = session.weights()
    for size in (16, 24, 37):
        model = convdsl.load("spatial_pyramid_pooling", height=size, width=size, **given)
        net = convdsl.compile(model, weights, cache=False)
        x, label = batch(size, 200)
        assert (net(x).argmax(1) == label).mean() > 0.9
