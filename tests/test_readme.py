"""What the README shows is what convdsl says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl.cli import main
from convdsl.cli.app import COMMANDS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)


def block(start: str) -> str:
    (found,) = [text for text in BLOCKS if text.startswith(start)]
    return found


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.cnn").write_text(block("convdsl 1"))
    return Path("net.cnn")


def test_the_report(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "net.cnn", "--depth", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    shown = block("model net:").splitlines()
    assert [line for line in said if line in shown] == shown


def test_the_mistake(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = net.read_text()
    projected = text[text.index("    skip") : text.index("    out")]
    net.write_text(text.replace(projected, "    skip = in\n\n"))
    assert main(["check", "net.cnn"]) == 1
    assert capsys.readouterr().out == block("error[")


def test_the_text_is_formatted(net: Path) -> None:
    assert main(["fmt", "--check", "net.cnn"]) == 0


def test_the_tour_s_commands_are_there(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = block("convdsl check").splitlines()
    assert len(lines) == 10
    for line in lines:
        name, command, *_ = shlex.split(line, comments=True)
        assert (name, command in COMMANDS) == ("convdsl", True)
    for line in lines[:6]:
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert capsys.readouterr().out


def test_training(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = net.parent / "photos" / name
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    for line in block("convdsl train").splitlines():
        command = shlex.split(line, comments=True)[1:]
        assert main(command) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "epoch 5/5" in out
    assert "epoch 8/8" in out
    assert "epoch 5/8" not in out
    assert "accuracy" in out


def test_the_figure_in_python() -> None:
    assert convdsl.report(convdsl.load("resnet50"), batch=1).totals["macs"] == 4_089_184_256
    assert "4089184256" in README


def test_the_length_of_the_resnets() -> None:
    path = Path(__file__).parent.parent / "examples" / "resnet.cnn"
    assert f"one file of {len(path.read_text().splitlines())} lines" in README
