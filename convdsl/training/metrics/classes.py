"""Metrics of classes: accuracy, precision, recall, F1, confusion, intersection over union.

There are two ways to say what a sample is.

    a label       i64 [N, ...] for scores [N, classes, ...]: the guess is the class of the largest
                  score, of equals the first. Labels that are ignored are not there.
    yes or no     numbers in the shape of the scores, or labels 0 and 1 where there is one class:
                  each class is guessed by itself where its score is above 0, and is there where
                  the target is above 0.5.

Positions in space count like samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from typing import Any, TypeAlias

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.tensor import TensorType
from convdsl.training.metrics.record import Arguments, Array, Mean, Shape, Values, listed

Ratio: TypeAlias = Callable[["Counts"], Array]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Positions that count: their scores [positions, classes] and labels [positions]."""

    scores: Array
    labels: Array

    @property
    def guesses(self) -> Array:
        return self.scores.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class Judged:
    """A yes or no for each class: guesses and truth, [positions, classes]."""

    guesses: Array
    truth: Array


def read(output: Array, target: Array, ignored: int | None) -> Labelled | Judged:
    """Scores and targets of a batch, positions in rows. Raises InputError for shapes that do not go
    together, and for labels that are no class."""
    decided = _are_decisions(output.shape, target.shape, numbers=target.dtype.kind == "f")
    scores = output if output.ndim > 1 else output[:, None]
    classes = scores.shape[1]
    rows = np.moveaxis(scores, 1, -1).reshape(-1, classes)
    if decided:
        truth = np.moveaxis(target.reshape(scores.shape), 1, -1).reshape(-1, classes)
        counts = (truth != ignored).all(axis=1)
        return Judged(rows[counts] > 0, truth[counts] > 0.5)
    labels = target.reshape(-1)
    counts = labels != ignored
    labels = labels[counts]
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        odd = labels[(labels < 0) | (labels >= classes)][0]
        raise InputError(f"label {odd} is none of {classes} classes, 0 to {classes - 1}")
    return Labelled(rows[counts], labels)


def _are_decisions(output: Shape, target: Shape, *, numbers: bool) -> bool:
    """Whether targets say yes or no for each class; else they are labels. Raises InputError for
    shapes of which neither holds."""
    scores = output if len(output) != 1 else (*output, 1)
    positions = (*scores[:1], *scores[2:])
    if scores and (target == scores or (scores[1] == 1 and target == positions)):
        return True
    if scores and target == positions and not numbers:
        return False
    kind = "numbers" if numbers else "labels"
    raise InputError(f"outputs {listed(output)} of classes do not go with {kind} {listed(target)}")


def compare_classes(output: TensorType, target: TensorType) -> None:
    """InputError where targets are neither labels of the scores nor decisions."""
    _are_decisions(output.shape, target.shape, numbers=target.dtype.is_float)


def compare_one_class(output: TensorType, target: TensorType) -> None:
    """InputError where a sample may have several labels, too."""
    decided = _are_decisions(output.shape, target.shape, numbers=target.dtype.is_float)
    if decided and output.rank > 1 and output.shape[1] != 1:
        raise InputError(_ONE)


def compare_regions(output: TensorType, target: TensorType) -> None:
    """InputError where they are neither boxes [N, 4] nor what `compare_classes` allows."""
    if output.rank == 2 and target.dtype.is_float:
        _compare_boxes(output.shape, target.shape)
    else:
        compare_classes(output, target)


_ONE = "a confusion matrix wants one label a sample, not several"


