"""Files of another kind than is asked for: what they are is said, and who takes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl.diagnostics import InputError

TEXT = "model m { input x: f32[N, 4]\n x -> linear(2) -> output y }"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "m.cnn").write_text(TEXT)
    convdsl.compile(folder / "m.cnn", "random:0").save(folder / "m.cdsl")
    whole = (folder / "m.cdsl").read_bytes()
    (folder / "large.cdsl").write_bytes(whole + bytes(2 << 20))
    (folder / "renamed.cnn").write_bytes(whole)
    (folder / "cut.cdsl").write_bytes(whole[:100])
    (folder / "empty.cdsl").write_bytes(b"")
    (folder / "zeros.cdsl").write_bytes(bytes(100))
    np.savez(folder / "a.npz", a=np.zeros(3))
    np.save(folder / "a.npy", np.zeros(3))
    for kind in ("png", "jpg", "gif", "bmp", "webp"):
        Image.new("RGB", (9, 9), (200, 90, 10)).save(folder / f"p.{kind}")
    return folder


@pytest.mark.parametrize("name", ["m.cdsl", "large.cdsl", "renamed.cnn", "cut.cdsl"])
@pytest.mark.parametrize("command", ["export", "draw", "diff", "compile", "train", "eval", "fmt"])
def test_artifacts_where_a_text_is_wanted(
    place: Path, convdsl: Any, command: str, name: str
) -> None:
    others = {"diff": [place / "m.cnn"], "train": ["--data", "x"], "eval": ["--data", "x"]}
    found = convdsl(command, place / name, *others.get(command, []))
    assert found.code == 2
    assert f"{name} is an artifact: it is compiled already" in found.err
    assert "load_executable and Predictor" in found.err


@pytest.mark.parametrize(
    "taken",
    [
        lambda path: convdsl.load(path),
        lambda path: convdsl.compile(path),
        lambda path: convdsl.report(path),
        lambda path: convdsl.load(f"{path}:m"),
    ],
)
def test_in_python_too(place: Path, taken: Any) -> None:
    with pytest.raises(InputError, match="is an artifact"):
        taken(place / "m.cdsl")


@pytest.mark.parametrize("name", ["empty.cdsl", "zeros.cdsl"])
def test_what_is_only_called_an_artifact(place: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} is no artifact: it is (empty|of no kind)"):
        convdsl.Predictor(place / name).open()


def test_texts_may_have_any_name(place: Path, tmp_path: Path) -> None:
    (tmp_path / "m.cdsl").write_text(TEXT)
    assert convdsl.load(tmp_path / "m.cdsl").name == "m"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"p.{kind}", "no source but an image") for kind in ("png", "jpg", "gif", "bmp", "webp")),
        ("a.npz", "no source but an archive of arrays"),
        ("a.npy", "no source but an array"),
    ],
)
def test_other_files_in_place_of_a_model(place: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        convdsl.load(place / name)


def test_artifacts_are_no_weights(place: Path) -> None:
    with pytest.raises(convdsl.Error, match=r"m.cdsl is an artifact: its weights are in its code"):
        convdsl.compile(place / "m.cnn", place / "m.cdsl")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "the data .* are a folder"),
        ("m.cnn", "m.cnn holds no arrays: it is a text; read are .npy"),
    ],
)
def test_messages_on_data_speak_of_data(place: Path, convdsl: Any, name: str, said: str) -> None:
    found = convdsl("run", place / "m.cdsl", "--data", place / name)
    assert found.code == 2
    assert re.search(said, found.err)
    assert "weights" not in found.err


def test_data_in_either_order_of_bytes(place: Path, convdsl: Any, tmp_path: Path) -> None:
    x = np.arange(4, dtype="f4")[None]
    for order in "<>":
        np.save(tmp_path / "x.npy", x.astype(f"{order}f4"))
        np.savez(tmp_path / "x.npz", x=x.astype(f"{order}f4"))
        for kind in ("npy", "npz"):
            out = tmp_path / f"{kind}{'<>'.index(order)}.npy"
            data = ("--data", tmp_path / f"x.{kind}", "-o", out)
            assert convdsl("run", place / "m.cdsl", *data).code == 0
            np.testing.assert_array_equal(np.load(out), np.load(tmp_path / "npy0.npy"))


@pytest.mark.parametrize("name", [f"p.{kind}" for kind in ("png", "jpg", "gif", "bmp", "webp")])
def test_one_image_is_no_data_set(place: Path, convdsl: Any, name: str) -> None:
    found = convdsl("train", place / "m.cnn", "--data", place / name)
    assert found.code == 2
    assert f"{name} is one image: data are folders of images, .npz" in found.err


def test_inputs_that_data_lack_are_no_matter_of_the_loss(tmp_path: Path, convdsl: Any) -> None:
    body = "input x: f32[N, 4]\n input z: f32[N, 4]\n x + z -> linear(2) -> output y"
    train = "train { loss = cross_entropy(y, label) }"
    (tmp_path / "two.cnn").write_text(f"model two {{ {body} }}\n{train}")
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), "f4"), y=np.arange(6) % 2)
    found = convdsl("train", tmp_path / "two.cnn", "--data", tmp_path / "d.npz")
    assert found.code == 2
    assert "the network takes `z`, which is not in" in found.err
    assert found.err.rstrip().endswith("help: give an array called `z`")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.npy", "an array"), ("a.npz", "an archive"), ("p.png", "an image"), ("m.cdsl", "artifact")],
)
def test_what_is_imported_is_no_model(place: Path, convdsl: Any, name: str, kind: str) -> None:
    """Also where it is called like one. Nothing is said of wires."""
    (place / "called.onnx").write_bytes((place / name).read_bytes())
    for path in (place / name, place / "called.onnx"):
        found = convdsl("import", path, "-o", place / "made.cnn")
        assert (found.code, kind in found.err, "Wire" in found.err) == (2, True, False)
    assert not (place / "made.cnn").exists()
