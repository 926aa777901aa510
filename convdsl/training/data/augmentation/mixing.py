"""Augmentation of what is ready: parts of an input become zero, samples of a batch are mixed.

Zero is what the network sees as zero: the mean, where the text normalises. Draws are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.training.data.arrays import LABEL
from convdsl.training.data.augmentation.geometry import (
    ATTEMPTS,
    Arguments,
    Known,
    drawn_shape,
)
from convdsl.training.data.boxes import BOXES
from convdsl.training.data.draws import Draws
from convdsl.training.data.images import MASK
from convdsl.training.data.sample import Array

ArrayChange: TypeAlias = "Callable[[Array, Draws], Array]"
Batch: TypeAlias = "dict[str, Array]"
BatchChange: TypeAlias = "Callable[[Batch, str, Draws], Batch]"  # the name of the input between

# Parts of an input [C, H, W]


def erase(arguments: Arguments, known: Known) -> ArrayChange:
    """A rectangle of zeros of drawn area and shape, now and then. Zhong et al. 2020."""
    probability = float(arguments["probability"])
    scale, ratio = arguments["scale"], arguments["ratio"]

    def change(x: Array, draws: Draws) -> Array:
        if not draws.happens(probability):
            return x
        height, width = x.shape[1:]
        for _ in range(ATTEMPTS):
            rows, columns = drawn_shape(draws, height * width, scale, ratio)
            if rows < height and columns < width:
                top, left = draws.between(0, height - rows), draws.between(0, width - columns)
                return _zeroed(x, top, left, top + rows, left + columns)
        return x

    return change


def cutout(arguments: Arguments, known: Known) -> ArrayChange:
    """A square of zeros around a drawn pixel, cut off at the edges. DeVries, Taylor 2017."""
    side = int(arguments["size"])

    def change(x: Array, draws: Draws) -> Array:
        top, left = (draws.below(extent) - side // 2 for extent in x.shape[1:])
        return _zeroed(x, max(0, top), max(0, left), top + side, left + side)

    return change


def _zeroed(x: Array, top: int, left: int, bottom: int, right: int) -> Array:
    made = x.copy()
    made[:, top:bottom, left:right] = 0
    return made


# Samples of a batch, each with the one before


def mixup(arguments: Arguments, known: Known) -> BatchChange:
    """share * x + (1 - share) * x of another, and so the labels; one share a batch, of the
    distribution Beta(alpha, alpha). Zhang et al. 2018."""
    alpha = float(arguments["alpha"])

    def change(batch: Batch, name: str, draws: Draws) -> Batch:
        _check(batch, "mixup", (BOXES, MASK))
        share = draws.beta(alpha) if alpha else 1.0
        mixed = _mixed(batch[name], share)
        return {**batch, name: mixed, **_labels(batch, share, known, "mixup")}

    return change


def cutmix(arguments: Arguments, known: Known) -> BatchChange:
    """A rectangle of another sample, its mask too, and of its label as much as it covers.
    Yun et al. 2019."""
    alpha = float(arguments["alpha"])

    def change(batch: Batch, name: str, draws: Draws) -> Batch:
        _check(batch, "cutmix", (BOXES,))
        height, width = batch[name].shape[-2:]
        half = 0.5 * np.sqrt(1 - draws.beta(alpha)) if alpha else 0.0
        row, column = draws.below(height), draws.below(width)
        rows = slice(max(0, row - int(half * height)), min(height, row + int(half * height)))
        columns = slice(max(0, column - int(half * width)), min(width, column + int(half * width)))
        made = dict(batch)
        for key in (name, MASK):
            if key in batch:
                made[key] = batch[key].copy()
                made[key][..., rows, columns] = _other(batch[key])[..., rows, columns]
        covered = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return {**made, **_labels(batch, 1 - covered, known, "cutmix")}

    return change


def _other(array: Array) -> Array:
    return np.roll(array, 1, 0)


def _mixed(array: Array, share: float) -> Array:
    one, rest = array.dtype.type(share), array.dtype.type(1 - share)
    return one * array + rest * _other(array)


def _labels(batch: Batch, share: float, known: Known, name: str) -> Mapping[str, Array]:
    """Labels as shares of all classes, [N, C], mixed."""
    if LABEL not in batch:
        return {}
    labels = batch[LABEL]
    if labels.ndim == 1:
        labels = shares(labels, known.classes, name)
    return {LABEL: _mixed(labels, share)}


def shares(labels: Array, classes: int | None, name: str) -> Array:
    """[N, classes], f32 or the type of labels that are floats: 1 for the class of each."""
    if classes is None:
        raise InputError(f"{name} mixes labels of classes, and how many there are is not known")
    whole = labels.astype(np.int64)
    odd = labels[(whole < 0) | (whole >= classes) | (whole != labels)]
    if odd.size:
        raise InputError(f"{name} mixes labels of {classes} classes; {odd[0]} is none of them")
    dtype = labels.dtype if labels.dtype.kind == "f" else np.float32
    return np.eye(classes, dtype=dtype)[whole]


def _check(batch: Batch, name: str, refused: tuple[str, ...]) -> None:
    wrong = [key for key in refused if key in batch]
    if wrong:
        raise InputError(f"{name} cannot mix {wrong[0]}: leave it out of `augment`")