class Accuracy:
    """The share of labels that are among the `top` guesses; of decisions that are right."""

    def __init__(self, arguments: Arguments) -> None:
        self._top: int = arguments["top"]
        self._ignored: int = arguments["ignore_index"]
        self._right = self._all = 0

    def add(self, output: Array, target: Array) -> None:
        seen = read(output, target, self._ignored)
        right = seen.guesses == seen.truth if isinstance(seen, Judged) else self._hits(seen)
        self._right += int(right.sum())
        self._all += right.size

    def _hits(self, seen: Labelled) -> Array:
        """Whether fewer than `top` classes come before the label's: those with a larger score, or
        the same and a smaller number. NaN comes before all."""
        if self._top == 1:
            return seen.guesses == seen.labels
        scores, labels = seen.scores, seen.labels.reshape(-1, 1)
        own: Array = np.take_along_axis(scores, labels, axis=1)
        count: int = scores.shape[1]
        earlier = np.less(np.arange(count), labels)
        before: Array = np.where(scores == own, earlier, (scores > own) | np.isnan(scores))
        return before.sum(axis=1) < self._top

    def join(self, other: Accuracy) -> None:
        self._right += other._right
        self._all += other._all

    def value(self) -> Values:
        name = "accuracy" if self._top == 1 else f"top{self._top}_accuracy"
        return {name: self._right / self._all if self._all else nan}


class Counts:
    """For each class: how often it was guessed rightly, guessed at all, and there."""

    def __init__(self, ignored: int) -> None:
        self._ignored = ignored
        self.right: Array = np.zeros(0, np.int64)
        self.guessed: Array = np.zeros(0, np.int64)
        self.there: Array = np.zeros(0, np.int64)
        self._judged = False

    def add(self, output: Array, target: Array) -> None:
        seen = read(output, target, self._ignored)
        classes = output.shape[1] if output.ndim > 1 else 1
        if not self.right.size:
            self.right, self.guessed, self.there = np.zeros((3, classes), np.int64)
        if isinstance(seen, Judged):
            self._judged = True
            self.right = self.right + (seen.guesses & seen.truth).sum(axis=0)
            self.guessed = self.guessed + seen.guesses.sum(axis=0)
            self.there = self.there + seen.truth.sum(axis=0)
            return
        guesses, labels = seen.guesses, seen.labels
        self.right = self.right + np.bincount(labels[guesses == labels], minlength=classes)
        self.guessed = self.guessed + np.bincount(guesses, minlength=classes)
        self.there = self.there + np.bincount(labels, minlength=classes)

    def join(self, other: Counts) -> None:
        """Take in what another has counted; one that has seen nothing has no classes yet."""
        if not other.right.size:
            return
        if not self.right.size:
            self.right, self.guessed, self.there = np.zeros((3, other.right.size), np.int64)
        self._judged = self._judged or other._judged
        self.right = self.right + other.right
        self.guessed = self.guessed + other.guessed
        self.there = self.there + other.there

    @property
    def present(self) -> Array:
        """The classes that a mean is over: of labels, those that were there or guessed."""
        if self._judged:
            return np.ones(self.right.shape, bool)
        return self.guessed + self.there > 0

    def total(self) -> Counts:
        """All classes as one."""
        summed = Counts(self._ignored)
        for name in ("right", "guessed", "there"):
            setattr(summed, name, getattr(self, name).sum(keepdims=True))
        return summed


def share(part: Array, whole: Array) -> Array:
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)


# Ratios have names: what a rank has counted travels to others.


def _precision(counts: Counts) -> Array:
    return share(counts.right, counts.guessed)


def _recall(counts: Counts) -> Array:
    return share(counts.right, counts.there)


def _f1(counts: Counts) -> Array:
    return share(2 * counts.right, counts.guessed + counts.there)


class Score:
    """A ratio of counts: over classes alike (macro), or of all counts together (micro)."""

    def __init__(self, name: str, ratio: Ratio, arguments: Arguments) -> None:
        self._name = name
        self._ratio = ratio
        self._micro: bool = arguments["average"] == "micro"
        self._counts = Counts(arguments["ignore_index"])

    def add(self, output: Array, target: Array) -> None:
        self._counts.add(output, target)

    def join(self, other: Score) -> None:
        self._counts.join(other._counts)

    def value(self) -> Values:
        counts = self._counts
        if not counts.present.any():
            return {self._name: nan}
        if self._micro:
            return {self._name: float(self._ratio(counts.total())[0])}
        return {self._name: float(self._ratio(counts)[counts.present].mean())}


