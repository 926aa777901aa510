"""From a sample to what the network takes: the steps that `classify` takes, and targets alike.

    place     the steps of geometry: image resampled as declared, masks by the nearest pixel,
              boxes moved along
    finish    grey or RGB as the network takes it, arithmetic, channels first, the network's type

Arithmetic on uint8 is done once, for the 256 values there are, and looked up: so it is
`convdsl.preprocessing` to the last bit. Floats count as what the network takes already: they are
placed, and otherwise left alone. Without a declaration see `usual_preprocessing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.model import Model
from convdsl.ir.preprocess import (
    Preprocessing,
    PreprocessingStep,
    Region,
    changed,
    regions,
    usual_preprocessing,
)
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import convert, of_numpy
from convdsl.training.data.arrays import LABEL, X
from convdsl.training.data.boxes import BOXES, EDGES, clipped, with_class, with_edges
from convdsl.training.data.images import MASK
from convdsl.training.data.sample import Array, Sample

FIT = "resize"
"""What is done about images of another size where nothing is said: `resize` or `pad`."""

_GREY, _RGB = 1, 3
_VALUES = 256


@dataclass(frozen=True)
class Preparation:
    """How samples become arrays for the input `name`, and for targets of known types.

    preprocessing: as the text declares it; None for inputs that are no images.
    targets: the types of what else a batch has: targets, and the network's other inputs.
    """

    name: str
    input: TensorType
    preprocessing: Preprocessing | None
    targets: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of the images that the network takes; None where any will do."""
        if self.input.rank != 4:
            return None, None
        height, width = (e if isinstance(e, int) else None for e in self.input.shape[2:])
        return height, width

    @property
    def filter(self) -> str:
        """How the text resizes."""
        filters = (step.arguments["filter"] for step in self.geometry if "filter" in step.arguments)
        return next(filters, "bilinear")

    @property
    def geometry(self) -> tuple[PreprocessingStep, ...]:
        return () if self.preprocessing is None else self.preprocessing.geometry

    def place(self, sample: Sample, steps: Sequence[PreprocessingStep] | None = None) -> Sample:
        """The sample after the steps of geometry (these, or all that are declared)."""
        for step in self.geometry if steps is None else steps:
            for region in regions(step, *sample[X].shape[:2]):
                sample = placed(sample, region, step.arguments.get("filter", "bilinear"))
        return sample

    def finish(self, x: Array) -> Array:
        """The input array of one sample, without its batch. Raises InputError."""
        plain = self.preprocessing is None
        array = _kept(self.name, x, self.input.dtype) if plain else self._image(x)
        self._check_shape(array)
        return array

    def together(self, x: Array, steps: Sequence[PreprocessingStep]) -> Array | None:
        """`place` and `finish` for inputs of one shape along a first axis, where that is the same
        and faster: None where images are resampled or change their colours."""
        if self.preprocessing is None:
            made = _kept(self.name, x, self.input.dtype)
        else:
            planes = x.transpose(1, 2, 0, 3)  # samples are as channels to what moves pixels
            for step in steps:
                for region in regions(step, *planes.shape[:2]):
                    if not region.keeps_scale:
                        return None
                    planes = _cut(planes, region)
            x = planes.transpose(2, 0, 1, 3)
            if self.input.shape[1] != x.shape[3]:
                return None
            made = self._channels_first(x)
        self._check_shape(made[0])
        return made

    def target(self, name: str, array: Array, together: bool = False) -> Array:
        """A target as the loss takes it: masks with channels first, the loss's type, and axes of
        extent 1 in front where the loss has more. `together`: those of several samples, along a
        first axis."""
        samples, rest = array.shape[:together], array.shape[together:]
        if name == MASK and len(rest) == 3:
            array = np.moveaxis(array, -1, together)
            rest = array.shape[together:]
        wanted = self.targets.get(name)
        if wanted is None:
            return array
        if name == BOXES and wanted.shape[-1] == EDGES + 1:
            array = with_class(array)
            rest = array.shape[together:]
        missing = wanted.rank - 1 - len(rest)
        if missing > 0 and all(extent == 1 for extent in wanted.shape[1 : 1 + missing]):
            array = array.reshape(*samples, *(1,) * missing, *rest)
        return _kept(name, array, wanted.dtype)

    def _image(self, x: Array) -> Array:
        channels = self.input.shape[1]
        x = _in_colours(x, channels if isinstance(channels, int) else x.shape[2])
        return self._channels_first(x[None])[0]

    def _channels_first(self, x: Array) -> Array:
        """[N, C, H, W] of [N, H, W, C], after arithmetic."""
        if x.dtype != np.uint8:
            return np.ascontiguousarray(_typed(x, self.input.dtype).transpose(0, 3, 1, 2))
        table = self._table
        out = np.empty((len(x), x.shape[3], *x.shape[1:3]), table.dtype)
        for channel in range(x.shape[3]):
            out[:, channel] = table[:, channel % table.shape[1]].take(x[..., channel])
        return out

    @cached_property
    def _table(self) -> Array:
        """What arithmetic makes of the values 0 .. 255: [256, channels]."""
        assert self.preprocessing is not None
        channels = self.input.shape[1]
        count = channels if isinstance(channels, int) else 1
        pixels = np.repeat(np.arange(_VALUES, dtype=np.float64)[:, None, None], count, 2)
        if steps := self.preprocessing.arithmetic:
            pixels = changed(pixels, steps)
        return np.asfortranarray(convert(pixels[:, 0], DType.F64, self.input.dtype))

    def _check_shape(self, array: Array) -> None:
        wanted = self.input.shape[1:]
        fits = len(wanted) == array.ndim and all(
            not isinstance(w, int) or w == n for w, n in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"a sample becomes {list(array.shape)}, and the network takes {self.input} as "
                f"{self.name}"
            )


