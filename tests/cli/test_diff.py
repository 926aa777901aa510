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


def test_each_side_has_settings_of_its_own(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(
        "model net(width = 8, classes = 3) {\n    input x: f32[N, 2, 4, 4]\n"
        "    x -> scope body { conv(width, 3x3) -> relu -> conv(width, 1x1) } -> avgpool(global)\n"
        "      -> flatten -> linear(classes) -> output y\n}\n"
    )
    given = ("diff", path, path, "--set", "classes=5", "--batch", 1, "--format", "json")
    assert convdsl(*given).code == 0
    said = convdsl(*given, "--set-a", "width=4", "--set-b", "width=16", "--depth", 1)
    rows = {(row["layer"], row["what"]): row for row in json.loads(said.out)}
    old, new = 4 * 19 + 4 * 5, 16 * 19 + 16 * 17
    found = rows["body", "params"]
    assert (found["old"], found["new"]) == (old, new)
    assert found["change %"] == round(100 * (new - old) / old, 2)
    assert rows["body", "output"]["change %"] is None
    assert rows["linear", "params"]["new"] == 5 * 17
    assert ("body.conv", "params") not in rows
    assert next(iter(rows))[0] == "total"
    over = convdsl(*given, "--set-b", "classes=7").out
    assert any(row["what"] == "params" and row["layer"] == "linear" for row in json.loads(over))
    assert convdsl("diff", path, path, "--set-b", "widht=2").code == 2
