"""Splits and weights of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from convdsl.diagnostics import InputError
from convdsl.training.data import ArrayData, balanced_weights, split


def labelled(labels: list[int]) -> ArrayData:
    return ArrayData({"x": np.zeros((len(labels), 1, 1), np.uint8), "y": np.array(labels)})


@pytest.mark.dear(share=4)
@given(
    labels=st.lists(st.integers(-1, 4), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**63),
)
def test_splits_are_stratified(labels: list[int], fraction: float, seed: int) -> None:
    held = round(fraction * len(labels))
    data = labelled(labels)
    if not 0 < held < len(labels):
        with pytest.raises(InputError, match="leaves a part without any"):
            split(data, fraction, seed)
        return
    kept, taken = split(data, fraction, seed)
    assert (len(kept), len(taken)) == (len(labels) - held, held)
    assert kept.labels is not None
    assert taken.labels is not None
    assert sorted([*kept.labels, *taken.labels]) == sorted(labels)
    classes = len(set(labels))
    for label in set(labels):
        share = held * labels.count(label) / len(labels)
        moved = abs((taken.labels == label).sum() - share)
        assert moved < 1 + classes  # a sample for each class that had none or all
        if labels.count(label) > 1 and classes <= min(held, len(labels) - held) // 2:
            assert label in kept.labels
            assert label in taken.labels


def test_a_split_follows_from_its_seed() -> None:
    data = labelled([0, 1] * 50)
    first, again, other = (split(data, 0.2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first._indices, again._indices)
    assert list(first._indices) != list(other._indices)
    for part in (first, other):
        assert part.labels is not None
        assert part.labels.sum() == 10


def test_without_classes() -> None:
    data = ArrayData({"x": np.zeros((10, 1, 1), np.uint8), "y": np.linspace(0, 1, 10)})
    kept, taken = split(data, 0.3, 0)
    assert (len(kept), len(taken)) == (7, 3)
    with pytest.raises(InputError, match="no labels of classes"):
        balanced_weights(data, 2)
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(InputError, match="more than 0 and less than 1"):
            split(data, fraction, 0)


def test_weights_are_scikit_learn_s() -> None:
    labels = [0] * 7 + [1] * 2 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labelled(labels), 3), expected)
    np.testing.assert_allclose(balanced_weights(labelled(labels), 4), [*expected, 0])
    ignored = balanced_weights(labelled([*labels, 255]), 3)
    np.testing.assert_allclose(ignored, expected)
