"""`convdsl run --tile`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convdsl.cli import tiles

TEXT = """convdsl 1
model seg {
    input x: f32[N, 3, H, W]
    x -> conv(4, 3x3) as a -> maxpool(2) -> resize(scale = 2) -> conv(2, 3x3) as b -> output y
}
"""
RANDOM = ("--weights", "random:1")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "seg.cnn"
    path.write_text(TEXT)
    image = np.random.default_rng(0).standard_normal((2, 3, 90, 110)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    np.savez(tmp_path / "x.npz", x=image)
    return path


@pytest.mark.dear
@pytest.mark.parametrize("data", ["x.npy", "x.npz"])
@pytest.mark.parametrize("most", [0, 1 << 30])
def test_tiles_give_what_one_run_gives(
    convdsl, text: Path, data: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MOST_IN_MEMORY", most)
    folder = text.parent
    said = convdsl(
        "run", text, *RANDOM, "--data", folder / data, "--tile", 40, "-o", folder / "t.npy"
    )
    assert said.code == 0
    assert "tiles of 40x40" in said.err
    assert (
        convdsl("run", text, *RANDOM, "--data", folder / "x.npy", "-o", folder / "w.npy").code == 0
    )
    np.testing.assert_allclose(
        np.load(folder / "t.npy"), np.load(folder / "w.npy"), rtol=1e-5, atol=1e-6
    )
    assert {path.suffix for path in folder.iterdir()} == {"", ".cnn", ".npy", ".npz"}


@pytest.mark.dear(share=4)
def test_drawn_images_and_summaries(convdsl, text: Path) -> None:
    drawn = (*RANDOM, "--data", "random:3", "--input", "3x70x80", "--format", "json")
    whole, tiled = convdsl("run", text, *drawn), convdsl("run", text, *drawn, "--tile", 36)
    assert tiled.code == 0
    assert '"shape": [\n' in tiled.out
    assert tiled.out.split('"min"')[0] == whole.out.split('"min"')[0]


def test_what_tiles_cannot_do(convdsl, text: Path, small: Path) -> None:
    folder = text.parent
    said = convdsl("run", small, *RANDOM, "--data", folder / "x.npy", "--tile", 40)
    assert said.code == 2
    assert "takes images of 8x8, and tiles need a network of any size" in said.err
    assert convdsl("compile", small, *RANDOM, "-o", folder / "a.cdsl").code == 0
    said = convdsl("run", folder / "a.cdsl", "--data", folder / "x.npy", "--tile", 40)
    assert "--tile takes a model's text" in said.err
    np.savez(folder / "two.npz", a=np.zeros(3), b=np.zeros(3))
    said = convdsl("run", text, *RANDOM, "--data", folder / "two.npz", "--tile", 40)
    assert "holds 2 arrays; --tile takes one image" in said.err
    np.save(folder / "x.npy", np.zeros((3, 4)))
    said = convdsl("run", text, *RANDOM, "--data", folder / "x.npy", "--tile", 40)
    assert "takes images [N, C, H, W], not [3, 4]" in said.err
    assert convdsl("run", text, *RANDOM, "--data", folder / "x.npy", "--tile", 0).code == 2
