"""Commands that run networks: compile, run, classify, bench."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl as package
from convdsl.classification import probabilities
from convdsl.measure.peak import measure_peak

RANDOM = ("--weights", "random:1")


@pytest.fixture
def artifact(convdsl, small: Path) -> Path:
    path = small.parent / "small.cdsl"
    assert convdsl("compile", small, *RANDOM, "-o", path).code == 0
    return path


# compile


def test_compile_writes_an_artifact(convdsl, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    said = convdsl("compile", small, *RANDOM)
    assert (said.code, said.out) == (0, "")
    assert "note: weights are random:1" in said.err
    assert "small.cdsl: " in said.err
    made = package.load_executable("small.cdsl")
    assert made.inputs["image"].shape == (1, 3, 8, 8)
    assert made.labels == ("cat", "dog", "bird")


def test_compile_for_a_batch_and_a_size(convdsl, folder: Path) -> None:
    path = folder / "sized.cdsl"
    said = convdsl(
        *("compile", folder / "sized.cnn", *RANDOM, "-o", path, "--batch", 2, "--input", "1x6x5")
    )
    assert said.code == 0
    assert package.load_executable(path).inputs["image"].shape == (2, 1, 6, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small.cnn"], "weights"),
        (["sized.cnn", *RANDOM], "sizes not given: H, W"),
        (["small.cnn", "--weights", "random:x"], "seed must be a whole number"),
        (["small.cnn", "--weights", "missing.npz"], "there is no weight file missing.npz"),
        (["small.cnn", *RANDOM, "-o", "no/folder/x.cdsl"], "the folder no/folder is not there"),
        (["small.cnn", *RANDOM, "-o", "/dev/null"], "is not a plain file"),
        (["small.cnn", *RANDOM, "--cpu", "z80"], "z80"),
    ],
)
def test_compile_failures(
    convdsl, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    said = convdsl("compile", *arguments)
    assert said.code == 2
    assert message in said.err
    assert "bug" not in said.err


def test_weights_that_do_not_fit_are_listed(convdsl, small: Path) -> None:
    np.savez(small.parent / "w.npz", **{"conv1.weigth": np.zeros((8, 3, 3, 3), np.float32)})
    said = convdsl("compile", small, "--weights", small.parent / "w.npz")
    assert said.code == 2
    assert "do not fit the model" in said.err
    assert "conv1.weight: not in the file" in said.err
    assert "did you mean conv1.weigth?" in said.err


# run


def test_run_gives_what_the_api_gives(convdsl, small: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    folder = small.parent
    np.save(folder / "x.npy", x)
    expected = package.compile(small, "random:1")(x)
    for output in ("y.npy", "y.npz"):
        said = convdsl("run", small, *RANDOM, "--data", folder / "x.npy", "-o", folder / output)
        assert said.code == 0
    np.testing.assert_array_equal(np.load(folder / "y.npy"), expected)
    np.testing.assert_array_equal(np.load(folder / "y.npz")["logits"], expected)


def test_run_from_an_artifact_needs_no_weights(convdsl, artifact: Path) -> None:
    for data in ("random:5",):
        said = convdsl("run", artifact, "--data", data, "-o", artifact.parent / "a.npy")
        assert said.code == 0
    source = artifact.parent / "small.cnn"
    convdsl("run", source, *RANDOM, "--data", "random:5", "-o", artifact.parent / "b.npy")
    a, b = (np.load(artifact.parent / name) for name in ("a.npy", "b.npy"))
    assert a.shape == (1, 3)
    np.testing.assert_array_equal(a, b)


def test_a_single_array_of_another_name_is_told(convdsl, artifact: Path) -> None:
    x = np.zeros((1, 3, 8, 8), np.float32)
    for name, told in (("image", False), ("x", True)):
        np.savez(artifact.parent / "one.npz", **{name: x})
        said = convdsl("run", artifact, "--data", artifact.parent / "one.npz")
        assert said.code == 0
        assert ("its only array, x, is taken for the input image" in said.err) is told


def test_run_with_several_inputs_and_outputs(convdsl, folder: Path) -> None:
    a, b = np.float32([[1, 2, 3, 4]]), np.float32([[5, 6, 7, 8]])
    np.savez(folder / "in.npz", a=a, b=b)
    said = convdsl("run", folder / "two.cnn", "--data", folder / "in.npz", "-o", folder / "out.npz")
    assert said.code == 0
    made = np.load(folder / "out.npz")
    np.testing.assert_array_equal(made["total"], a + b)
    np.testing.assert_array_equal(made["product"], a * b)


def test_run_summarises(convdsl, folder: Path) -> None:
    said = convdsl(
        *("run", folder / "two.cnn", "--data", "random:0", "--batch", 3, "--format", "json")
    )
    rows = json.loads(said.out)
    assert [row["output"] for row in rows] == ["total", "product"]
    assert rows[0]["shape"] == [3, 4]
    assert rows[0]["min"] <= rows[0]["mean"] <= rows[0]["max"]
    assert rows[0]["not finite"] == 0


def test_random_data_is_reproducible(convdsl, small: Path) -> None:
    first = convdsl("run", small, *RANDOM, "--data", "random:3").out
    assert convdsl("run", small, *RANDOM, "--data", "random:3").out == first
    assert convdsl("run", small, *RANDOM, "--data", "random:4").out != first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("random:x", "seed must be a whole number"),
        ("missing.npy", "missing.npy"),
        ("names.txt", "names.txt holds no arrays: it is a text"),
        ("empty.npz", "empty.npz is empty"),
        ("photo.jpg", "help: images are for `convdsl classify`"),
        ("one.npy", "help: an axis for the batch comes first: x[None]"),
        ("last.npy", "help: channels come second: x.transpose(0, 3, 1, 2)"),
        ("wrong_name.npz", "no input imag; did you mean image?"),
        ("wrong_shape.npy", "input `image` has shape [1, 3, 9, 9], expected f32[N, 3, 8, 8]"),
        ("wrong_type.npy", "input `image` is float64, the model takes float32"),
        ("objects.npy", "no plain array of numbers"),
        ("cut.npy", "declares 768 bytes and brings 668"),
    ],
)
def test_data_that_does_not_fit(
    convdsl, small: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str
) -> None:
    monkeypatch.chdir(small.parent)
    x = np.zeros((1, 3, 8, 8), np.float32)
    np.savez("wrong_name.npz", imag=x, other=x)
    Path("empty.npz").touch()
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff")
    np.save("one.npy", x[0])
    np.save("last.npy", x.transpose(0, 2, 3, 1))
    np.save("wrong_shape.npy", np.zeros((1, 3, 9, 9), np.float32))
    np.save("wrong_type.npy", x.astype(np.float64))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.save("cut.npy", x)
    Path("cut.npy").write_bytes(Path("cut.npy").read_bytes()[:-100])
    said = convdsl("run", small, *RANDOM, "--data", data)
    assert said.code == 2
    assert message in said.err
    assert "bug" not in said.err


def test_missing_inputs_and_wrong_outputs(convdsl, folder: Path) -> None:
    np.savez(folder / "in.npz", a=np.zeros((1, 4), np.float32), b=np.zeros((1, 4), np.float32))
    np.savez(folder / "half.npz", a=np.zeros((1, 4), np.float32))
    said = convdsl("run", folder / "two.cnn", "--data", folder / "half.npz")
    assert (said.code, "lacks the inputs b" in said.err) == (2, True)
    for output in ("out.npy", "out.txt", "out"):
        said = convdsl(
            "run", folder / "two.cnn", "--data", folder / "in.npz", "-o", folder / output
        )
        assert (said.code, "must end in .npz" in said.err) == (2, True)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(
    "options",
    [
        ["--weights", "random:0"],
        ["--set", "classes=3"],
        ["--cpu", "x86-64-v3"],
        ["--no-winograd"],
        ["--input", "3x8x8"],
        ["--disable", "canonicalise"],
        ["--verify"],
        ["--batch", "2"],
    ],
)
def test_artifacts_cannot_be_recompiled(convdsl, artifact: Path, options: list[str]) -> None:
    said = convdsl("run", artifact, "--data", "random:0", *options)
    assert said.code == 2
    assert f"is compiled already; {options[0]} would have to be given" in said.err


def test_damaged_artifacts(convdsl, artifact: Path) -> None:
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    said = convdsl("run", artifact, "--data", "random:0")
    assert said.code == 2
    assert "is damaged" in said.err


# classify


def test_classify(convdsl, small: Path, artifact: Path) -> None:
    photo = small.parent / "photo.png"
    said = convdsl("classify", small, *RANDOM, photo, photo, "--format", "json", "--top", 2)
    found: list[dict[str, Any]] = json.loads(said.out)
    assert [image["file"] for image in found] == [str(photo)] * 2
    top = found[0]["top"]
    assert len(top) == 2
    assert set(top[0]) == {"index", "label", "probability"}
    assert top[0]["label"] == ("cat", "dog", "bird")[top[0]["index"]]
    assert 1 > top[0]["probability"] >= top[1]["probability"] > 0
    again = convdsl("classify", artifact, photo, photo, "--format", "json", "--top", 2)
    assert json.loads(again.out) == found
    text = convdsl("classify", artifact, photo).out
    assert text.splitlines()[0] == str(photo)
    assert len(text.splitlines()) == 4


@pytest.mark.dear(share=4)
def test_classify_in_batches(convdsl, small: Path) -> None:
    photo, other = small.parent / "photo.png", small.parent / "other.png"
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(other)
    photos = [photo, other, photo, photo, other]
    one = convdsl("classify", small, *RANDOM, *photos, "--format", "json").out
    assert json.loads(one)[0]["top"] != json.loads(one)[1]["top"]
    three = json.loads(
        convdsl("classify", small, *RANDOM, *photos, "--format", "json", "--batch", 3).out
    )
    artifact = small.parent / "three.cdsl"
    assert convdsl("compile", small, *RANDOM, "--batch", 3, "-o", artifact).code == 0
    fixed = json.loads(convdsl("classify", artifact, *photos, "--format", "json").out)
    for found in (three, fixed):
        assert [image["file"] for image in found] == [str(p) for p in photos]
        for image, alone in zip(found, json.loads(one), strict=True):
            for a, b in zip(image["top"], alone["top"], strict=True):
                assert a["index"] == b["index"]
                assert abs(a["probability"] - b["probability"]) < 1e-6


def test_classify_failures(convdsl, folder: Path) -> None:
    photo = folder / "photo.png"
    for model, image, message in [
        ("small.cnn", folder / "names.txt", "cannot read the image"),
        ("small.cnn", folder / "missing.png", "there is no such file"),
        ("sized.cnn", photo, "does not declare how images become inputs"),
        ("two.cnn", photo, "does not declare how images become inputs"),
    ]:
        weights = RANDOM if model != "two.cnn" else ()
        said = convdsl("classify", folder / model, *weights, image)
        assert said.code == 2
        assert message in said.err


def test_classify_needs_one_score_per_class(convdsl, small: Path) -> None:
    text = small.read_text().replace('    labels "names.txt"\n', "")
    text = text.replace("-> avgpool(global) -> flatten\n          -> linear(classes) as fc\n", "\n")
    small.write_text(text)
    said = convdsl("classify", small, *RANDOM, small.parent / "photo.png")
    assert said.code == 2
    assert "puts out [1, 8, 8, 8], not one score per class" in said.err


def test_probabilities() -> None:
    logits = np.float32([1, 2, 3])
    expected = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(probabilities(logits), expected, rtol=1e-6)
    np.testing.assert_allclose(probabilities(np.float32([1e4, 0])), [1, 0])
    given = np.float32([0.25, 0.75, 0])
    np.testing.assert_array_equal(probabilities(given), given)


# bench


@pytest.mark.dear
def test_bench(convdsl, small: Path, artifact: Path) -> None:
    for model in (small, artifact):
        said = convdsl("bench", model, "--runs", 3, "--format", "json")
        (row,) = json.loads(said.out)
        assert said.code == 0
        assert row["model"] == "small"
        assert row["inputs"] == "1x3x8x8"
        assert row["runs"] == 3
        assert 0 < row["min ms"] <= row["median ms"]
        assert row["GFLOP/s"] > 0
        assert row["peak GFLOP/s"] > 0
    assert "random:0" in convdsl("bench", small, "--runs", 1, "--no-peak").err


def test_the_peak_grows_with_the_vectors() -> None:
    assert measure_peak(1, "x86-64-v2") > 0


@pytest.mark.dear
def test_bench_and_compile_tuned(convdsl, small: Path, tmp_path: Path) -> None:
    said = convdsl("bench", small, "--runs", 1, "--no-peak", "--tune", 1)
    assert said.code == 0
    assert "note: tuning: " in said.err
    said = convdsl(
        "compile", small, "--weights", "random:0", "--tune", 1, "-o", tmp_path / "m.cdsl"
    )
    assert said.code == 0
    assert (tmp_path / "m.cdsl").exists()


@pytest.mark.parametrize("other", [["--explain"], ["--emit", "loops"]])
def test_tuning_goes_with_an_artifact(convdsl, small: Path, other: list[str]) -> None:
    said = convdsl("compile", small, "--tune", *other)
    assert (said.code, "--tune goes with an artifact" in said.err) == (2, True)


def test_an_artifact_is_tuned_when_it_is_made(convdsl, artifact: Path) -> None:
    said = convdsl("bench", artifact, "--tune")
    assert said.code == 2
    assert "--tune would have to be given to `convdsl compile`" in said.err


def test_what_is_wrong_with_data(convdsl, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((2, 4), np.float32))
    np.savez(tmp_path / "odd.npz", a=np.ones((2, 4), np.float32), c=np.ones((2, 4), np.float32))
    two = folder / "two.cnn"
    said = convdsl("run", two, "--data", tmp_path / "one.npy").err
    assert "holds one array, and the model takes 2: a, b" in said
    assert "np.savez(file, a=..., b=...)" in said
    said = convdsl("run", two, "--data", tmp_path / "odd.npz").err
    assert "no input c; the inputs are a, b" in said
    assert "holds a, c; the model takes a, b" in said
    missing = tmp_path / "none.npz"
    near = tmp_path / "one.npy"
    said = convdsl("run", two, "--data", missing).err
    assert said == f"error: there is no file {missing}; did you mean {near}?\n"


def test_a_full_disk(convdsl, folder: Path, tmp_path: Path) -> None:
    for name in ("y.npy", "y.npz"):
        (tmp_path / name).symlink_to("/dev/full")
        said = convdsl("run", folder / "small.cnn", "--weights", "random:0", "--data", "random:0",
                       "-o", tmp_path / name)  # fmt: skip
        assert said.code == 2
        assert f"cannot write {tmp_path / name}: No space left on device" in said.err


def test_small_outputs_are_shown_whole(convdsl, folder: Path) -> None:
    given = ("run", folder / "small.cnn", "--weights", "random:0", "--data", "random:0")
    said = convdsl(*given).out
    (row,) = json.loads(convdsl(*given, "--format", "json").out)
    shown = said[said.index("logits = ") + len("logits = ") :]
    assert np.allclose(json.loads(shown), row["values"], atol=1e-5)
    assert np.shape(row["values"]) == (1, 3)


def test_open_sizes_are_named_with_their_options(convdsl, folder: Path) -> None:
    said = convdsl("run", folder / "sized.cnn", "--weights", "random:0", "--data", "random:0").err
    assert "sizes not given: H, W" in said
    assert "--input 1xHxW with numbers, or --set H=... --set W=..." in said


def test_weights_that_are_not_finite(convdsl, folder: Path, tmp_path: Path) -> None:
    weights = {"conv1.weight": np.ones((2, 1, 3, 3), np.float32)}
    weights["conv1.bias"] = np.array([np.nan, 1], np.float32)
    np.savez(tmp_path / "w.npz", **weights)
    said = convdsl("run", folder / "sized.cnn", "--weights", tmp_path / "w.npz", "--data",
                   "random:0", "--input", "1x4x4")  # fmt: skip
    assert said.code == 0
    assert "not finite: 1 of 2 elements of conv1.bias" in said.err


def test_what_is_inside_an_artifact(convdsl, folder: Path, tmp_path: Path) -> None:
    made, small = tmp_path / "small.cdsl", folder / "small.cnn"
    assert convdsl("compile", small, "--weights", "random:0", "--batch", 2, "-o", made).code == 0
    facts = json.loads(convdsl("info", made, "--format", "json").out)
    assert facts["model"] == "small"
    assert facts["inputs"] == {"image": "f32[2, 3, 8, 8]"}
    assert facts["sizes"] == {"N": 2}
    assert (facts["params"], facts["classes"]) == (267, 3)
    assert facts["preprocessing"] == ["resize", "rescale"]
    assert facts["file bytes"] == made.stat().st_size
    assert "random:0" in convdsl("info", made).out
    told = json.loads(convdsl("report", made, "--format", "json").out)
    figures = json.loads(convdsl("report", small, "--batch", 2, "--format", "json").out)
    assert told["total"] == figures["total"]
    assert "conv1" in convdsl("report", made).out
    assert convdsl("report", made, "--set", "classes=4").code == 2
    said = convdsl("check", made)
    assert said.code == 0
    assert "an artifact of small, whole" in said.err
    data = made.read_bytes()
    at = data.index(b"ELF")
    made.write_bytes(data[:at] + b"elf" + data[at + 3 :])
    assert convdsl("check", made).code == convdsl("info", made).code == 2
    assert "is no artifact" in convdsl("info", small).err


@pytest.mark.dear(share=4)
def test_an_artifact_for_several_sizes(convdsl, folder: Path, tmp_path: Path) -> None:
    made, small, photo = tmp_path / "small.cdsl", folder / "small.cnn", folder / "photo.png"
    said = convdsl("compile", small, "--weights", "random:0", "--batch", "1,4", "-o", made)
    assert said.code == 0
    facts = json.loads(convdsl("info", made, "--format", "json").out)
    assert (facts["sizes"], facts["also for"]) == ({"N": 1}, [{"N": 4}])
    assert re.search(r"^also for +N 4$", convdsl("info", made).out, re.MULTILINE)
    for batch in (1, 4):
        one = convdsl("run", small, "--weights", "random:0", "--data", "random:0",
                      "--batch", batch, "--format", "json").out  # fmt: skip
        asked = () if batch == 1 else ("--batch", batch)
        assert convdsl("run", made, "--data", "random:0", *asked, "--format", "json").out == one
        figures = json.loads(convdsl("report", made, *asked, "--format", "json").out)
        shown = convdsl("report", small, "--batch", batch, "--format", "json").out
        assert figures["total"] == json.loads(shown)["total"]
    ways = ([small, "--weights", "random:0"], [made])
    five = [convdsl("classify", *way, *[photo] * 5, "--format", "json").out for way in ways]
    assert five[0] == five[1]
    timed = json.loads(convdsl("bench", made, "--batch", 4, "--runs", 1, "--no-peak",
                               "--format", "json").out)  # fmt: skip
    assert timed[0]["inputs"] == "4x3x8x8"
    for command in ("run", "bench"):
        data = ("--data", "random:0") if command == "run" else ()
        said = convdsl(command, made, *data, "--batch", 2)
        assert said.code == 2
        assert "there is no code for --batch 2" in said.err
        assert "with --batch 1,8 for several" in said.err.replace("\n", " ")


@pytest.mark.dear(share=4)
def test_several_inputs_of_an_artifact(convdsl, folder: Path, tmp_path: Path) -> None:
    made, sized = tmp_path / "sized.cdsl", folder / "sized.cnn"
    options = ("--weights", "random:0", "--batch", "1,2", "--input", "1x4x4,1x6x5", "-o", made)
    assert convdsl("compile", sized, *options).code == 0
    facts = json.loads(convdsl("info", made, "--format", "json").out)
    sizes = [facts["sizes"], *facts["also for"]]
    assert sizes == [{"N": n, "H": h, "W": w} for h, w in ((4, 4), (6, 5)) for n in (1, 2)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch", "1,8", "--emit", "llvm"], "--emit llvm shows code for one size"),
        (["--batch", "1,8", "--explain"], "--explain shows code for one size"),
        (["--batch", "1,1"], "names a size twice"),
        (["--batch", "1,x"], "'x' is not a whole number from 1 up"),
        (["--batch", "1,"], "'' is not a whole number from 1 up"),
        (["--input", "3x8x8,"], "'' is not a size such as 3x224x224"),
    ],
)
def test_sizes_that_do_not_do(convdsl, small: Path, more: list[str], message: str) -> None:
    said = convdsl("compile", small, "--weights", "random:0", *more)
    assert said.code == 2
    assert message in said.err.replace("\n", " ")


def test_other_sizes_than_an_artifact_has(convdsl, folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "small.cdsl"
    convdsl("compile", folder / "small.cnn", "--weights", "random:0", "--batch", 2, "-o", made)
    np.save(tmp_path / "x.npy", np.ones((3, 3, 8, 8), np.float32))
    said = convdsl("run", made, "--data", tmp_path / "x.npy").err
    assert f"{made} is compiled for N = 2; `convdsl compile` with --batch or --input makes" in said


@pytest.mark.dear(share=4)
def test_near_misses_are_helped(convdsl, small: Path, tmp_path: Path) -> None:
    """Weights called `random`, a layer that is nearly called so, a file that is no network."""
    said = convdsl("run", small, "--weights", "random", "--data", "random:0")
    assert said.code == 2
    assert "help: random:0 draws them" in said.err
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=draw.random((6, 3, 8, 8), np.float32), y=np.arange(6) % 3)
    said = convdsl("train", small, "--data", tmp_path / "d.npz", "--freeze", "cnv1")
    assert (said.code, "did you mean conv1?" in said.err) == (2, True)
    (tmp_path / "text.onnx").write_text("hello")
    said = convdsl("import", tmp_path / "text.onnx")
    assert said.code == 2
    assert said.err.count("text.onnx") == 1
