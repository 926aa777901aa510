"""Predictors: pickled small, opened once a process, results of the network itself to the bit."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl import prediction
from convdsl.cli import main

TEXT = """
model tiny(classes = 3) {
    labels "names.txt"
    input image: f32[N, 3, 8, 8]
    preprocess image: resize(8x8) -> rescale(1 / 255)
    image -> conv(8, 3x3) as conv -> bn as bn -> relu -> avgpool(global) -> flatten
          -> linear(classes) as fc -> output logits
}
"""
MIXING = """
model mixing {
    input x: f32[N, 4]
    x - mean(x, [0], keepdims = true) -> output y
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictors")
    (folder / "tiny.cnn").write_text(TEXT)
    (folder / "names.txt").write_text("cat\ndog\nbird\n")
    draw = np.random.default_rng(0)
    for number in range(7):
        pixels = draw.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    made = convdsl.compile(folder / "tiny.cnn", "random:3", threads=1)
    made.save(folder / "tiny.cdsl")
    made.save(folder / "four.cdsl", N=4)
    made.save(folder / "several.cdsl", N=(1, 4))
    return folder


def drawn(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, 3, 8, 8), np.float32)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("model", ["tiny.cnn", "tiny.cdsl", "four.cdsl", "several.cdsl"])
def test_any_number_of_samples_is_that_of_whole_batches(
    place: Path, model: str, count: int
) -> None:
    size = 1 if model == "tiny.cdsl" else 4
    weights = "random:3" if model == "tiny.cnn" else None
    predictor = convdsl.Predictor(place / model, weights, batch=4)
    direct = convdsl.compile(place / "tiny.cnn", "random:3", threads=1)
    x = drawn(count)
    filled = np.concatenate([x, np.repeat(x[-1:], -count % size, axis=0)])
    wanted = [direct(filled[at : at + size]) for at in range(0, count, size)]
    found = predictor(x)
    assert found.shape == (count, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate([*wanted, found[:0]])[:count])


BODIES = {
    "convolutions": "input x: f32[N, 3, 14, 14]\n x -> conv(16, 3x3) -> relu -> conv(16, 3x3)"
    " -> maxpool(2) -> flatten -> linear(33) -> softmax(axis = 1) -> output y",
    "depthwise": "input x: f32[N, 24, 9, 9]\n x -> conv(24, 3x3, groups = 24) -> conv(40, 1x1)"
    " -> relu -> avgpool(global) -> flatten -> linear(10) -> output y",
    "attention": "input x: f32[N, 7, 12]\n"
    " matmul(softmax(matmul(x, transpose(x, [0, 2, 1])), axis = 2), x) -> layer_norm"
    " -> linear(5) -> output y",
}


@pytest.mark.parametrize("batch", [4, 7])
@pytest.mark.parametrize("body", BODIES)
def test_a_sample_is_the_same_wherever_it_stands(body: str, batch: int) -> None:
    """What makes results independent of how data are cut: equal bits at every place of a batch."""
    made = convdsl.compile(convdsl.parse(f"model m {{\n{BODIES[body]}\n}}"), "random:0")
    assert made.samples_apart
    (type,) = made.inputs.values()
    draw = np.random.default_rng(batch)
    x = draw.standard_normal(type.bind({"N": batch}).sizes, np.float32)
    y = made(x)
    for _ in range(3):
        order = draw.permutation(batch)
        np.testing.assert_array_equal(made(x[order]), y[order])


def test_it_is_pickled_as_what_it_was_made_from(place: Path) -> None:
    predictor = convdsl.Predictor(place / "tiny.cdsl", batch=2)
    wanted = predictor(drawn(5))
    sent = pickle.dumps(predictor)
    assert len(sent) < 1000
    back = pickle.loads(sent)
    assert back.open() is predictor.open()  # of one process
    np.testing.assert_array_equal(back(drawn(5)), wanted)


def _in_a_child(predictor: convdsl.Predictor) -> tuple[int, int, Any]:
    made = [predictor(drawn(5)) for _ in range(2)]
    np.testing.assert_array_equal(*made)
    return os.getpid(), len(prediction._opened), made[0]


@pytest.mark.dear
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_open_it_once(place: Path, method: str, recwarn: Any) -> None:
    predictor = convdsl.Predictor(place / "tiny.cnn", "random:3", batch=4)
    wanted = predictor(drawn(5))
    with multiprocessing.get_context(method).Pool(1) as pool:
        # a pool whose process died waits for its answer for ever
        found = pool.map_async(_in_a_child, [predictor] * 3).get(timeout=300)
    assert len({process for process, _, _ in found} - {os.getpid()}) == 1
    if method == "spawn":
        assert {count for _, count, _ in found} == {1}
    for _, _, made in found:
        np.testing.assert_array_equal(made, wanted)


