"""Cases of sampling by a grid, and of patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from convdsl.ops import BY_NAME
from op_cases.draw import Case, Draw, Generator, full, with_state


def grid_sample(draw: Draw) -> Case:
    """Positions inside, at the borders and far outside; at times one element along an axis."""
    rank = draw.pick(2, 2, 2, 3)
    n, c = draw.integer(1, 2), draw.integer(1, 3)
    space = tuple(draw.integer(1, 5) for _ in range(rank))
    x = draw.array((n, c, *space))
    outer = tuple(draw.integer(1, 3) for _ in range(rank))
    reach = draw.pick(0.9, 1.3, 4.0)
    grid = draw.array((n, *outer, rank), -reach, reach)
    attributes = {
        "mode": draw.pick("nearest", "linear", "linear", "bilinear", *(["cubic"] * (rank == 2))),
        "padding": draw.pick("zeros", "border", "reflection"),
        "align_corners": draw.chance(),
    }
    symbols = {"x": ("N", "C", *(None,) * rank), "grid": ("N", *"ABD"[:rank], None)}
    return Case(BY_NAME["grid_sample"], attributes, {"x": x, "grid": grid}, symbols)


def _regions(draw: Draw, scale: float) -> dict[str, Any]:
    """Maps, and regions of them: inside, beyond, of no extent, turned around, and far larger."""
    n, height, width = draw.integer(1, 2), draw.integer(1, 6), draw.integer(1, 6)
    count = draw.integer(1, 3)
    reach = draw.pick(1.0, 1.5, 3.0)
    ends = draw.array((count, 2, 2), -0.5 * reach, 1.0 + 0.5 * reach)
    ends = ends * np.array([width / scale, height / scale], ends.dtype)
    if draw.chance(0.7):
        ends = np.sort(ends, axis=1)
    regions = ends.reshape(count, 4)
    x = draw.array((n, draw.integer(1, 3), height, width))
    images = draw.rng.integers(0, n, count)
    return {"x": x, "regions": regions, "images": images}


REGIONS = {"x": ("N", "C", None, None), "regions": ("R", None), "images": ("R",)}


def roi_align(draw: Draw) -> Case:
    mode = draw.pick("mean", "mean", "max")
    attributes = {
        "size": draw.sizes(2, 1, 3),
        "scale": draw.pick(1.0, 0.5, 0.25),
        "samples": draw.pick(0, 1, 2, 3) if mode == "mean" else draw.pick(1, 2),
        "aligned": draw.chance(),
        "mode": mode,
    }
    arrays = _regions(draw, attributes["scale"])
    return Case(BY_NAME["roi_align"], attributes, arrays, REGIONS)


def roi_pool(draw: Draw) -> Case:
    attributes = {"size": draw.sizes(2, 1, 3), "scale": draw.pick(1.0, 0.5, 0.25)}
    arrays = _regions(draw, attributes["scale"])
    return Case(BY_NAME["roi_pool"], attributes, arrays, REGIONS)


def deform_conv(draw: Draw) -> Case:
    """Taps moved a little, by several elements, and far outside; parts of channels apart."""
    groups, parts = draw.pick(1, 1, 2), draw.pick(1, 1, 2)
    channels, made = 2 * draw.integer(1, 2), groups * draw.integer(1, 2)
    attributes = {
        "channels": made,
        "kernel": draw.sizes(2, 1, 3),
        "stride": draw.sizes(2, 1, 2),
        "dilation": draw.sizes(2, 1, 2),
        "pad": draw.pick(0, 1, ((0, 2), (1, 0))),
        "groups": groups,
        "bias": draw.chance(),
    }
    n, space = draw.integer(1, 2), (draw.integer(5, 7), draw.integer(5, 7))
    kernel, stride, dilation = (full(attributes[k], 2) for k in ("kernel", "stride", "dilation"))
    pads = attributes["pad"]
    places: list[int] = []
    for axis, extent in enumerate(space):
        around = 2 * pads if isinstance(pads, int) else sum(pads[axis])
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        places.append((extent + around - reach) // stride[axis] + 1)
    taps, reach = parts * kernel[0] * kernel[1], draw.pick(0.9, 3.0, 20.0)
    arrays = {
        "x": draw.array((n, channels, *space)),
        "offset": draw.array((n, 2 * taps, *places), -reach, reach),
    }
    if draw.chance():
        arrays["mask"] = draw.array((n, taps, *places))
    arrays["weight"] = draw.array((made, channels // groups, *kernel))
    if attributes["bias"]:
        arrays["bias"] = draw.array((made,))
    symbols = dict.fromkeys(arrays.keys() - {"weight", "bias"}, ("N", None, None, None))
    return Case(BY_NAME["deform_conv"], attributes, arrays, symbols)


def _window(draw: Draw, rank: int) -> dict[str, Any]:
    return {
        "kernel": draw.sizes(rank, 1, 3),
        "stride": draw.sizes(rank, 1, 3),
        "dilation": draw.sizes(rank, 1, 2),
        "pad": draw.pick(
            0, 1, tuple((draw.integer(0, 2), draw.integer(0, 2)) for _ in range(rank))
        ),
    }


def unfold(draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2)
    attributes = _window(draw, rank)
    x = draw.array(
        (draw.integer(1, 2), draw.integer(1, 3), *(draw.integer(5, 8) for _ in range(rank)))
    )
    return with_state(draw, "unfold", attributes, x, symbols={"x": ("N", "C", *(None,) * rank)})


def fold(draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2)
    attributes = _window(draw, rank)
    size = tuple(draw.integer(5, 8) for _ in range(rank))
    taps = count = 1
    pads = attributes["pad"]
    for axis, extent in enumerate(size):
        k, s, d = (full(attributes[name], rank)[axis] for name in ("kernel", "stride", "dilation"))
        around = 2 * pads if isinstance(pads, int) else sum(pads[axis])
        taps, count = taps * k, count * ((extent + around - d * (k - 1) - 1) // s + 1)
    x = draw.array((draw.integer(1, 2), taps * draw.integer(1, 2), count))
    return with_state(
        draw, "fold", {"size": size, **attributes}, x, symbols={"x": ("N", None, None)}
    )


GENERATORS: dict[str, Generator] = {
    "grid_sample": grid_sample,
    "deform_conv": deform_conv,
    "roi_align": roi_align,
    "roi_pool": roi_pool,
    "unfold": unfold,
    "fold": fold,
}
