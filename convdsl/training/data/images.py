"""Data sets of image files: folders by class, tables of paths, images with masks beside them.

An image is opened as `classify` opens it (convdsl.preprocessing): upright, opaque, 8 bits a
channel, grey or RGB as the network takes it. A mask is opened as it was drawn: the number of a
pixel, or its place in the palette, is its class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.training.data.arrays import ANY, LABEL, Wanted, X
from convdsl.training.data.sample import Sample

Array: TypeAlias = "npt.NDArray[Any]"

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files that are taken for images. Others in a folder are left alone."""

MASK = "mask"


class ImageFiles:
    """Images in files, with targets by name: arrays along the samples, and masks in files."""

    def __init__(
        self,
        paths: Sequence[Path],
        source: str,
        wanted: Wanted = ANY,
        targets: Mapping[str, Array] | None = None,
        classes: tuple[str, ...] | None = None,
        masks: Sequence[Path] | None = None,
    ) -> None:
        if not wanted.is_image:
            raise InputError(f"{source}: images, and the network takes {wanted.input}")
        self._paths = tuple(paths)
        self._masks = None if masks is None else tuple(masks)
        self._source = source
        self._channels = 1 if wanted.channels == 1 else 3
        self._targets = dict(targets or {})
        self._classes = classes

    @property
    def source(self) -> str:
        return self._source

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes

    @property
    def labels(self) -> Array | None:
        labels = self._targets.get(LABEL)
        return labels if labels is not None and labels.dtype == np.int64 else None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        sample = {X: read_image(self._paths[index], self._channels)}
        if self._masks is not None:
            sample[MASK] = read_mask(self._masks[index])
            _check_sizes(sample, self._paths[index], self._masks[index])
        return sample | {name: np.asarray(a[index]) for name, a in self._targets.items()}


def read_image(path: Path, channels: int) -> Array:
    """u8 [H, W, channels]. Raises InputError."""
    from convdsl.preprocessing import opened

    try:
        image: Array = np.asarray(opened(path, channels))
    except InputError as error:
        raise InputError(f"{error}\nhelp: mend the file, or take it out of the data") from None
    return image if image.ndim == 3 else image[..., None]


def read_mask(path: Path) -> Array:
    """The numbers of a mask's pixels, i64 [H, W], as they are stored. Raises InputError."""
    from convdsl.preprocessing import stored

    mask = stored(path)
    if mask.ndim != 2:
        raise InputError(
            f"the mask {path} is in colour: a mask has one number a pixel, its class\n"
            "help: save it as a grey image (0, 1, 2, ...) or with a palette"
        )
    return mask.astype(np.int64)


def _check_sizes(sample: Mapping[str, Array], image: Path, mask: Path) -> None:
    if sample[X].shape[:2] != sample[MASK].shape[:2]:
        sizes = ["x".join(map(str, sample[name].shape[:2])) for name in (X, MASK)]
        raise InputError(f"the mask {mask} is {sizes[1]}, its image {image} {sizes[0]}")
