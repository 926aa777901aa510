"""From an image to a model's input array, as the `.cnn` file declares it: the same everywhere.

The image is turned upright (EXIF), laid on white where it is transparent, and made RGB, or
grey for a model of one channel. Then the steps, in order; sizes are (height, width):

    resize(S | HxW, filter)        S: the shorter side, the other in proportion, rounded down
                                   (torchvision's rule); Pillow's resampling, 8 bits a channel
    center_crop(S | HxW)           the middle, half pixels rounded to even (torchvision's rule)
    center_crop(fraction)          a square of that part of the shorter side; side and offsets
                                   rounded down
    rescale(factor)                x * factor, from pixels 0 .. 255
    normalize(mean, std)           (x - mean) / std, per channel

Geometry precedes arithmetic. The result is [1, C, H, W] in the model's type.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import convert

try:
    from PIL import Image, ImageOps
except ModuleNotFoundError:
    raise InputError("images need Pillow: pip install 'convdsl[images]'") from None

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by the model's number of channels."""

MOST_DECODED_BYTES = 800_000_000
"""What an image may take while it is opened: 12 bytes a pixel, 24 where it is transparent (as read,
upright, laid on white, in the model's mode): 66 and 33 million pixels."""

MOST_PIXELS = 8 << 20
"""Pixels that arithmetic is done on, at 24 bytes each and for several arrays at once."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""File formats that are opened. Pillow knows more, some of which start other programs."""


def prepare(
    image: str | Path | Image.Image, preprocessing: Preprocessing, input_type: TensorType
) -> NDArray[Any]:
    """The input array of one image. Raises InputError for images that cannot be read and for
    steps that do not lead to the input's shape."""
    channels = input_type.shape[1] if input_type.rank == 4 else None
    if channels not in MODES:
        raise InputError(f"images become inputs of [N, 1 or 3, H, W], not {input_type}")
    current: Image.Image | NDArray[np.float64] = _opened(image, MODES[cast("int", channels)])
    for step in preprocessing.steps:
        current = STEPS[step.name](current, step)
    array = _pixels(current).transpose(2, 0, 1)[None]
    wanted = input_type.shape[2:]
    if any(isinstance(w, int) and w != n for w, n in zip(wanted, array.shape[2:], strict=True)):
        height, width = array.shape[2:]
        raise InputError(f"the image becomes {height}x{width}, the model takes {input_type}")
    return np.ascontiguousarray(convert(array, DType.F64, input_type.dtype))


def _opened(image: str | Path | Image.Image, mode: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return _plain(image, mode)
    path = Path(image)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"the image {path} is not a plain file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()  # `formats` finds only what is loaded
            with Image.open(path, formats=FORMATS) as file:
                return _plain(file, mode)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  the decoders' exceptions have no other base
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read the image {path}: {reason}") from None


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Upright, opaque, 8 bits a channel. Its size is known, and checked, before it is decoded."""
    needed = image.width * image.height * (24 if image.has_transparency_data else 12)
    if needed > MOST_DECODED_BYTES:
        raise InputError(
            f"an image of {image.width}x{image.height} pixels takes {needed / 1e6:,.0f} MB "
            f"to open, more than {MOST_DECODED_BYTES / 1e6:,.0f}: make it smaller"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise InputError("images of floating-point pixels have no common scale; convert them first")
    if upright.mode.startswith("I"):
        upright = _eight_bits(upright)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        upright = Image.alpha_composite(white, coloured)
    return upright.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; Pillow's own conversion would clip it."""
    values: NDArray[Any] = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise InputError("grey values beyond 16 bits have no common scale; convert them first")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _resize(current: Image.Image | NDArray[Any], step: PreprocessingStep) -> Image.Image:
    image = _image(current, step)
    width, height = image.size
    size: int | Sequence[int] = step.arguments["size"]
    if isinstance(size, int):
        if width <= height:
            target = (size, int(size * height / width))
        else:
            target = (int(size * width / height), size)
    else:
        target = (size[1], size[0])
    if max(target) * min(target) > cast("int", Image.MAX_IMAGE_PIXELS):
        raise InputError(f"resizing {width}x{height} to {target[0]}x{target[1]} is too large")
    return image.resize(target, FILTERS[step.arguments.get("filter", "bilinear")])


def _center_crop(current: Image.Image | NDArray[Any], step: PreprocessingStep) -> Image.Image:
    image = _image(current, step)
    if "fraction" in step.arguments:
        side = max(1, int(step.arguments["fraction"] * min(image.size)))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))
    size: int | Sequence[int] = step.arguments["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if width > image.width or height > image.height:
        raise InputError(
            f"the image is {image.height}x{image.width} here, too small to crop {height}x{width}"
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _rescale(current: Image.Image | NDArray[Any], step: PreprocessingStep) -> NDArray[np.float64]:
    return _pixels(current) * float(step.arguments["factor"])


def _normalize(current: Image.Image | NDArray[Any], step: PreprocessingStep) -> NDArray[np.float64]:
    pixels = _pixels(current)
    mean, std = (_per_channel(step, name, pixels.shape[2]) for name in ("mean", "std"))
    if not np.all(std):
        raise InputError("normalize: a standard deviation of 0 divides by zero")
    return (pixels - mean) / std


STEPS = {
    "resize": _resize,
    "center_crop": _center_crop,
    "rescale": _rescale,
    "normalize": _normalize,
}
"""What carries out each step of a declaration, by name."""


def _image(current: Image.Image | NDArray[Any], step: PreprocessingStep) -> Image.Image:
    if not isinstance(current, Image.Image):
        raise InputError(f"{step.name} must come before rescale and normalize")
    return current


def _pixels(current: Image.Image | NDArray[Any]) -> NDArray[np.float64]:
    """[H, W, C], 0 .. 255 to begin with."""
    if isinstance(current, Image.Image) and current.width * current.height > MOST_PIXELS:
        raise InputError(
            f"an input of {current.height}x{current.width} pixels is too large, at most "
            f"{MOST_PIXELS:,}: resize must come before rescale and normalize"
        )
    array: NDArray[np.float64] = np.asarray(current, np.float64)
    return array if array.ndim == 3 else array[:, :, None]


def _per_channel(step: PreprocessingStep, name: str, channels: int) -> NDArray[np.float64]:
    arguments: Mapping[str, Any] = step.arguments
    values = np.atleast_1d(np.asarray(arguments[name], np.float64))
    if values.shape not in ((1,), (channels,)):
        raise InputError(f"normalize: {values.size} values of {name} for {channels} channels")
    return values
