"""What a `.cnn` file declares about turning an image into an input array, in numbers.

The declaration is data only, so that an artifact can carry it. What its steps do to sizes and to
values stands here, once for everybody; convdsl.preprocessing documents the steps and their units,
and carries them out on images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import InputError
from convdsl.tensor import TensorType

Pixels: TypeAlias = "NDArray[np.float64]"

GEOMETRY = ("resize", "center_crop", "pad")
"""The steps that move pixels. The others change their values, and come after."""


@dataclass(frozen=True, slots=True)
class PreprocessingStep:
    """One step from image to array, e.g. `center_crop` with {"fraction": 0.875}."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the model input `input`: steps in order."""

    input: str
    steps: tuple[PreprocessingStep, ...]

    @property
    def geometry(self) -> tuple[PreprocessingStep, ...]:
        """The steps before arithmetic."""
        return tuple(takewhile(lambda step: step.name in GEOMETRY, self.steps))

    @property
    def arithmetic(self) -> tuple[PreprocessingStep, ...]:
        """From the first step on that changes values."""
        return self.steps[len(self.geometry) :]

    def to_json(self) -> dict[str, Any]:
        steps = [{"name": s.name, "arguments": dict(s.arguments)} for s in self.steps]
        return {"input": self.input, "steps": steps}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Preprocessing:
        steps = (PreprocessingStep(s["name"], s["arguments"]) for s in data["steps"])
        return Preprocessing(data["input"], tuple(steps))


def usual_preprocessing(input: str, type: TensorType, fit: str) -> Preprocessing:
    """What becomes of images where a text declares nothing: pixels of 0 to 1, at the size of the
    input [N, C, H, W] if it has one, `resize`d to it or, with the fit `pad`, centred in zeros."""
    rescale = PreprocessingStep("rescale", {"factor": 1 / 255})
    size = list(type.shape[2:])
    if not all(isinstance(extent, int) for extent in size):
        return Preprocessing(input, (rescale,))
    return Preprocessing(input, (PreprocessingStep(fit, {"size": size}), rescale))


# Where pixels go


@dataclass(frozen=True, slots=True)
class Region:
    """The part of an image that is taken, and the size it is brought to.

        x' = (x - left) * to[1] / width        y' = (y - top) * to[0] / height

    In pixels, whose edges are whole numbers. A region may reach beyond the image, where all is 0.
    """

    top: int
    left: int
    height: int
    width: int
    to: tuple[int, int]  # height, width

    @property
    def keeps_scale(self) -> bool:
        """Whether pixels stay pixels."""
        return self.to == (self.height, self.width)


def regions(step: PreprocessingStep, height: int, width: int) -> tuple[Region, ...]:
    """What a step of geometry does to an image of this size, one region after the other.
    InputError where it cannot be done."""
    size: Any = step.arguments.get("size")
    match step.name:
        case "resize" if isinstance(size, int):
            return (_whole(height, width, _shorter_side(size, height, width)),)
        case "resize":
            return (_whole(height, width, (size[0], size[1])),)
        case "center_crop" if "fraction" in step.arguments:
            side = max(1, int(step.arguments["fraction"] * min(height, width)))
            return (Region((height - side) // 2, (width - side) // 2, side, side, (side, side)),)
        case "center_crop":
            wanted = _pair(size)
            if wanted[0] > height or wanted[1] > width:
                raise InputError(
                    f"the image is {height}x{width} here, too small to crop {wanted[0]}x{wanted[1]}"
                )
            return (_middle(height, width, wanted),)
        case _:
            return _padded(height, width, _pair(size))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _shorter_side(size: int, height: int, width: int) -> tuple[int, int]:
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def _padded(height: int, width: int, wanted: tuple[int, int]) -> tuple[Region, ...]:
    """Shrunk in proportion where it is too large, then in the middle of zeros."""
    made: list[Region] = []
    if height > wanted[0] or width > wanted[1]:
        if wanted[0] * width <= wanted[1] * height:
            smaller = (wanted[0], max(1, wanted[0] * width // height))
        else:
            smaller = (max(1, wanted[1] * height // width), wanted[1])
        made.append(_whole(height, width, smaller))
        height, width = smaller
    return (*made, _middle(height, width, wanted))


def _whole(height: int, width: int, to: tuple[int, int]) -> Region:
    return Region(0, 0, height, width, to)


def _middle(height: int, width: int, size: tuple[int, int]) -> Region:
    """Half pixels are rounded to even."""
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return Region(top, left, *size, size)


# What values become


def changed(pixels: Pixels, steps: Sequence[PreprocessingStep]) -> Pixels:
    """Pixels [H, W, C] after steps of arithmetic. InputError where they do not fit."""
    for step in steps:
        if step.name in GEOMETRY:
            raise InputError(f"{step.name} must come before rescale and normalize")
        if step.name == "rescale":
            pixels = pixels * float(step.arguments["factor"])
            continue
        mean, std = (_per_channel(step, name, pixels.shape[2]) for name in ("mean", "std"))
        if not np.all(std):
            raise InputError("normalize: a standard deviation of 0 divides by zero")
        pixels = (pixels - mean) / std
    return pixels


def _per_channel(step: PreprocessingStep, name: str, channels: int) -> Pixels:
    values = np.atleast_1d(np.asarray(step.arguments[name], np.float64))
    if values.shape not in ((1,), (channels,)):
        raise InputError(f"normalize: {values.size} values of {name} for {channels} channels")
    return values
