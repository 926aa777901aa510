"""Data sets of arrays: one per name, all with the samples along their first axis.

    x         (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats; anything for other inputs
    label     (N,), (N, 1) of whole numbers or of names, which are numbered sorted; or floats
    others    (N, ...)

Which of the two orders four axes have is said, or follows from the number of channels that the
network takes, else from which axis has 1 or 3. Arrays stay as they are, mapped or in memory: a
sample is converted when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.kernel.signature import array_of
from convdsl.tensor import TensorType
from convdsl.training.data.boxes import BOXES, EDGES
from convdsl.training.data.sample import Sample

Array: TypeAlias = "npt.NDArray[Any]"

X, LABEL = "x", "label"
NAMES = {"y": LABEL, "labels": LABEL, "masks": "mask", "images": X}
"""What arrays are called besides."""

LAYOUTS = ("nhwc", "nchw")
_LAST_CHARACTER = 0x10FFFF
_AT_ONCE = 4096  # samples that are looked at together

MOST_ITERATED = 4 << 30
"""Bytes that samples of an iterator may take: they are kept in memory."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the network takes, as far as it decides how data are read.

    input: its type; None takes `x` for images. layout: the order of four axes, where it is said.
    classes: names of classes by number, where other data have said them.
    name: the input's own, which stands for `x`.
    """

    input: TensorType | None = None
    layout: str | None = None
    classes: tuple[str, ...] | None = None
    name: str | None = None

    @property
    def is_image(self) -> bool:
        return self.input is None or self.input.rank == 4

    @property
    def channels(self) -> int | None:
        """Of images, where they are known."""
        if self.input is None or self.input.rank != 4:
            return None
        channels = self.input.shape[1]
        return channels if isinstance(channels, int) else None


ANY = Wanted()


class ArrayData:
    """Samples out of arrays by name, which share their first axis."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        source: str = "the given arrays",
        wanted: Wanted = ANY,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self._source = source
        self._classes = classes
        named = _named(arrays, source, wanted.name)
        if LABEL in named and (names := _texts(named[LABEL], source)) is not None:
            self._classes = wanted.classes or tuple(sorted(set(names)))
            named[LABEL] = _numbered(names, self._classes, source)
        if X not in named:
            own = "" if wanted.name in (None, X, LABEL, *NAMES) else f", or `{wanted.name}`,"
            raise InputError(
                f"{source}: no array `{X}`, but {', '.join(arrays) or 'none'}\n"
                f"help: call the images or other inputs `{X}`{own} and their classes `y`"
            )
        self._arrays = {name: _sound(name, array, source) for name, array in named.items()}
        _check_lengths(self._arrays, source)
        if wanted.is_image:
            self._arrays[X] = _images(self._arrays[X], source, wanted)
        if BOXES in self._arrays:
            self._arrays[BOXES] = _boxes(self._arrays[BOXES], source)
        self._labels = _classes_of(self._arrays.get(LABEL))
        if self._labels is not None:
            self._arrays[LABEL] = self._labels

    @property
    def source(self) -> str:
        return self._source

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes

    @property
    def labels(self) -> Array | None:
        return self._labels

    def __len__(self) -> int:
        return len(self._arrays[X])

    def __getitem__(self, index: int) -> Sample:
        return {name: _typed(np.asarray(a[index])) for name, a in self._arrays.items()}

    def check_whole(self, name: str) -> None:
        """InputError where an array that is compared as classes holds fractions, NaN, infinities:
        known before the first batch is."""
        array = self._arrays[name]
        if array.dtype.kind != "f":
            return
        for at in range(0, len(array), _AT_ONCE):
            odd = array[at : at + _AT_ONCE]
            odd = ~(np.isfinite(odd) & (np.trunc(odd) == odd))
            if odd.any():
                place = tuple(int(i) for i in np.unravel_index(int(odd.argmax()), odd.shape))
                place = (at + place[0], *place[1:])
                raise InputError(
                    f"{self._source}: {name} of sample {place[0]} holds {array[place]}, and a class"
                    " is a whole number\nhelp: give the number of each class, from 0; numbers that "
                    "are no classes go with another loss (mse)"
                )

    def together(self, indices: Array) -> Sample:
        """Samples along a first axis."""
        return {name: _typed(np.asarray(a[indices])) for name, a in self._arrays.items()}


