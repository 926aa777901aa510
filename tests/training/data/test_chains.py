"""Chains of augmentation in loaders, and on images of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
from convdsl.ir.training import Choice
from convdsl.tensor import DType, TensorType, symbol
from convdsl.training.data import ArrayData, Loader, Preparation, augmentation
from convdsl.training.data.draws import Draws, Purpose

N, H, W = symbol("N"), symbol("H"), symbol("W")
RNG = np.random.default_rng(0)

IMAGES = RNG.integers(0, 256, (23, 40, 44, 3)).astype(np.uint8)
LABELS = np.arange(23) % 3
CHAIN = [
    Choice("random_resized_crop"),
    *(Choice(name, {"degrees": 10}) for name in ("rotate", "affine")),
    Choice("color_jitter", {"brightness": 0.3, "hue": 0.1}),
    Choice("elastic", {"deviation": 1.5}),
    Choice("horizontal_flip"),
    Choice("erase"),
    Choice("cutout", {"size": 5}),
    Choice("mixup", {"alpha": 0.3}),
    Choice("cutmix"),
]


def prepared(*steps: tuple[str, dict[str, Any]], size: int = 24) -> Preparation:
    declared = Preprocessing("image", tuple(PreprocessingStep(*step) for step in steps))
    return Preparation("image", TensorType(DType.F32, (N, 3, size, size)), declared)


PREPARE = prepared(
    ("resize", {"size": 28}), ("center_crop", {"size": 24}), ("rescale", {"factor": 1 / 255})
)


def loader(workers: int, chain: Any = CHAIN, prepare: Preparation = PREPARE) -> Loader:
    data = ArrayData({"x": IMAGES, "y": LABELS})
    return Loader(data, prepare, 5, augmentation(chain, prepare, 3), workers=workers)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_resumed_bit_for_bit_by_any_number_of_workers(workers: int, start: int) -> None:
    expected = list(loader(0).epoch(1))
    for found, wanted in zip(loader(workers).epoch(1, start), expected[start:], strict=True):
        for name in ("image", "label"):
            assert found[name].tobytes() == wanted[name].tobytes()
    assert expected[0]["image"].shape == (5, 3, 24, 24)
    assert expected[0]["label"].shape == (5, 3)
    other = next(iter(loader(0).epoch(2)))
    assert other["image"].tobytes() != expected[0]["image"].tobytes()


def test_crops_take_the_place_of_the_text_s() -> None:
    """After resizing to 28 the image is 28x30: random_crop finds 5 x 7 places there."""
    made = augmentation([Choice("random_crop")], PREPARE)
    assert [step.name for step in made.geometry(PREPARE)] == ["resize"]
    seen = {next(iter(loader(0, [Choice("random_crop")]).epoch(e)))["image"][0].tobytes()
            for e in range(40)}  # fmt: skip
    assert len(seen) > 20
    resized = augmentation([Choice("random_resized_crop")], PREPARE)
    assert resized.geometry(PREPARE) == ()
    nothing = augmentation([], PREPARE)
    assert nothing.geometry(PREPARE) == PREPARE.geometry
    assert not nothing.mixes
    assert augmentation(CHAIN, PREPARE, 3).mixes


def test_chains_that_cannot_be() -> None:
    large = [Choice("random_crop", {"size": 50, "pad": 3})]
    with pytest.raises(InputError, match="too small to crop 50x50\nhelp: say how much is added"):
        next(iter(loader(0, large, prepared(size=50)).epoch(0)))
    with pytest.raises(InputError, match=r"becomes \[3, 48, 52\], and the network takes"):
        next(iter(loader(0, [Choice("mirror_pad", {"pad": 4})], prepared()).epoch(0)))
    free = Preparation("image", TensorType(DType.F32, (N, 3, H, W)), Preprocessing("image", ()))
    with pytest.raises(InputError, match="random_crop has no size"):
        augmentation([Choice("random_crop")], free)
    vectors = Preparation("x", TensorType(DType.F32, (N, 5)), None)
    with pytest.raises(InputError, match=r"rotate changes images, and the network takes"):
        augmentation([Choice("rotate", {"degrees": 3})], vectors)
    assert augmentation([Choice("mixup")], vectors, 3).mixes


# Over the whole domain

SIZES = st.one_of(st.integers(1, 3), st.integers(4, 40))
ANY = [
    Choice("horizontal_flip"),
    Choice("vertical_flip"),
    Choice("rotate", {"degrees": 180}),
    Choice("affine", {"degrees": 5, "translate": 0.4, "scale": [0.2, 3.0], "shear": 60}),
    Choice("elastic", {"deviation": 30.0, "grid": 5}),
    Choice("elastic", {"grid": 1}),
    Choice("mirror_pad", {"pad": 7}),
    Choice("color_jitter", {"brightness": 2, "contrast": 2, "saturation": 2, "hue": 0.5}),
    Choice("random_resized_crop", {"size": (9, 4), "scale": [1e-6, 1.0], "ratio": [0.01, 99.0]}),
    Choice("random_crop", {"size": 5, "pad": 5}),
]


@pytest.mark.dear(share=4)
@given(
    height=SIZES,
    width=SIZES,
    channels=st.sampled_from([1, 2, 3]),
    whole=st.booleans(),
    chain=st.lists(st.sampled_from(ANY), max_size=4),
    index=st.integers(0, 2**62),
)
def test_every_chain_on_every_image(
    height: int, width: int, channels: int, whole: bool, chain: list[Choice], index: int
) -> None:
    """Types stay, image and mask stay of one size, boxes within it, and nothing is changed that was
    given."""
    rng = np.random.default_rng(index % 1000)
    x = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    sample = {
        "x": x if whole else (x / 255).astype(np.float32),
        "mask": rng.integers(0, 5, (height, width)),
        "boxes": np.array([[0, 0, width, height], [width / 4, 0, width / 2, 1]], np.float32),
    }
    before = {name: array.copy() for name, array in sample.items()}
    free = Preparation("image", TensorType(DType.F32, (N, channels, H, W)), Preprocessing("x", ()))
    found: Any = sample
    stream = Draws(0, Purpose.SAMPLE, 0, index)
    for step in augmentation(chain, free).samples:
        found = step(found, stream)
    for name, array in before.items():
        np.testing.assert_array_equal(sample[name], array)
        assert found[name].dtype == array.dtype
    rows, columns = found["mask"].shape
    assert found["x"].shape == (rows, columns, channels)
    assert set(np.unique(found["mask"])) <= {0, 1, 2, 3, 4}
    boxes = found["boxes"]
    assert boxes.shape == (2, 4)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert boxes.min() >= 0
    assert (boxes[:, [0, 2]] <= columns).all()
    assert (boxes[:, [1, 3]] <= rows).all()
    assert np.isfinite(found["x"]).all()
    assert found["x"].min() >= -1e-6
    assert found["x"].max() <= (255 if whole else 1 + 1e-6)
