"""From what people name to a data set.

    folder            of images by class, of images/ and masks/, of MNIST's four files; or of parts:
                      train/, val/ (valid/, validation/), test/, each of the former
    .npz              `x` and `y`, `mask`, `boxes`, ...; x_train, y_train, x_test, ... are parts
    .npy, IDX         the images; their labels in a second file
    .csv, .tsv        paths and labels
    arrays            a mapping by name, a pair (x, y); an iterator of samples; a DataSet itself

Nothing is unpickled. Large arrays are mapped where their file allows it, and bounded otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast
from zipfile import is_zipfile

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, WeightError, reason
from convdsl.places import kind_of, nothing_at
from convdsl.training.data.arrays import ANY, LABEL, ArrayData, Wanted, X, iterated
from convdsl.training.data.folders import IMAGES, MASKS, class_folder, mask_folder, subfolders
from convdsl.training.data.idx import is_idx, read_idx
from convdsl.training.data.images import SUFFIXES
from convdsl.training.data.sample import DataSet, Parts, check_named_alike
from convdsl.training.data.tables import read_table
from convdsl.weights.npz_file import NpzFile, is_npy, map_npy

Array: TypeAlias = "npt.NDArray[Any]"
Opener: TypeAlias = "Callable[[tuple[str, ...] | None], DataSet]"

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "t10k"),
}
"""The parts of data, and what folders and arrays of them are called."""

MNIST = ("images-idx3-ubyte", "labels-idx1-ubyte")
"""How MNIST's files end: train-images-idx3-ubyte, t10k-labels-idx1-ubyte, perhaps with .gz."""


def open_data(data: Any, labels: Any = None, wanted: Wanted = ANY, part: str = "train") -> DataSet:
    """One part of the data. Raises InputError where there is no such part."""
    found = getattr(open_parts(data, labels, wanted), part)
    if found is None:
        raise InputError(f"{data} has no part called {part}")
    return found


def open_parts(data: Any, labels: Any = None, wanted: Wanted = ANY) -> Parts:
    """Data as they come, in parts where they have some: a path, or what Python holds. `labels` is
    a second file, or an array. Raises InputError."""
    parts = _opened(data, labels, wanted)
    for other in (parts.validation, parts.test):
        if other is not None:
            check_named_alike(parts.train, other)
    return parts


def _opened(data: Any, labels: Any, wanted: Wanted) -> Parts:
    if isinstance(data, str) and not data:
        raise InputError(f"the path of the data is empty\nhelp: {_KINDS}")
    if isinstance(data, str | Path):
        return _of_path(Path(data), labels, wanted)
    if isinstance(data, tuple) and labels is None:
        pair = cast("tuple[Any, ...]", data)
        if len(pair) != 2:
            raise InputError(f"{len(pair)} things are no data: a pair (x, y) is")
        data, labels = pair
    if isinstance(data, np.ndarray) or (labels is not None and not isinstance(data, DataSet)):
        arrays: dict[str, Any] = {X: data} if labels is None else {X: data, LABEL: labels}
        return Parts(ArrayData(arrays, wanted=wanted))
    if labels is not None:
        raise InputError("a data set brings its own labels")
    if isinstance(data, Mapping):
        return _of_arrays(cast("Mapping[str, Array]", data), "the given arrays", wanted)
    if isinstance(data, DataSet):
        _check_filled(data)
        return Parts(data)
    if isinstance(data, Iterable):
        return Parts(iterated(cast("Iterable[Any]", data), wanted=wanted))
    raise InputError(f"a {type(data).__name__} is no data: a path, arrays or samples are")


def _of_path(path: Path, labels: Any, wanted: Wanted) -> Parts:
    try:
        if path.is_dir():
            if labels is not None:
                raise InputError(f"{path} is a folder, whose images say their labels themselves")
            return _of_folder(path, wanted)
        if not path.exists():
            said = nothing_at(path, said=f"there are no data at {path}")
            raise InputError(f"{said}\nhelp: {_KINDS}; of images a folder for each class")
        if not path.is_file():
            raise InputError(f"the data {path} are neither a folder nor a plain file")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the data {path}: {reason(error)}") from None
    if is_npy(path) or is_idx(path):
        arrays = {X: _array(path)}
        if labels is not None:
            arrays[LABEL] = _array(labels) if isinstance(labels, str | Path) else labels
        return Parts(ArrayData(arrays, str(path), wanted))
    if labels is not None:
        raise InputError(
            f"{path} brings its labels itself: a second file of labels is for IDX and .npy"
        )
    if path.suffix.lower() in (".csv", ".tsv"):
        return Parts(read_table(path, wanted, wanted.classes))
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"{path} is one image: {_KINDS}")
    return _of_arrays(_archive(path), str(path), wanted)


