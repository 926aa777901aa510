"""What the README shows is what convdsl says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import wrong_commands
from PIL import Image
from safetensors.numpy import save_file

import convdsl
from convdsl.bound import bind_weights_of
from convdsl.cli import main

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


def test_the_mistake(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = net.read_text()
    projected = text[text.index("    skip") : text.index("    out")]
    net.write_text(text.replace(projected, "    skip = in\n\n"))
    assert main(["check", "net.cnn"]) == 1
    assert capsys.readouterr().out == block("error[")


def test_the_text_is_formatted(net: Path) -> None:
    assert main(["fmt", "--check", "net.cnn"]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, photos, and what training on them says and leaves: every line of
    that section, as it is printed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "net.cnn").write_text(block("convdsl 1"))
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    said: list[str] = []
    with contextlib.chdir(folder):
        for line in block("convdsl train").splitlines():
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
            said.append(out.getvalue())
    (folder / "said.json").write_text(json.dumps(said))
    return folder


def test_training(trained: Path) -> None:
    first, resumed, measured = json.loads((trained / "said.json").read_text())
    assert "epoch 5/5" in first
    assert "epoch 8/8" in resumed
    assert "epoch 5/8" not in resumed
    assert "accuracy" in measured


def test_the_tour(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line, as it is printed, with weights that were trained and a photo. The artifact needs
    no weights and no sources: they are gone by then."""
    monkeypatch.chdir(trained)
    shutil.copy("run/weights.safetensors", "w.safetensors")
    Image.open("photos/cat/0.png").convert("RGB").save("photo.jpg")
    lines = block("convdsl check").splitlines()
    assert len(lines) == 10
    said: dict[str, str] = {}
    for line in lines:
        name, *command = shlex.split(line, comments=True)
        assert name == "convdsl"
        hidden = [Path("net.cnn"), Path("w.safetensors")] if command[0] == "classify" else []
        for path in hidden:
            path.rename(f"{path}.gone")
        assert main(command) == 0, f"{line}\n{capsys.readouterr().err}"
        for path in hidden:
            Path(f"{path}.gone").rename(path)
        said[" ".join(command)] = capsys.readouterr().out
    shown = block("model net:").splitlines()
    found = said["report net.cnn --depth 1"].splitlines()
    assert [line for line in found if line in shown] == shown
    assert "Nx" not in said["report net.cnn --batch 1 --set width=32"]
    assert "count torchvision:" in said["report resnet50 --count torchvision"]
    assert "logits" in said["run net.cnn --weights random:0 --data random:1 --batch 4"]
    assert "for " in said["compile net.cnn --emit loops"]
    assert len(re.findall(r"0\.\d{4}  class \(\d\)", said["classify net.cdsl photo.jpg"])) == 5
    assert "peak GFLOP/s" in said["bench net.cnn"]
    assert "fuse" in said["passes net.cnn"]


def test_from_python_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines as they are, of a small network."""
    monkeypatch.chdir(tmp_path)
    small = convdsl.load("lenet5")
    drawn = bind_weights_of(small, "random:0")
    save_file({name: np.ascontiguousarray(a) for name, a in drawn.items()}, "resnet50.safetensors")
    loaded: list[object] = []
    monkeypatch.setattr(convdsl, "load", lambda name: loaded.append(name) or small)
    images = np.random.default_rng(0).standard_normal((2, 1, 32, 32), np.float32)
    names: dict[str, Any] = {"images": images}
    exec(compile(block("import convdsl"), "README.md", "exec"), names)
    assert loaded == ["resnet50"]
    assert names["logits"].shape == (2, 10)
    again = convdsl.load_executable("resnet50.cdsl")(images[:1])
    np.testing.assert_allclose(again, names["logits"][:1], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines as they are, with drawn weights in the file that they name."""
    monkeypatch.chdir(tmp_path)
    model = convdsl.load("resnet50")
    drawn = bind_weights_of(model, "random:0")
    save_file({name: np.ascontiguousarray(a) for name, a in drawn.items()}, "resnet50.safetensors")
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
    names: dict[str, Any] = {"images": images}
    exec(compile(block("import convdsl"), "README.md", "exec"), names)
    assert names["logits"].shape == (2, 1000)
    again = convdsl.load_executable("resnet50.cdsl")(images[:1])
    most = np.abs(again).max()  # fifty layers of drawn weights: thousands
    np.testing.assert_allclose(again, names["logits"][:1], rtol=0, atol=5e-6 * most)


def test_the_figure_in_python() -> None:
    assert convdsl.report(convdsl.load("resnet50"), batch=1).totals["macs"] == 4_089_184_256
    assert "4089184256" in README


def test_the_length_of_the_resnets() -> None:
    path = Path(__file__).parent.parent / "examples" / "resnet.cnn"
    assert f"one file of {len(path.read_text().splitlines())} lines" in README


def expectations() -> list[list[str]]:
    """The cells of what users of other tools expect, row by row."""
    table = README[README.index("## What you may be used to") : README.index("## Reading on")]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


@pytest.mark.parametrize("cells", expectations(), ids=lambda cells: cells[1][:40])
def test_what_is_said_to_users_of_other_tools_is_held_by_something(cells: list[str]) -> None:
    _, _, here, held = cells
    words = re.findall(r"`([^`]+)`", held)
    links = re.findall(r"\]\(([^)]+)\)", held)
    assert words or links or here == "not here"
    root = Path(__file__).parent.parent
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if word.startswith("convdsl "):
            assert not wrong_commands(f"```\n{word}\n```\n")
        elif word.startswith("make "):
            assert word.removeprefix("make ") in targets
        else:
            assert word.startswith("tests/")
            assert (root / word).is_file(), word
    assert all((root / link).is_file() for link in links)
