"""Sheets of images side by side: as SVG with their captions, or as pixels alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.drawing import png
from convdsl.drawing.colours import Pixels
from convdsl.drawing.svg import Canvas, element, text, text_width

GAP = 10
CAPTION = 11.0
MARK = (211, 52, 47)
"""The colour of marks on pixels; on SVG it is that of the class `mark`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle around pixels, its edges between them: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """An image [H, W, 3] with what is marked on it. Photographs are smoothed when enlarged."""

    pixels: Pixels
    caption: str = ""
    frames: tuple[Frame, ...] = ()
    smooth: bool = False
    scale: int | None = None  # where it is not that of its sheet


@dataclass(frozen=True, slots=True)
class Sheet:
    """Tiles in rows, enlarged `scale` times; a heading above, notes below."""

    tiles: Sequence[Tile]
    heading: str = ""
    notes: tuple[str, ...] = ()
    scale: int = 1
    columns: int | None = None  # by default about as wide as high

    def canvas(self) -> Canvas:
        columns, cell, tall = self._cells()
        captions = max((text_width(t.caption, CAPTION) for t in self.tiles), default=0.0)
        wide = max(cell, captions)
        room = CAPTION + 6 if captions else 0.0
        top = 40.0 if self.heading else float(GAP)
        parts = [text(self.heading, GAP, 24, size=14, weight="bold")] if self.heading else []
        for number, tile in enumerate(self.tiles):
            row, column = divmod(number, columns)
            x, y = GAP + column * (wide + GAP), top + row * (tall + room + GAP)
            parts.append(self._tile(tile, x, y))
            if tile.caption:
                below = y + tile.pixels.shape[0] * self._scale(tile) + CAPTION + 2
                parts.append(text(tile.caption, x, below, size=CAPTION, class_="faint"))
        rows = ceil(len(self.tiles) / columns)
        height = top + rows * (tall + room + GAP) + 4
        for number, note in enumerate(self.notes):
            parts.append(text(note, GAP, height + 10 + 16 * number, size=CAPTION, class_="faint"))
        height += 16 * len(self.notes) + (4 if self.notes else 0)
        said = [text_width(self.heading, 14), *(text_width(n, CAPTION) for n in self.notes)]
        width = max(columns * (wide + GAP) + GAP, max(said) + 2 * GAP)
        return Canvas("".join(parts), width, height)

    def pixels(self) -> Pixels:
        """The tiles alone, on white."""
        columns, wide, tall = self._cells()
        rows = ceil(len(self.tiles) / columns)
        shape = (rows * (tall + GAP) + GAP, columns * (wide + GAP) + GAP, 3)
        page = np.full(shape, 255, np.uint8)
        for number, tile in enumerate(self.tiles):
            row, column = divmod(number, columns)
            scale = self._scale(tile)
            image = tile.pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            for frame in tile.frames:
                _draw(image, frame, scale)
            y, x = GAP + row * (tall + GAP), GAP + column * (wide + GAP)
            page[y : y + image.shape[0], x : x + image.shape[1]] = image
        return page

    def _cells(self) -> tuple[int, int, int]:
        """How many columns, and the size of the largest tile."""
        tall = max(tile.pixels.shape[0] * self._scale(tile) for tile in self.tiles)
        wide = max(tile.pixels.shape[1] * self._scale(tile) for tile in self.tiles)
        usual = ceil(sqrt(len(self.tiles) * (tall + GAP) / (wide + GAP)))
        return min(self.columns or usual, len(self.tiles)), wide, tall

    def _scale(self, tile: Tile) -> int:
        return tile.scale or self.scale

    def _tile(self, tile: Tile, x: float, y: float) -> str:
        scale = self._scale(tile)
        height, width = (extent * scale for extent in tile.pixels.shape[:2])
        data = base64.b64encode(png.encode(tile.pixels)).decode("ascii")
        image = element(
            "image",
            x=x,
            y=y,
            width=width,
            height=height,
            preserveAspectRatio="none",
            style=None if tile.smooth else "image-rendering: pixelated",
            href=f"data:image/png;base64,{data}",
        )
        return image + "".join(
            element(
                "rect",
                x=x + frame.left * scale,
                y=y + frame.top * scale,
                width=(frame.right - frame.left) * scale,
                height=(frame.bottom - frame.top) * scale,
                class_="mark",
                fill="none",
                stroke_width=2,
                stroke_dasharray="6 4" if frame.dashed else None,
            )
            for frame in tile.frames
        )


def _draw(image: Pixels, frame: Frame, scale: int) -> None:
    """A frame of two pixels, where it lies on the image."""
    height, width = image.shape[:2]
    corners = (frame.left, frame.top, frame.right, frame.bottom)
    left, top, right, bottom = (round(corner * scale) for corner in corners)
    y, x = np.mgrid[0:height, 0:width]
    inside = (x >= left - 1) & (x <= right) & (y >= top - 1) & (y <= bottom)
    core = (x > left) & (x < right - 1) & (y > top) & (y < bottom - 1)
    dots = (x + y) // 5 % 2 == 0 if frame.dashed else True
    image[inside & ~core & dots] = MARK


def bilinear(values: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """Values [h, w] or [h, w, c] at another size, half pixels aligned."""
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    return np.einsum("ih,hw...,jw->ij...", rows, values.astype(np.float64), columns)


def _weights(size: int, to: int) -> NDArray[np.float64]:
    """[to, size], each row the shares of two neighbours."""
    at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    share = np.zeros((to, size))
    share[np.arange(to), low] = 1 - (at - low)
    share[np.arange(to), np.minimum(low + 1, size - 1)] += at - low
    return share
