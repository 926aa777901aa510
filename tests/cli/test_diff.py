"""`convdsl diff`."""

from __future__ import annotations

import json
from pathlib import Path


def test_equal_models(convdsl, small: Path) -> None:
    assert convdsl("diff", small, small) == (0, "", "note: the models do not differ\n")
    assert convdsl("diff", small, small, "--format", "json") == (0, "[]\n", "")


def test_differences_by_layer_and_in_total(convdsl, small: Path) -> None:
    other = small.parent / "other.cnn"
    text = (
        small.read_text().replace("conv(8, 3x3)", "conv(8, 5x5)").replace("-> relu ", "-> relu6 ")
    )
    other.write_text(text)
    said = convdsl("diff", small, other, "--batch", 1, "--format", "json")
    assert said.code == 1
    rows = {(row["layer"], row["what"]): (row["old"], row["new"]) for row in json.loads(said.out)}
    assert rows["conv1", "params"] == (8 * 27 + 8, 8 * 75 + 8)
    assert rows["conv1", "kernel"] == ("3", "5")
    assert rows["conv1", "macs"] == (8 * 27 * 64, 8 * 75 * 64)
    assert rows["relu", "layer"] == ("relu f32[1, 8, 8, 8]", None)
    assert rows["relu6", "layer"] == (None, "relu6 f32[1, 8, 8, 8]")
    old, new = rows["total", "params"]
    assert new - old == 8 * 48
    assert not any(layer == "fc" for layer, _ in rows)
    assert "conv1" in convdsl("diff", small, other).out


def test_parameters_and_symbols(convdsl, folder: Path) -> None:
    said = convdsl("diff", folder / "sized.cnn", folder / "two.cnn", "--format", "json")
    assert said.code == 1
    rows = {(row["layer"], row["what"]): row["old"] for row in json.loads(said.out)}
    assert rows["conv1", "layer"] == "conv f32[N, 2, H, W]"
    assert rows["total", "macs"] == "18*N*H*W"
    assert convdsl("diff", "resnet18", "resnet19").code == 2
