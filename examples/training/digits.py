"""Handwritten digits of 8x8 pixels, in half a minute: data, training, accuracy.

    python examples/training/digits.py [--seed S] [options of `convdsl train`, as --epochs 5]

The network and how it is trained stand in digits.cnn; the data come with scikit-learn, of which
four fifths are trained on. Everything is written into the folder `digits`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from shown import convdsl, package

MODEL = Path(__file__).with_name("digits.cnn")
FOLDER = Path("digits")


def write_data(path: Path, seed: int) -> None:
    """An archive in parts: x_train and y_train are trained on, x_test and y_test are for `eval`."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = (digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), bytes as of an image
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=0.2, stratify=digits.target, random_state=seed
    )
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--seed", type=int, default=0)
    options, more = parser.parse_known_args(arguments)

    package("sklearn", "pip install scikit-learn")
    data, run = FOLDER / "data.npz", FOLDER / "run"
    write_data(data, options.seed)
    convdsl("train", MODEL, "--data", data, "--out", run, "--seed", str(options.seed), *more)
    convdsl("eval", MODEL, "--data", data, "--weights", run / "weights.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
