"""`convdsl draw`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def in_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_network(convdsl, small: Path) -> None:
    said = convdsl("draw", small)
    assert (said.code, said.out) == (0, "")
    root = ElementTree.parse("small.svg").getroot()
    width, height = root.attrib["width"], root.attrib["height"]
    assert said.err.startswith("note: small.svg: ")
    assert said.err.endswith(f" bytes, {float(width):.0f} x {float(height):.0f} pixels\n")
    titles = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("title")]
    assert any(
        t.startswith("conv1\nconv channels=8 kernel=3\nconv1: f32[1, 8, 8, 8]") for t in titles
    )


def test_on_stdout(convdsl, small: Path) -> None:
    said = convdsl(
        "draw", small, "-o", "-", "--direction", "right", "--theme", "dark", "--depth", 1
    )
    assert (said.code, said.err) == (0, "")
    assert ElementTree.fromstring(said.out).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme" not in said.out


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("--receptive-field", "conv1"), (2 * (8 * 40 + 10) + 10, 340)),
        (("--receptive-field", "conv1[0, 0]", "--weights", "random:0"), None),
        (("--maps", "conv1", "--weights", "random:0"), None),
        (("--cam", "--weights", "random:0"), None),
        (("--cam", "1", "--layer", "conv1", "--of", "fc", "--weights", "random:0"), None),
    ],
)
def test_what_it_sees(convdsl, small: Path, folder: Path, options, size) -> None:
    photo = folder / "photo.png"
    Image.new("RGB", (30, 20), (200, 30, 90)).save(photo)
    for name in ("a.svg", "a.png"):
        said = convdsl("draw", small, "--data", photo, *options, "-o", name)
        assert said.code == 0, said.err
    assert ElementTree.parse("a.svg").getroot().tag.endswith("svg")
    with Image.open("a.png") as image:
        assert image.format == "PNG"
        image.load()


def test_filters(convdsl, small: Path) -> None:
    assert convdsl("draw", small, "--filters", "--weights", "random:1", "-o", "f.svg").code == 0
    assert "filters of conv1" in Path("f.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cam",), "error: --cam needs --data and --weights"),
        (("--receptive-field", "conv1"), "error: --receptive-field needs --data"),
        (("--filters",), "error: --filters needs --weights"),
        (("--data", "x.png"), "error: --data says what the network sees"),
        (("-o", "net.pdf"), "error: net.pdf must end in .svg"),
        (("-o", "no/such/net.svg"), "error: cannot write no/such/net.svg: "),
        (("--block", "body"), "error: there is no block body; there are conv1, bn1, relu"),
    ],
)
def test_mistakes(convdsl, small: Path, options, said: str) -> None:
    found = convdsl("draw", small, *options)
    assert found.code == 2
    assert found.err.startswith(said)
