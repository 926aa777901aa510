"""Metrics against scikit-learn, and exact whatever the batches are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from convdsl.diagnostics import InputError
from convdsl.ir import techniques
from convdsl.training.metrics import METRICS
from convdsl.training.metrics.classes import box_overlaps
from convdsl.training.metrics.record import Mean

Array = np.ndarray[Any, Any]


def value(name: str, output: Array, target: Array, cuts: Any = (), **arguments: Any) -> Any:
    """The value of a metric by its own name, of batches cut at some samples."""
    metric = METRICS[name].make(techniques.METRICS[name].complete(arguments))
    for y, t in zip(np.split(output, cuts), np.split(target, cuts), strict=True):
        metric.add(y, t)
    found = metric.value()
    top = arguments.get("top", 1)
    return found[name if top == 1 else f"top{top}_{name}"]


def test_the_language_has_the_same_metrics() -> None:
    assert set(METRICS) == set(techniques.METRICS)


def drawn(seed: int) -> tuple[Array, Array, Array]:
    """Scores, labels, of which some classes may be missing, and the guesses."""
    random = np.random.default_rng(seed)
    classes, count = int(random.integers(2, 7)), int(random.integers(1, 30))
    scores = random.standard_normal((count, classes))
    scores[:, random.integers(classes)] -= 3 * (seed % 2)  # a class that is hardly guessed
    labels = random.integers(0, random.integers(1, classes + 1), count)
    return scores, labels, scores.argmax(1)


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_classes_agree_with_scikit_learn(seed: int, average: str) -> None:
    """A class without guesses, or without labels, counts 0; one without both does not count."""
    scores, labels, guesses = drawn(seed)
    more = {"average": average, "zero_division": 0.0}
    for name in ("precision", "recall", "f1"):
        expected = getattr(sklearn.metrics, f"{name}_score")(labels, guesses, **more)
        found = value(name, scores, labels, average=average)
        np.testing.assert_allclose(found, expected, 1e-12, err_msg=name)
    expected = sklearn.metrics.accuracy_score(labels, guesses)
    np.testing.assert_allclose(value("accuracy", scores, labels), expected, 1e-12)
    expected = sklearn.metrics.jaccard_score(labels, guesses, average="macro", zero_division=0.0)
    found = value("intersection_over_union", scores, labels)
    np.testing.assert_allclose(found, expected, 1e-12)
    expected = sklearn.metrics.confusion_matrix(labels, guesses, labels=range(scores.shape[1]))
    assert value("confusion_matrix", scores, labels) == expected.tolist()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("top", [2, 3, 5])
def test_top_k_agrees_with_scikit_learn(seed: int, top: int) -> None:
    scores, labels, _ = drawn(seed)
    classes = scores.shape[1]
    if top < classes and classes > 2:
        expected = sklearn.metrics.top_k_accuracy_score(
            labels, scores, k=top, labels=range(classes)
        )
        np.testing.assert_allclose(value("accuracy", scores, labels, top=top), expected, 1e-12)
    else:
        assert value("accuracy", scores, labels, top=classes) == 1.0


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("classes", [1, 4])
def test_decisions_agree_with_scikit_learn(seed: int, average: str, classes: int) -> None:
    """Of one class, as `average = "binary"`; of several, each a yes or no: all of them count."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((12, classes)) - seed % 2
    truth = random.integers(0, 2, (12, classes)) * (random.random(classes) < 0.7)
    guesses = (scores > 0).astype(int)
    for name in ("precision", "recall", "f1"):
        score = getattr(sklearn.metrics, f"{name}_score")
        given = (truth[:, 0], guesses[:, 0]) if classes == 1 else (truth, guesses)
        how = "binary" if classes == 1 else average
        expected = score(*given, average=how, zero_division=0.0)
        for target in (truth, truth.astype("f4")):
            found = value(name, scores, target, average=average)
            np.testing.assert_allclose(found, expected, 1e-12, err_msg=name)
    assert value("accuracy", scores, truth) == np.mean(truth == guesses)
    if classes == 1:
        expected = sklearn.metrics.confusion_matrix(truth[:, 0], guesses[:, 0], labels=(0, 1))
        assert value("confusion_matrix", scores, truth[:, 0]) == expected.tolist()
        assert value("accuracy", scores[:, 0], truth[:, 0]) == np.mean(truth == guesses)
    else:
        with pytest.raises(InputError, match="one label a sample"):
            value("confusion_matrix", scores, truth)


def test_equal_scores_are_in_the_order_of_classes() -> None:
    scores = np.zeros((3, 3))
    labels = np.array([0, 1, 2])
    assert value("accuracy", scores, labels) == 1 / 3
    assert value("accuracy", scores, labels, top=2) == 2 / 3


