"""Segmentation: which pixels are a disc, a square, a triangle?

    python examples/training/shapes.py [--images N] [options of `convdsl train`, as --epochs 5]

Images and masks are drawn with Pillow and written as PNG files: shapes/data/train/images/0000.png
and shapes/data/train/masks/0000.png, whose pixels are the numbers of classes. The network, a small
U-Net, stands in shapes.cnn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from shown import convdsl

MODEL = Path(__file__).with_name("shapes.cnn")
FOLDER = Path("shapes")
SIDE = 64
BACKGROUND, DISC, SQUARE, TRIANGLE = range(4)


def draw_sample(draws: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An image of one to three shapes, the later over the earlier, and its mask."""
    image, mask = Image.new("L", (SIDE, SIDE), 60), Image.new("L", (SIDE, SIDE), BACKGROUND)
    for _ in range(draws.integers(1, 4)):
        kind = int(draws.integers(DISC, TRIANGLE + 1))
        size, left, top = (int(n) for n in draws.integers((12, 0, 0), (28, SIDE - 12, SIDE - 12)))
        right, bottom = left + size, top + size
        for picture, colour in ((image, int(draws.integers(110, 220))), (mask, kind)):
            pen = ImageDraw.Draw(picture)
            if kind == DISC:
                pen.ellipse((left, top, right, bottom), fill=colour)
            elif kind == SQUARE:
                pen.rectangle((left, top, right, bottom), fill=colour)
            else:
                corners = [(left, bottom), (right, bottom), ((left + right) // 2, top)]
                pen.polygon(corners, fill=colour)
    noisy = np.asarray(image) + draws.normal(0, 15, (SIDE, SIDE))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), mask


def write_data(folder: Path, images: int) -> None:
    """Parts train and test, in each images/ and masks/."""
    draws = np.random.default_rng(0)
    for part, count in (("train", images), ("test", max(8, images // 4))):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = draw_sample(draws)
            image.save(folder / part / "images" / f"{number:04}.png")
            mask.save(folder / part / "masks" / f"{number:04}.png")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--images", type=int, default=400)
    options, more = parser.parse_known_args(arguments)

    data, run = FOLDER / "data", FOLDER / "run"
    write_data(data, options.images)
    convdsl("train", MODEL, "--data", data, "--out", run, *more)
    convdsl("eval", MODEL, "--data", data, "--weights", run / "weights.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