def preparation(
    model: Model,
    input: str | None = None,
    fit: str = FIT,
    targets: Mapping[str, TensorType] | None = None,
) -> Preparation:
    """How samples become arrays for a model: `x` is its only input, or the one that is named, else
    the one that its text declares the preprocessing of. What it takes beside is given as targets
    are. Raises InputError."""
    declared, types = model.preprocessing, model.inputs
    name = input or (declared.input if declared else next(iter(types)))
    if name not in types:
        raise InputError(f"{model.name} has no input {name}, but {', '.join(types)}")
    type, beside = types[name], {other: types[other] for other in types if other != name}
    arrays = {**beside, **(targets or {})}
    if type.rank != 4:
        return Preparation(name, type, None, arrays)
    if declared is None or declared.input != name:
        declared = usual_preprocessing(name, type, fit)
    return Preparation(name, type, declared, arrays)


# Images


def placed(sample: Sample, region: Region, filter: str = "bilinear") -> Sample:
    """A region of a sample, at the size that it is brought to."""
    height, width = sample[X].shape[:2]
    if region == Region(0, 0, height, width, (height, width)):
        return sample
    made = dict(sample)
    if region.keeps_scale:
        made[X] = _cut(sample[X], region)
    else:
        from convdsl.preprocessing import resampled

        made[X] = resampled(sample[X], region, filter)
    if MASK in sample:
        made[MASK] = _nearest(sample[MASK], region)
    if BOXES in sample:
        made[BOXES] = with_edges(
            sample[BOXES], lambda edges: clipped(_moved(edges, region), *region.to)
        )
    return made


def _cut(x: Array, region: Region) -> Array:
    """The region of an array [H, W, ...], with zeros beyond the edges."""
    height, width = x.shape[:2]
    top, left = max(0, region.top), max(0, region.left)
    bottom, right = min(height, region.top + region.height), min(width, region.left + region.width)
    if (bottom - top, right - left) == (region.height, region.width):
        return x[top:bottom, left:right]
    out = np.zeros((region.height, region.width, *x.shape[2:]), x.dtype)
    if bottom > top and right > left:
        row, column = top - region.top, left - region.left
        inner = x[top:bottom, left:right]
        out[row : row + bottom - top, column : column + right - left] = inner
    return out


def _nearest(mask: Array, region: Region) -> Array:
    """A region of a mask: the value at the middle of each pixel, 0 beyond the edges."""
    if region.keeps_scale:
        return _cut(mask, region)
    rows, columns = (
        start + np.floor((np.arange(count) + 0.5) * (extent / count)).astype(np.int64)
        for start, extent, count in (
            (region.top, region.height, region.to[0]),
            (region.left, region.width, region.to[1]),
        )
    )
    inside = (rows >= 0) & (rows < mask.shape[0])
    across = (columns >= 0) & (columns < mask.shape[1])
    found = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
    found[~inside] = 0
    found[:, ~across] = 0
    return found


def _moved(edges: Array, region: Region) -> Array:
    """Edges in the pixels that a region is brought to."""
    scale = np.array([region.to[1] / region.width, region.to[0] / region.height] * 2, np.float32)
    start = np.array([region.left, region.top] * 2, np.float32)
    return (edges - start) * scale


def _in_colours(x: Array, channels: int) -> Array:
    """Grey repeated, or colours made grey as `classify` makes them. Raises InputError."""
    given = x.shape[2]
    if given == channels:
        return x
    if given == _GREY and channels == _RGB:
        return np.repeat(x, _RGB, 2)
    if given == _RGB and channels == _GREY and x.dtype == np.uint8:
        from convdsl.preprocessing import grey

        return grey(x)
    raise InputError(f"the images have {given} channels, and the network takes {channels}")


def _kept(name: str, array: Array, dtype: DType) -> Array:
    """What is given for a name, in the type that is wanted. InputError where whole numbers are, and
    it holds others, which converting would cut or wrap."""
    made = _typed(array, dtype)
    if dtype.is_integer and array.dtype != made.dtype and (odd := made != array).any():
        kind = "a class is" if name in (LABEL, MASK) else "the network takes"
        raise InputError(f"`{name}` holds {array[odd].flat[0]}; {kind} a whole number ({dtype})")
    return made


def _typed(array: Array, dtype: DType) -> Array:
    """Numbers in an element type of ours."""
    try:
        return convert(array, of_numpy(array.dtype.newbyteorder("=")), dtype)
    except ValueError as error:
        raise InputError(str(error)) from None