def iterated(
    samples: Iterable[Any],
    source: str = "the given iterator",
    wanted: Wanted = ANY,
    most: int = MOST_ITERATED,
) -> ArrayData:
    """Samples of an iterator, kept in memory: each a mapping by name, a pair of `x` and label, or
    `x` alone. Raises InputError."""
    rows: list[dict[str, Array]] = []
    taken = 0
    for number, given in enumerate(samples):
        row = _row(given)
        if rows and row.keys() != rows[0].keys():
            raise InputError(
                f"{source}: sample {number} has {', '.join(row)}, the first {', '.join(rows[0])}"
            )
        taken += sum(array.nbytes for array in row.values())
        if taken > most:
            raise InputError(
                f"{source} yields more than {most / 1e9:,.1f} GB, which are kept in memory\n"
                "help: give an object with `__len__` and `__getitem__` instead, which reads a "
                "sample when it is asked for"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{source} yields no samples")
    return ArrayData({name: _stacked(rows, name, source) for name in rows[0]}, source, wanted)


def _row(given: Any) -> dict[str, Array]:
    if isinstance(given, Mapping):
        items = cast("Mapping[Any, Any]", given).items()
        return {str(name): array_of(f"`{name}`", value) for name, value in items}
    if isinstance(given, tuple):
        values = islice(cast("tuple[Any, ...]", given), 2)
        named = zip((X, LABEL), values, strict=False)
        return {name: array_of(f"`{name}`", value) for name, value in named}
    return {X: array_of(f"`{X}`", given)}


def _stacked(rows: list[dict[str, Array]], name: str, source: str) -> Array:
    shape = rows[0][name].shape
    for number, row in enumerate(rows):
        if row[name].shape != shape:
            raise InputError(
                f"{source}: {name} of sample {number} is {list(row[name].shape)}, of the first "
                f"{list(shape)}; samples of an iterator are alike{EVEN if name == BOXES else ''}"
            )
    return np.stack([row[name] for row in rows])


def _named(arrays: Mapping[str, Array], source: str, own: str | None) -> dict[str, Array]:
    """By the names of samples; what is called as the network's input is where nothing is `x`."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        known = NAMES.get(name, name)
        if known in found:
            raise InputError(f"{source}: several arrays of {known}: {', '.join(arrays)}")
        found[known] = array
    if own in found and X not in found and own != LABEL:
        found = {X if name == own else name: array for name, array in found.items()}
    return found


def _sound(name: str, array: Any, source: str) -> Array:
    """An array of numbers with a first axis; columns of one label are that label."""
    made: Array = array
    if not isinstance(array, np.ndarray):
        if name == BOXES:
            _check_even(array, source)
        made = array_of(f"{source}: {name}", array)
    if made.dtype.kind not in "fiub":
        raise InputError(f"{source}: {name} holds {made.dtype}, not numbers")
    if made.ndim == 0:
        raise InputError(f"{source}: {name} is a single number, not one for each sample")
    if name == LABEL and made.ndim == 2 and made.shape[1] == 1 and made.dtype.kind in "iu":
        return made[:, 0]
    return made


def _texts(labels: Any, source: str) -> list[str] | None:
    """Names of classes, a name for each sample; None for numbers."""
    array = array_of(f"{source}: {LABEL}", labels)
    if array.dtype == object and array.size and {type(one) for one in array.flat} == {str}:
        array = np.asarray(array, np.str_)
    if array.dtype.kind not in "US":
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{source}: {LABEL} is {list(array.shape)} names, not one for each sample")
    try:
        if array.dtype.kind == "S":
            return [bytes(name).decode() for name in array.tolist()]
        _check_characters(array)
        return [str(name) for name in array.tolist()]
    except ValueError as error:  # no text, though the file says so
        raise InputError(f"{source}: {LABEL} holds no names: {error}") from None


def _check_characters(texts: Array) -> None:
    """ValueError for numbers that are no characters, of which Python makes no text."""
    numbers = np.ascontiguousarray(texts, texts.dtype.newbyteorder("=")).view(np.uint32)
    if ((numbers > _LAST_CHARACTER) | ((numbers >= 0xD800) & (numbers <= 0xDFFF))).any():
        raise ValueError("not all of it are characters of Unicode")


def _numbered(names: Sequence[str], classes: Sequence[str], source: str) -> Array:
    numbers = {name: number for number, name in enumerate(classes)}
    for at, name in enumerate(names):
        if name not in numbers or not name:
            raise InputError(
                f"{source}: the class {name!r} of sample {at} is none of the training data"
                if name
                else f"{source}: the label of sample {at} is an empty name"
            )
    return np.array([numbers[name] for name in names], np.int64)


EVEN = "\nhelp: give every image as many boxes; one may stand there twice"


def _check_even(boxes: Any, source: str) -> None:
    """Every image has as many boxes as the first."""
    if not isinstance(boxes, list | tuple):
        return
    each = cast("Sequence[object]", boxes)
    counts = [array_of(f"{source}: {BOXES} of an image", some).shape[:-1] for some in each]
    for number, count in enumerate(counts):
        if count != counts[0]:
            raise InputError(
                f"{source}: image {number} has {list(count)} boxes, the first {list(counts[0])}"
                f"{EVEN}"
            )


def _check_lengths(arrays: Mapping[str, Array], source: str) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{length:,} of {name}" for name, length in lengths.items())
        raise InputError(f"{source}: {listing}; there must be one of each for a sample")
    if 0 in lengths.values():
        raise InputError(f"{source}: no samples")


def _images(x: Array, source: str, wanted: Wanted) -> Array:
    """A view [N, H, W, C]."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InputError(
            f"{source}: {X} holds {x.dtype}; images are uint8 (0 to 255) or floats as the network "
            "takes them\nhelp: convert with .astype('uint8') or .astype('float32')"
        )
    if x.ndim == 3:
        return x[..., None]
    if x.ndim != 4:
        raise InputError(
            f"{source}: {X} is {list(x.shape)}; images are (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    layout = wanted.layout or _layout(x, wanted.channels)
    if layout not in LAYOUTS:
        raise InputError(
            f"{source}: {X} is {list(x.shape)}: which axis holds the channels?\n"
            f"help: say --layout {' or '.join(LAYOUTS)}"
        )
    return x if layout == "nhwc" else x.transpose(0, 2, 3, 1)


def _boxes(boxes: Array, source: str) -> Array:
    """Boxes are floats: what moves pixels moves their edges by parts of pixels."""
    if boxes.ndim < 2 or boxes.shape[-1] not in (EDGES, EDGES + 1):
        raise InputError(
            f"{source}: {BOXES} is {list(boxes.shape)}; a box is left, top, right, bottom, perhaps "
            "with a class before: (N, 4), (N, 5) or several for each image, (N, K, 4)"
        )
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.float32)


def _layout(x: Array, channels: int | None) -> str | None:
    """The order of the axes, where it can be one only."""
    for usual in ((channels,), (1, 3)):
        first, last = x.shape[1] in usual, x.shape[3] in usual
        if first != last:
            return "nchw" if first else "nhwc"
    return None


def _classes_of(labels: Array | None) -> Array | None:
    """Labels as i64, where they are classes."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        return None
    return labels.astype(np.int64)


def _typed(found: Array) -> Array:
    """Numbers as they are for uint8, i64 and f32; others become i64 or f32."""
    if found.dtype == np.uint8:
        return found
    return found.astype(np.float32 if found.dtype.kind == "f" else np.int64, copy=False)
