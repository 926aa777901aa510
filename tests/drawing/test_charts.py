"""Charts: numbers lie where axes say, and nothing is drawn that is no number."""

from __future__ import annotations

import re
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest

from convdsl.drawing.charts import (
    Axis,
    Column,
    Curve,
    Point,
    bars,
    curves,
    spanning,
    steps,
    under_a_roof,
)
from convdsl.drawing.svg import Canvas, short_number


def tree(canvas: Canvas) -> ElementTree.Element:
    return ElementTree.fromstring(canvas.document("chart"))


@pytest.mark.parametrize("seed", range(60))
def test_ticks_are_round_and_within(seed: int) -> None:
    random = Random(seed)
    low = random.choice([0.0, random.uniform(-5, 5)]) * 10.0 ** random.randrange(-6, 9)
    high = low + random.uniform(0.1, 9) * max(10.0 ** random.randrange(-6, 9), 1e-6 * abs(low))
    axis = Axis("x", low, high)
    found = axis.ticks()
    assert 1 <= len(found) <= 8
    slack = 1e-6 * (high - low)
    assert all(low - slack <= tick <= high + slack for tick in found)
    if len(found) > 1:
        step = (found[-1] - found[0]) / (len(found) - 1)
        assert float(f"{step:.0e}") == pytest.approx(step, rel=1e-5)
        assert f"{step:.0e}"[0] in "125"
    log = Axis("x", 1e-3, 10.0 ** random.randrange(-2, 9), log=True)
    assert all(np.isclose(np.log10(tick) % 1, 0) for tick in log.ticks())
    assert log.place(log.low) == 0
    assert log.place(log.high) == pytest.approx(1)
    assert log.place(0.0) == 0


def test_axes_hold_what_is_finite() -> None:
    assert spanning("x", [3.0, float("nan"), float("inf"), 7.0]) == Axis("x", 0.0, 7.0)
    assert spanning("x", [-3.0, 7.0], zero=False) == Axis("x", -3.0, 7.0)
    assert spanning("x", []) == Axis("x", 0.0, 10.0)
    assert spanning("x", [2.0, 2.0], zero=False).high > 2
    assert spanning("x", [0.0, 0.02, 300.0], log=True) == Axis("x", 0.01, 1000.0, log=True)


def test_bars_are_shares_of_the_greatest() -> None:
    drawn = tree(bars(["a", "b", "c"], [Column("n", [8, 2, 0], ["8", "2", "0"])]))
    widths = [float(e.attrib["width"]) for e in drawn.iter() if e.attrib.get("class") == "bar"]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.2)
    assert widths[2] == 0
    assert bars([], []).height > 0


def test_steps_and_their_mark() -> None:
    values = [1.0, 4.0, 2.0]
    drawn = tree(steps(values, "abc", Axis("y", 0, 4), across="t", marked=1, shown="123"))
    (path,) = (e.attrib["d"] for e in drawn.iter() if e.attrib.get("class") == "spot0")
    heights = [float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", path)]
    foot = float(re.findall(r"M[\d.]+ ([\d.]+)", path)[0])
    shares = [(foot - y) / (foot - heights[1]) for y in heights]
    assert shares == pytest.approx([0.25, 1, 0.5], abs=0.01)
    texts = ["".join(e.itertext()) for e in drawn.iter() if e.tag.endswith("text")]
    assert "b: 2" in texts


def test_curves_leave_out_what_is_no_number() -> None:
    points = [(0.0, 1.0), (1.0, float("nan")), (2.0, 0.0), (3.0, 10.0)]
    two = [Curve("a", points), Curve("<b>", [(0.0, 5.0)])]
    drawn = tree(curves(two, Axis("x", 0, 3), Axis("y", 1.0, 10.0, log=True), level=("l", 2.0)))
    lines = [e.attrib["d"] for e in drawn.iter() if e.attrib.get("class") == "curve0"]
    assert lines[0].count("L") == 1
    assert "nan" not in ElementTree.tostring(drawn, "unicode")
    assert "<b>" in ["".join(e.itertext()) for e in drawn.iter()]
    many = [Curve(str(n), points) for n in range(30)]
    tall = curves(many, Axis("x", 0, 3), Axis("y", 0, 10))
    assert max(float(e.attrib.get("y", 0)) for e in tree(tall).iter()) < tall.height


def test_points_lie_under_the_roof() -> None:
    x, y = Axis("i", 0.1, 1000.0, log=True), Axis("f", 1e8, 1e12, log=True)
    peak, slope = 1e11, 1e10
    spots = [Point(i, min(peak, i * slope), str(i), i * slope > peak) for i in (0.5, 3.0, 200.0)]
    drawn = tree(under_a_roof(spots, x, y, (peak, slope), ("compute", "memory")))
    (line,) = (e.attrib["d"] for e in drawn.iter() if e.attrib.get("class") == "mark")
    roof = np.array([list(map(float, p)) for p in re.findall(r"([\d.]+) ([\d.]+)", line)])
    circles = [e.attrib for e in drawn.iter() if e.tag.endswith("circle")][:3]
    for circle in circles:
        expected = np.interp(float(circle["cx"]), roof[:, 0], roof[:, 1])
        assert float(circle["cy"]) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((0, "0"), (7, "7"), (999, "999"), (1000, "1 k"), (1234, "1.23 k"), (999_499, "999 k")),
        *((999_600, "1 M"), (25_557_032, "25.6 M"), (4_089_184_256, "4.09 G"), (3e12, "3 T")),
        *((0.25, "0.25"), (1e-7, "1e-7"), (-2500, "-2.5 k"), (0.1 + 0.2, "0.3")),
    ],
)
def test_short_numbers(value: float, said: str) -> None:
    assert short_number(value) == said
