"""Augmentation that moves pixels, and masks and boxes with them.

Draws and formulas are torchvision's where it has the thing (transforms v2), except that images are
interpolated linearly and masks by the nearest pixel everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Region
from convdsl.training.data.arrays import X
from convdsl.training.data.augmentation.warps import (
    affine_plane,
    mirrored,
    moved_plane,
    warped,
)
from convdsl.training.data.boxes import BOXES, with_edges
from convdsl.training.data.draws import Draws
from convdsl.training.data.images import MASK
from convdsl.training.data.preparation import placed
from convdsl.training.data.sample import Array, Sample

Change: TypeAlias = "Callable[[Sample, Draws], Sample]"
Arguments: TypeAlias = "Mapping[str, Any]"

ATTEMPTS = 10
"""At finding a part of drawn area and shape that fits into the image."""


@dataclass(frozen=True, slots=True)
class Known:
    """What augmentation knows of the network: the size of its images (None where any will do), how
    its text resizes, and how many classes it tells apart."""

    size: tuple[int | None, int | None] = (None, None)
    filter: str = "bilinear"
    classes: int | None = None


# Parts


def random_crop(arguments: Arguments, known: Known) -> Change:
    """A part of the given size, anywhere, after zeros were added on all sides."""
    size, pad = _size(arguments["size"], known, "random_crop"), int(arguments["pad"])

    def change(sample: Sample, draws: Draws) -> Sample:
        height, width = sample[X].shape[:2]
        spare = height + 2 * pad - size[0], width + 2 * pad - size[1]
        if min(spare) < 0:
            raise InputError(
                f"random_crop: an image of {height}x{width} is too small to crop "
                f"{size[0]}x{size[1]}\nhelp: say how much is added, random_crop(pad = 4), or "
                "resize images before"
            )
        top, left = (draws.between(0, most) - pad for most in spare)
        return placed(sample, Region(top, left, *size, size))

    return change


def random_resized_crop(arguments: Arguments, known: Known) -> Change:
    """A part of drawn area and shape, anywhere, resized. Szegedy et al. 2015."""
    size = _size(arguments["size"], known, "random_resized_crop")
    scale, ratio = arguments["scale"], arguments["ratio"]

    def change(sample: Sample, draws: Draws) -> Sample:
        height, width = sample[X].shape[:2]
        for _ in range(ATTEMPTS):
            rows, columns = drawn_shape(draws, height * width, scale, ratio)
            if 0 < rows <= height and 0 < columns <= width:
                top, left = draws.between(0, height - rows), draws.between(0, width - columns)
                break
        else:
            rows, columns = _widest(height, width, ratio)
            top, left = (height - rows) // 2, (width - columns) // 2
        return placed(sample, Region(top, left, rows, columns, size), known.filter)

    return change


def drawn_shape(
    draws: Draws, area: int, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[int, int]:
    """(height, width) of a share of an area, of a ratio width / height even in its logarithm."""
    wanted = area * draws.uniform(*scale)
    shape = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(wanted / shape)), round(math.sqrt(wanted * shape))


def _widest(height: int, width: int, ratio: Sequence[float]) -> tuple[int, int]:
    """The largest part whose ratio is allowed."""
    if width < ratio[0] * height:
        return max(1, round(width / ratio[0])), width
    if width > ratio[1] * height:
        return height, max(1, round(height * ratio[1]))
    return height, width


def mirror_pad(arguments: Arguments, known: Known) -> Change:
    """More on all sides, mirrored at the middle of the outermost pixels. Boxes move along."""
    pad = int(arguments["pad"])

    def change(sample: Sample, draws: Draws) -> Sample:
        height, width = sample[X].shape[:2]
        rows, columns = (mirrored(_range(-pad, n + pad), n) for n in (height, width))
        made = dict(sample)
        made |= {name: sample[name][rows][:, columns] for name in (X, MASK) if name in sample}
        if BOXES in sample:
            made[BOXES] = with_edges(sample[BOXES], lambda edges: edges + pad)
        return made

    return change


def _range(start: int, stop: int) -> Array:
    return np.arange(start, stop)


# The whole


def horizontal_flip(arguments: Arguments, known: Known) -> Change:
    """Left and right exchanged, now and then."""
    return _flip(arguments["probability"], 1)


def vertical_flip(arguments: Arguments, known: Known) -> Change:
    """Top and bottom exchanged, now and then."""
    return _flip(arguments["probability"], 0)


def _flip(probability: float, axis: int) -> Change:
    def change(sample: Sample, draws: Draws) -> Sample:
        if not draws.happens(probability):
            return sample
        made = dict(sample)
        made |= {name: np.flip(sample[name], axis) for name in (X, MASK) if name in sample}
        if BOXES in sample:
            extent = sample[X].shape[axis]
            made[BOXES] = with_edges(sample[BOXES], lambda edges: _mirrored(edges, axis, extent))
        return made

    return change


def _mirrored(edges: Array, axis: int, extent: int) -> Array:
    """Boxes after a flip of an axis: what was its end is its start."""
    start, end = (0, 2) if axis else (1, 3)
    made = edges.copy()
    made[:, start], made[:, end] = extent - edges[:, end], extent - edges[:, start]
    return made


def rotate(arguments: Arguments, known: Known) -> Change:
    """Around the middle."""
    most = float(arguments["degrees"])
    return affine({"degrees": most, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0}, known)


def affine(arguments: Arguments, known: Known) -> Change:
    """Turned, moved, scaled and sheared around the middle.

        T(c + t) R(angle) [[1, -tan shear], [0, 1]] scale T(-c)

    The angle is clockwise; a move is of whole pixels.
    """
    degrees, shear = float(arguments["degrees"]), float(arguments["shear"])
    moves: Any = arguments["translate"]
    down, across = cast("list[float]", moves) if isinstance(moves, Sequence) else (moves, moves)

    def change(sample: Sample, draws: Draws) -> Sample:
        height, width = sample[X].shape[:2]
        angle = math.radians(draws.uniform(-degrees, degrees))
        moved = (
            round(draws.uniform(-across, across) * width),
            round(draws.uniform(-down, down) * height),
        )
        scale = draws.uniform(*arguments["scale"])
        slope = math.tan(math.radians(draws.uniform(-shear, shear)))
        matrix = affine_matrix(angle, moved, scale, slope, (width / 2, height / 2))
        if np.array_equal(matrix, np.eye(2, 3)):
            return sample
        return warped(sample, affine_plane(matrix, height, width))

    return change


def affine_matrix(
    angle: float,
    moved: tuple[float, float],
    scale: float,
    slope: float,
    middle: tuple[float, float],
) -> Array:
    """[2, 3], of (x, y, 1)."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = scale * turn @ np.array([[1.0, -slope], [0.0, 1.0]])
    rest = np.add(middle, moved) - linear @ np.array(middle)
    return np.column_stack([linear, rest])


