"""`train`, `eval` and `report --training`, as they are called."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl
import convdsl.weights
from convdsl.cli import main
from convdsl.training.checkpoint import read_checkpoint
from convdsl.training.session import Session
from convdsl.training.settings import complete

SMALL = """
model small(classes = 3) {
    input image: f32[N, 1, 8, 8]
    image -> conv(4, 3x3) as stem -> bn -> relu -> flatten -> linear(classes) as head
          -> output logits
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network without a `train` block, and data: bright bands in noise."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 60)
    x = draw.integers(0, 120, (60, 8, 8), dtype=np.uint8)
    for number, kind in enumerate(y):
        x[number, 3 * kind : 3 * kind + 2] += 100
    np.savez(tmp_path / "data.npz", x=x, y=y)
    (tmp_path / "small.cnn").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*options: str) -> int:
    return main(["train", "small.cnn", "--data", "data.npz", "--threads", "1", *options])


@pytest.mark.dear
def test_a_model_that_says_nothing_of_training(folder: Path, capsys: Any) -> None:
    assert train("--out", "run", "--epochs", "2", "--batch", "10", "--lr", "0.01") == 0
    out, err = capsys.readouterr()
    assert "epoch 1/2  train_loss" in out
    assert "best was epoch" in out
    assert "54 samples to train on, 6 to validate" in err
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "checkpoint",
        "curves.svg",
        "log.jsonl",
        "weights.safetensors",
    ]
    weights = ["--weights", "run/weights.safetensors"]
    assert main(["eval", "small.cnn", *weights, "--data", "data.npz", "--format", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["samples"] == 60
    assert figures["accuracy"] > 0.5


@pytest.mark.dear
def test_eval_says_what_is_asked_for(folder: Path, capsys: Any) -> None:
    assert train("--out", "run", "--epochs", "1") == 0
    capsys.readouterr()
    metrics = ["--set", "train.metrics=[accuracy(2), f1, confusion_matrix]"]
    command = ["eval", "small.cnn", "--weights", "run/weights.safetensors", *metrics]
    assert main([*command, "--data", "data.npz"]) == 0
    out = capsys.readouterr().out
    assert "f1" in out
    assert "confusion_matrix" in out


@pytest.mark.dear
def test_fine_tuning_to_another_number_of_classes(folder: Path, capsys: Any) -> None:
    assert train("--out", "run", "--epochs", "1", "--set", "classes=5") == 0
    given = ["--weights", "run/weights.safetensors"]
    assert train("--out", "other", "--epochs", "1", *given) == 2
    err = capsys.readouterr().err
    assert "do not fit the model" in err
    assert "help: --partial takes what fits" in err
    assert train("--out", "other", "--epochs", "1", *given, "--partial", "--freeze", "stem") == 0
    err = capsys.readouterr().err
    assert "begun anew: head.weight" in err
    before, after = (
        convdsl.weights.load(Path(name) / "weights.safetensors") for name in ("run", "other")
    )
    np.testing.assert_array_equal(before.read("stem.weight"), after.read("stem.weight"))


@pytest.mark.dear
def test_an_onnx_file_is_gone_on_with(folder: Path, capsys: Any) -> None:
    assert train("--out", "run", "--epochs", "1") == 0
    weights = "run/weights.safetensors"
    assert main(["export", "small.cnn", "--weights", weights, "-o", "net.onnx"]) == 0
    on = ["--data", "data.npz", "--threads", "1"]
    figures: list[dict[str, float]] = []
    for model in (["small.cnn", "--weights", weights], ["net.onnx"]):
        capsys.readouterr()
        assert main(["eval", *model, *on, "--format", "json"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)
    still = [*on, "--epochs", "1", "--lr", "1e-12"]
    assert main(["train", "net.onnx", *still, "--out", "on"]) == 0
    assert "begins with the weights of its own file (--weights random:" in capsys.readouterr().err
    before, after = (convdsl.weights.load(Path(n)) for n in (weights, "on/weights.safetensors"))
    np.testing.assert_allclose(before.read("stem.weight"), after.read("stem.weight"), atol=1e-6)
    assert main(["train", "net.onnx", *still, "--out", "anew", "--weights", "random:5"]) == 0
    assert "begins with" not in capsys.readouterr().err
    assert train("--out", "other", "--weights", "net.onnx") == 2
    assert "`convdsl import net.onnx` writes" in capsys.readouterr().err
    assert main(["eval", "small.cnn", *on]) == 2
    assert "name a weight file, or random:SEED" in capsys.readouterr().err


@pytest.mark.dear
def test_weights_remember_what_was_set(folder: Path, capsys: Any) -> None:
    """`--set classes=5` is not needed again; a text of another model is not told."""
    from PIL import Image

    assert train("--out", "run", "--epochs", "1", "--set", "classes=5") == 0
    weights = ["--weights", "run/weights.safetensors"]
    Image.fromarray(np.load("data.npz")["x"][0]).resize((20, 20)).save("a.png")
    capsys.readouterr()
    for command in (
        ["eval", "small.cnn", "--data", "data.npz"],
        ["classify", "small.cnn", "a.png", "--format", "json"],
        ["run", "small.cnn", "--data", "random:0"],
        ["compile", "small.cnn", "-o", "small.cdsl"],
    ):
        assert main([*command, *weights]) == 0
        out, err = capsys.readouterr()
        assert "classes = 5, as when run/weights.safetensors was trained" in err
        if command[0] == "classify":
            assert len(json.loads(out)[0]["top"]) == 5
            assert "images become image as they did in training: resize -> rescale" in err
    assert main(["run", "small.cnn", "--data", "random:0", *weights, "--set", "classes=3"]) == 2
    assert "head.weight" in capsys.readouterr().err
    (folder / "other.cnn").write_text(SMALL.replace("model small", "model other"))
    assert main(["run", "other.cnn", "--data", "random:0", *weights]) == 2


@pytest.mark.dear
def test_images_become_inputs_as_in_training(folder: Path, capsys: Any) -> None:
    """A model that declares nothing: what classify reads is what training read."""
    from PIL import Image

    assert train("--out", "run", "--epochs", "1") == 0
    x = np.load("data.npz")["x"][:1]
    Image.fromarray(x[0]).save("a.png")
    capsys.readouterr()
    weights = "run/weights.safetensors"
    assert main(["classify", "small.cnn", "a.png", "--weights", weights, "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    logits = convdsl.compile(convdsl.load("small.cnn"), weights)(x[:, None].astype("f4") / 255)[0]
    powers = np.exp(logits - logits.max())
    expected = np.sort(powers / powers.sum())[::-1]
    np.testing.assert_allclose([top["probability"] for top in found["top"]], expected, rtol=1e-5)


@pytest.mark.dear
def test_resuming_with_more_epochs(folder: Path, capsys: Any) -> None:
    assert train("--out", "run", "--epochs", "1") == 0
    assert train("--out", "run", "--epochs", "1") == 2
    assert "--resume" in capsys.readouterr().err
    assert train("--out", "run", "--epochs", "3", "--resume") == 0
    lines = (folder / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.dear
def test_what_a_run_was_begun_with_is_not_said_again(folder: Path, capsys: Any) -> None:
    text = (folder / "small.cnn").read_text().replace("small(", "small(width = 4, ")
    (folder / "small.cnn").write_text(text.replace("conv(4,", "conv(width,"))
    assert "conv(width," in (folder / "small.cnn").read_text()
    assert train("--out", "run", "--epochs", "1", "--lr", "0.02", "--set", "width=6") == 0
    assert train("--out", "run", "--epochs", "2", "--resume") == 0
    assert "width = 6, as when the run was begun" in capsys.readouterr().err
    assert train("--out", "run", "--epochs", "2", "--resume", "--lr", "0.02") == 0
    assert train("--out", "run", "--resume", "--lr", "0.5", "--set", "width=5") == 2
    said = capsys.readouterr().err
    assert "parameter width was 6, is 5" in said
    assert "(lr = 0.02), is adamw(lr = 0.5)" in said
    kept = read_checkpoint(folder / "run/checkpoint")
    assert kept.begun.said == {"epochs": "2", "optimizer.lr": "0.02"}
    trained = convdsl.train("small.cnn", "data.npz", out="run", epochs=3, resume=True, threads=1)
    assert [record["epoch"] for record in trained.history] == [1, 2, 3]
    assert trained.model.parameters["width"] == 6


@pytest.mark.dear
def test_first_looks(folder: Path, capsys: Any) -> None:
    """They write no run."""
    assert train("--find-lr", "--batch", "8") == 0
    assert "try --lr" in capsys.readouterr().out
    assert train("--overfit", "6", "--lr", "0.02") == 0
    assert "6 samples can be learnt by heart" in capsys.readouterr().out
    assert train("--overfit", "6", "--lr", "0") == 1
    assert not (folder / "small-trained").exists()


@pytest.mark.dear
@pytest.mark.parametrize("batch", [1, 8])
def test_the_bytes_that_are_reported_are_those_allocated(
    folder: Path, capsys: Any, batch: int
) -> None:
    """Arena, packed constants and states, of a step of that batch."""
    command = ["report", "small.cnn", "--training", "--format", "json", "--set", "train.lr=0.1"]
    assert main([*command, "--batch", str(batch)]) == 0
    report = json.loads(capsys.readouterr().out)
    model = convdsl.load("small.cnn")
    session = Session(model, complete(model), "random:0", threads=1, cache=False)
    x = np.zeros((batch, 1, 8, 8), "f4")
    session.step({"image": x, "label": np.zeros(batch, "i8")}, 0.1)
    runner = next(iter(session._step._runners.values()))
    (memory,) = report["memory"]
    assert memory["arena_bytes"] == runner.code.scratch_bytes(1)  # type: ignore[attr-defined]
    assert memory["packed_bytes"] == runner.code.weight_bytes  # type: ignore[attr-defined]
    assert memory["state_bytes"] == sum(a.nbytes for a in session.states().values())
    own = sum(a.nbytes for a in session.weights().values())
    kept = report["weight_bytes"] + report["statistics_bytes"]
    assert kept == own
    assert report["optimizer_bytes"] == memory["state_bytes"] - own
    assert report["parts"]["backward"]["macs"] >= report["parts"]["forward"]["macs"]


def test_mistakes_are_told_in_a_line_or_two(folder: Path, capsys: Any) -> None:
    assert train("--set", "train.epoch=3") == 2
    assert "did you mean `epochs`?" in capsys.readouterr().err
    assert train("--optimizer", "adan") == 2
    assert "unknown optimizer `adan`" in capsys.readouterr().err
    assert train("--freeze", "hed") == 2
    assert "no weight is called hed" in capsys.readouterr().err
    assert train("--partial") == 2
    assert "--weights, which are not given" in capsys.readouterr().err
    assert train("--set", "classes=2") == 2
    assert "the network tells 2 classes apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (None, [], r"compares with `label`.*\nhelp: put images into a folder for each"),
        (4, [], r"the label of sample \d is 4.*\nhelp: .*--set classes=5"),
        (-1, [], r"the label of sample \d is -1.*\nhelp: classes count from 0"),
        (1, ["--freeze", "tail"], r"no weight is called tail\nhelp: there are stem.weight"),
        (1, ["--resume"], r"no checkpoint .*\nhelp: begin without --resume"),
    ],
)
def test_mistakes_are_told_with_what_to_do(
    folder: Path, capsys: Any, labels: int | None, options: list[str], said: str
) -> None:
    given = {"x": np.zeros((9, 8, 8), np.uint8)}
    if labels is not None:
        given["y"] = np.full(9, labels)
    np.savez(folder / "data.npz", **given)
    assert train("--out", "run", *options) == 2
    err = capsys.readouterr().err
    assert re.search(said, err), err


@pytest.mark.dear
def test_counters_in_a_checkpoint_are_told_in_one_line(folder: Path, capsys: Any) -> None:
    model = convdsl.load("small.cnn")
    given = {
        **Session(model, complete(model), "random:0").weights(),
        "bn.num_batches_tracked": np.array(3),
    }
    np.savez(folder / "given.npz", **given)
    assert train("--out", "run", "--epochs", "1", "--weights", "given.npz", "--partial") == 0
    err = capsys.readouterr().err
    assert "ignored 1 entries num_batches_tracked" in err
    assert "not used" not in err


def test_a_loss_that_these_targets_are_not_for(folder: Path, capsys: Any) -> None:
    """Found before anything is compiled or written."""
    assert train("--set", "train.loss=mse(logits, label)", "--out", "run") == 2
    said = capsys.readouterr().err
    assert "mse compares with `label` of f32[N, 3], and of a sample it is []" in said
    assert "cross_entropy for classes" in said
    assert not (folder / "run").exists()


def test_a_setting_taken_for_a_parameter(folder: Path, capsys: Any) -> None:
    assert train("--set", "epochs=3") == 2
    said = capsys.readouterr().err
    assert "no parameter `epochs`" in said
    assert "--set train.epochs=3" in said


def test_a_loss_that_cannot_judge_is_pointed_at(convdsl, tmp_path: Path) -> None:
    """By `check`, by `train` before there are data, by what is set from outside."""
    path = tmp_path / "boxes.cnn"
    model = "model m {\n    input x: f32[N, 3]\n    x -> linear(5) -> output y\n}\n"
    path.write_text(f"{model}train {{\n    loss = giou(y, boxes)\n}}\n")
    for command in (
        ("check", path),
        ("train", path, "--data", "none.npz"),
        ("report", path, "--training"),
    ):
        said = convdsl(*command)
        text = said.out + said.err
        assert said.code == (1 if command[0] == "check" else 2)
        assert f"{path}:6:12" in text, command
        assert "not f32[N, 5]" in text
        assert "mse" in text
    said = convdsl("train", path, "--data", "none.npz", "--set", "train.loss=box")
    assert (said.code, "--set:2:12" in said.err) == (2, True)


@pytest.mark.dear
def test_odd_classes_are_told(folder: Path, capsys: Any) -> None:
    """They are no mistake, and seldom what was meant."""
    shown = np.random.default_rng(0).integers(0, 255, (12, 8, 8), dtype=np.uint8)
    for number, pixels in enumerate(shown):
        path = folder / "two" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    command = ["train", "small.cnn", "--threads", "1", "--epochs", "1", "--out", "run"]
    assert main([*command, "--data", "two"]) == 0
    told = "two: 2 classes (cat, dog), and the network tells 3 apart"
    assert told in capsys.readouterr().err
    assert main([*command, "--data", "two", "--set", "classes=2", "--overwrite"]) == 0
    assert "tells" not in capsys.readouterr().err
    np.savez("one.npz", x=shown, y=np.zeros(12, np.int64))
    assert main([*command, "--data", "one.npz", "--overwrite"]) == 0
    told = "one.npz: all samples are of one class (0), nothing is told apart"
    assert told in capsys.readouterr().err
