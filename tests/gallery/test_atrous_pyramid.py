"""Atrous convolution and its pyramid: what is seen, and how many taps are left near the borders."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import analyse, field_to_json


@pytest.mark.dear
@pytest.mark.parametrize("rate", [1, 2, 6, 12, 31])
def test_equation(rate: int) -> None:
    """Equation 1 of arXiv:1706.05587: y[i] = sum over k of x[i + rate * k] w[k]; zeros outside."""
    size = 11
    model = convdsl.load("atrous_convolution", channels=3, width=2, rate=rate, size=size)
    random = np.random.default_rng(rate)
    weight = random.standard_normal((2, 3, 3, 3)).astype("f4")
    x = random.standard_normal((1, 3, size, size)).astype("f4")
    wanted = np.zeros((1, 2, size, size))
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), (rate, rate), (rate, rate)))
    for i in range(3):
        for j in range(3):
            part = padded[:, :, i * rate : i * rate + size, j * rate : j * rate + size]
            wanted += np.einsum("nchw,kc->nkhw", part, weight[:, :, i, j])
    found = convdsl.compile(model, {"conv.weight": weight}, cache=False)(x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("rate", [1, 6, 12, 18, 24])
def test_it_sees_more_for_the_same_weights(rate: int) -> None:
    report = analyse(convdsl.load("atrous_convolution", rate=rate), "all", {"N": 1})
    (row,) = report.layers
    assert report.totals["params"] == 9 * 8 * 8
    assert field_to_json(row.receptive_field["x"])["size"] == [2 * rate + 1] * 2


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("rate", [1, 4, 17, 32, 33, 50, 63, 64, 80])
def test_taps_that_are_left(rate: int) -> None:
    """Figure 4, of a map of 65 x 65: along an axis 65 - 2 rate positions have three taps."""
    model = convdsl.load("atrous_convolution", channels=1, width=1, rate=rate)
    ones = np.ones((1, 1, 65, 65), "f4")
    counts = convdsl.compile(model, {"conv.weight": np.ones((1, 1, 3, 3), "f4")}, cache=False)(ones)
    along = np.array([1 + (i >= rate) + (i + rate < 65) for i in range(65)])
    np.testing.assert_array_equal(np.rint(counts[0, 0]), np.outer(along, along))
    if rate > 64:
        assert counts.max() < 1.5


def test_the_pyramid_keeps_the_size_and_sees_the_whole() -> None:
    model = convdsl.load("atrous_pyramid")
    assert str(model.outputs["y"]) == "f32[N, 256, 33, 33]"
    rows = {row.name: row for row in analyse(model, "all", {"N": 1}).layers}
    fields = [rows[f"aspp.convs.{i}.0"].receptive_field["x"] for i in range(5)]
    assert [field_to_json(field)["size"][0] for field in fields] == [1, 13, 25, 37, 33]