def elastic(arguments: Arguments, known: Known) -> Change:
    """Moved smoothly: normal draws on a coarse grid over the image, bicubic in between.
    Ronneberger, Fischer, Brox 2015, "U-Net", section 3.1."""
    deviation, grid = float(arguments["deviation"]), int(arguments["grid"])

    def change(sample: Sample, draws: Draws) -> Sample:
        height, width = sample[X].shape[:2]
        drawn = deviation * draws.normals(2 * grid * grid).reshape(2, grid, grid)
        down, right = bicubic(height, grid) @ drawn @ bicubic(width, grid).T
        return warped(sample, moved_plane(down, right))

    return change


def bicubic(count: int, nodes: int) -> Array:
    """[count, nodes]: interpolates `count` positions, the first and the last on the first and the
    last node. Keys 1981, with a = -0.75 and nodes repeated at the ends, as PyTorch's."""
    a = -0.75
    at = np.arange(count) * ((nodes - 1) / max(1, count - 1))
    base = np.floor(at)
    matrix = np.zeros((count, nodes))
    for tap in range(-1, 3):
        t = np.abs(at - base - tap)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((t - 5) * t + 8) * t * a - 4 * a
        node = (base + tap).clip(0, nodes - 1).astype(np.int64)
        np.add.at(matrix, (np.arange(count), node), np.where(t <= 1, near, far))
    return matrix


def _size(given: Any, known: Known, name: str) -> tuple[int, int]:
    """(height, width), said or the network's."""
    height, width = known.size if given is None else _pair(given)
    if height is None or width is None:
        raise InputError(
            f"{name} has no size: the network takes images of any\nhelp: {name}(size = 224)"
        )
    return height, width


def _pair(given: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(given, int):
        return given, given
    if len(given) != 2:
        raise InputError(f"an image has height and width, not {len(given)} sizes")
    return given[0], given[1]
