"""benchmarks.layers: layers follow from their seed, and are valid ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.drawn_layers import FAMILIES, draw
from benchmarks.layers import Row, table


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=list(FAMILIES))
def test_a_layer_follows_from_its_seed(number):
    family = list(FAMILIES)[number]
    layer, again, other = (draw(family, [5, number, attempt]) for attempt in (0, 0, 1))
    assert layer.proto == again.proto
    assert all(np.array_equal(x, again.feeds[name]) for name, x in layer.feeds.items())
    assert layer.name != other.name
    onnx.checker.check_model(layer.proto, full_check=True)


def test_the_table_has_the_worst_first_and_means_by_operator():
    def row(operator: str, ratio: float, *, bound: bool, apart: float = 0.0) -> Row:
        return Row([1, 2, 3], "f", operator, "x", ratio, 1.0, ratio, bound, 0.0, apart)

    rows = [row("A", 0.5, bound=True), row("B", 4.0, bound=False), row("A", 2.0, bound=True)]
    lines = table([*rows, row("B", 1.0, bound=False, apart=0.5)]).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["4.00", "2.00", "1.00", "0.50"]
    assert "RESULTS 5.0e-01 APART" in lines[3]
    assert [line.split() for line in lines if " f " in line] == [
        ["2.00", "4.00", "2", "f", "B"],
        ["1.00", "2.00", "2", "f", "A"],
    ]
    assert lines[-2] == "all 4: geometric mean 1.414, worst 4.00, above 1.25: 2"
    assert lines[-1] == "memory binds 2: geometric mean 1.000, above 1.1: 1"
