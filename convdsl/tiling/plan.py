"""Where tiles begin, and which part of each result is kept.

Tiles are alike and begin at multiples of the effective stride; the last ends where the image ends.
What is kept of each is what agrees with the result for the whole image (`agreement`), so the
overlap follows from the network. A network that is valid-convolution throughout, one element for a
pixel but fewer than pixels, sees the image mirrored at its borders, as U-Net does: then the result
has the image's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.analysis.fields import Field
from convdsl.analysis.receptive_field import propagate, receptive_fields
from convdsl.diagnostics import Error, InputError
from convdsl.ir.graph import Graph
from convdsl.tiling.agreement import Along, Track, agreement, alignment
from convdsl.tiling.sizes import Sized

Array: TypeAlias = "npt.NDArray[Any]"

_AXES = (2, 3)
_TRIED = 256  # sizes, from the one asked for downwards


@dataclass(frozen=True, slots=True)
class Kept:
    """Elements start .. stop - 1 of a tile's result, which begin at `to` in the whole one."""

    start: int
    stop: int
    to: int


@dataclass(frozen=True, slots=True)
class Cut:
    """One axis: tiles of `tile` pixels at `offsets` of an image that is mirrored `before` pixels
    before it, and what is kept of each tile by output: (axis of the output, its extent, parts)."""

    tile: int
    before: int
    offsets: tuple[int, ...]
    outputs: Mapping[str, tuple[int, int, tuple[Kept, ...]]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of an image, [height, width]; cuts along both."""

    input: str
    size: tuple[int, int]
    cuts: tuple[Cut, Cut]

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile."""
        return self.cuts[0].tile, self.cuts[1].tile

    @property
    def count(self) -> int:
        return len(self.cuts[0].offsets) * len(self.cuts[1].offsets)


def tiling(network: Sized, size: tuple[int, int], tile: int) -> Tiling:
    """Tiles of at most `tile` pixels a side for an image of `size`. Raises InputError where no
    tiles give the network's result, and says why."""
    probe, smaller = _two_sizes(network, tile)
    strides = [_stride(network, probe, axis) for axis in _AXES]
    margins = [_margin(network, probe, smaller, axis) for axis in _AXES]
    extents = [
        _extents(network, size[k], tile, probe, axis, strides[k], margins[k])
        for k, axis in enumerate(_AXES)
    ]
    (tall, whole_tall), (wide, whole_wide) = extents
    sizes = [(tall, wide), (whole_tall, wide), (whole_tall, whole_wide)]
    graphs = [_admitted(network, *pair) for pair in reversed(sizes)][::-1]  # the image's first
    cuts = [
        _cut(network.input, axis, graphs[k : k + 2], extents[k], strides[k], margins[k], size[k])
        for k, axis in enumerate(_AXES)
    ]
    return Tiling(network.input, size, (cuts[0], cuts[1]))


def _two_sizes(network: Sized, tile: int) -> tuple[int, int]:
    """The two largest sizes up to `tile` that the network admits, square."""
    found: list[int] = []
    why: Error | None = None
    for extent in range(tile, max(0, tile - _TRIED), -1):
        try:
            network.graph(extent, extent)
        except Error as error:
            why = why or error
            continue
        found.append(extent)
        if len(found) == 2:
            return found[0], found[1]
    raise InputError(
        f"the network admits no tiles of {tile} or somewhat fewer pixels"
        + (f": {str(why).splitlines()[0]}" if why else "")
        + "\nhelp: give a larger --tile"
    )


def _admitted(network: Sized, height: int, width: int) -> Graph:
    try:
        return network.graph(height, width)
    except Error as error:
        raise InputError(
            f"the network does not take an image of {height}x{width}, whole or in tiles: "
            f"{str(error).splitlines()[0]}"
        ) from None


def _stride(network: Sized, probe: int, axis: int) -> int:
    """What tiles are aligned to: the least move of the image by which every tensor moves whole
    elements, from all receptive fields."""
    advances = [
        path.rate.numerator
        for seen in propagate(network.graph(probe, probe)).values()
        for field in [seen.get((network.input, axis))]
        if isinstance(field, Field)
        for path in field.paths
        if path.advance > 0
    ]
    return lcm(1, *advances)


def _margin(network: Sized, probe: int, smaller: int, axis: int) -> int:
    """Pixels that a result lacks, where it has an element for a pixel: what is mirrored."""
    large, small = (network.graph(extent, extent) for extent in (probe, smaller))
    found: set[int] = set()
    for name, value in large.outputs.items():
        mine, other = value.type.shape, small.outputs[name].type.shape
        if len(mine) <= axis or not isinstance(mine[axis], int):
            return 0
        extent, less = int(mine[axis]), int(other[axis])  # pyright: ignore[reportArgumentType]
        if extent - less != probe - smaller:
            return 0
        found.add(probe - extent)
    (margin, *others) = found
    return 0 if others or margin <= 0 else margin


def _extents(
    network: Sized, size: int, tile: int, probe: int, axis: int, stride: int, margin: int
) -> tuple[int, int]:
    """Pixels of a tile, and of the image with what is mirrored."""
    if margin:
        more = max(0, size + margin - probe)
        return probe, probe + -(-more // stride) * stride
    if size <= tile:
        return size, size
    largest = tile - (tile - size) % stride
    for extent in range(largest, max(0, largest - _TRIED * stride), -stride):
        pair = (extent, probe) if axis == _AXES[0] else (probe, extent)
        if _is_admitted(network, *pair):
            return extent, size
    raise InputError(
        f"tiles begin at multiples of the effective stride, {stride} pixels, and the network "
        f"admits none of up to {tile} pixels for an image of {size}\nhelp: give another --tile"
    )


def _is_admitted(network: Sized, height: int, width: int) -> bool:
    try:
        network.graph(height, width)
    except Error:
        return False
    return True


def _cut(
    input: str,
    axis: int,
    graphs: Sequence[Graph],
    extents: tuple[int, int],
    stride: int,
    margin: int,
    size: int,
) -> Cut:
    tile, whole = graphs
    pixels, image = extents
    wanted = size if margin else None
    if pixels == image:
        outputs = {
            name: _alone(value.type.shape, axis, wanted) for name, value in tile.outputs.items()
        }
        return Cut(pixels, margin // 2, (0,), outputs)

    def along(offsets: Sequence[int]) -> Along:
        return Along(input, axis, pixels, image, np.array(offsets, np.int64))

    needed = alignment(tile, whole, along([0]))
    if stride % needed:
        raise InputError(
            f"tiles would have to begin at multiples of {lcm(stride, needed)} pixels, and the "
            f"effective stride is {stride}: the network's sizes do not grow evenly with its image"
        )
    last = image - pixels
    middle = last // (2 * stride) * stride
    first = _tracks(tile, whole, along([0, middle, last]))
    steps = [_step(track, stride) for track in first.values()]
    if not min(steps):
        raise InputError(_reason(tile, whole, along([middle]), pixels))
    offsets = [*range(0, last, min(steps)), last]
    tracks = _tracks(tile, whole, along(offsets))
    outputs = {
        name: _kept(name, track, whole, along(offsets), wanted) for name, track in tracks.items()
    }
    return Cut(pixels, margin // 2, tuple(offsets), outputs)


def _alone(shape: Sequence[Any], axis: int, wanted: int | None) -> tuple[int, int, tuple[Kept]]:
    extent = min(int(shape[axis]), wanted or int(shape[axis])) if len(shape) > axis else 1
    return axis, extent, (Kept(0, extent, 0),)


def _tracks(tile: Graph, whole: Graph, along: Along) -> dict[str, Track]:
    found = agreement(tile, whole, along)
    return {name: found[value] for name, value in tile.outputs.items()}


def _step(track: Track, stride: int) -> int:
    """By how many pixels one tile may follow the other: what agrees in the middle leaves no gap."""
    if track.axis is None or not track.step:
        return 0
    start, stop = _run(track.agrees[1])
    return int((stop - start) / (track.step * stride)) * stride


def _run(agrees: Array) -> tuple[int, int]:
    """The longest run of what agrees."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], agrees, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return 0, 0
    start, stop = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    return int(start), int(stop)


def _kept(
    name: str, track: Track, whole: Graph, along: Along, wanted: int | None
) -> tuple[int, int, tuple[Kept, ...]]:
    """Each element of the whole result from the first tile that has it."""
    assert track.axis is not None
    extent = int(whole.outputs[name].type.shape[track.axis])  # pyright: ignore[reportArgumentType]
    shifts = along.shifts(track.step)[:, 0]
    owner = np.full(extent, -1)
    for number in range(len(shifts) - 1, -1, -1):
        places = shifts[number] + np.flatnonzero(track.agrees[number])
        owner[places] = number
    if wanted is not None:
        extent = min(extent, wanted)
    if (owner[:extent] < 0).any():
        gap = int((owner[:extent] < 0).argmax())
        raise InputError(
            f"no tile of {along.tile} pixels gives element {gap} of {name} along axis {track.axis}"
            "\nhelp: give a larger --tile"
        )
    kept: list[Kept] = []
    for number, shift in enumerate(shifts):
        start, stop = _run(owner[:extent] == number)
        kept.append(Kept(start - int(shift), stop - int(shift), start) if stop else Kept(0, 0, 0))
    if sum(part.stop - part.start for part in kept) != extent:
        raise InputError(f"tiles of {along.tile} pixels give {name} in pieces only")
    return track.axis, extent, tuple(kept)


def _reason(tile: Graph, whole: Graph, along: Along, pixels: int) -> str:
    """Why no tiles can be put together: the first operator whose result agrees nowhere."""
    found = agreement(tile, whole, along)
    fields, all_fields = receptive_fields(tile), receptive_fields(whole)
    for node, counterpart in zip(tile.op_nodes(), whole.op_nodes(), strict=True):
        if not any(found[value].nowhere for value in node.outputs):
            continue
        sizes = [
            field and field.size
            for graph, place in ((fields, node), (all_fields, counterpart))
            for field in [graph[place.outputs[0]][along.input][along.axis - 2]]
        ]
        if isinstance(sizes[0], int) and pixels <= sizes[0] == sizes[1]:
            break
        return (
            f"tiles do not give the network's result: {node.op.name} ({node.name}) depends on the "
            "size of the image or on all of it"
        )
    return (
        f"a tile of {pixels} pixels is too small: what the network sees around one element leaves "
        "too little of its result\nhelp: give a larger --tile"
    )