def test_paths_are_whole(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    predictor = convdsl.Predictor("tiny.cnn:tiny", "random:3", classes=3)
    assert predictor.model == f"{place / 'tiny.cnn'}:tiny"
    monkeypatch.chdir(tmp_path)
    assert predictor(drawn(2)).shape == (2, 3)
    assert convdsl.Predictor("lenet5", "random:0").model == "lenet5"


def test_a_file_that_changes_is_opened_anew(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.cdsl"
    path.write_bytes((place / "tiny.cdsl").read_bytes())
    predictor = convdsl.Predictor(path)
    first = predictor(drawn(1))
    convdsl.compile(place / "tiny.cnn", "random:4").save(path)
    assert (predictor(drawn(1)) != first).any()


def test_few_networks_are_kept(place: Path) -> None:
    for seed in range(prediction.MOST_OPEN + 3):
        convdsl.Predictor(place / "tiny.cnn", f"random:{seed}").open()
    assert len(prediction._opened) == prediction.MOST_OPEN


@pytest.mark.parametrize("model", ["tiny.cdsl", "four.cdsl", "several.cdsl"])
def test_classes_are_those_of_the_command(
    place: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(place / f"{number}.png") for number in range(7)]
    assert main(["classify", str(place / model), *files, "--format", "json", "--top", "2"]) == 0
    wanted = [row["top"] for row in json.loads(capsys.readouterr().out)]
    if model == "several.cdsl":  # the command takes batches of 4, and 1 for the last
        predictor = convdsl.Predictor(place / model, batch=4)
    else:
        predictor = convdsl.Predictor(place / model)
    assert predictor.classify(files, top=2) == wanted
    assert predictor.classify([Path(file).read_bytes() for file in files], top=2) == wanted
    rows = {"path": np.asarray(files), "bytes": [Path(file).read_bytes() for file in files]}
    found = predictor.label(rows)
    assert list(found) == ["path", "index", "label", "probability"]
    assert found["index"].tolist() == [top[0]["index"] for top in wanted]
    assert found["label"].tolist() == [top[0]["label"] for top in wanted]
    assert found["probability"].tolist() == [top[0]["probability"] for top in wanted]
    two = predictor.label(rows, top=2)
    assert two["probability"].tolist() == [[one["probability"] for one in top] for top in wanted]


def test_columns(place: Path) -> None:
    predictor = convdsl.Predictor(place / "tiny.cdsl")
    x = drawn(3)
    rows = {"image": list(x), "number": np.arange(3)}
    found = predictor.columns(rows)
    assert list(found) == ["number", "logits"]
    np.testing.assert_array_equal(found["logits"], predictor(x))
    ragged = np.empty(3, object)
    ragged[:] = list(x)
    np.testing.assert_array_equal(predictor.columns({"image": ragged})["logits"], predictor(x))
    nested = column([column([column(list(c)) for c in row]) for row in x])
    np.testing.assert_array_equal(predictor.columns({"image": nested})["logits"], predictor(x))
    empty = predictor.columns({"image": x[:0], "number": np.arange(0)})
    assert empty["logits"].shape == (0, 3)


def column(values: list[Any]) -> Any:
    """Objects side by side, as Spark hands out arrays of arrays; numbers are an array of floats."""
    if not isinstance(values[0], np.ndarray):
        return np.array(values, "f4")
    made = np.empty(len(values), object)
    for number, value in enumerate(values):
        made[number] = value
    return made


class Frame(dict):  # type: ignore[type-arg]
    """As little of pandas as is needed."""

    class Column(list):  # type: ignore[type-arg]
        def to_numpy(self) -> Any:
            made = np.empty(len(self), object)
            made[:] = list(self)
            return made

    def __getitem__(self, name: str) -> Any:
        return Frame.Column(super().__getitem__(name))


@pytest.mark.parametrize("model", ["four.cdsl", "several.cdsl", "tiny.cdsl"])
def test_a_batch_is_the_most_that_is_taken_at_once(place: Path, model: str) -> None:
    """Of an artifact: more than was said is refused, and names what there is."""
    assert convdsl.Predictor(place / model)(drawn(3)).shape == (3, 3)
    assert convdsl.Predictor(place / model, batch=9)(drawn(3)).shape == (3, 3)
    predictor = convdsl.Predictor(place / model, batch=2)
    if model != "four.cdsl":
        assert predictor(drawn(3)).shape == (3, 3)
        return
    with pytest.raises(convdsl.Error, match=r"batch=2: .* has code for batches of 4 alone"):
        predictor(drawn(3))
    with pytest.raises(convdsl.Error, match="compile --batch 2"):
        predictor.classify([str(place / "0.png")])


def test_frames(place: Path) -> None:
    predictor = convdsl.Predictor(place / "tiny.cdsl", batch=4)
    x = drawn(5)
    frames = [Frame(image=list(x[:2]), key=[1, 2]), Frame(image=list(x[2:]), key=[3, 4, 5])]
    found = list(predictor.frames(frames))
    assert [type(frame) for frame in found] == [Frame, Frame]
    made = np.stack([row for frame in found for row in frame["logits"]])
    np.testing.assert_array_equal(made, predictor(x))
    content = (place / "0.png").read_bytes()
    (labelled,) = predictor.labels_of_frames([Frame(bytes=[content, content])])
    assert labelled["label"] == [predictor.classify([content])[0][0]["label"]] * 2


def test_networks_that_mix_samples_take_batches_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "mixing.cnn").write_text(MIXING)
    predictor = convdsl.Predictor(tmp_path / "mixing.cnn", batch=2)
    x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    np.testing.assert_allclose(predictor(x), x - x.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda place: convdsl.Predictor(place / "tiny.cdsl", batch=0), "a batch of 0"),
        (lambda place: convdsl.Predictor(3), "the model is an int"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl", "random:1").open(), "in it"),
        (lambda place: convdsl.Predictor("no/such.cnn").open(), "no/such.cnn"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl").columns({"x": [1]}), "no column"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl").label({"x": [1]}), "no column"),
        (
            lambda place: convdsl.Predictor(place / "tiny.cdsl").columns(
                {"image": drawn(1), "logits": [1]}
            ),
            "rename",
        ),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl").classify([b"no image"]), "none of"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl")(drawn(1).astype("f8")), "float64"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl")(drawn(1), drawn(1)), "2 arrays"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl")(), "not given: image"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl")(drawn(1), image=drawn(1)), "twice"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl")(x=drawn(1)), "no input `x`"),
        (
            lambda place: convdsl.Predictor(place / "tiny.cdsl")(drawn(2).astype("f8").tolist()),
            r"is a list, of which NumPy makes float64, .* takes float32: np\.asarray",
        ),
        (
            lambda place: convdsl.Predictor(place / "tiny.cdsl").classify("0.png"),
            r"'0\.png' is one: put it in \[",
        ),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl").classify(b"PNG"), "bytes of one"),
        (lambda place: convdsl.Predictor(place / "tiny.cdsl").classify(place), "is one: put"),
    ],
)
def test_mistakes(place: Path, build: Any, said: str) -> None:
    with pytest.raises(convdsl.Error, match=said):
        build(place)


