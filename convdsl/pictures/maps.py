"""What a layer puts out for an image, and where a class was seen in it.

Gradient-weighted class activation (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2): for
the score y of a class and maps A of a layer,

    a[k] = mean_ij dy / dA[k, i, j]        L = relu(sum_k a[k] A[k])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.bound import images_of
from convdsl.diagnostics import InputError
from convdsl.drawing.colours import ordered, signed
from convdsl.drawing.sheet import Sheet, Tile, bilinear
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.pictures.looking import Sight

TARGET = 96
"""Pixels that a map is enlarged to, about."""

OVERLAY = 0.5
"""How much of a photo shows through a heat map."""


def maps_sheet(sight: Sight, layer: str, weights: Any, most: int = 64) -> Sheet:
    """A tile for each channel of a layer, each on a scale of its own: dark to light from its least
    to its greatest number, or blue to red around 0 where there are negative ones."""
    value = sight.value(layer)
    array = sight.shown([value.name], weights)[value.name][0].astype(np.float64)
    maps = array if array.ndim == 3 else np.atleast_2d(array)[None]
    if maps.ndim != 3:
        raise InputError(f"{value.name} is {value.type}; maps are of [N, C, H, W]")
    tiles = [Tile(_coloured(one), str(channel)) for channel, one in enumerate(maps[:most])]
    finite = array[np.isfinite(array)]
    span = f"from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "nothing finite"
    flat = int(sum(bool((one == one.flat[0]).all()) for one in maps))
    notes = [f"{value.name}: {value.type}, {span}; each map on its own scale"]
    notes += [f"{flat} of {len(maps)} maps have one value everywhere"] if flat else []
    notes += [f"the first {most} of {len(maps)}"] if len(maps) > most else []
    scale = max(1, TARGET // max(maps.shape[1:]))
    heading = f"{sight.model.name}: maps of {value.name}"
    height, width = (extent * scale for extent in maps.shape[1:])
    small = bilinear(sight.photo, height, width).round().astype(np.uint8)
    image = Tile(small, "input", smooth=True, scale=1)
    return Sheet([image, *tiles], heading, tuple(notes), scale)


def _coloured(one: NDArray[np.float64]) -> NDArray[np.uint8]:
    known = one[np.isfinite(one)]
    if known.size and known.min() < 0:
        return signed(one, float(np.abs(known).max()))
    return ordered(one, float(known.min(initial=0.0)), float(known.max(initial=0.0)))


@dataclass(frozen=True)
class ClassMap:
    """Where a class was seen: L at the size of the layer, not below 0, and the class's score."""

    layer: str
    index: int
    label: str | None
    score: float
    map: NDArray[np.float64]


def class_map(
    sight: Sight,
    weights: Any,
    chosen: str | None = None,
    layer: str | None = None,
    of: str | None = None,
) -> ClassMap:
    """Grad-CAM of a class (its number, its label, or None: the likeliest).

    layer: by default the last one that still has space. of: which value is the scores, by default
    the first output. Raises InputError.
    """
    graph = sight.model.graph
    scores = sight.value(of) if of else next(iter(graph.outputs.values()))
    if scores.type.rank < 2:
        raise InputError(f"{scores.name} is {scores.type}; scores of classes are [N, K, ...]")
    value = sight.value(layer) if layer else _last_with_space(graph, scores)
    if value.type.rank != 4:
        raise InputError(f"{value.name} is {value.type}; it has no maps [N, C, H, W]")
    sensitivity = sight.sensitivity(scores, [value.name], weights)
    labels = images_of(sight.model, weights)[1] or ()
    seen = sensitivity(sensitivity.zeros)[scores.name][0]
    totals = seen.reshape(len(seen), -1).sum(axis=1)
    index = int(totals.argmax()) if chosen is None else _index(chosen, labels, len(totals))
    weighing = sensitivity.zeros
    weighing[:, index] = 1.0
    found = sensitivity(weighing)
    maps, slopes = (found[n][0].astype(np.float64) for n in (value.name, f"d{value.name}"))
    means = slopes.mean(axis=(1, 2))
    heat = np.maximum(np.tensordot(means, maps, 1), 0)
    label = labels[index] if index < len(labels) else None
    return ClassMap(value.name, index, label, float(totals[index]), heat)


def class_sheet(sight: Sight, found: ClassMap) -> Sheet:
    """The photo, and the heat map over it."""
    height, width = sight.photo.shape[:2]
    most = float(found.map.max()) or 1.0
    heat = bilinear(found.map, height, width)
    mixed = OVERLAY * sight.photo + (1 - OVERLAY) * ordered(heat, 0.0, most)
    name = found.label or f"class {found.index}"
    tiles = [
        Tile(sight.photo, "input", smooth=True),
        Tile(mixed.round().astype(np.uint8), name, smooth=True),
    ]
    notes = [
        f"{sight.model.name}: class {found.index}, score {found.score:.4g}",
        f"Grad-CAM at {found.layer}, {found.map.shape[0]} x {found.map.shape[1]} positions",
    ]
    if not found.map.any():
        notes.append("nothing there speaks for this class")
    return Sheet(tiles, "", tuple(notes), max(1, round(320 / width)), columns=2)


def _last_with_space(graph: Graph, scores: Value) -> Value:
    """The last value before the scores that has more than one position."""
    waiting, before = [scores.node], set[int]()
    while waiting:
        node = waiting.pop()
        if node.id in before or not isinstance(node, OpNode):
            continue
        before.add(node.id)
        waiting += [value.node for value in node.inputs.values()]
    for node in reversed(graph.op_nodes()):
        value = node.outputs[0]
        space = value.type.shape[2:]
        if node.id in before and value is not scores and len(space) == 2 and 1 not in space:
            return value
    raise InputError("no layer before the scores has maps [N, C, H, W]")


def _index(chosen: str, labels: tuple[str, ...], count: int) -> int:
    """The class that a number or a label names."""
    if chosen.isascii() and chosen.isdigit() and int(chosen) < count:
        return int(chosen)
    matching = [number for number, label in enumerate(labels) if label == chosen]
    matching = matching or [n for n, label in enumerate(labels) if chosen in label.split(", ")]
    if len(matching) == 1:
        return matching[0]
    raise InputError(f"no class {chosen}: there are 0 to {count - 1}, by number or by label")
