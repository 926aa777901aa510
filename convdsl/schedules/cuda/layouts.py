"""How values lie between kernels on a card.

Channels lie side by side, N H W C: neighbouring threads read neighbouring channels, and the
products of implicit GEMM run along them. The channels of a position are filled up to a multiple
of four, of halves eight, so that each position begins at a multiple of sixteen bytes and is read
by vectors.
"""

from __future__ import annotations

from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.schedules.layouts import Operands, has_channels_inside
from convdsl.tensor import DType

_CHANNELS, _HALVES = 4, 8
"""Channels are filled up to a multiple of so many: of f32, and of types of two bytes."""

_MAP_RANK = 3  # batch, channels, and at least one axis of space


def layout_of(stage: Stage, operands: Operands) -> Layout:
    """One block of all channels, or row by row."""
    shape = stage.target.type.sizes
    if len(shape) < _MAP_RANK or not has_channels_inside(stage, operands, _CHANNELS, stored=True):
        return Layout(shape)
    return channels_last(shape, stage.target.type.dtype)


def channels_last(shape: tuple[int, ...], dtype: DType) -> Layout:
    """All channels of a position side by side."""
    step = _HALVES if dtype.bytes == 2 else _CHANNELS
    return Layout(shape, 1, -(-shape[1] // step) * step)
