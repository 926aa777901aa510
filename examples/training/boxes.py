"""Box regression, from Python: where is the digit?

    python examples/training/boxes.py [--images N] [--epochs E]

The digits of scikit-learn, enlarged and laid at random on dark noise. Arrays go straight into
`convdsl.train`, and the trained network is used as any other executable. The network stands in
boxes.cnn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shown import package

import convdsl

MODEL = Path(__file__).with_name("boxes.cnn")
FOLDER = Path("boxes")
SIDE = 64


def draw_data(count: int, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """x: bytes [N, H, W]. boxes: left, top, right, bottom of what is bright, [N, 4]."""
    from sklearn.datasets import load_digits

    digits, draws = load_digits().images, np.random.default_rng(seed)
    x = draws.integers(0, 60, (count, SIDE, SIDE), dtype=np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for image, box in zip(x, boxes, strict=True):
        zoom = int(draws.integers(2, 5))
        digit = np.kron(digits[draws.integers(len(digits))], np.ones((zoom, zoom))) * (255 / 16)
        left, top = draws.integers(0, SIDE - len(digit) + 1, 2)
        there = image[top : top + len(digit), left : left + len(digit)]
        np.maximum(there, digit.astype(np.uint8), out=there)
        rows, columns = (digit > 60).any(1).nonzero()[0], (digit > 60).any(0).nonzero()[0]
        box[:] = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
    return {"x": x, "boxes": boxes}


def overlap(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Intersection over union of pairs of boxes, [N]."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clip(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args(arguments)

    package("sklearn", "pip install scikit-learn")
    data, test = draw_data(options.images, 0), draw_data(200, 1)
    trained = convdsl.train(MODEL, data, out=FOLDER, overwrite=True, epochs=options.epochs)
    for record in trained.history:
        print(f"epoch {record['epoch']}: {record['val_mean_absolute_error']:.2f} pixels off")

    image = test["x"][:, None].astype(np.float32) / 255  # as bytes become where nothing is declared
    found = trained.network(image)
    print(f"overlap with the true boxes of {len(found)} new images: ", end="")
    print(f"{overlap(found, test['boxes']).mean():.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
