"""A detector of one shot: where are digits, and which?

    python examples/training/detector.py [--images N] [--epochs E] [--width W]

One to three digits of scikit-learn on dark noise, enlarged, none over another. The network stands
in examples/gallery/detector.cnn, and docs/gallery/detector.md walks through it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shown import package

import convdsl
from convdsl.training.metrics.detection import AveragePrecision

FOLDER = Path("detector")
SIDE, CELL, MOST = 64, 8, 3

Array = npt.NDArray[np.generic]


def draw_data(count: int, seed: int, first: int = 0, last: int | None = None) -> dict[str, Array]:
    """x: bytes [N, H, W]. truth: left, top, right, bottom, class of each digit, [N, MOST, 5], zeros
    where there is none. Digits first .. last of the collection are used."""
    from sklearn.datasets import load_digits

    collection, draws = load_digits(), np.random.default_rng(seed)
    images, labels = collection.images[first:last], collection.target[first:last]
    x = draws.integers(0, 60, (count, SIDE, SIDE), dtype=np.uint8)
    truth = np.zeros((count, MOST, 5), np.float32)
    for image, boxes in zip(x, truth, strict=True):
        taken = np.zeros((SIDE, SIDE), bool)
        for box in boxes[: draws.integers(1, MOST + 1)]:
            number, zoom = draws.integers(len(images)), int(draws.integers(2, 4))
            digit = np.kron(images[number], np.ones((zoom, zoom))) * (255 / 16)
            left, top = draws.integers(0, SIDE - len(digit) + 1, 2)
            there = slice(top, top + len(digit)), slice(left, left + len(digit))
            if taken[there].any():
                continue
            taken[there] = True
            np.maximum(image[there], digit.astype(np.uint8), out=image[there])
            rows, columns = (digit > 60).any(1).nonzero()[0], (digit > 60).any(0).nonzero()[0]
            box[:4] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            box[:4] += left, top, left, top
            box[4] = labels[number]
    return {"x": x, "truth": truth}


def targets(truth: Array) -> dict[str, Array]:
    """For every cell the class of the digit whose middle lies in it, 0 for none, and its box."""
    cells = SIDE // CELL
    label = np.zeros((len(truth), cells, cells), np.int64)
    boxes = np.zeros((len(truth), cells, cells, 4), np.float32)
    there = truth[..., 2] > truth[..., 0]
    image, _ = there.nonzero()
    middle = (truth[there][:, :2] + truth[there][:, 2:4]) / 2
    column, row = np.minimum(middle // CELL, cells - 1).astype(int).T
    label[image, row, column] = truth[there][:, 4].astype(int) + 1
    boxes[image, row, column] = truth[there][:, :4]
    return {"label": label, "boxes": boxes.reshape(len(truth), -1, 4)}


def mean_average_precision(network: convdsl.Executable, data: dict[str, Array]) -> float:
    """Of what a network finds in drawn data."""
    measure = AveragePrecision(overlap=0.5)
    for start in range(0, len(data["x"]), 50):
        part = slice(start, start + 50)
        image = data["x"][part, None].astype(np.float32) / 255
        measure.add(network(image)["found"], data["truth"][part])
    return measure.value()["average_precision"]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args(arguments)

    package("sklearn", "pip install scikit-learn")
    data, test = draw_data(options.images, 0, last=1400), draw_data(200, 1, first=1400)
    model = convdsl.load("digit_detector", width=options.width)
    samples = {"x": data["x"], **targets(data["truth"])}
    trained = convdsl.train(model, samples, out=FOLDER, overwrite=True, epochs=options.epochs)
    for record in trained.history:
        print(f"epoch {record['epoch']}: loss {record['val_loss']:.3f}")
    found = mean_average_precision(trained.network, test)
    print(f"mean average precision at an overlap of 0.5, on 200 images of new digits: {found:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