def test_nan_is_no_guess_of_a_label() -> None:
    scores = np.array([[0.0, np.nan, 1.0], [np.nan] * 3])
    assert value("accuracy", scores, np.array([2, 2])) == 0
    assert value("accuracy", scores, np.array([2, 2]), top=2) == 1 / 2


def test_masks_count_by_position_and_ignore() -> None:
    """Worked by hand: two classes, one position ignored, one wrong."""
    scores = np.array([[[[3, 0, 9], [1, 1, 1]], [[1, 2, 0], [0, 2, 0]]]], float)  # 1, 2, 2, 3
    labels = np.array([[[0, 1, -1], [0, 0, 0]]])
    given = {"ignore_index": -1}
    assert value("accuracy", scores, labels, **given) == 4 / 5
    found = METRICS["intersection_over_union"].make(given)
    found.add(scores, labels)
    assert found.value() == {
        "intersection_over_union": (3 / 4 + 1 / 2) / 2,
        "intersection_over_union_by_class": [3 / 4, 1 / 2],
    }


def test_a_class_that_neither_has_is_none() -> None:
    metric = METRICS["intersection_over_union"].make({"ignore_index": -100})
    metric.add(np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 1]))
    assert metric.value() == {
        "intersection_over_union": 1 / 4,
        "intersection_over_union_by_class": [1 / 2, 0.0, None],
    }


def test_boxes() -> None:
    """Half shared, alike, apart, touching, none."""
    some = np.array([[0, 0, 2, 2], [1, 1, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 1, 1]], "f4")
    others = np.array([[1, 0, 3, 2], [1, 1, 3, 4], [5, 5, 6, 6], [1, 0, 2, 1], [2, 2, 1, 1]], "f4")
    np.testing.assert_array_equal(box_overlaps(some, others), [1 / 3, 1, 0, 0, 0])
    found = value("intersection_over_union", some, others, (2,))
    assert found == pytest.approx(4 / 15, rel=1e-15)


@pytest.mark.parametrize("name", ["mean_absolute_error", "mean_squared_error"])
def test_errors_agree_with_scikit_learn(name: str) -> None:
    random = np.random.default_rng(1)
    output, target = random.standard_normal((2, 40, 3))
    expected = getattr(sklearn.metrics, name)(target, output)
    np.testing.assert_allclose(value(name, output, target), expected, 1e-14)
    np.testing.assert_array_equal(
        value(name, output[:, :1], target[:, 0]), value(name, output[:, 0], target[:, 0])
    )


@pytest.mark.parametrize("name", METRICS)
def test_batches_do_not_matter(name: str) -> None:
    """To the last bit."""
    random = np.random.default_rng(2)
    output = (random.standard_normal((60, 4)) * 10.0 ** random.integers(-30, 30, (60, 4))).astype(
        "f4"
    )
    errors = name.startswith("mean")
    target = random.standard_normal((60, 4)).astype("f4") if errors else random.integers(0, 4, 60)
    whole = value(name, output, target)
    for cuts in ((1, 59), (7, 8, 30), range(1, 60)):
        assert value(name, output, target, cuts) == whole


def test_a_mean_is_rounded_once() -> None:
    random = np.random.default_rng(3)
    numbers = random.standard_normal(3000) * 2.0 ** random.integers(-1050, 1000, 3000)
    numbers = np.concatenate([numbers, [5e-324, -5e-324, 1e308, 1e16, 1.0, -1e16], [0.1] * 1000])
    mean = Mean()
    for part in np.split(numbers, (5, 17, 2000)):
        mean.add(part)
    exact = sum((Fraction(float(x)) for x in numbers), Fraction(0)) / len(numbers)
    assert mean.value == float(exact)
    mean.add(np.array([np.inf]))
    assert mean.value == np.inf
    mean.add(np.array([-np.inf]))
    assert np.isnan(mean.value)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_has_no_mean(name: str) -> None:
    metric = METRICS[name].make(techniques.METRICS[name].complete({}))
    for found in metric.value().values():
        assert found == [] or np.isnan(found)


@pytest.mark.parametrize(
    "name", sorted(set(METRICS) - {"mean_absolute_error", "mean_squared_error"})
)
def test_labels_that_are_no_class(name: str) -> None:
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"label {wrong} is none of 3 classes, 0 to 2"):
            value(name, np.zeros((2, 3)), np.array([0, wrong]))


@pytest.mark.parametrize("name", METRICS)
def test_shapes_that_do_not_go_together(name: str) -> None:
    with pytest.raises(InputError):
        value(name, np.zeros((2, 3, 4)), np.zeros((2, 5)))
