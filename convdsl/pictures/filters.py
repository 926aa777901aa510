"""The filters of a layer as images: by default of the first one, which still shows patterns."""

from __future__ import annotations

from typing import Any

import numpy as np

from convdsl.bound import bind_weights_of
from convdsl.diagnostics import InputError
from convdsl.drawing.colours import signed
from convdsl.drawing.sheet import Sheet, Tile
from convdsl.ir.classify import OpClass, classify
from convdsl.ir.graph import OpNode, StateNode
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role

RGB = 3


def filters_sheet(model: Model, weights: Any, layer: str | None = None, most: int = 64) -> Sheet:
    """A tile for each filter: in colours where it reads three channels, else one tile a channel.

    All share one scale: grey, or white, is 0. Raises InputError where a layer has no filters.
    """
    node, state = _filters_of(model, layer)
    array = np.asarray(bind_weights_of(model, weights)[state.name], np.float64)
    filters = array.reshape(*array.shape[:2], -1, array.shape[-1])  # of 1-D and 3-D: rows
    scale = float(np.abs(filters).max()) or 1.0
    tiles: list[Tile] = []
    for number, one in enumerate(filters):
        if one.shape[0] == RGB:
            colours = (one / (2 * scale) + 0.5).transpose(1, 2, 0) * 255
            tiles.append(Tile(colours.round().astype(np.uint8), str(number)))
        else:
            tiles += [
                Tile(signed(channel, scale), f"{number}.{c}" if len(one) > 1 else str(number))
                for c, channel in enumerate(one)
            ]
    shape = "x".join(map(str, array.shape))
    notes = [f"{state.name}: {shape}, from {array.min():.3g} to {array.max():.3g}"]
    zero = "grey" if filters.shape[1] == RGB else "white"
    notes.append(f"one scale for all, {zero} is 0")
    if len(tiles) > most:
        notes.append(f"the first {most} of {len(tiles)}")
    size = max(filters.shape[2:])
    return Sheet(
        tiles[:most], f"{model.name}: filters of {node.name}", tuple(notes), max(1, 48 // size)
    )


def _filters_of(model: Model, layer: str | None) -> tuple[OpNode, StateNode]:
    """The layer, by default the first convolution, and its filters."""
    found = {node.name: (node, state) for node in model.graph.op_nodes() for state in _own(node)}
    if layer is None and found:
        return next(iter(found.values()))
    inside = [pair for name, pair in found.items() if name == layer or _is_in(name, layer)]
    if not inside:
        known = ", ".join(list(found)[:5]) or "none"
        raise InputError(f"{model.name} has no filters in {layer}; there are those of {known}")
    return inside[0]


def _is_in(name: str, layer: str | None) -> bool:
    return name.startswith(f"{layer}.")


def _own(node: OpNode) -> list[StateNode]:
    """Weights with axes of space that sums of products are made with."""
    if classify(node.call.kernel) is not OpClass.CONTRACTION:
        return []
    states = (value.node for value in node.inputs.values())
    return [
        state
        for state in states
        if isinstance(state, StateNode) and state.role is Role.PARAMETER and state.type.rank > 2
    ]
