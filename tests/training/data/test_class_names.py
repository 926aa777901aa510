"""Labels that are names of classes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convdsl import parse
from convdsl.diagnostics import InputError
from convdsl.training.data import (
    open_data,
    open_parts,
)
from convdsl.training.feeding import open_training_data
from convdsl.training.settings import complete

NAMES = ["rot", "blau", "grün", "blau", "日本", "rot"]
SORTED = ("blau", "grün", "rot", "日本")


def _named_data(tmp_path: Path, how: str) -> Any:
    x, names = np.zeros((6, 2, 2), "u1"), np.array(NAMES)
    path = tmp_path / "d.npz"
    match how:
        case "stored":
            np.savez(path, x=x, y=names)
        case "packed":
            np.savez_compressed(path, x=x, labels=names)
        case "big-endian column":
            np.savez(path, x=x, y=names.astype(">U7")[:, None])
        case "Fortran":
            np.savez(path, x=x, y=np.asfortranarray(names))
        case "npy":
            np.save(tmp_path / "x.npy", x)
            np.save(tmp_path / "y.npy", names)
            return tmp_path / "x.npy"
        case "bytes":
            return {"x": x, "y": np.char.encode(names, "utf-8")}
        case "objects":
            return {"x": x, "y": names.astype(object)}
        case "list":
            return (x, NAMES)
        case _:
            return zip(x, NAMES, strict=True)
    return path


HOW = [
    *("stored", "packed", "big-endian column", "Fortran", "npy"),
    *("bytes", "objects", "list", "iterator"),
]


@pytest.mark.parametrize("how", HOW)
def test_labels_may_be_names(tmp_path: Path, how: str) -> None:
    given = _named_data(tmp_path, how)
    data = open_data(given, tmp_path / "y.npy" if how == "npy" else None)
    assert data.classes == SORTED
    assert data.labels is not None
    assert [SORTED[number] for number in data.labels] == NAMES
    assert data[4]["label"] == 3
    assert data[4]["label"].dtype == np.int64


@pytest.mark.parametrize("named", ["train", "val"])
@pytest.mark.parametrize("how", ["parts", "apart"])
def test_classes_are_all_named_or_all_numbered(tmp_path: Path, named: str, how: str) -> None:
    """Which name a number is, no rule says: of parts of one file, and of a file apart."""
    x = np.zeros((6, 2, 2), "u1")
    labels = {"train": np.arange(6) % 3, "val": np.arange(6) % 3, named: np.array(NAMES)}
    said = r"the classes are (numbers|names \(.*\)), and those of the training data, .*help: give"
    flat = "model m {\n input x: f32[N, 2, 2]\n x -> flatten -> linear(4) -> output y\n}\n"
    if how == "parts":
        given = {f"{k}_{part}": a for part in labels for k, a in (("x", x), ("y", labels[part]))}
        np.savez(tmp_path / "d.npz", **given)
        with pytest.raises(InputError, match=f"(?s){said}"):
            open_parts(tmp_path / "d.npz")
        return
    for part, numbers in labels.items():
        np.savez(tmp_path / f"{part}.npz", x=x, y=numbers)
    model = parse(flat)
    places = (tmp_path / "train.npz", None, tmp_path / "val.npz")
    with pytest.raises(InputError, match=f"(?s)val.npz: {said}"):
        open_training_data(model, *places, complete(model))


def test_names_are_numbered_as_in_training(tmp_path: Path) -> None:
    """Where a part of the data lacks a class, those after it keep their numbers."""
    x = np.zeros((6, 2, 2), "u1")
    arrays = {
        "x_train": x,
        "y_train": np.array(NAMES),
        "x_val": x[:2],
        "y_val": np.array(["rot"] * 2),
    }
    np.savez(tmp_path / "d.npz", **arrays)
    parts = open_parts(tmp_path / "d.npz")
    assert parts.validation is not None
    assert parts.validation.labels is not None
    assert parts.validation.labels.tolist() == [2, 2]
    np.savez(tmp_path / "d.npz", **{**arrays, "y_val": np.array(["rot", "gelb"])})
    with pytest.raises(InputError, match="class 'gelb' of sample 1 is none of the training data"):
        open_parts(tmp_path / "d.npz")


def _validation(tmp_path: Path, how: str) -> Any:
    x = np.zeros((4, 6, 6), "u1")
    if how == "arrays":
        return (x, ["rot"] * 4)
    for number in range(2):
        (tmp_path / "val/rot").mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 6)).save(tmp_path / f"val/rot/{number}.png")
    if how == "folder":
        return tmp_path / "val"
    (tmp_path / "val.csv").write_text("path,label\nval/rot/0.png,rot\n")
    return tmp_path / "val.csv"


@pytest.mark.parametrize("how", ["arrays", "folder", "table"])
def test_other_validation_data_too(tmp_path: Path, how: str) -> None:
    model = parse(
        "model m { input image: f32[N, 1, 6, 6]\n image -> flatten -> linear(4) -> output y }"
    )
    data = (np.zeros((6, 6, 6), "u1"), NAMES)
    found = open_training_data(model, data, None, _validation(tmp_path, how), complete(model))
    assert found.validation is not None
    assert found.validation.labels is not None
    assert set(found.validation.labels.tolist()) == {2}


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (np.array(["a", "", "b"]), "label of sample 1 is an empty name"),
        (np.array([["a", "b"]] * 3), r"label is \[3, 2\] names, not one"),
        (np.array([b"a", b"\xff", b"b"]), "label holds no names"),
        (np.array(["a", "b"]), "3 of x, 2 of label"),
        (np.array(["a", 1, None], object), "holds object, not numbers"),
    ],
)
def test_names_that_are_none(label: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_data({"x": np.zeros((3, 2, 2), "u1"), "y": label})


def test_names_from_files_of_strangers(tmp_path: Path) -> None:
    """Text that is none, names elsewhere, objects, which are named and never unpickled."""
    x = np.zeros((2, 2, 2), "u1")
    for kept in (np.savez, np.savez_compressed):
        for order, number in itertools.product("<>", (0x110000, 0xFFFFFFFF, 0xD800)):
            bad = np.array([number, 65], f"{order}u4").view(f"{order}U1")
            kept(tmp_path / "d.npz", x=x, y=bad)
            with pytest.raises(InputError, match="label holds no names"):
                open_data(tmp_path / "d.npz")
        kept(tmp_path / "d.npz", x=np.array(["a", "b"]), y=np.zeros(2, "i8"))
        with pytest.raises(InputError, match="x holds <U1, not numbers"):
            open_data(tmp_path / "d.npz")
        kept(tmp_path / "d.npz", x=x, y=np.array(["a", "b"], object))
        with pytest.raises(InputError, match=r"y: an array of Python objects.*np\.array\(names"):
            open_data(tmp_path / "d.npz")
