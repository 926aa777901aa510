"""Pictures of a run: a mark for every number, charts apart where units differ."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from convdsl.diagnostics import InputError
from convdsl.training.curves import draw_curves, draw_rates

SVG = "{http://www.w3.org/2000/svg}"
RUN = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 2.5, "val_accuracy": 0.25, "val_classes": [1, 2]},
    {"epoch": 2, "train_loss": 1.0, "val_loss": float("nan"), "val_accuracy": 0.5},
    {"epoch": 3, "train_loss": 0.5, "val_accuracy": 0.75},
]


@pytest.mark.parametrize("epochs", [1, 3])
def test_every_number_has_a_mark(epochs: int, tmp_path: Path) -> None:
    draw_curves(RUN[:epochs], tmp_path / "curves.svg", "a < b")
    page = ElementTree.parse(tmp_path / "curves.svg").getroot()
    said = [text.text for text in page.iter(f"{SVG}text")]
    assert {"a < b", "loss", "training", "validation", "epoch"} <= set(said)
    assert said.count("epoch") == 2  # the accuracy has an axis of its own
    marks = [c.get("class") for c in page.iter(f"{SVG}circle")]
    # of the second colour: losses of validation, without what is no number
    assert (marks.count("spot0"), marks.count("spot1")) == (2 * epochs, 1)


def test_a_run_of_nothing_but_nan_is_drawn(tmp_path: Path) -> None:
    draw_curves([{"epoch": 1, "train_loss": float("nan")}], tmp_path / "curves.svg", "m")
    assert not list(ElementTree.parse(tmp_path / "curves.svg").getroot().iter(f"{SVG}circle"))


def test_rates_stand_on_powers_of_ten(tmp_path: Path) -> None:
    draw_rates([1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.0, 0.5, 9.0], tmp_path / "rates.svg")
    page = ElementTree.parse(tmp_path / "rates.svg").getroot()
    curve = next(p for p in page.iter(f"{SVG}path") if p.get("class") == "curve0")
    across = [float(point.split()[0]) for point in curve.get("d", "")[1:].split("L")]
    gaps = [b - a for a, b in pairwise(across)]
    assert max(gaps) - min(gaps) <= 0.2


def test_a_png_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"convdsl\[plot\]"):
        draw_curves(RUN, tmp_path / "curves.png", "m")
