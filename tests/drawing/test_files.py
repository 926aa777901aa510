"""SVG, PNG and sheets of images, read back by others."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from convdsl.diagnostics import InputError
from convdsl.drawing import png
from convdsl.drawing.colours import ordered, signed
from convdsl.drawing.sheet import GAP, Frame, Sheet, Tile, bilinear
from convdsl.drawing.svg import Canvas, element, shortened, style, text, text_width

ODD = "a<b>&\"c\" 'd' \x00\x1b]8;;\u202e\ud800\ufffe é 層"


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 33), (1, 1, 3), (7, 2, 3), (40, 300, 3)])
def test_png_reads_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(png.encode(pixels))) as image:
        image.load()
        assert np.array_equal(np.asarray(image), pixels)


def test_texts_of_strangers_stay_texts() -> None:
    canvas = Canvas(element("g", text(ODD, 1, 2), href=ODD, class_=ODD), 10, 20)
    root = ElementTree.fromstring(canvas.document(ODD))
    assert root.attrib["viewBox"] == "0 0 10 20"
    shown = "".join(root.itertext())
    assert "a<b>&" in shown
    assert "層" in shown
    assert "\x1b" not in shown
    assert {child.tag.split("}")[1] for child in root.iter()} == {
        *("svg", "title", "style", "rect", "g", "text"),
    }


def test_themes() -> None:
    assert "prefers-color-scheme" in style("auto")
    assert "prefers-color-scheme" not in style("light") + style("dark")
    assert ".bar" in style("light", ".report")
    with pytest.raises(InputError, match="no theme blue: there are auto, light, dark"):
        style("blue")


def test_widths_of_texts() -> None:
    assert text_width("abcd", 10) == pytest.approx(4 * 6.02)
    assert text_width("層", 10) == 2 * text_width("a", 10)
    assert text_width("e\u0301", 10) == text_width("e", 10)


@pytest.mark.parametrize("letters", [2, 3, 8, 20, 21, 30])
def test_shortened(letters: int) -> None:
    name = "blocks.12.attention.query"
    made = shortened(name, letters)
    assert len(made) == min(letters, len(name))
    start, _, end = made.partition("…")
    assert name.startswith(start)
    assert name.endswith(end)


def test_a_sheet_s_pixels_are_its_tiles() -> None:
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, (4, 6, 3), np.uint8) for _ in range(3)]
    page = Sheet([Tile(i) for i in images], scale=2, columns=2).pixels()
    assert page.shape == (2 * (8 + GAP) + GAP, 2 * (12 + GAP) + GAP, 3)
    for number, image in enumerate(images):
        y, x = GAP + number // 2 * (8 + GAP), GAP + number % 2 * (12 + GAP)
        assert np.array_equal(page[y : y + 8 : 2, x : x + 12 : 2], image)
        assert np.array_equal(page[y + 1 : y + 8 : 2, x + 1 : x + 12 : 2], image)


def test_a_sheet_as_svg_holds_its_tiles() -> None:
    import base64

    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    tiles = [Tile(image, "one", (Frame(1, 0, 3, 2),)), Tile(image, "two", scale=3)]
    root = ElementTree.fromstring(Sheet(tiles, "head", ("note",), 5).canvas().document("t"))
    images = [e for e in root.iter() if e.tag.endswith("image")]
    assert [(e.attrib["width"], e.attrib["height"]) for e in images] == [("20", "15"), ("12", "9")]
    data = base64.b64decode(images[0].attrib["href"].split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    (frame,) = (e for e in root.iter() if e.attrib.get("class") == "mark")
    assert (frame.attrib["width"], frame.attrib["height"]) == ("10", "10")
    texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]
    assert texts == ["head", "one", "two", "note"]


def test_frames_lie_on_the_edge_of_what_they_hold() -> None:
    image = np.full((20, 20, 3), 255, np.uint8)
    page = Sheet([Tile(image, frames=(Frame(5, 6, 15, 12),))]).pixels()[GAP:-GAP, GAP:-GAP]
    marked = (page[..., 1] < 255).nonzero()
    assert (marked[0].min(), marked[0].max()) == (5, 12)
    assert (marked[1].min(), marked[1].max()) == (4, 15)
    assert (page[8, 8] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7)])
def test_bilinear_is_pillow_s(size: tuple[int, int]) -> None:
    values = np.random.default_rng(sum(size)).standard_normal(size).astype("f4")
    expected = np.asarray(Image.fromarray(values).resize((28, 21), Image.Resampling.BILINEAR))
    assert np.allclose(bilinear(values, 21, 28), expected, atol=1e-5)


def test_colours() -> None:
    shades = ordered(np.array([-9.0, 0.0, 0.5, 1.0, 9.0, np.nan, np.inf]))
    assert shades[[0, 4, 5, 6]].tolist() == [shades[1].tolist(), shades[3].tolist()] + 2 * [
        [128] * 3
    ]
    lightness = ordered(np.linspace(0, 1, 50)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= -1).all()
    assert signed(np.array([-2.0, 0.0, 2.0]), 2.0).tolist() == [
        *([33, 84, 158], [255, 255, 255], [165, 24, 40]),
    ]
    assert ordered(np.zeros(2), 0.0, 0.0).tolist() == 2 * [shades[1].tolist()]
    assert signed(np.zeros(1), 0.0).tolist() == [[255, 255, 255]]
