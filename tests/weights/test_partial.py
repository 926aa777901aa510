"""Weights of another network: what fits is taken, and nothing is left out silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import WeightError
from convdsl.weights import ArrayStore, RandomWeights, bind
from convdsl.weights.partial import bind_partially

NETWORK = """
model network(classes = 10) {
    input image: f32[N, 3, 8, 8]
    image -> conv(4, 3x3) as stem -> bn as norm -> relu -> flatten -> linear(classes) as head
          -> output logits
}
"""


def states(classes: int = 10) -> Any:
    return convdsl.parse(NETWORK, classes=classes).graph.states


def published() -> dict[str, np.ndarray[Any, Any]]:
    return dict(bind(RandomWeights(7), states()))


def test_another_number_of_classes() -> None:
    """The head is begun anew, as its own seed draws it; all else is the file's."""
    given = published()
    taken = bind_partially(ArrayStore(given), states(3), seed=1)
    fresh = bind(RandomWeights(1), states(3))
    assert set(taken.drawn) == {"head.weight", "head.bias"}
    for name, array in taken.arrays.items():
        expected = fresh[name] if name in taken.drawn else given[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert taken.notes[0] == f"took {len(given) - 2} of {len(given)} weights"
    assert any("head.weight: the file has float32[10, 256]" in note for note in taken.notes)


def test_what_is_missing_and_what_is_left_over_are_told() -> None:
    given = published()
    del given["norm.bias"]
    given["other.weight"] = np.zeros(3, "f4")
    taken = bind_partially(ArrayStore(given), states(), seed=1)
    assert list(taken.drawn) == ["norm.bias"]
    assert taken.unused == ("other.weight",)
    assert "not used: other.weight" in taken.notes


def test_other_floats_are_converted_and_wrappers_taken_off() -> None:
    given = {f"module.{name}": array.astype("f8") for name, array in published().items()}
    taken = bind_partially(ArrayStore(given), states(), seed=1)
    assert not taken.drawn
    assert {array.dtype.name for array in taken.arrays.values()} == {"float32"}


def test_the_file_of_some_other_network() -> None:
    with pytest.raises(WeightError, match="none of the weights"):
        bind_partially(ArrayStore({"a": np.zeros(3, "f4")}), states(), seed=1)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({}, "it holds nothing, the model stem.weight f32[4, 3, 3, 3]"),
        ({"x": np.zeros(3, np.float32)}, "it holds x float32[3], the model stem.weight"),
    ],
)
def test_that_nothing_fits_is_told_with_both_sides(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(WeightError, match="none of the weights") as caught:
        bind_partially(ArrayStore(given), states(), seed=1)
    assert hint in str(caught.value)


def test_that_nothing_fits_by_name_is_told_with_the_names() -> None:
    theirs = {"stem": "0", "norm": "1", "head": "4"}
    given = {
        f"{theirs[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": array
        for name, array in published().items()
    }
    with pytest.raises(WeightError) as caught:
        bind_partially(ArrayStore(given), states(), seed=1)
    assert "norm may be 1" in str(caught.value)
