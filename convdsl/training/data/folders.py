"""Folders of images.

    CLASS/*.png                        a folder for each class, searched to the bottom
    images/*.png  masks/*.png          a mask of the same name (whatever its ending) for each image

Names are sorted, so that classes and samples have the same numbers everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.training.data.arrays import ANY, LABEL, Wanted
from convdsl.training.data.images import SUFFIXES, ImageFiles

IMAGES, MASKS = "images", "masks"

MOST_FILES = 20_000_000
"""Images in one data set."""


def class_folder(
    folder: Path, wanted: Wanted = ANY, classes: Sequence[str] | None = None
) -> ImageFiles:
    """Images by class. Where `classes` are given, those of another part of the data, folders are
    of these, and some may be missing. Raises InputError."""
    names = subfolders(folder)
    if classes is not None:
        _check_classes(folder, names, classes)
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes or names):
        found = image_files(folder / name) if name in names else []
        if not found and classes is None:
            raise InputError(
                f"the class folder {folder / name} holds no images\n"
                f"help: remove it, or put images into it ({_endings()})"
            )
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise InputError(_no_images(folder))
    targets = {LABEL: np.array(labels, np.int64)}
    return ImageFiles(paths, str(folder), wanted, targets, tuple(classes or names))


def mask_folder(folder: Path, wanted: Wanted = ANY) -> ImageFiles:
    """Images and their masks. Raises InputError where one lacks the other."""
    images, masks = _by_stem(folder / IMAGES), _by_stem(folder / MASKS)
    if not images:
        raise InputError(f"{folder / IMAGES} holds no images ({_endings()})")
    for some, others, kind in ((images, masks, "mask"), (masks, images, "image")):
        lacking = [path for stem, path in some.items() if stem not in others]
        if lacking:
            more = f", and {len(lacking) - 1} others neither" if len(lacking) > 1 else ""
            raise InputError(
                f"{lacking[0]} has no {kind} of its name{more}\n"
                f"help: {folder} holds {IMAGES}/a.png and {MASKS}/a.png for each sample"
            )
    paths = [images[stem] for stem in images]
    return ImageFiles(paths, str(folder), wanted, masks=[masks[stem] for stem in images])


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are nobody's class."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, sorted."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += (path for path in paths if path.suffix.lower() in SUFFIXES)
        if len(found) > MOST_FILES:
            raise InputError(f"{folder} holds more than {MOST_FILES:,} images")
    return sorted(found)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Images by their path in the folder, without its ending."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        stem = str(path.relative_to(folder).with_suffix(""))
        if stem in found:
            raise InputError(f"{found[stem]} and {path} differ by their endings alone")
        found[stem] = path
    return found


def _check_classes(folder: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    new = [name for name in names if name not in classes]
    if new:
        raise InputError(
            f"{folder / new[0]} is no class of the training data, whose classes are "
            f"{', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}"
        )


def _no_images(folder: Path) -> str:
    return (
        f"{folder} holds no data\nhelp: put the images of each class into a folder of its own "
        f"({folder / 'cat'}, {folder / 'dog'}, ...), or name a .npz, .csv or IDX file"
    )


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))