def _array(path: str | Path) -> Array:
    path = Path(path)
    try:
        if is_npy(path):
            return map_npy(path, texts=True)
    except WeightError as error:
        raise InputError(str(error)) from None
    if not path.is_file():
        raise InputError(nothing_at(path))
    return read_idx(path)


_KINDS = "data are folders of images, .npz, .npy, .csv or IDX files"


def _archive(path: Path) -> dict[str, Array]:
    if not is_zipfile(path):
        cut = "a damaged archive: it is cut short" if kind_of(path).startswith("an archive") else ""
        raise InputError(f"the data {path} are {cut or kind_of(path)}\nhelp: {_KINDS}")
    try:
        archive = NpzFile(path, texts=True)
        return {name: archive.map(name) for name in archive.entries}
    except WeightError as error:
        raise InputError(f"{error}\nhelp: {_KINDS}") from None


# Parts


def _of_arrays(arrays: Mapping[str, Array], source: str, wanted: Wanted) -> Parts:
    """Arrays whose names end in a part's are that part's."""
    found: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        base, _, end = str(name).rpartition("_")
        part = next((part for part, names in PARTS.items() if base and end in names), "")
        found.setdefault(part, {})[base if part else str(name)] = array
    whole = found.pop("", {})
    if whole and found:
        raise InputError(f"{source}: arrays of parts and others: {', '.join(arrays)}")
    if not found:
        return Parts(ArrayData(whole, source, wanted))
    if "train" not in found:
        raise InputError(f"{source}: no arrays of the training part: {', '.join(arrays)}")
    train = ArrayData(found.pop("train"), source, wanted)
    known = replace(wanted, classes=train.classes)
    others = {part: ArrayData(some, source, known) for part, some in found.items()}
    return Parts(train, **others)


def _of_folder(folder: Path, wanted: Wanted) -> Parts:
    """Parts are folders of folders: one of images may be of the class `train`."""
    files = {entry.name.removesuffix(".gz"): entry for entry in folder.iterdir()}
    if any(name.endswith(MNIST[0]) for name in files):
        return _of_mnist(folder, files, wanted)
    there = {name.lower(): name for name in subfolders(folder) if subfolders(folder / name)}
    named = {part: [there[n] for n in names if n in there] for part, names in PARTS.items()}
    if not named["train"]:
        return Parts(_of_images(folder, wanted)(wanted.classes))
    train = _of_images(folder / named["train"][0], wanted)(wanted.classes)
    parts = Parts(train)
    for part in ("validation", "test"):
        for name in named[part][:1]:
            parts = replace(parts, **{part: _of_images(folder / name, wanted)(train.classes)})
    return parts


def _of_images(folder: Path, wanted: Wanted) -> Opener:
    """What reads a folder, given the classes of the training part."""
    there = subfolders(folder)
    if IMAGES in there and MASKS in there:
        return lambda classes: mask_folder(folder, wanted)
    return partial(class_folder, folder, wanted)


def _of_mnist(folder: Path, files: Mapping[str, Path], wanted: Wanted) -> Parts:
    found: dict[str, DataSet] = {}
    for part, names in PARTS.items():
        for name in names:
            images, labels = (files.get(f"{name}-{end}") for end in MNIST)
            if images is None and labels is None:
                continue
            if images is None or labels is None:
                lacking = MNIST[images is not None]
                raise InputError(f"{folder} lacks {name}-{lacking}")
            arrays = {X: read_idx(images), LABEL: read_idx(labels)}
            found[part] = ArrayData(arrays, str(images), wanted)
    if "train" not in found:
        raise InputError(f"{folder} lacks train-{MNIST[0]}")
    return Parts(**found)


def _check_filled(data: DataSet) -> None:
    if len(data) == 0:
        raise InputError(f"{data.source}: no samples")
