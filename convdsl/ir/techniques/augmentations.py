"""Augmentations of images and batches."""

from __future__ import annotations

from convdsl.ir.techniques.record import (
    COUNT,
    FRACTION,
    FRACTIONS,
    MANY,
    NEEDED,
    RANGE,
    RATE,
    SIZE,
    Argument,
    Table,
    Technique,
    table,
)

_ODDS = Argument("probability", FRACTION, 0.5, "how often")
_SIZE = Argument("size", SIZE, None, "of the result; the model's input")
_AREA = Argument("scale", RANGE, [0.08, 1.0], "share of the image's area")
_RATIO = Argument("ratio", RANGE, [3 / 4, 4 / 3], "width / height")


def _jitter(name: str) -> Argument:
    return Argument(name, RATE, 0.0, "times 1 - amount to 1 + amount")


AUGMENTATIONS: Table = table(
    Technique(
        "random_crop",
        "a part, where chance has it",
        (_SIZE, Argument("pad", COUNT, 0, "zeros added on all sides before")),
    ),
    Technique(
        "random_resized_crop", "a part of any size and shape, resized", (_SIZE, _AREA, _RATIO)
    ),
    Technique("horizontal_flip", "left and right exchanged", (_ODDS,)),
    Technique("vertical_flip", "top and bottom exchanged", (_ODDS,)),
    Technique(
        "rotate",
        "around the middle",
        (Argument("degrees", RATE, NEEDED, "at most, either way"),),
    ),
    Technique(
        "color_jitter",
        "other light",
        (
            _jitter("brightness"),
            _jitter("contrast"),
            _jitter("saturation"),
            Argument("hue", RATE, 0.0, "turned by -amount to amount; 0.5 is half the circle"),
        ),
    ),
    Technique(
        "erase",
        "a rectangle of zeros; Zhong et al. 2020",
        (
            _ODDS,
            Argument("scale", RANGE, [0.02, 0.33], "share of the image's area"),
            Argument("ratio", RANGE, [0.3, 3.3], "width / height"),
        ),
    ),
    Technique(
        "mixup",
        "with another of the batch, and so the labels; Zhang et al. 2018",
        (Argument("alpha", RATE, 1.0, "of the beta distribution; 0 changes nothing"),),
    ),
    Technique(
        "cutmix",
        "a part of another of the batch, and of the labels; Yun et al. 2019",
        (Argument("alpha", RATE, 1.0, "of the beta distribution; 0 changes nothing"),),
    ),
    Technique(
        "affine",
        "turned, moved, scaled and sheared around the middle",
        (
            Argument("degrees", RATE, 0.0, "at most, either way"),
            Argument(
                "translate", FRACTIONS, 0.0, "at most, in shares of the size; or [down, across]"
            ),
            Argument("scale", RANGE, [1.0, 1.0], "least and greatest"),
            Argument("shear", RATE, 0.0, "degrees at most, either way"),
        ),
    ),
    Technique(
        "elastic",
        "moved smoothly, by draws on a coarse grid; Ronneberger et al. 2015",
        (
            Argument("deviation", RATE, 10.0, "of the draws, in pixels"),
            Argument("grid", MANY, 3, "draws along each axis"),
        ),
    ),
    Technique(
        "mirror_pad",
        "more on all sides, mirrored",
        (Argument("pad", COUNT, NEEDED, "pixels on every side"),),
    ),
    Technique(
        "cutout",
        "a square of zeros; DeVries, Taylor 2017",
        (Argument("size", MANY, NEEDED, "of its side, in pixels"),),
    ),
)
