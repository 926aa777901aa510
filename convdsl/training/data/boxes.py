"""Boxes: left, top, right, bottom in pixels, whose edges are whole numbers; perhaps a class before.

[4] or [5] for a sample, [K, 4] or [K, 5] for several boxes of one
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convdsl.training.data.sample import Array

BOXES = "boxes"
EDGES = 4


def with_edges(boxes: Array, change: Callable[[Array], Array]) -> Array:
    """Boxes whose edges, [boxes, 4] in floats, are changed; classes stay."""
    made = boxes.copy() if boxes.dtype.kind == "f" else boxes.astype(np.float32)
    edges = made[..., -EDGES:].copy()
    made[..., -EDGES:] = change(edges.reshape(-1, EDGES)).reshape(edges.shape)
    return made


def clipped(edges: Array, height: int, width: int) -> Array:
    """Edges within the image; a box that lies outside has no area left."""
    return edges.clip(0, np.array([width, height] * 2, edges.dtype))


def with_class(boxes: Array) -> Array:
    """Boxes with a class before, for a loss that tells boxes from background: 1, the first that is
    not background, where they have none."""
    if boxes.shape[-1] != EDGES:
        return boxes
    return np.concatenate([np.ones((*boxes.shape[:-1], 1), boxes.dtype), boxes], -1)
