"""Mistakes of a day's work are answered with what to do, by the command that was given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl as package

TEXT = """
model m(classes = 2) {
    input x: f32[N, 3, 8, 8]
    x -> conv(4, 3x3) as stem -> avgpool(global) -> flatten -> linear(classes) as head -> output y
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    (folder / "m.cnn").write_text(TEXT)
    for kind in ("a", "b"):
        (folder / "photos" / kind).mkdir(parents=True)
        for number in range(3):
            photo = folder / "photos" / kind / f"{number}.png"
            Image.new("RGB", (8, 8), (number, 9, 9)).save(photo)
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 3, 8, 8), np.float32), np.array([0, 1, 0, 1])
    np.savez(folder / "d.npz", x=x, y=y)
    np.savez(folder / "nan.npz", x=x * np.nan, y=y)
    np.savez(folder / "one.npz", x=x[:1], y=y[:1])
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    (folder / "semi.csv").write_text("photos/a/0.png;a\n")
    np.save(folder / "none.npy", np.zeros((0, 3, 8, 8), np.float32))
    model = package.load(folder / "m.cnn")
    package.compile(model, "random:0").save(folder / "m.cdsl")
    return folder


TRAIN = ("train", "m.cnn", "--epochs", "1", "--out", "out", "--data")
ANSWERS: list[tuple[tuple[str, ...], str]] = [
    ((*TRAIN, "nowhere"), "help: data are folders of images"),
    ((*TRAIN, "d.npx"), "did you mean d.npz?"),
    ((*TRAIN, ""), "the path of the data is empty"),
    ((*TRAIN, "m.cnn"), "the data m.cnn are a text"),
    ((*TRAIN, "odd.csv"), "no image a is there, which its first line names"),
    ((*TRAIN, "semi.csv"), "columns with ';' between: write commas"),
    ((*TRAIN, "d.npz", "--find-lr", "--overfit", "2"), "one at a time"),
    ((*TRAIN, "d.npz", "--set", "trian.lr=3"), "--set train.lr=3"),
    (("train", "m.cnn", "--data", "photos", "--out", "photos"), "is where the data are"),
    (("train", "m.cnn", "--data", "photos", "--out", "photos/run"), "is where the data are"),
    (("eval", "m.cnn", "--data", "d.npz", "--metrics", "acc"), "--set train.metrics=acc"),
    (("eval", "m.cnn", "--data", "d.npz", "--weights", "kept"), "mean kept/weights.safetensors?"),
    (("ops", "attention"), "`convdsl ops` lists them"),
    (("passes", "fold-batchnorm"), "is a pass: `convdsl passes MODEL"),
    (("compile", "m.cnn", "--emit", "gradient", "--wrt", "setm.*"), "did you mean stem.*?"),
    (("compile", "m.cnn", "--input", "3,8,8"), "write 3x8x8"),
    (("compile", "m.cnn", "--input", "3x8x8,3x8x8"), "--input names a size twice: 3x8x8"),
    (("compile", "m.cnn", "--batch", "1,4,1"), "--batch names a size twice: 1"),
    (("compile", "m.cnn", "--weights", "random:0", "-o", "/proc/m.cdsl"), "no files can be made"),
    (("compile", "m.cnn", "--target", "cuda", "--arch", "80"), "did you mean sm_80?"),
    (("compile", "m.cnn", "--target", "gpu"), "did you mean cuda?"),
    (("compile", "m.cnn", "--weights", "random:0", "--cpu", "haswel"), "did you mean haswell?"),
    (("export", "m.cnn", "--to", "torch"), "did you mean pytorch?"),
    (("classify", "photos/a/0.png"), "the model stands first: convdsl classify MODEL photos/a/0"),
    ((*TRAIN, "d.npz", "--lr", "fast"), "--lr: 'fast' is no number"),
    ((*TRAIN, "d.npz", "--seed", "x"), "--seed: 'x' is no number"),
    ((*TRAIN, "d.npz", "--amp", "fp16"), "did you mean float16?"),
    (("bench", "m.cnn", "--batch", "1,2"), "is several: give one"),
    (("run", "m.cdsl", "--data", "random:0", "--device", "gpu"), "unknown device `gpu`"),
    (("run", "m.cdsl", "--data", "random"), "random:0 draws them"),
    (("import", "nowhere.onnx"), "there is no file nowhere.onnx"),
    (("import", "m.cnn"), "m.cnn is no ONNX model: it is a text"),
]


@pytest.mark.parametrize(("words", "answer"), ANSWERS)
def test_answers(
    convdsl: Any, place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], answer: str
) -> None:
    monkeypatch.chdir(place)
    (place / "kept").mkdir(exist_ok=True)
    (place / "kept" / "weights.safetensors").write_bytes(b"")
    said = convdsl(*words)
    assert said.code == 2
    assert answer in said.err
    assert "Traceback" not in said.err
    assert not (place / "out").exists()


def test_what_other_sizes_do_not_mend(convdsl: Any, place: Path) -> None:
    said = convdsl("run", place / "m.cdsl", "--data", place / "none.npy").err
    assert "has shape [0, 3, 8, 8]" in said
    assert "convdsl compile" not in said


def test_counts_of_one(convdsl: Any, place: Path, tmp_path: Path) -> None:
    words = ("train", place / "m.cnn", "--data", place / "one.npz", "--epochs", "1")
    said = convdsl(*words, "--out", tmp_path / "run").err
    assert "1 sample to train on" in said
    said = convdsl(*words, "--out", tmp_path / "run", "--resume").err
    assert "has 1 epoch behind it, and 1 is asked for" in said
    said = convdsl(*words, "--overfit", "9", "--lr", "0.1").err
    assert "a batch has 1 sample, all there are" in said


def test_a_loss_that_is_none_is_said(convdsl: Any, place: Path) -> None:
    said = convdsl(
        "eval", place / "m.cnn", "--weights", "random:0", "--data", place / "nan.npz"
    )  # fmt: skip
    assert said.code == 0
    assert "the loss is no number" in said.err


def test_weights_of_a_text_on_its_onnx_file(convdsl: Any, place: Path, tmp_path: Path) -> None:
    """What weights remember are parameters of a text, which a file does not have."""
    run = ("train", place / "m.cnn", "--data", place / "d.npz", "--epochs", "1")
    assert convdsl(*run, "--out", tmp_path / "run", "--set", "classes=3").code == 0
    weights = tmp_path / "run" / "weights.safetensors"
    onnx = tmp_path / "m.onnx"
    assert convdsl("export", place / "m.cnn", "--weights", weights, "-o", onnx).code == 0
    said = convdsl("run", onnx, "--weights", weights, "--data", "random:0", "--batch", "1")
    assert said.code == 0, said.err


def test_every_damaged_artifact_is_told(convdsl: Any, place: Path, tmp_path: Path) -> None:
    whole = (place / "m.cdsl").read_bytes()
    (tmp_path / "cut.cdsl").write_bytes(whole[:-9])
    (tmp_path / "odd.cdsl").write_bytes(whole[:-400] + b"\xff" * 400)
    (tmp_path / "bad.cnn").write_text("model m { input x: f32[N, 3]\n x -> nothing -> output y }")
    said = convdsl("check", *(tmp_path / n for n in ("cut.cdsl", "bad.cnn", "odd.cdsl")))
    assert said.code == 2
    assert "cut.cdsl is damaged" in said.err
    assert "odd.cdsl is damaged" in said.err
    assert "bad.cnn:2" in said.out
