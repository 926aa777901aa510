"""Samples seen through a map of the plane: image, mask and boxes alike.

    out[y, x] = in[row(y, x), column(y, x)]         positions of pixels' middles

Images are interpolated linearly, masks take the nearest pixel. Beyond the edges there are zeros, or
the image mirrored at the middles of its outermost pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from convdsl.training.data.arrays import X
from convdsl.training.data.boxes import BOXES, clipped, with_edges
from convdsl.training.data.images import MASK
from convdsl.training.data.sample import Array, Sample

BoxMap: TypeAlias = "Callable[[Array], Array]"


@dataclass(frozen=True, slots=True)
class Plane:
    """Where each pixel of the result comes from: f64 rows and columns, [H, W] each, and what
    becomes of boxes [K, 4]."""

    rows: Array
    columns: Array
    boxes: BoxMap
    mirrors: bool = False


def warped(sample: Sample, plane: Plane) -> Sample:
    """The sample seen through the plane."""
    made = dict(sample)
    made[X] = _linear(sample[X], plane)
    if MASK in sample:
        made[MASK] = _nearest(sample[MASK], plane)
    if BOXES in sample:
        made[BOXES] = with_edges(
            sample[BOXES], lambda edges: clipped(plane.boxes(edges), *plane.rows.shape)
        )
    return made


def affine_plane(matrix: Array, height: int, width: int) -> Plane:
    """The plane that moves the image by a matrix [2, 3] of (x, y, 1), pixels' edges being whole."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    columns, rows = (row[0] * x + row[1] * y + row[2] - 0.5 for row in inverse[:2])

    def moved(boxes: Array) -> Array:
        """The hulls of the corners."""
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        ends = corners @ matrix[:, :2].T + matrix[:, 2]
        return np.concatenate([ends.min(1), ends.max(1)], -1)

    return Plane(rows, columns, moved)


def moved_plane(down: Array, right: Array) -> Plane:
    """The plane whose pixel (y, x) comes from (y + down, x + right), each [H, W]; mirrored."""
    height, width = down.shape
    rows, columns = _counted(height)[:, None] + down, _counted(width) + right

    def moved(boxes: Array) -> Array:
        """The hulls of the pixels that come from within; no area where there are none."""
        found = np.zeros((len(boxes), 4))
        for box, (left, top, end, bottom) in zip(found, boxes, strict=True):
            across = (left <= columns + 0.5) & (columns + 0.5 < end)
            within: Array = across & (top <= rows + 0.5) & (rows + 0.5 < bottom)
            x, y = np.flatnonzero(within.any(0)), np.flatnonzero(within.any(1))
            if x.size:
                box[:] = x[0], y[0], x[-1] + 1, y[-1] + 1
        return found

    return Plane(rows, columns, moved, mirrors=True)


def _counted(extent: int) -> Array:
    return np.arange(extent)


def _linear(x: Array, plane: Plane) -> Array:
    """Between the four pixels around; uint8 is rounded to the nearest."""
    rows, columns = np.floor(plane.rows), np.floor(plane.columns)
    down, right = (plane.rows - rows)[..., None], (plane.columns - columns)[..., None]
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    total = np.zeros((*plane.rows.shape, x.shape[2]), np.float32)
    for r, row_share in ((0, 1 - down), (1, down)):
        for c, column_share in ((0, 1 - right), (1, right)):
            share = (row_share * column_share).astype(np.float32)
            total += share * _taken(x, top + r, left + c, plane.mirrors)
    if x.dtype == np.uint8:
        return np.rint(total).astype(np.uint8)
    return total


def _nearest(mask: Array, plane: Plane) -> Array:
    rows = np.floor(plane.rows + 0.5).astype(np.int64)
    columns = np.floor(plane.columns + 0.5).astype(np.int64)
    return _taken(mask, rows, columns, plane.mirrors)


def _taken(array: Array, rows: Array, columns: Array, mirrors: bool) -> Array:
    """Elements of [H, W, ...] at whole positions."""
    height, width = array.shape[:2]
    if mirrors:
        return array[mirrored(rows, height), mirrored(columns, width)]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = array[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    found[~inside] = 0
    return found


def mirrored(positions: Array, extent: int) -> Array:
    """Positions within 0 .. extent - 1, from an endless line mirrored at both."""
    period = max(1, 2 * (extent - 1))
    folded = positions % period
    return np.minimum(folded, period - folded) if extent > 1 else np.zeros_like(positions)
