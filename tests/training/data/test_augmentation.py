"""Augmentation against Pillow, SciPy and formulas by hand; statistics of what is drawn; masks and
boxes that follow what is drawn into images."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from convdsl.diagnostics import InputError
from convdsl.ir.techniques import AUGMENTATIONS
from convdsl.tensor import symbol
from convdsl.training.data.augmentation import BATCHES, INPUTS, SAMPLES, geometry, light, mixing
from convdsl.training.data.augmentation.geometry import Known
from convdsl.training.data.augmentation.warps import affine_plane, moved_plane, warped
from convdsl.training.data.draws import Draws, Purpose

N, H, W = symbol("N"), symbol("H"), symbol("W")
RNG = np.random.default_rng(0)
SAMPLE_CHANGES = [
    ("random_crop", {"size": 20, "pad": 6}),
    ("random_crop", {"size": (30, 17)}),
    ("random_resized_crop", {"size": (24, 40)}),
    ("horizontal_flip", {"probability": 1.0}),
    ("vertical_flip", {"probability": 1.0}),
    ("rotate", {"degrees": 40}),
    ("affine", {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.7, 1.4], "shear": 15}),
    ("elastic", {"deviation": 2.0, "grid": 4}),
    ("mirror_pad", {"pad": 3}),
]


def draws(index: int = 0, epoch: int = 0) -> Draws:
    return Draws(0, Purpose.SAMPLE, epoch, index)


def change(name: str, arguments: dict[str, Any], known: Known = Known()) -> Any:  # noqa: B008
    table: Any = SAMPLES | INPUTS | BATCHES
    return table[name](AUGMENTATIONS[name].complete(arguments), known)


def test_every_name_of_the_language_has_one_builder() -> None:
    assert sorted([*SAMPLES, *INPUTS, *BATCHES]) == sorted(AUGMENTATIONS)


# Draws


def test_streams_follow_from_their_counters() -> None:
    """The words are NumPy's Philox of that key and counter, from the word on that is asked for."""
    stream = Draws(7, Purpose.BATCH, epoch=3, index=11)
    first = stream.words(5)
    key, counter = np.array([7, 0x9E3779B97F4A7C15], np.uint64), np.array([0, 11, 3, 2], np.uint64)
    bits: Any = np.random.Philox(key=key, counter=counter)
    np.testing.assert_array_equal(first, bits.random_raw(5))
    np.testing.assert_array_equal(stream.words(4), bits.random_raw(4))
    seen = {Draws(s, p, e, i).words(1)[0] for s in (0, 1, -1) for p in Purpose
            for e in (0, 1) for i in (0, 1)}  # fmt: skip
    assert len(seen) == 3 * len(Purpose) * 4


@pytest.mark.dear
@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 2.5])
def test_beta_is_beta(alpha: float) -> None:
    """Its lower half, where doubles are dense, and that it is half."""
    drawn = np.array([draws(i).beta(alpha) for i in range(4000)])
    lower = drawn[drawn < 0.5]
    assert abs(len(lower) - 2000) < 120
    cdf = stats.beta(alpha, alpha).cdf
    assert stats.kstest(lower, lambda x: 2 * cdf(x)).pvalue > 1e-3


def test_other_distributions() -> None:
    stream = draws()
    assert stats.kstest(stream.normals(5001), "norm").pvalue > 1e-3
    assert stats.kstest(stream.uniforms(5000), "uniform").pvalue > 1e-3
    counts = np.bincount([stream.between(2, 5) for _ in range(4000)], minlength=6)
    assert counts[:2].sum() == 0
    assert stats.chisquare(counts[2:]).pvalue > 1e-3
    assert abs(np.mean([stream.happens(0.3) for _ in range(4000)]) - 0.3) < 0.03
    assert not any(stream.happens(0) for _ in range(100))
    assert all(stream.happens(1) for _ in range(100))


# Geometry against other libraries


