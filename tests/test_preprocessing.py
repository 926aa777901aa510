"""Images become inputs as declared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convdsl import preprocessing
from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
from convdsl.preprocessing import prepare
from convdsl.tensor import DType, TensorType, symbol

N, H, W = symbol("N"), symbol("H"), symbol("W")
RGB = TensorType(DType.F32, (N, 3, H, W))
GREY = TensorType(DType.F32, (N, 1, H, W))


def steps(*parts: tuple[str, dict[str, Any]]) -> Preprocessing:
    return Preprocessing("image", tuple(PreprocessingStep(name, args) for name, args in parts))


NONE = steps()


def gradient(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))


def test_pixels_become_channels_first() -> None:
    array = prepare(gradient(4, 6), NONE, RGB)
    assert array.shape == (1, 3, 4, 6)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array[0, 0], np.tile(np.arange(6), (4, 1)))
    np.testing.assert_array_equal(array[0, 1, :, 0], np.arange(4))


def test_types_and_grey() -> None:
    assert prepare(gradient(4, 6), NONE, TensorType(DType.F64, RGB.shape)).dtype == np.float64
    grey = prepare(gradient(4, 6), NONE, GREY)
    np.testing.assert_array_equal(grey[0, 0], np.asarray(gradient(4, 6).convert("L")))
    single = Image.new("L", (3, 2), 7)
    assert (prepare(single, NONE, RGB) == np.full((1, 3, 2, 3), 7)).all()


@pytest.mark.parametrize(
    ("size", "image", "expected"),
    [
        (8, (10, 20), (8, 16)),
        (8, (20, 10), (16, 8)),
        (8, (10, 10), (8, 8)),
        (7, (10, 15), (7, 10)),  # 10.5, rounded down
        ([5, 9], (10, 20), (5, 9)),
    ],
)
def test_resize_sizes(size: Any, image: tuple[int, int], expected: tuple[int, int]) -> None:
    array = prepare(gradient(*image), steps(("resize", {"size": size})), RGB)
    assert array.shape[2:] == expected


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_is_pillow_s(name: str) -> None:
    image = gradient(30, 50)
    array = prepare(image, steps(("resize", {"size": [12, 17], "filter": name})), RGB)
    resampled = image.resize((17, 12), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(array[0], np.asarray(resampled).transpose(2, 0, 1))


def test_the_default_filter_is_bilinear() -> None:
    image = gradient(30, 50)
    named = steps(("resize", {"size": 9, "filter": "bilinear"}))
    np.testing.assert_array_equal(
        prepare(image, steps(("resize", {"size": 9})), RGB), prepare(image, named, RGB)
    )


@pytest.mark.parametrize(
    ("arguments", "height", "width", "top", "left"),
    [
        ({"size": 4}, 10, 8, 3, 2),
        ({"size": [4, 5]}, 10, 8, 3, 2),  # 1.5 is rounded to even, 2
        ({"size": 4}, 5, 9, 0, 2),  # 0.5 to 0 and 2.5 to 2
        ({"fraction": 0.5}, 10, 8, 3, 2),
        ({"fraction": 0.5}, 9, 10, 2, 3),  # 4 of 9: 2.5, rounded down
        ({"fraction": 0.01}, 10, 8, 4, 3),  # at least one pixel
        ({"fraction": 1.0}, 10, 8, 1, 0),
    ],
)
def test_center_crop(
    arguments: dict[str, Any], height: int, width: int, top: int, left: int
) -> None:
    array = prepare(gradient(height, width), steps(("center_crop", arguments)), RGB)
    assert array[0, 0, 0, 0] == left
    assert array[0, 1, 0, 0] == top


def test_arithmetic() -> None:
    image = Image.new("RGB", (1, 1), (10, 20, 30))
    scaled = steps(
        ("rescale", {"factor": 0.1}), ("normalize", {"mean": [1, 1, 1], "std": [1, 2, 4]})
    )
    np.testing.assert_allclose(prepare(image, scaled, RGB).ravel(), [0, 0.5, 0.5], atol=1e-7)
    one = steps(("normalize", {"mean": [127], "std": [128]}))
    np.testing.assert_array_equal(
        prepare(image, one, RGB).ravel(), np.float32((np.array([10, 20, 30]) - 127) / 128)
    )


@pytest.mark.parametrize(
    ("size", "image", "shown", "top", "left"),
    [
        (8, (4, 6), (4, 6), 2, 1),
        ([5, 9], (4, 6), (4, 6), 0, 2),  # half pixels to even: -0.5 to 0, -1.5 to -2
        (6, (6, 6), (6, 6), 0, 0),
        (6, (6, 12), (3, 6), 2, 0),  # shrunk first; 1.5 to 2
        ([4, 20], (8, 10), (4, 5), 0, 8),  # -7.5 to -8
        (4, (400, 3), (4, 1), 0, 2),  # at least one pixel; -1.5 to -2
    ],
)
def test_padding(
    size: Any, image: tuple[int, int], shown: tuple[int, int], top: int, left: int
) -> None:
    source = gradient(*image)
    array = prepare(source, steps(("pad", {"size": size})), RGB)[0]
    height, width = (size, size) if isinstance(size, int) else size
    expected = np.zeros((height, width, 3))
    inner = np.asarray(source.resize(shown[::-1], Image.Resampling.BILINEAR))
    expected[top : top + shown[0], left : left + shown[1]] = inner
    np.testing.assert_array_equal(array, expected.transpose(2, 0, 1))


# What images are like in the wild


def test_exif_orientation() -> None:
    image = gradient(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    turned = prepare(Image.open(buffer), NONE, RGB)
    np.testing.assert_array_equal(turned, prepare(image.rotate(-90, expand=True), NONE, RGB))


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert (prepare(image, NONE, RGB) == 255).all()
    half = Image.new("LA", (1, 1), (0, 128))
    assert abs(prepare(half, NONE, GREY).item() - 127) <= 1
    opaque = Image.new("RGBA", (1, 1), (10, 20, 30, 255))
    assert prepare(opaque, NONE, RGB).ravel().tolist() == [10, 20, 30]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_palettes(transparency: int | bytes, tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    np.testing.assert_array_equal(prepare(image, NONE, RGB)[0, :, 0].T, [[255, 0, 0], [0, 0, 255]])
    image.save(tmp_path / "p.png", transparency=transparency)
    array = prepare(tmp_path / "p.png", NONE, RGB)
    np.testing.assert_array_equal(array[0, :, 0].T, [[255, 255, 255], [0, 0, 255]])


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    source = Image.new("RGB", (2, 2), "white")
    image = source.convert(mode) if mode != "LAB" else Image.new("LAB", (2, 2), (255, 128, 128))
    array = prepare(image, NONE, RGB)
    assert array.shape == (1, 3, 2, 2)
    assert array.min() >= 254


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    array = prepare(tmp_path / "deep.png", NONE, GREY)
    assert array.ravel().tolist() == [0, 0, 1, 128, 255]
    with pytest.raises(InputError, match="beyond 16 bits"):
        prepare(Image.fromarray(np.array([[1 << 20]], np.int32)), NONE, GREY)
    with pytest.raises(InputError, match="floating-point pixels"):
        prepare(Image.new("F", (2, 2)), NONE, GREY)


def test_what_is_stored(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "I;16"):
        values = np.array([[0, 1, 1], [1, 0, 1]])
        image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
        if mode == "1":
            image = Image.fromarray(values.astype(bool))
        if mode == "P":
            image.putpalette([9, 9, 9, 8, 8, 8])
        image.save(tmp_path / "mask.png")
        assert image.mode == mode
        np.testing.assert_array_equal(preprocessing.stored(tmp_path / "mask.png"), values)


# What cannot be


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((N, 4, H, W), "not f32"),
        ((N, 3, H), "not f32"),
        ((N, symbol("C"), H, W), "not f32"),
        ((N, 3, 5, W), r"becomes 4x6, the model takes f32\[N, 3, 5, W\]"),
        ((N, 3, 4, 7), "becomes 4x6"),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[Any, ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        prepare(gradient(4, 6), NONE, TensorType(DType.F32, shape))


@pytest.mark.parametrize(
    ("declared", "match"),
    [
        (steps(("center_crop", {"size": 5})), "4x6 here, too small to crop 5x5"),
        (steps(("center_crop", {"size": [4, 7]})), "too small"),
        (steps(("resize", {"size": 100_000})), "is too large"),
        (steps(("rescale", {"factor": 1}), ("resize", {"size": 4})), "resize must come before"),
        (steps(("normalize", {"mean": [0], "std": [0]})), "deviation of 0"),
        (steps(("normalize", {"mean": [1, 2], "std": [1]})), "2 values of mean for 3 channels"),
    ],
)
def test_steps_that_cannot_be_taken(declared: Preprocessing, match: str) -> None:
    with pytest.raises(InputError, match=match):
        prepare(gradient(4, 6), declared, RGB)


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    gradient(16, 16).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_broken_images_are_input_errors(tmp_path: Path, format: str) -> None:
    content = encoded(format)
    path = tmp_path / "image"
    path.write_bytes(content)
    assert prepare(path, NONE, RGB).shape == (1, 3, 16, 16)
    for length in (0, 1, 10, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot read the image"):
            prepare(path, NONE, RGB)


@pytest.mark.dear(share=4)
@given(data=st.data(), format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
def test_damage_is_an_input_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, format: str
) -> None:
    content = bytearray(encoded(format))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "image"
    path.write_bytes(content)
    try:
        array = prepare(path, NONE, RGB)
    except InputError:
        return
    assert array.shape[:2] == (1, 3)


def test_what_is_no_image(tmp_path: Path) -> None:
    (text := tmp_path / "image.png").write_text("no image")
    with pytest.raises(InputError, match=r"cannot read the image .*image\.png"):
        prepare(text, NONE, RGB)
    with pytest.raises(InputError, match=r"missing\.png: there is no such file"):
        prepare(tmp_path / "missing.png", NONE, RGB)
    with pytest.raises(InputError, match="not a plain file"):
        prepare(tmp_path, NONE, RGB)
    with pytest.raises(InputError, match="not a plain file"):
        prepare("/dev/zero", NONE, RGB)


def test_images_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient(16, 16).save(tmp_path / "image.png")
    monkeypatch.setattr(preprocessing.Image, "MAX_IMAGE_PIXELS", 256)
    assert prepare(tmp_path / "image.png", NONE, RGB).shape == (1, 3, 16, 16)
    for limit in (255, 100):
        monkeypatch.setattr(preprocessing.Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match="exceeds limit"):
            prepare(tmp_path / "image.png", NONE, RGB)


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    gradient(16, 16).save(tmp_path / "image.eps")
    with pytest.raises(InputError, match="it is a PostScript document"):
        prepare(tmp_path / "image.eps", NONE, RGB)
