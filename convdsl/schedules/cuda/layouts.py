"""How values lie between kernels on a card.

Channels lie side by side, N H W C: neighbouring threads read neighbouring channels, and the
products of implicit GEMM run along them. The channels of a position are filled up to a multiple
of four, so that each position begins at a multiple of sixteen bytes and is read by vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout

ALIGNED = 4
"""Channels are filled up to a multiple of so many: of f32 sixteen bytes."""

_MAP_RANK = 3  # batch, channels, and at least one axis of space


def layout_of(stage: Stage, operands: Mapping[str, Layout | None]) -> Layout:
    """One block of all channels where there is space, else row by row. Values that only move or
    are computed element by element lie as the largest of what they are made of."""
    shape = stage.target.type.sizes
    made = [layout for layout in operands.values() if layout is not None]
    if len(shape) < _MAP_RANK or any(len(m.shape) == len(shape) and m.axis is None for m in made):
        return Layout(shape)
    return Layout(shape, 1, -(-shape[1] // ALIGNED) * ALIGNED)
