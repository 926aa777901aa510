"""Numbers as colours: one scale for what has an order, one for what has signs."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8]"

# Nine points of viridis (Smith, van der Walt 2015, CC0): even in lightness, also in grey.
_ORDER = (
    *((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142)),
    *((31, 158, 137), (53, 183, 121), (144, 215, 67), (253, 231, 37)),
)
# From blue for -1 through white to red for 1.
_SIGNS = (
    *((33, 84, 158), (103, 160, 206), (209, 229, 240), (255, 255, 255)),
    *((250, 219, 199), (225, 130, 104), (165, 24, 40)),
)


def ordered(values: NDArray[Any], low: float = 0.0, high: float = 1.0) -> Pixels:
    """Colours [..., 3] of values between two limits, dark to light; what is not finite is grey."""
    span = high - low
    place = (np.asarray(values, np.float64) - low) / span if span > 0 else np.zeros_like(values)
    return _mixed(place, _ORDER)


def signed(values: NDArray[Any], most: float = 1.0) -> Pixels:
    """Colours [..., 3] of values between -most and most: blue, white, red."""
    place = np.asarray(values, np.float64) / (2 * most) + 0.5 if most > 0 else values * 0.0 + 0.5
    return _mixed(place, _SIGNS)


def _mixed(place: NDArray[Any], points: tuple[tuple[int, int, int], ...]) -> Pixels:
    known = np.isfinite(place)
    at = np.clip(np.where(known, place, 0.0), 0, 1) * (len(points) - 1)
    marks = np.arange(len(points))
    colours = np.stack([np.interp(at, marks, [p[c] for p in points]) for c in range(3)], -1)
    return np.where(known[..., None], colours.round(), 128).astype(np.uint8)
