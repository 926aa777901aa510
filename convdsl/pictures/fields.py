"""Receptive fields over an image: the theoretical one, and the one that gradients show.

A unit is a position of a layer, with all its channels. Its theoretical field is exact
(analysis.receptive_field). Its effective one is that of its gradient (Luo, Li, Urtasun, Zemel 2016,
arXiv:1701.04128, section 2):

    g[h, w] = sum_c |d(sum_k y[k, unit]) / d x[c, h, w]|

and of pixels whose g is more than 4.55 % of the greatest (1 - 95.45 %, two standard deviations,
section 3); its size is the root of their number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.analysis.fields import Field
from convdsl.analysis.receptive_field import propagate
from convdsl.diagnostics import InputError
from convdsl.drawing.colours import ordered
from convdsl.drawing.sheet import Frame, Sheet, Tile
from convdsl.ir.graph import Value
from convdsl.pictures.looking import Sight

THRESHOLD = 1 - 0.9545
"""Of the greatest gradient, from which on a pixel belongs to the effective field."""

MOST_AROUND = 1.0
"""How much of an image's size is shown beyond its borders."""


@dataclass(frozen=True)
class Unit:
    """A position of a layer."""

    value: Value
    position: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.value.name}[{', '.join(map(str, self.position))}]"


@dataclass(frozen=True)
class Effective:
    """The gradient of a unit by pixels [H, W], and what it amounts to."""

    gradient: NDArray[np.float64]

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Pixels of the effective field."""
        most = self.gradient.max()
        return self.gradient > THRESHOLD * most if most > 0 else self.gradient > np.inf

    @property
    def size(self) -> float:
        """The side of a square of as many pixels."""
        return float(np.sqrt(self.inside.sum()))


def unit_of(sight: Sight, said: str) -> Unit:
    """`layer`, its middle, or `layer[3, 4]`. Raises InputError."""
    match = re.fullmatch(r"(.+?)(?:\[\s*(\d+)\s*,\s*(\d+)\s*\])?", said)
    assert match is not None
    value = sight.value(match[1])
    space = tuple(value.type.shape[2:])
    if value.type.rank != 4:
        raise InputError(f"{value.name} is {value.type}; units with a place are of [N, C, H, W]")
    sizes = [int(extent) for extent in space]  # pyright: ignore[reportArgumentType]
    if match[2] is None:
        return Unit(value, tuple((size - 1) // 2 for size in sizes))
    position = (int(match[2]), int(match[3]))
    if any(at >= size for at, size in zip(position, sizes, strict=True)):
        raise InputError(f"{value.name} has {sizes[0]} x {sizes[1]} positions, from [0, 0] on")
    return Unit(value, position)


def theoretical(sight: Sight, unit: Unit) -> Frame | None:
    """The exact field as a frame around pixels; None where no exact one is known."""
    seen = propagate(sight.model.graph)[unit.value]
    at = dict(enumerate(unit.position, start=2))
    spans: list[tuple[int, int]] = []
    for axis in (2, 3):
        found = seen.get((sight.input, axis), Field(()))
        interval = None if found is None else found.at(at)
        if interval is None:
            return None
        spans.append((int(interval.lo), int(interval.hi)))  # pyright: ignore[reportArgumentType]
    (top, bottom), (left, right) = spans
    return Frame(left, top, right + 1, bottom + 1)


def effective(sight: Sight, unit: Unit, weights: Any) -> Effective:
    """The gradient of a unit, by autodiff."""
    sensitivity = sight.sensitivity(unit.value, [sight.input], weights)
    chosen = sensitivity.zeros
    chosen[:, :, *unit.position] = 1.0
    gradient = sensitivity(chosen)[f"d{sight.input}"]
    return Effective(np.abs(gradient.astype(np.float64)).sum(axis=(0, 1)))


def field_sheet(sight: Sight, unit: Unit, weights: Any = None) -> Sheet:
    """The field over the image; with weights, the gradient beside it."""
    frame = theoretical(sight, unit)
    notes = [f"{sight.model.name}, unit {unit}"]
    height, width = sight.photo.shape[:2]
    if frame is None:
        notes.append("theoretical: not of this kind, see docs/analysis.md")
    else:
        size = f"{frame.bottom - frame.top:.0f} x {frame.right - frame.left:.0f}"
        notes.append(f"theoretical: {size} pixels of {height} x {width}")
    frames = () if frame is None else (frame,)
    tiles = [_around(Tile(sight.photo, "theoretical", frames, smooth=True), height, width)]
    if weights is not None:
        found = effective(sight, unit, weights)
        most = found.gradient.max()
        notes.append(f"effective: {found.size:.1f} x {found.size:.1f} pixels, by gradients")
        heat = ordered(np.sqrt(found.gradient), 0.0, float(np.sqrt(most)))
        tiles.append(_around(Tile(heat, "effective (root of gradients)", frames), height, width))
    scale = max(1, round(320 / tiles[0].pixels.shape[1]))
    return Sheet(tiles, "", tuple(notes), scale, columns=len(tiles))


def _around(tile: Tile, height: int, width: int) -> Tile:
    """The image with as much around it as the field needs, in grey."""
    if not tile.frames:
        return tile
    (frame,) = tile.frames
    most = (int(MOST_AROUND * height), int(MOST_AROUND * width))
    top = min(max(0, -int(frame.top)) + 2, most[0]) if frame.top < 0 else 0
    left = min(max(0, -int(frame.left)) + 2, most[1]) if frame.left < 0 else 0
    bottom = min(int(frame.bottom) - height + 2, most[0]) if frame.bottom > height else 0
    right = min(int(frame.right) - width + 2, most[1]) if frame.right > width else 0
    page = np.full((top + height + bottom, left + width + right, 3), 232, np.uint8)
    page[top : top + height, left : left + width] = tile.pixels
    moved = Frame(
        max(frame.left + left, 1),
        max(frame.top + top, 1),
        min(frame.right + left, page.shape[1] - 1),
        min(frame.bottom + top, page.shape[0] - 1),
        frame.dashed,
    )
    return Tile(page, tile.caption, (moved,), tile.smooth)
