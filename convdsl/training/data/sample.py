"""What a data set is: samples by number, and what is known of them without reading any.

    x       the image [H, W, C], uint8 or float32; for other inputs an array of any shape
    label   a class (i64 []), or numbers
    mask    classes or numbers by pixel, [H, W] or [H, W, C], laid on the image
    boxes   [4] or [K, 4]: left, top, right, bottom in pixels of the image; perhaps a class before

Other names are inputs and targets that nothing here looks into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError

Array: TypeAlias = "npt.NDArray[Any]"
Sample: TypeAlias = "Mapping[str, Array]"


@runtime_checkable
class DataSet(Protocol):
    """Samples by number. Reading one is safe from several threads at once."""

    @property
    def source(self) -> str:
        """How messages call it."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where they have some."""
        ...

    @property
    def labels(self) -> Array | None:
        """The class of each sample (i64), where there is one and it is known without reading."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample:
        """One sample. Raises InputError where it cannot be read."""
        ...


@runtime_checkable
class ReadsTogether(Protocol):
    """A data set that reads several samples at once."""

    def together(self, indices: Array, /) -> Sample | None:
        """Samples along a first axis, each as it is by itself; None where that cannot be."""
        ...


@dataclass(frozen=True)
class Parts:
    """The parts that data come in, or are cut into. Only the first is sure."""

    train: DataSet
    validation: DataSet | None = None
    test: DataSet | None = None


class Subset:
    """Some samples of a data set, in the order given."""

    def __init__(self, data: DataSet, indices: Sequence[int] | Array) -> None:
        self._data = data
        self._indices = np.asarray(indices, np.int64)

    @property
    def source(self) -> str:
        return self._data.source

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._data.classes

    @property
    def labels(self) -> Array | None:
        labels = self._data.labels
        return None if labels is None else labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._data[int(self._indices[index])]

    @property
    def whole(self) -> DataSet:
        """What the samples are of."""
        return self._data

    def number(self, index: int) -> int:
        """Which of the whole's a sample is."""
        return int(self._indices[index])

    def together(self, indices: Array) -> Sample | None:
        """Several at once, if the data can."""
        data = self._data
        return data.together(self._indices[indices]) if isinstance(data, ReadsTogether) else None


def number_of(data: DataSet, index: int) -> int:
    """How whoever gave the data counts a sample of a part that was cut from them."""
    while isinstance(data, Subset):
        index, data = data.number(index), data.whole
    return index


def check_labels(data: DataSet, classes: int, ignored: int | None = None) -> None:
    """Every label is one of `classes` classes, or the `ignored` one. Raises InputError."""
    labels = data.labels
    if labels is None:
        return
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        first = int(wrong.argmax())
        names = data.classes
        raise InputError(
            f"{data.source}: the label of sample {number_of(data, first)} is {labels[first]}, and "
            f"the network tells {classes} classes apart (0 to {classes - 1})"
            + (f"; the data have {len(names)}: " + _some(names) if names else "")
            + f"\nhelp: {_help(int(labels[first]), int(labels.max()))}"
        )


def label_doubts(data: DataSet, classes: int) -> tuple[str, ...]:
    """What is odd about labels that are all classes of the network."""
    labels, names = data.labels, data.classes
    if labels is None or not len(labels):
        return ()
    if (labels == labels[0]).all():
        first = int(labels[0])
        which = names[first] if names else first
        return (f"{data.source}: all samples are of one class ({which}), nothing is told apart",)
    if names and len(names) < classes:
        have = f"{data.source}: {len(names)} classes ({_some(names)})"
        return (f"{have}, and the network tells {classes} apart",)
    return ()


def check_named_alike(train: DataSet, other: DataSet) -> None:
    """InputError where one part names its classes and the other numbers them: no rule says which
    name a number is."""
    if train.labels is None or other.labels is None:
        return
    if (train.classes is None) == (other.classes is None):
        return
    named, numbered = (train, other) if train.classes else (other, train)
    names = _some(named.classes or ())
    raise InputError(
        f"{other.source}: the classes are {'numbers' if other is numbered else f'names ({names})'},"
        f" and those of the training data, {train.source}, "
        f"{f'names ({names})' if other is numbered else 'numbers'}\n"
        "help: give both as names, or both as numbers from 0"
    )


def _help(wrong: int, greatest: int) -> str:
    """What can be done about a label that is no class."""
    if wrong < 0:
        return "classes count from 0; labels that shall not count are the loss's ignore_index"
    return (
        f"a network with `classes` as a parameter takes --set classes={greatest + 1}; "
        "else mend the labels"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
