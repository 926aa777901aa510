"""benchmarks.roofline: the best of several runs, as a table and a chart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import roofline
from convdsl.cli import main


def step(us: float, predicted: float, rate: float) -> dict[str, Any]:
    return {
        "step": "conv1 + <relu>",
        "schedule": "direct",
        "MMACs": 10.0,
        "MB weights": 0.5,
        "MB values": 0.5,
        "bound": "compute",
        "predicted us": predicted,
        "us": us,
        "us / predicted": us / predicted,
        "GFLOP/s": rate,
        "% of peak": 1.0,
    }


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([([step(200, 100, 100)], (150.0, 12.0)), ([step(125, 110, 160)], (200.0, 10.0))])
    monkeypatch.setattr(roofline, "explain", lambda model, threads: next(answers))


def test_the_best_of_every_step_and_of_the_machine(runs: None) -> None:
    (row,), roof = roofline.best("net", 1, 2)
    assert roof == (200.0, 12.0)
    assert (row["us"], row["predicted us"], row["us / predicted"]) == (125, 100, 1.25)
    assert row["% of peak"] == 80.0


def test_table_and_chart(runs: None) -> None:
    rows, roof = roofline.best("net", 1, 2)
    head, rule, line = roofline.table(rows).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.endswith("| 100 | 125 | 1.25 | 160 | 80 |")
    chart = ElementTree.fromstring(roofline.draw(rows, roof, "net & roof"))
    (point,) = (node for node in chart if node.tag.endswith("circle"))
    (line,) = (node for node in chart if node.tag.endswith("polyline"))
    (_, _), (ridge, top), (_, flat) = (
        map(float, corner.split(",")) for corner in line.attrib["points"].split()
    )
    assert top == flat < float(point.attrib["cy"])  # below the roof
    assert float(point.attrib["cx"]) > ridge  # 20 FLOP per byte; the ridge is at 16.7


@pytest.mark.dear(share=4)
def test_it_reads_what_explain_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = (
        "convdsl 1\nmodel m { input x: f32[1, 4, 8, 8]\n x -> conv(8, 3x3) as c -> output y }\n"
    )
    (tmp_path / "m.cnn").write_text(source)
    assert main(["compile", str(tmp_path / "m.cnn"), "--explain", "--format", "json"]) == 0
    assert re.search(roofline._ROOF, capsys.readouterr().err)
