"""One node of any kind that is read, as an opset defines it, its operands and attributes drawn."""

from __future__ import annotations

from op_cases.draw import Draw

from interop import (
    drawn_arithmetic,
    drawn_compositions,
    drawn_layers,
    drawn_positions,
    drawn_recurrent,
    drawn_reductions,
    drawn_sampling,
    drawn_views,
)
from interop.drawn_node import Generator, Node

GENERATORS: dict[str, Generator] = {
    **drawn_arithmetic.GENERATORS,
    **drawn_views.GENERATORS,
    **drawn_layers.GENERATORS,
    **drawn_reductions.GENERATORS,
    **drawn_positions.GENERATORS,
    **drawn_compositions.GENERATORS,
    **drawn_sampling.GENERATORS,
    **drawn_recurrent.GENERATORS,
}
"""How nodes of each kind are drawn."""


def draw_node(kind: str, opset: int, seed: int) -> Node:
    """Node number `seed` of a kind as an opset defines it; the same on every run and machine."""
    return GENERATORS[kind](kind, Draw(seed, opset, *kind.encode()), opset)
