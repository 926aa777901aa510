"""Cases of data movement."""

from __future__ import annotations

from typing import Any

import numpy as np

from convdsl.ops import BY_NAME
from op_cases.draw import Array, Case, Draw, Generator, image_symbols, with_state

LETTERS = "NABCDE"


def any_dtype(draw: Draw, shape: Any) -> Array:
    """Mostly floating, at times whole numbers or masks."""
    x = draw.array(shape, -9, 9)
    return draw.pick(x, x, x, x.astype("int64"), x > 0)


def letters(x: Array) -> dict[str, tuple[str | None, ...]]:
    return {"x": tuple(LETTERS[: x.ndim])}


def concat(draw: Draw) -> Case:
    shape = list(draw.shape(draw.integer(1, 4), 1, 5))
    axis = draw.integer(-len(shape), len(shape) - 1)
    arrays, symbols = {}, {}
    for number in range(draw.integer(1, 4)):
        shape[axis] = draw.integer(1, 4)
        arrays[f"x{number}"] = draw.array(shape)
        names = list(LETTERS[: len(shape)])
        names[axis] = f"K{number}"
        symbols[f"x{number}"] = tuple(names)
    return Case(BY_NAME["concat"], {"axis": axis}, arrays, symbols)


def split(draw: Draw) -> Case:
    shape = list(draw.shape(draw.integer(2, 4), 1, 5))
    axis = draw.integer(-len(shape), len(shape) - 1)
    sizes = [draw.integer(1, 4) for _ in range(draw.integer(1, 4))]
    equal = draw.chance()
    shape[axis] = sizes[0] * len(sizes) if equal else sum(sizes)
    x = any_dtype(draw, shape)
    names: list[str | None] = list(LETTERS[: x.ndim])
    names[axis] = None
    attributes = {"parts": len(sizes) if equal else tuple(sizes), "axis": axis}
    return with_state(draw, "split", attributes, x, symbols={"x": tuple(names)})


def take(draw: Draw) -> Case:
    """Positions from both ends, many of them twice, as a number, a list or a matrix."""
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 5))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    extent = x.shape[axis]
    shape = tuple(draw.integer(1, 4) for _ in range(draw.pick(0, 1, 1, 2)))
    positions = draw.rng.integers(-extent, extent, shape)
    names: list[str | None] = list(LETTERS[: x.ndim])
    symbols = {"x": tuple(names), "positions": ("K", "L")[: len(shape)]}
    arrays = {"x": x, "positions": np.asarray(positions)}
    return Case(BY_NAME["take"], {"axis": axis}, arrays, symbols)


def flatten(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(2, 5), 1, 5))
    start = draw.pick(1, draw.integer(0, x.ndim - 1))
    end = draw.pick(-1, draw.integer(start, x.ndim - 1))
    return with_state(draw, "flatten", {"start": start, "end": end}, x, symbols=letters(x))


def reshape(draw: Draw) -> Case:
    """Factors of the elements spread over the new axes; at times the first axis is kept."""
    given = draw.pick((2, 6, 4, 3), (3, 8, 1, 5), (4, 6), (2, 3, 2, 2, 3), (1, 12), (12,))
    x = any_dtype(draw, given)
    kept = list(x.shape[:1]) if draw.chance() else []
    rest, shape = x.size // (kept[0] if kept else 1), list(kept)
    while rest > 1 and len(shape) < 5:
        factor = draw.pick(*(f for f in range(1, rest + 1) if rest % f == 0))
        shape.append(factor)
        rest //= factor
    shape.append(rest)
    if draw.chance():
        shape[draw.integer(0, len(shape) - 1)] = -1
    return with_state(draw, "reshape", {"shape": tuple(shape)}, x)


def squeeze(draw: Draw) -> Case:
    shape = [draw.pick(1, 1, draw.integer(2, 5)) for _ in range(5)]
    shape[draw.integer(0, 4)] = 1
    x = any_dtype(draw, shape)
    ones = [axis for axis, extent in enumerate(shape) if extent == 1]
    axes = [axis - (5 if draw.chance() else 0) for axis in ones if draw.chance() or len(ones) < 3]
    return with_state(draw, "squeeze", {"axes": tuple(axes or ones[:1])}, x)


def unsqueeze(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 3), 1, 5))
    count = draw.integer(1, 2)
    axes = draw.rng.permutation(x.ndim + count)[:count]
    given = tuple(int(axis) - (x.ndim + count if draw.chance() else 0) for axis in axes)
    return with_state(draw, "unsqueeze", {"axes": given}, x, symbols=letters(x))


def slice_(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 3, 9))
    axes = [int(axis) for axis in draw.rng.permutation(x.ndim)[: draw.integer(1, x.ndim)]]
    limits: dict[str, list[Any]] = {"start": [], "stop": [], "step": []}
    for axis in axes:
        extent = x.shape[axis]
        while True:
            start = draw.pick("begin", draw.integer(-extent - 1, extent))
            stop = draw.pick("end", draw.integer(-extent - 1, extent + 2))
            step = draw.pick(1, 1, 2, 3, -1, -2)
            words = {"begin": None, "end": None}
            taken = slice(words.get(start, start), words.get(stop, stop), step)
            if len(range(extent)[taken]):
                break
        for name, value in (("start", start), ("stop", stop), ("step", step)):
            limits[name].append(value)
    given = {name: tuple(values) for name, values in limits.items()}
    named = tuple(axis - (x.ndim if draw.chance() else 0) for axis in axes)
    return with_state(draw, "slice", {"axes": named, **given}, x, symbols=letters(x))


