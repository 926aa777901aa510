"""Targets that a loss compares as classes are whole numbers: nothing cuts others to some class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl.cli import main
from convdsl.diagnostics import InputError
from convdsl.training.data import ArrayData, Subset, Wanted, check_labels
from convdsl.training.data.sample import number_of
from convdsl.training.fit import evaluate_model, opened

PIXELS = "image -> conv(3, 1x1) -> output y"
SCORES = "image -> conv(4, 3x3) -> relu -> flatten -> linear(3) -> output y"
LOSSES = [
    ("cross_entropy", SCORES, "y"),
    ("nll", SCORES.replace("-> output", "-> log_softmax(1) -> output"), "y"),
    ("focal", SCORES, "y"),
    ("dice", PIXELS, "mask"),
    ("cross_entropy(y, mask)", PIXELS, "mask"),
]
ODD = [0.5, -0.25, np.nan, np.inf, -np.inf, 1e300]


def text(loss: str, body: str) -> str:
    return (
        f"model m {{ input image: f32[N, 1, 6, 6]\n {body} }}\n"
        f"train {{ epochs = 1\n batch = 4\n loss = {loss} }}"
    )


def arrays(name: str, odd: float) -> dict[str, Any]:
    target = np.zeros((12, 6, 6) if name == "mask" else 12)
    target[7] = odd
    return {"x": np.zeros((12, 6, 6), "f4"), name: target}


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("odd", ODD[:5])
@pytest.mark.parametrize(("loss", "body", "name"), LOSSES)
def test_what_is_no_whole_number_is_no_class(loss: str, body: str, name: str, odd: float) -> None:
    """In training, wherever the sample falls when a part is held back, and in measuring."""
    model, data = convdsl.parse(text(loss, body)), arrays(name, odd)
    said = rf"{'label' if name == 'y' else name} of sample 7 holds {odd}, and a class"
    with pytest.raises(InputError, match=said):
        convdsl.train(model, data, val_fraction=0.5)
    with pytest.raises(InputError, match=said):
        evaluate_model(model, data, "random:0")


@pytest.mark.parametrize("odd", ODD)
def test_samples_that_are_read_later_too(odd: float) -> None:
    class Own:
        source, classes, labels = "my data", None, None

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> dict[str, Any]:
            label = np.asarray(odd if index == 7 else 1.0)
            return {"x": np.zeros((6, 6, 1), "f4"), "label": label}

    with pytest.raises(InputError, match=r"sample 7 of my data"):
        convdsl.train(convdsl.parse(text(*LOSSES[0][:2])), Own(), val_fraction=0)


def test_whole_numbers_in_floats_are_classes() -> None:
    model = convdsl.parse(text(*LOSSES[0][:2]))
    data = {"x": np.zeros((8, 6, 6), "f4"), "y": np.arange(8) % 3}
    as_floats = {**data, "y": data["y"].astype("f8")}
    one, other = (evaluate_model(model, d, "random:0")["loss"] for d in (data, as_floats))
    assert one == other


@pytest.mark.parametrize(("type", "odd"), [("i64", 1.5), ("i64", np.nan), ("u8", 256), ("u8", -1)])
def test_inputs_of_whole_numbers(type: str, odd: float) -> None:
    """Neither cut nor wrapped: 256 is not 0."""
    body = "x -> cast(f32) -> linear(3) -> output y"
    model = convdsl.parse(
        f"model m {{ input x: {type}[N, 5]\n {body} }}\ntrain {{ epochs = 1\n batch = 2 }}"
    )
    x = np.zeros((4, 5), np.float64 if isinstance(odd, float) else np.int64)
    x[2, 1] = odd
    with pytest.raises(InputError, match=rf"sample 2 of .*`x` holds {odd}"):
        evaluate_model(model, (x, np.zeros(4, "i8")), "random:0")


def test_samples_are_counted_as_given() -> None:
    """Also in a part that was cut from the data, and in one cut from that."""
    data = ArrayData({"x": np.zeros((6, 2, 2), "u1"), "y": np.array([0, 0, 0, 0, 9, 0])})
    part = Subset(Subset(data, [5, 4, 1]), [1, 2])
    assert number_of(part, 0) == 4
    with pytest.raises(InputError, match="label of sample 4 is 9"):
        check_labels(part, 3)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = tmp_path / "t.cnn", tmp_path / "d.npz"
    path.write_text(text(*LOSSES[0][:2]))
    np.savez(data, **arrays("y", 1.9))
    for command in (["train", "--out", str(tmp_path / "r")], ["eval", "--weights", "random:0"]):
        assert main([command[0], str(path), "--data", str(data), *command[1:]]) == 2
        said = "d.npz: label of sample 7 holds 1.9, and a class is a whole number"
        assert said in capsys.readouterr().err


def test_classes_are_measured_with_the_numbers_of_their_training(tmp_path: Path) -> None:
    """Data that lack a class would number those after it by themselves, and measure others."""
    model = convdsl.parse(text(*LOSSES[0][:2]))
    x = np.random.default_rng(0).random((6, 1, 6, 6), "f4")
    convdsl.train(model, (x, ["ant", "bee", "cat"] * 2), out=tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    some = (x[:2], ["bee", "cat"])
    found = evaluate_model(model, some, weights)
    assert found == evaluate_model(model, (x[:2], np.array([1, 2])), weights)
    assert found != evaluate_model(model, (x[:2], np.array([0, 1])), weights)
    with pytest.raises(InputError, match="class 'dog' of sample 1 is none of the training data"):
        evaluate_model(model, (x[:2], ["ant", "dog"]), weights)


def test_folders_too(tmp_path: Path) -> None:
    """Classes that the text names are those of the data where these have no others."""
    model = replace(convdsl.parse(text(*LOSSES[0][:2])), labels=("ant", "bee", "cat"))
    for name in ("bee", "cat"):
        (tmp_path / name).mkdir()
        Image.new("L", (6, 6)).save(tmp_path / name / "0.png")
    wanted = Wanted(model.inputs["image"], name="image")
    for renamed, numbers in (("cat", [1, 2]), ("dog", [0, 1])):
        (tmp_path / "cat").rename(tmp_path / renamed)
        train = opened(model, "random:0", tmp_path, None, wanted).train
        assert train.labels is not None
        assert train.labels.tolist() == numbers
        (tmp_path / renamed).rename(tmp_path / "cat")
