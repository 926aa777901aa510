"""Cutting data in two, and weighing their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.training.data.draws import Draws, Purpose
from convdsl.training.data.sample import DataSet, Subset

Array = npt.NDArray[Any]


def split(data: DataSet, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """The data without a drawn `fraction` of it, and that fraction; both in the data's order.

    Stratified where labels are known: the classes share alike, by largest remainders, and a class
    of several samples is in both parts where there is room. Raises InputError where one part would
    be empty.
    """
    if not 0 < fraction < 1:
        raise InputError(f"a part of the data is more than 0 and less than 1, not {fraction}")
    count = len(data)
    held = round(fraction * count)
    if not 0 < held < count:
        raise InputError(
            f"{data.source}: {fraction} of {count} samples leaves a part without any\n"
            "help: give more data, or another --val-fraction"
        )
    order = Draws(seed, Purpose.SPLIT).order(count)
    labels = data.labels
    chosen = order[:held] if labels is None else _stratified(order, labels, held)
    inside = np.zeros(count, bool)
    inside[chosen] = True
    return Subset(data, np.flatnonzero(~inside)), Subset(data, np.flatnonzero(inside))


def _stratified(order: Array, labels: Array, held: int) -> Array:
    """The first of each class in `order`, `held` in all."""
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = sizes * held / len(labels)
    shares = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: held - int(shares.sum())]] += 1
    _spread(shares, sizes)
    shuffled = classes[order]
    chosen = [order[shuffled == number][:share] for number, share in enumerate(shares)]
    return np.concatenate(chosen)


def _spread(shares: Array, sizes: Array) -> None:
    """Leaves a sample of each class outside, and puts one of each class of several inside, taking
    the place of samples of the class that can spare them best."""
    for number in np.flatnonzero(shares == sizes):
        other = int((sizes - shares).argmax())
        if sizes[other] - shares[other] > 1:
            shares[number] -= 1
            shares[other] += 1
    for number in np.flatnonzero((shares == 0) & (sizes > 1)):
        other = int(shares.argmax())
        if shares[other] > 1:
            shares[other] -= 1
            shares[number] += 1


def balanced_weights(data: DataSet, classes: int) -> Array:
    """Weights of classes that make all count alike: f64 [classes].

        weight[c] = samples / (classes that occur * samples of class c)     0 where there are none

    As scikit-learn's class_weight = "balanced". Raises InputError where labels are not known.
    """
    labels = data.labels
    if labels is None:
        raise InputError(f"{data.source}: no labels of classes, so that none can be balanced")
    counts = np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    occur = np.count_nonzero(counts)
    weights = np.zeros(classes)
    np.divide(counts.sum() / max(occur, 1), counts, out=weights, where=counts > 0)
    return weights