def pad(draw: Draw) -> Case:
    mode = draw.pick("zeros", "zeros", "reflect", "replicate", "circular")
    x = draw.array(draw.shape(draw.integer(3, 4), 3, 7))
    if mode == "zeros":
        x = any_dtype(draw, x.shape)
    attributes: dict[str, Any] = {"mode": mode}
    rank = x.ndim - 2
    if draw.chance(0.4):
        chosen = sorted(int(axis) for axis in draw.rng.permutation(x.ndim)[: draw.integer(1, 3)])
        attributes["axes"] = tuple(chosen)
        rank = len(chosen)
    space = [x.shape[axis] for axis in attributes.get("axes", range(2, x.ndim))]
    spare = {"reflect": 1, "circular": 0}.get(mode)
    most = [3 if spare is None else min(3, extent - spare) for extent in space]
    attributes["pad"] = draw.pick(
        draw.integer(0, min(most)),
        tuple((draw.integer(0, m), draw.integer(0, m)) for m in most),
        tuple(draw.integer(0, m) for m in most),
    )
    if mode == "zeros" and x.dtype != bool:
        attributes["value"] = draw.pick(0.0, -2.0, 1.0)
    symbols = {"x": tuple(s if mode == "zeros" else None for s in LETTERS[: x.ndim])}
    assert rank == len(space)
    return with_state(draw, "pad", attributes, x, symbols=symbols)


def transpose(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 5), 1, 5))
    order = tuple(
        int(axis) - (x.ndim if draw.chance(0.2) else 0) for axis in draw.rng.permutation(x.ndim)
    )
    return with_state(draw, "transpose", {"axes": order}, x, symbols=letters(x))


def expand(draw: Draw) -> Case:
    wanted = [draw.integer(1, 4) for _ in range(draw.integer(1, 4))]
    dropped = draw.integer(0, len(wanted) - 1)
    own = [1 if draw.chance() else extent for extent in wanted[dropped:]]
    x = any_dtype(draw, own)
    shape = list(wanted)
    for axis, extent in enumerate(own, start=dropped):
        if extent == wanted[axis] and draw.chance():
            shape[axis] = -1
    return with_state(draw, "expand", {"shape": tuple(shape)}, x)


def tile(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 4))
    repeats = tuple(draw.integer(1, 3) for _ in range(x.ndim))
    return with_state(draw, "tile", {"repeats": repeats}, x, symbols=letters(x))


def channel_shuffle(draw: Draw) -> Case:
    groups = draw.integer(1, 4)
    shape = list(draw.shape(draw.integer(2, 5), 1, 4))
    shape[1] = groups * draw.integer(1, 4)
    x = any_dtype(draw, shape)
    return with_state(draw, "channel_shuffle", {"groups": groups}, x, symbols=image_symbols(x.ndim))


def pixel_shuffle(draw: Draw) -> Case:
    factor = draw.integer(1, 3)
    shape = list(draw.shape(4, 1, 4))
    shape[1] = factor**2 * draw.integer(1, 3)
    x = any_dtype(draw, shape)
    return with_state(draw, "pixel_shuffle", {"factor": factor}, x, symbols=image_symbols(x.ndim))


def pixel_unshuffle(draw: Draw) -> Case:
    factor = draw.integer(1, 3)
    n, c, h, w = draw.shape(4, 1, 4)
    x = any_dtype(draw, (n, c, h * factor, w * factor))
    symbols = {"x": ("N", None, None, None)}
    return with_state(draw, "pixel_unshuffle", {"factor": factor}, x, symbols=symbols)


def resize(draw: Draw) -> Case:
    """Scales are exact in single precision and let no source fall between two neighbours by a
    rounding error."""
    rank = draw.pick(1, 2, 2, 2, 3)
    x = draw.array((draw.integer(1, 2), draw.integer(1, 3), *(draw.integer(2, 6),) * rank))
    mode = draw.pick("nearest", "linear")
    attributes: dict[str, Any] = {"mode": mode}
    attributes["coordinates"] = draw.pick(
        "pytorch",
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    )
    attributes["rounding"] = draw.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    if draw.chance():
        # The reference lets the corners of a size that is no whole number fall between positions.
        cornered = attributes["coordinates"] in ("align_corners", "tf_crop_and_resize")
        ratios = (1.0, 2.0, 4.0) if cornered else (0.5, 1.0, 1.5, 2.0, 2.5, 4.0)
        exact = [draw.pick(*ratios) for _ in range(rank)]
        attributes["scale"] = draw.pick(exact[0], tuple(exact))
    else:
        factors = [draw.pick(1, 2, 4) for _ in range(rank)]
        ragged = [draw.integer(1, 9) for _ in range(rank)]
        doubled = [extent * f for extent, f in zip(x.shape[2:], factors, strict=True)]
        attributes["size"] = tuple(ragged if mode == "linear" else doubled)
    if attributes["coordinates"] == "tf_crop_and_resize":
        starts = [draw.pick(0.0, 0.25, -0.25) for _ in range(rank)]
        attributes["roi"] = (*starts, *(s + draw.pick(0.5, 0.75, 1.25) for s in starts))
        attributes["extrapolation"] = draw.pick(0.0, 7.5)
    names = image_symbols(x.ndim) if "scale" in attributes else {}
    if attributes["coordinates"] == "tf_crop_and_resize":
        names = {}
    return with_state(draw, "resize", attributes, x, symbols=names)


GENERATORS: dict[str, Generator] = {
    "concat": concat,
    "split": split,
    "take": take,
    "flatten": flatten,
    "reshape": reshape,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "slice": slice_,
    "pad": pad,
    "transpose": transpose,
    "expand": expand,
    "tile": tile,
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "resize": resize,
}
