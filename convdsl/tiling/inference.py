"""Running a network tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.tiling.plan import Tiling

Array: TypeAlias = "npt.NDArray[Any]"
Allocate: TypeAlias = "Callable[[str, tuple[int, ...], np.dtype[Any]], Array]"


def in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array for a result."""
    return np.empty(shape, dtype)


def run_tiles(
    plan: Tiling,
    image: Array,
    run: Callable[[Array], Mapping[str, Array]],
    allocate: Allocate = in_memory,
) -> dict[str, Array]:
    """The results for an image [N, C, H, W], which is read tile by tile and may be mapped. `run` is
    the network, on arrays of the tile's size; `allocate` makes the arrays for the results."""
    results: dict[str, Array] = {}
    tall, wide = plan.cuts
    rows_of, columns_of = (
        _source(extent, cut.before, cut.tile, cut.offsets)
        for extent, cut in zip(plan.size, plan.cuts, strict=True)
    )
    for i, j in product(range(len(tall.offsets)), range(len(wide.offsets))):
        part = np.ascontiguousarray(image[:, :, rows_of[i]][..., columns_of[j]])
        for name, made in run(part).items():
            (row, height, rows), (column, width, columns) = tall.outputs[name], wide.outputs[name]
            if name not in results:
                shape = list(made.shape)
                shape[row], shape[column] = height, width
                results[name] = allocate(name, tuple(shape), made.dtype)
            take, put = [slice(None)] * made.ndim, [slice(None)] * made.ndim
            for axis, kept in ((row, rows[i]), (column, columns[j])):
                take[axis] = slice(kept.start, kept.stop)
                put[axis] = slice(kept.to, kept.to + kept.stop - kept.start)
            results[name][tuple(put)] = made[tuple(take)]
    return results


def _source(extent: int, before: int, tile: int, offsets: tuple[int, ...]) -> list[Any]:
    """The lines of the image that each tile is made of: a slice; numbers where it is mirrored."""
    after = max(0, offsets[-1] + tile - before - extent)
    lines = np.pad(np.arange(extent), (before, after), "reflect")
    found: list[Any] = []
    for offset in offsets:
        start, stop = offset - before, offset - before + tile
        inside = start >= 0 and stop <= extent
        found.append(slice(start, stop) if inside else lines[offset : offset + tile])
    return found