def precision(arguments: Arguments) -> Score:
    """Right guesses of a class among its guesses; 0 where it was never guessed."""
    return Score("precision", _precision, arguments)


def recall(arguments: Arguments) -> Score:
    """Right guesses of a class among where it was; 0 where it never was."""
    return Score("recall", _recall, arguments)


def f1(arguments: Arguments) -> Score:
    """2 right / (guessed + there), the harmonic mean of precision and recall, class by class."""
    return Score("f1", _f1, arguments)


class ConfusionMatrix:
    """How often a class, in rows, was taken for a class, in columns."""

    def __init__(self, arguments: Arguments) -> None:
        self._ignored: int = arguments["ignore_index"]
        self._matrix: Array = np.zeros((0, 0), np.int64)

    def add(self, output: Array, target: Array) -> None:
        seen = read(output, target, self._ignored)
        if isinstance(seen, Judged):
            if seen.guesses.shape[1] != 1:
                raise InputError(_ONE)
            labels, guesses, classes = seen.truth[:, 0], seen.guesses[:, 0], 2
        else:
            labels, guesses, classes = seen.labels, seen.guesses, seen.scores.shape[1]
        pairs = labels.astype(np.int64) * classes + guesses
        found = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        self._matrix = self._matrix + found if self._matrix.size else found

    def join(self, other: ConfusionMatrix) -> None:
        if other._matrix.size:
            self._matrix = self._matrix + other._matrix if self._matrix.size else other._matrix

    def value(self) -> Values:
        return {"confusion_matrix": self._matrix.tolist()}


class IntersectionOverUnion:
    """right / (guessed + there - right): of the regions of each class, or of boxes.

    Of masks the mean over classes, and the classes one by one, None for one that neither has. Boxes
    are [N, 4], [x1, y1, x2, y2]: the mean over boxes.
    """

    def __init__(self, arguments: Arguments) -> None:
        self._counts = Counts(arguments["ignore_index"])
        self._boxes: Mean | None = None

    def add(self, output: Array, target: Array) -> None:
        if output.ndim == 2 and target.dtype.kind == "f":
            self._boxes = self._boxes or Mean()
            self._boxes.add(box_overlaps(output, target))
        else:
            self._counts.add(output, target)

    def join(self, other: IntersectionOverUnion) -> None:
        self._counts.join(other._counts)
        if other._boxes is not None:
            self._boxes = self._boxes or Mean()
            self._boxes.join(other._boxes)

    def value(self) -> Values:
        name = "intersection_over_union"
        if self._boxes is not None:
            return {name: self._boxes.value}
        counts = self._counts
        each = share(counts.right, counts.guessed + counts.there - counts.right)
        there = counts.guessed + counts.there > 0
        mean = float(each[counts.present].mean()) if counts.present.any() else nan
        listed: list[Any] = [float(x) if y else None for x, y in zip(each, there, strict=True)]
        return {name: mean, f"{name}_by_class": listed}


def box_overlaps(some: Array, others: Array) -> Array:
    """Intersection over union of boxes [N, 4], row by row; 0 of boxes that have no area."""
    _compare_boxes(some.shape, others.shape)
    return _overlaps(some.astype(np.float64), others.astype(np.float64))


def _compare_boxes(some: Shape, others: Shape) -> None:
    if some != others or some[1] != 4:
        raise InputError(f"boxes are [N, 4], not {listed(some)} and {listed(others)}")


def overlaps_of_all(some: Array, others: Array) -> Array:
    """Intersection over union of every box of some with every other, [A, B]."""
    return _overlaps(some.astype(np.float64)[:, None], others.astype(np.float64)[None])


def _overlaps(a: Array, b: Array) -> Array:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = _area(low, high)
    either = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
    return share(both, either)


def _area(low: Array, high: Array) -> Array:
    return np.maximum(high - low, 0).prod(axis=-1)