def planes(x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [x[..., c].astype(np.float64) for c in range(x.shape[2])]


@pytest.mark.parametrize("shape", [(12, 17, 3), (1, 9, 1), (9, 1, 2), (1, 1, 1), (20, 20, 1)])
@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, math.pi / 2, math.pi])
def test_affine_is_scipy_s(shape: tuple[int, int, int], angle: float) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    mask = RNG.integers(0, 9, shape[:2])
    matrix = geometry.affine_matrix(angle, (1, -2), 1.29, 0.21, (shape[1] / 2, shape[0] / 2))
    found = warped({"x": x, "mask": mask}, affine_plane(matrix, *shape[:2]))
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    at = np.stack([columns, rows, np.ones_like(rows)])
    source = np.tensordot(inverse, at, 1)[1::-1] - 0.5
    expected = [ndimage.map_coordinates(p, source, order=1, mode="grid-constant")
                for p in planes(x)]  # fmt: skip
    np.testing.assert_allclose(found["x"], np.stack(expected, -1), atol=1e-5)
    nearest = np.floor(source + 0.5)
    expected = ndimage.map_coordinates(mask, nearest, order=0, mode="grid-constant")
    clear = np.abs(source + 0.5 - np.rint(source + 0.5)).min(0) > 1e-9  # of ties
    np.testing.assert_array_equal(found["mask"][clear], expected[clear])


def test_rotation_is_pillow_s() -> None:
    smooth = ndimage.gaussian_filter(RNG.uniform(0, 255, (60, 80)), 2).astype(np.uint8)
    matrix = geometry.affine_matrix(math.radians(25), (0, 0), 1, 0, (40, 30))
    found = warped({"x": smooth[..., None]}, affine_plane(matrix, 60, 80))["x"][..., 0]
    pillow = np.asarray(Image.fromarray(smooth).rotate(-25, Image.Resampling.BILINEAR))
    inside = np.asarray(Image.new("L", (76, 56), 255).rotate(-25))
    inside = np.pad(inside, 2) > 0
    assert np.abs(found.astype(int) - pillow)[inside & (pillow > 0)].max() <= 1


@pytest.mark.parametrize("shape", [(15, 11), (1, 8), (8, 1)])
def test_displacement_is_scipy_s(shape: tuple[int, int]) -> None:
    x = RNG.standard_normal((*shape, 2)).astype(np.float32)
    down, right = 9 * RNG.standard_normal((2, *shape))
    found = warped({"x": x}, moved_plane(down, right))["x"]
    source = np.mgrid[: shape[0], : shape[1]] + np.stack([down, right])
    expected = [ndimage.map_coordinates(p, source, order=1, mode="mirror") for p in planes(x)]
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=1e-5)


@pytest.mark.parametrize(("count", "nodes"), [(17, 3), (9, 5), (1, 3), (4, 1), (5, 9), (1, 1)])
def test_bicubic_passes_through_its_nodes(count: int, nodes: int) -> None:
    matrix = geometry.bicubic(count, nodes)
    np.testing.assert_allclose(matrix.sum(1), 1)
    for position in range(count):
        at = position * (nodes - 1) / max(1, count - 1)
        if at == int(at):
            np.testing.assert_allclose(matrix[position], np.eye(nodes)[int(at)], atol=1e-12)


def test_bicubic_is_keys() -> None:
    """By hand, at one third between the nodes 1 and 2 of four: W(4/3), W(1/3), W(2/3), W(5/3)."""
    weights = [-1 / 9, 0.796296, 0.370370, -0.055556]
    a = -0.75
    near = [(a + 2) * t**3 - (a + 3) * t**2 + 1 for t in (1 / 3, 2 / 3)]
    far = [a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a for t in (4 / 3, 5 / 3)]
    np.testing.assert_allclose(geometry.bicubic(10, 4)[4], [far[0], *near, far[1]])
    np.testing.assert_allclose([far[0], *near, far[1]], weights, atol=1e-6)


def test_mirror_pad_is_numpy_s() -> None:
    x = RNG.integers(0, 255, (5, 7, 3)).astype(np.uint8)
    found = change("mirror_pad", {"pad": 3})({"x": x, "mask": x[..., 0]}, draws())
    np.testing.assert_array_equal(found["x"], np.pad(x, ((3, 3), (3, 3), (0, 0)), "reflect"))
    np.testing.assert_array_equal(found["mask"], np.pad(x[..., 0], 3, "reflect"))
    wide = change("mirror_pad", {"pad": 9})({"x": x}, draws())["x"]  # farther than the image goes
    np.testing.assert_array_equal(wide, np.pad(x, ((9, 9), (9, 9), (0, 0)), "reflect"))


def test_flips_are_numpy_s() -> None:
    x = RNG.integers(0, 255, (5, 7, 3)).astype(np.uint8)
    boxes = np.array([1, 2, 4, 3], np.float32)
    found = change("horizontal_flip", {"probability": 1.0})({"x": x, "boxes": boxes}, draws())
    np.testing.assert_array_equal(found["x"], x[:, ::-1])
    assert found["boxes"].tolist() == [3, 2, 6, 3]
    found = change("vertical_flip", {"probability": 1.0})({"x": x, "boxes": boxes[None]}, draws())
    np.testing.assert_array_equal(found["x"], x[::-1])
    assert found["boxes"].tolist() == [[1, 2, 4, 3]]
    never = change("vertical_flip", {"probability": 0.0})({"x": x}, draws())
    np.testing.assert_array_equal(never["x"], x)


