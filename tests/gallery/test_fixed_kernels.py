"""Kernels that are no weights: against SciPy's filters, and what each is known for as a number."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import convdsl

Array = np.ndarray[Any, Any]


def camera(size: int) -> Array:
    """A photograph, grey, from 0 to 1."""
    picture = Image.open(str(files("skimage") / "data" / "camera.png"))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), "f4") / 255


def run(name: str, image: Array, **given: Any) -> Any:
    return convdsl.compile(convdsl.load(name, size=len(image), **given), {})(image[None, None])


def test_sobel() -> None:
    image = camera(64)
    y = run("sobel", image)
    exact = image.astype("f8")
    for name, axis in (("along_x", 1), ("along_y", 0)):
        expected = ndimage.sobel(exact, axis=axis, mode="nearest")
        np.testing.assert_allclose(y[name][0, 0], expected, atol=2e-6)
    steep = np.hypot(y["along_x"], y["along_y"])
    np.testing.assert_allclose(y["steepness"], steep, rtol=1e-6, atol=1e-6)


def test_sobel_measures_slopes_eightfold() -> None:
    """Of a plane 3 x + 2 y, away from the border: 24, 16, and 8 times its steepness."""
    rows, columns = np.mgrid[:64, :64].astype("f4")
    y = run("sobel", 3 * columns + 2 * rows)
    inner = np.s_[0, 0, 1:-1, 1:-1]
    assert np.unique(y["along_x"][inner]).tolist() == [24.0]
    assert np.unique(y["along_y"][inner]).tolist() == [16.0]
    np.testing.assert_allclose(y["steepness"][inner], 8 * np.sqrt(13), rtol=1e-6)


def test_gaussian_is_separable_and_keeps_the_mean() -> None:
    """One axis after the other, 1 4 6 4 1 over 16; a constant stays."""
    image = camera(64)
    line = np.array([1, 4, 6, 4, 1]) / 16
    expected = image.astype("f8")
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, line, axis=axis, mode="nearest")
    np.testing.assert_allclose(run("gaussian", image)[0, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(run("gaussian", np.full((64, 64), 0.75, "f4")), np.float32(0.75))


def test_edges_are_where_something_changes() -> None:
    """Nothing on a plane, away from the border; beside a step of 1 it is 3 on either side."""
    rows, columns = np.mgrid[:64, :64].astype("f4")
    assert not run("edges", 3 * columns + 2 * rows)[0, 0, 1:-1, 1:-1].any()
    y = run("edges", (columns >= 32).astype("f4"))[0, 0]
    expected = np.zeros((64, 64))
    expected[:, 31:33] = [-3, 3]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("seed", range(3))
def test_softmax_kernels_diffuse(seed: int) -> None:
    """20 steps: the mass stays to 1e-6, the largest falls, the smallest rises."""
    random = np.random.default_rng(seed)
    model = convdsl.load("diffusion")
    shares = {"shares.weight": random.standard_normal((1, 9, 1)).astype("f4")}
    heat = random.random((2, 1, 32, 32)).astype("f4")
    later = convdsl.compile(model, shares)(heat)
    mass = heat.sum(axis=(1, 2, 3), dtype="f8")
    np.testing.assert_allclose(later.sum(axis=(1, 2, 3), dtype="f8"), mass, rtol=1e-6)
    assert later.max() < heat.max()
    assert later.min() > heat.min()
    assert later.var() < 0.05 * heat.var()


def test_what_is_not_normalised_does_not_keep_the_mass() -> None:
    """The same steps with shares twice as large, as a kernel of any weights may be."""
    kernel = np.full((3, 3), 2 / 9)
    heat = np.random.default_rng(0).random((8, 8))
    grown = ndimage.correlate(heat, kernel, mode="wrap").sum() / heat.sum()
    assert grown == pytest.approx(2)


def template(image: Array, row: int, column: int, side: int) -> dict[str, Array]:
    """A window, its mean taken away, of length 1."""
    cut = image[row : row + side, column : column + side]
    cut = cut - cut.mean()
    return {"template.weight": (cut / np.linalg.norm(cut))[None, None].astype("f4")}


@pytest.mark.parametrize("place", [(30, 50), (60, 20), (71, 103), (90, 12)])
def test_a_template_is_found(place: tuple[int, int]) -> None:
    """Its own window scores 1, and no other as much; in half the light, too."""
    image, side = camera(128), 25
    network = convdsl.compile(
        convdsl.load("template_matching", side=side), template(image, *place, side)
    )
    for light in (1.0, 0.5):
        score = network((light * image + 0.1)[None, None])[0, 0]
        assert np.unravel_index(score.argmax(), score.shape) == place
        assert score[place] == pytest.approx(1, abs=2e-3)
        assert (score > 0.97).sum() == 1


def test_true_convolution_does_not_find_it() -> None:
    """It turns the template round: of this photograph the window itself scores -0.05 then, and the
    best of all 0.50. Turned round before, it is the correlation again."""
    image, place, side = camera(128), (30, 50), 25
    weights = template(image, *place, side)
    score = convdsl.compile(convdsl.load("template_matching", flip=True), weights)(
        image[None, None]
    )[0, 0]
    assert score[place] == pytest.approx(-0.046, abs=2e-3)
    assert score.max() == pytest.approx(0.496, abs=2e-3)
    turned = {key: np.ascontiguousarray(w[:, :, ::-1, ::-1]) for key, w in weights.items()}
    found, wanted = (
        convdsl.compile(convdsl.load("template_matching", flip=flip), w)(image[None, None])
        for flip, w in ((True, turned), (False, weights))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