@pytest.mark.parametrize("model", ["tiny.cnn", "tiny.cdsl", "four.cdsl", "several.cdsl"])
@pytest.mark.parametrize("given", [np.float32(1), np.array(1, "f4"), 1.5])
def test_a_number_is_no_batch(place: Path, model: str, given: Any) -> None:
    weights = "random:3" if model == "tiny.cnn" else None
    with pytest.raises(convdsl.Error, match=r"shape \[\]|one number"):
        convdsl.Predictor(place / model, weights, batch=4)(given)


@pytest.mark.parametrize("model", ["tiny.cnn", "tiny.cdsl", "four.cdsl", "several.cdsl"])
@pytest.mark.parametrize("shape", [(0,), (0, 7, 9), (0, 8, 8, 3), (0, 3, 8, 9), (0, 3, 8, 8, 1)])
def test_no_samples_have_the_shape_of_samples(
    place: Path, model: str, shape: tuple[int, ...]
) -> None:
    weights = "random:3" if model == "tiny.cnn" else None
    predictor = convdsl.Predictor(place / model, weights, batch=4)
    with pytest.raises(convdsl.Error, match="input `image` has shape"):
        predictor(np.zeros(shape, "f4"))
    with pytest.raises(convdsl.Error, match="input `image` has shape"):
        predictor.columns({"image": np.zeros(shape, "f4")})


@pytest.mark.parametrize("ids", [np.arange(3), np.arange(8), [], "seven77", 7])
def test_columns_are_of_one_length(place: Path, ids: Any) -> None:
    predictor = convdsl.Predictor(place / "tiny.cdsl")
    with pytest.raises(convdsl.Error, match=r"columns of different lengths: .*id (has|is)"):
        predictor.columns({"image": drawn(7), "id": ids})
    with pytest.raises(convdsl.Error, match=r"columns of different lengths: .*id (has|is)"):
        predictor.label({"bytes": [str(place / "0.png")] * 7, "id": ids})


def test_networks_say_what_can_be_sent(place: Path) -> None:
    """Neither compiled networks nor most models can be pickled; copies are copies."""
    model = convdsl.load(place / "tiny.cnn")
    network = convdsl.compile(model, "random:3", threads=1)
    for each in (model, network):
        with pytest.raises(pickle.PicklingError, match=r"convdsl\.Predictor"):
            pickle.dumps(each)
    assert repr(network) == repr(model).replace("Model", "Executable")
    np.testing.assert_array_equal(copy.copy(network)(drawn(2)), network(drawn(2)))
    for copied in (copy.copy(model), copy.deepcopy(model)):
        assert copied is not model
        np.testing.assert_array_equal(
            convdsl.compile(copied, "random:3", threads=1)(drawn(2)), network(drawn(2))
        )
    plain = convdsl.parse("model m { input x: f32[N, 4]\n x -> linear(2) -> output y }")
    assert repr(pickle.loads(pickle.dumps(plain))) == repr(plain)
