"""FCN upsampling, U-Net by tiles, the places of SegNet: parameters to the digit, and claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import analyse

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_fcn_enlarges_bilinearly_at_first(name: str) -> None:
    """Every transposed convolution, an even factor f by 2 f taps (tests/elaborate/test_starts.py
    holds them against resize)."""
    states = convdsl.load(name).graph.states
    enlarging = {key: state for key, state in states.items() if key.startswith("upscore")}
    assert len(enlarging) == {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[name]
    for state in enlarging.values():
        assert state.init == "bilinear"
        classes, _, taps, _ = state.type.shape
        assert classes == 21
        assert taps in (4, 16, 32, 64)


def test_segnet_has_its_parameters_and_arithmetic() -> None:
    """Thirteen convolutions of VGG-16 with normalisation and as many back: convolutions counted one
    by one. ENet (arXiv:1606.02147, table II) gives 29.46 M, and 286.03 GFLOPs for 640 x 360."""
    down = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    down += [(256, 512), *[(512, 512)] * 5]
    up = [(b, a) for a, b in reversed(down[1:])]
    inner = sum(9 * a * b + 3 * b for a, b in (*down, *up))
    totals = analyse(convdsl.load("segnet"), "all", {"N": 1}).totals
    assert totals["params"] == inner + 9 * 64 * 12 + 12 == 29_449_932
    model = convdsl.load("segnet", height=360, width=640, classes=20)
    assert analyse(model, "all", {"N": 1}).totals["flops"] / 1e9 == pytest.approx(286.03, rel=2e-3)


@pytest.mark.dear
def test_segnet_takes_sizes_that_cannot_be_halved() -> None:
    """35 x 45: places say the size before each halving."""
    model = convdsl.load("segnet", height=35, width=45, N=1)
    y = convdsl.compile(model, "random:0", threads=1)(np.zeros((1, 3, 35, 45), np.float32))
    assert y.shape == (1, 12, 35, 45)


def test_unpooling_keeps_borders_that_upsampling_moves() -> None:
    """Section 3 of SegNet: of a step at any column, max-pooled and brought back, unpooling has the
    largest values where they were; the nearest neighbour has them two columns wide."""
    text = """
    model m {
        input x: f32[N, 1, 8, 8]
        y, at = x -> max_pool_with_positions(2x2)
        max_unpool(y, at, 2x2) -> output placed
        y -> upsample(2) -> output spread
    }
    """
    network = convdsl.compile(convdsl.parse(text), threads=1)
    image = np.zeros((8, 1, 8, 8), np.float32)
    for column in range(8):
        image[column, 0, :, column] = np.arange(1, 9)
    found = network(image)
    assert all(set(np.nonzero(found["placed"][c, 0])[1]) == {c} for c in range(8))
    assert all(len(set(np.nonzero(found["spread"][c, 0])[1])) == 2 for c in range(8))
    even = found["placed"][:, :, 1::2]
    np.testing.assert_array_equal(even, image[:, :, 1::2])


@pytest.mark.dear
def test_tiles_of_unet_are_one_run_of_the_mirrored_image() -> None:
    """Figure 2: a border of 20 for two halvings (92 for four, as 572 becomes 388)."""
    image = np.random.default_rng(0).random((1, 1, 116, 132), np.float32)
    tiles = convdsl.tiled("unet", "random:0", tile=100, channels=4, depth=2)
    whole = convdsl.load("unet", channels=4, depth=2, height=156, width=172)
    mirrored = np.pad(image, [(0, 0), (0, 0), (20, 20), (20, 20)], mode="reflect")
    once = convdsl.compile(whole, "random:0", threads=1)(mirrored)
    found = tiles(image)
    assert found.shape == once.shape == (1, 2, 116, 132)
    np.testing.assert_allclose(found, once, atol=1e-4)