def test_random_crop_is_a_part_of_the_padded_image() -> None:
    x = RNG.integers(1, 255, (6, 9, 1)).astype(np.uint8)
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    crop = change("random_crop", {"size": (7, 8), "pad": 2})
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (7, 8))
    seen = np.zeros(windows.shape[:2], int)
    for k in range(3000):
        found = crop({"x": x}, draws(k))["x"][..., 0]
        seen += (windows == found).all((2, 3))
    assert stats.chisquare(seen.ravel()).pvalue > 1e-3  # every place alike often


@pytest.mark.dear(share=4)
def test_random_resized_crop_draws_areas_and_shapes() -> None:
    """The part is read off a ramp of rows and columns; Pillow resizes it to the same."""
    y, x = np.mgrid[:200, :240].astype(np.float32)
    image = np.stack([y, x], -1)
    crop = change("random_resized_crop", {"size": 4, "scale": [0.1, 0.5], "ratio": [0.5, 2.0]})
    areas: list[float] = []
    shapes: list[float] = []
    for k in range(1500):
        found = crop({"x": image}, draws(k))["x"]
        spread = found[-1, -1] - found[0, 0]
        height, width = spread * 4 / 3  # of the middles of four cells
        areas.append(height * width / (200 * 240))
        shapes.append(math.log(width / height))
    assert stats.kstest(areas, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-4
    log2 = math.log(2)
    assert stats.kstest(shapes, stats.uniform(-log2, 2 * log2).cdf).pvalue > 1e-4


def test_random_resized_crop_of_what_no_drawn_part_fits() -> None:
    image = np.arange(400, dtype=np.float32).reshape(4, 100, 1)
    found = change("random_resized_crop", {"size": (4, 5), "scale": [1.0, 1.0]})
    placed = found({"x": image}, draws())["x"]
    np.testing.assert_allclose(placed[..., 0], image[:, 47:52, 0])  # 4/3 of the height


RAMPS = np.stack(np.mgrid[:21, :21].astype(np.float32), -1)


def seen_map(name: str, arguments: dict[str, Any], index: int) -> np.ndarray[Any, Any]:
    """The map of an affine change, [2, 3] of (x, y, 1) from the result's pixels to the image's:
    read off ramps of rows and columns, at the middle."""
    found = change(name, arguments)({"x": RAMPS}, draws(index))["x"][..., ::-1].astype(np.float64)
    across, along = found[10, 11] - found[10, 10], found[11, 10] - found[10, 10]
    return np.stack([across, along, found[10, 10] - 10], -1)


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "arguments", "read", "low", "high"),
    [
        ("rotate", {"degrees": 30}, lambda m: math.degrees(math.atan2(m[0, 1], m[0, 0])), -30, 30),
        ("affine", {"degrees": 9}, lambda m: math.degrees(math.atan2(m[0, 1], m[0, 0])), -9, 9),
        ("affine", {"shear": 20}, lambda m: math.degrees(math.atan(m[0, 1])), -20, 20),
        ("affine", {"scale": [0.5, 2.0]}, lambda m: 1 / m[0, 0], 0.5, 2.0),
    ],
)
def test_affine_changes_are_drawn_evenly(
    name: str, arguments: dict[str, Any], read: Any, low: float, high: float
) -> None:
    found = [read(seen_map(name, arguments, k)) for k in range(600)]
    assert stats.kstest(found, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.dear
def test_moves_are_drawn_evenly_in_whole_pixels() -> None:
    moves = [seen_map("affine", {"translate": [0.1, 0.3]}, k)[:, 2] for k in range(1500)]
    x, y = np.rint(np.array(moves).T).astype(int)
    np.testing.assert_allclose(moves, np.stack([x, y], -1), atol=1e-4)
    assert set(y) == {-2, -1, 0, 1, 2}  # 2.1 pixels at most
    assert stats.chisquare(np.bincount(x + 6)[1:-1]).pvalue > 1e-3  # 6.3: the ends are rarer


# Masks and boxes follow


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(("name", "arguments"), SAMPLE_CHANGES)
def test_masks_and_boxes_follow_drawn_rectangles(
    name: str, arguments: dict[str, Any], index: int
) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:28, 14:36] = 255
    mask = (image[..., 0] > 0).astype(np.int64)
    sample = {"x": image, "mask": mask, "boxes": np.array([14, 10, 36, 28], np.float32)}
    found = change(name, arguments)(sample, draws(index))
    seen = found["x"][..., 0] > 127
    assert found["mask"].shape == seen.shape
    assert (found["mask"] != seen).mean() < 0.03  # the nearest pixel, and half of the light
    hull = np.zeros(4)
    if seen.any():
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        hull[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    if name != "mirror_pad":
        np.testing.assert_allclose(found["boxes"], hull, atol=1.01)
    np.testing.assert_array_equal(sample["boxes"], [14, 10, 36, 28])
    assert image[10:28, 14:36].min() == 255
    several = np.array([[7, 14, 10, 36, 28], [3, 0, 0, 50, 40]], np.float32)  # with their classes
    again = change(name, arguments)(sample | {"boxes": several}, draws(index))["boxes"]
    assert again[:, 0].tolist() == [7, 3]
    np.testing.assert_array_equal(again[0, 1:], found["boxes"])


def test_boxes_of_rotated_corners() -> None:
    """A quarter turn, by hand: (x, y) of a square image goes to (10 - y, x)."""
    matrix = geometry.affine_matrix(math.pi / 2, (0, 0), 1, 0, (5, 5))
    boxes = np.array([[1, 2, 4, 3]], np.float32)
    found = warped({"x": np.zeros((10, 10, 1)), "boxes": boxes}, affine_plane(matrix, 10, 10))
    np.testing.assert_allclose(found["boxes"], [[7, 1, 8, 4]], atol=1e-5)


# Light


def drawn_light(x: np.ndarray[Any, Any], index: int, **amounts: float) -> np.ndarray[Any, Any]:
    return change("color_jitter", amounts)({"x": x}, draws(index))["x"]


@pytest.mark.parametrize(
    ("made", "enhance"),
    [
        (light.brightness, ImageEnhance.Brightness),
        (light.contrast, ImageEnhance.Contrast),
        (light.saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_light_is_pillow_s(made: Any, enhance: Any, factor: float) -> None:
    x = RNG.integers(0, 256, (9, 8, 3)).astype(np.uint8)
    found = np.rint(made(x.astype(np.float32) / 255, factor) * 255)
    pillow = np.asarray(enhance(Image.fromarray(x)).enhance(factor)).astype(int)
    assert np.abs(found - pillow).max() <= 2  # Pillow rounds grey and its mean


@pytest.mark.parametrize("amount", [0.0, 0.1, -0.27, 0.5])
def test_hue_is_colorsys_s(amount: float) -> None:
    x = RNG.uniform(0, 1, (6, 5, 3)).astype(np.float32)
    x[0, 0] = 0.5  # grey has no hue
    x[0, 1] = 0
    x[0, 2] = (1, 1, 0)
    found = light.hue(x, amount)
    for pixel, made in zip(x.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*map(float, pixel))
        np.testing.assert_allclose(made, colorsys.hsv_to_rgb((h + amount) % 1, s, v), atol=1e-5)


def test_light_is_drawn_within_its_amounts() -> None:
    x = np.full((2, 2, 3), 0.4, np.float32)
    found = [drawn_light(x, k, brightness=0.5)[0, 0, 0] / 0.4 for k in range(1000)]
    assert stats.kstest(found, stats.uniform(0.5, 1.0).cdf).pvalue > 1e-3
    lit = np.array([drawn_light(x, k, brightness=2.0)[0, 0, 0] for k in range(500)])
    assert lit.min() >= 0
    assert (lit == 1).any()  # cut off


def test_light_in_a_drawn_order() -> None:
    """Of an image of two values brightness is cut off before or after contrast."""
    x = np.array([0, 255], np.uint8).reshape(1, 2, 1)
    assert drawn_light(x, 0, saturation=0.9, hue=0.5).tolist() == x.tolist()  # grey
    results = {tuple(drawn_light(x, k, brightness=0.9, contrast=0.9).ravel()) for k in range(50)}
    assert len(results) > 30
    nothing = RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(drawn_light(nothing, 3), nothing)


# Inputs and batches


def test_erase_draws_areas_and_shapes() -> None:
    x = np.ones((2, 100, 120), np.float32)
    erase = change("erase", {"probability": 0.5, "scale": [0.1, 0.3], "ratio": [0.5, 2.0]})
    areas: list[float] = []
    for k in range(1000):
        gone = erase(x, draws(k)) == 0
        if gone.any():
            np.testing.assert_array_equal(gone[0], gone[1])
            rows, columns = gone[0].any(1).sum(), gone[0].any(0).sum()
            assert gone[0].sum() == rows * columns  # a rectangle
            assert 0.48 < columns / rows < 2.1
            areas.append(gone[0].mean())
    assert 430 < len(areas) < 570
    assert stats.kstest(areas, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-4
    assert x.all()


@pytest.mark.dear(share=4)
def test_cutout_is_centred_anywhere() -> None:
    x = np.ones((1, 6, 7), np.float32)
    centres = np.zeros((6, 7), int)
    for k in range(2000):
        gone = change("cutout", {"size": 3})(x, draws(k))[0] == 0
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        row = rows[-1] - 1 if rows[0] == 0 else rows[0] + 1
        column = columns[-1] - 1 if columns[0] == 0 else columns[0] + 1
        expected = np.ones((6, 7))
        expected[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 0
        np.testing.assert_array_equal(~gone, expected)
        centres[row, column] += 1
    assert stats.chisquare(centres.ravel()).pvalue > 1e-3


def batch(**more: Any) -> dict[str, Any]:
    x = RNG.standard_normal((4, 2, 10, 12)).astype(np.float32)
    return {"image": x, "label": np.array([0, 2, 1, 2])} | more


@pytest.mark.dear(share=4)
def test_mixup_mixes_images_and_labels_alike() -> None:
    given = batch()
    mixed = change("mixup", {"alpha": 0.4}, Known(classes=3))
    shares: list[float] = []
    for k in range(500):
        found = mixed(given, "image", draws(k))
        assert found["label"].dtype == np.float32
        share = float(found["label"][0, 0])
        eye = np.eye(3)[given["label"]]
        expected = share * eye + (1 - share) * eye[[3, 0, 1, 2]]
        np.testing.assert_allclose(found["label"], expected, atol=1e-6)
        x = share * given["image"] + (1 - share) * given["image"][[3, 0, 1, 2]]
        np.testing.assert_allclose(found["image"], x, atol=1e-5)
        shares.append(share)
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    still = change("mixup", {"alpha": 0.0}, Known(classes=3))(given, "image", draws())
    np.testing.assert_array_equal(still["image"], given["image"])


@pytest.mark.dear(share=4)
def test_cutmix_pastes_and_counts() -> None:
    mask = RNG.integers(0, 5, (4, 10, 12))
    given = batch(mask=mask)
    covered: list[float] = []
    for k in range(500):
        found = change("cutmix", {"alpha": 1.0}, Known(classes=3))(given, "image", draws(k))
        other = (found["image"] != given["image"])[0, 0]
        share = other.mean()
        np.testing.assert_array_equal(
            found["image"], np.where(other, np.roll(given["image"], 1, 0), given["image"])
        )
        np.testing.assert_array_equal(found["mask"], np.where(other, np.roll(mask, 1, 0), mask))
        eye = np.eye(3)[given["label"]]
        expected = (1 - share) * eye + share * np.roll(eye, 1, 0)
        np.testing.assert_allclose(found["label"], expected, atol=1e-6)
        covered.append(share)
    assert max(covered) > 0.6
    assert min(covered) < 0.05


@pytest.mark.parametrize(
    ("name", "more", "classes", "match"),
    [
        ("mixup", {"boxes": np.zeros((4, 4))}, 3, "mixup cannot mix boxes"),
        ("mixup", {"mask": np.zeros((4, 10, 12))}, 3, "cannot mix mask"),
        ("cutmix", {"boxes": np.zeros((4, 4))}, 3, "cutmix cannot mix boxes"),
        ("mixup", {}, None, "how many there are is not known"),
        ("cutmix", {}, 2, "labels of 2 classes; 2 is none"),
        ("mixup", {"label": np.array([0.5, 1, 0, 0])}, 2, "is none of them"),
    ],
)
def test_what_cannot_be_mixed(
    name: str, more: dict[str, Any], classes: int | None, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        change(name, {}, Known(classes=classes))(batch(**more), "image", draws())


def test_labels_that_are_shares_already() -> None:
    eye = np.eye(4, dtype=np.float32)
    found = mixing.mixup({"alpha": 1.0}, Known())(batch(label=eye), "image", draws())
    np.testing.assert_allclose(found["label"].sum(1), 1, atol=1e-6)
