"""From an image to a model's input array, as the `.cnn` file declares it: the same everywhere.

The image is turned upright (EXIF), laid on white where it is transparent, and made RGB, or
grey for a model of one channel. Then the steps, in order; sizes are (height, width):

    resize(S | HxW, filter)        S: the shorter side, the other in proportion, rounded down
                                   (torchvision's rule); Pillow's resampling, 8 bits a channel
    center_crop(S | HxW)           the middle, half pixels rounded to even (torchvision's rule)
    center_crop(fraction)          a square of that part of the shorter side; side and offsets
                                   rounded down
    pad(S | HxW)                   the middle of zeros; what is larger is first shrunk in proportion
    rescale(factor)                x * factor, from pixels 0 .. 255
    normalize(mean, std)           (x - mean) / std, per channel

Geometry precedes arithmetic. The result is [1, C, H, W] in the model's type.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import InputError, reason
from convdsl.ir.preprocess import Preprocessing, Region, changed, regions
from convdsl.places import kind_of, nothing_at
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import convert

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError:
    raise InputError("images need Pillow: pip install 'convdsl[images]'") from None

T = TypeVar("T")

Picture: TypeAlias = "str | Path | bytes | Image.Image"
"""An image: where its file lies, what is in the file, or as Pillow has it."""

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


def prepare(image: Picture, preprocessing: Preprocessing, input_type: TensorType) -> NDArray[Any]:
    """The input array of one image. Raises InputError for images that cannot be read and for
    steps that do not lead to the input's shape."""
    channels = input_type.shape[1] if input_type.rank == 4 else None
    if channels not in MODES:
        raise InputError(f"images become inputs of [N, 1 or 3, H, W], not {input_type}")
    current = opened(image, cast("int", channels))
    for step in preprocessing.geometry:
        for region in regions(step, current.height, current.width):
            current = taken(current, region, step.arguments.get("filter", "bilinear"))
    array = changed(_pixels(current), preprocessing.arithmetic).transpose(2, 0, 1)[None]
    wanted = input_type.shape[2:]
    if any(isinstance(w, int) and w != n for w, n in zip(wanted, array.shape[2:], strict=True)):
        height, width = array.shape[2:]
        raise InputError(f"the image becomes {height}x{width}, the model takes {input_type}")
    return np.ascontiguousarray(convert(array, DType.F64, input_type.dtype))


def opened(image: Picture, channels: int) -> Image.Image:
    """An image upright, opaque, of 8 bits a channel, grey (1) or RGB (3). Raises InputError."""
    mode = MODES[channels]
    if isinstance(image, Image.Image):
        return _plain(image, mode)
    return _read(image, lambda file: _plain(file, mode))


def stored(path: str | Path) -> NDArray[Any]:
    """The numbers in a file, upright, as they are: bits, grey of 8 or 16 bits, or places in its
    palette, [H, W]; of colours [H, W, C]. Raises InputError."""
    return _read(path, lambda file: np.asarray(_upright(file)))


def _read(image: str | Path | bytes, take: Callable[[Image.Image], T]) -> T:
    """What `take` makes of the image in a file, or in the bytes of one. Raises InputError."""
    source = io.BytesIO(image) if isinstance(image, bytes) else Path(image)
    named = "the image" if isinstance(image, bytes) else f"the image {image}"
    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():
            more = " but a folder: name the images in it" if source.is_dir() else ""
            raise InputError(f"{named} is not a plain file{more}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()  # `formats` finds only what is loaded
            with Image.open(source, formats=FORMATS) as file:
                return take(file)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  the decoders' exceptions have no other base
        why = reason(error)
        if isinstance(error, UnidentifiedImageError) and isinstance(image, bytes):
            why = f"it is none of {', '.join(FORMATS)}"  # Pillow names an address in memory
        elif isinstance(error, UnidentifiedImageError):
            why = f"it is {kind_of(Path(str(image)))}"
        elif isinstance(error, FileNotFoundError):
            why = "there is no such file" + nothing_at(str(image), said="")
        raise InputError(f"cannot read {named}: {why}") from None


def _upright(image: Image.Image) -> Image.Image:
    """Its size is known, and checked, before it is decoded."""
    needed = image.width * image.height * (24 if image.has_transparency_data else 12)
    if needed > MOST_DECODED_BYTES:
        raise InputError(
            f"an image of {image.width}x{image.height} pixels takes {needed / 1e6:,.0f} MB "
            f"to open, more than {MOST_DECODED_BYTES / 1e6:,.0f}: make it smaller"
        )
    return ImageOps.exif_transpose(image)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Upright, opaque, 8 bits a channel."""
    upright = _upright(image)
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


def taken(image: Image.Image, region: Region, filter: str = "bilinear") -> Image.Image:
    """A region of an image, at the size that it is brought to."""
    if not region.keeps_scale:
        height, width = region.to
        if height * width > cast("int", Image.MAX_IMAGE_PIXELS):
            raise InputError(
                f"resizing {image.width}x{image.height} to {width}x{height} is too large"
            )
        box = (region.left, region.top, region.left + region.width, region.top + region.height)
        return image.resize((width, height), FILTERS[filter], box)
    if region == Region(0, 0, image.height, image.width, region.to):
        return image
    right, bottom = region.left + region.width, region.top + region.height
    return image.crop((region.left, region.top, right, bottom))


# The same on arrays [H, W, C]


def resampled(pixels: NDArray[Any], region: Region, filter: str = "bilinear") -> NDArray[Any]:
    """`taken`, of each channel: 8 bits of u8, f32 of f32."""
    planes = [
        np.asarray(taken(Image.fromarray(np.ascontiguousarray(pixels[..., c])), region, filter))
        for c in range(pixels.shape[2])
    ]
    return np.stack(planes, -1)


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB as one channel."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert(MODES[1])
    return np.asarray(image)[..., None]


def _pixels(image: Image.Image) -> NDArray[np.float64]:
    """[H, W, C], 0 .. 255."""
    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"an input of {image.height}x{image.width} pixels is too large, at most "
            f"{MOST_PIXELS:,}: resize must come before rescale and normalize"
        )
    array: NDArray[np.float64] = np.asarray(image, np.float64)
    return array if array.ndim == 3 else array[:, :, None]
