"""A small model with everything a command may want, and a way to call commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from convdsl.cli import main

SMALL = """convdsl 1

# A small classifier
model small(classes = 3) {
    labels "names.txt"
    input image: f32[N, 3, 8, 8]
    preprocess image: resize(8x8) -> rescale(1 / 255)
    image -> conv(8, 3x3) as conv1 -> bn as bn1 -> relu -> avgpool(global) -> flatten
          -> linear(classes) as fc
          -> output logits
}
"""
SIZED = """convdsl 1
model sized {
    input image: f32[N, 1, H, W]
    image -> conv(2, 3x3) as conv1 -> avgpool(global) -> flatten -> output y
}
"""
TWO = """convdsl 1
model two {
    input a: f32[N, 4]
    input b: f32[N, 4]
    a + b -> output total
    a * b -> output product
}
"""


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Convdsl = Callable[..., Said]


@pytest.fixture
def convdsl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Convdsl:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with models, labels and a photo."""
    (tmp_path / "small.cnn").write_text(SMALL)
    (tmp_path / "sized.cnn").write_text(SIZED)
    (tmp_path / "two.cnn").write_text(TWO)
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    pixels = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


@pytest.fixture
def small(folder: Path) -> Path:
    return folder / "small.cnn"
