"""What only moves elements, as ONNX spells it."""

from __future__ import annotations

from convdsl.interop.spelling.windows import PAD_MODES, pads
from convdsl.interop.spelling.writer import Spelling
from convdsl.tensor import Dim, floor_div

_FAR = 2**62


def reshape(s: Spelling) -> str:
    """A row-major view in the output's shape."""
    return s.reshaped(s["x"], s.call.outputs[0].shape, s.call.type("x").shape)


def flatten(s: Spelling) -> str:
    call = s.call
    if call["start"] == 1 and call["end"] in (-1, call.type("x").rank - 1):
        return s("Flatten", s["x"], axis=1)
    return reshape(s)


def concat(s: Spelling) -> str:
    return s("Concat", *(s[name] for name in s.call.types), axis=s.call["axis"])


def split(s: Spelling) -> list[str]:
    parts, axis = s.call["parts"], s.call["axis"]
    names = s("Split", s["x"], s.integers(parts), outputs=len(parts), axis=axis)
    return names if len(parts) > 1 else [names]


def slice_(s: Spelling) -> str:
    call = s.call
    starts: list[Dim] = []
    stops: list[Dim] = []
    for start, stop, step in zip(call["start"], call["stop"], call["step"], strict=True):
        starts.append(start if start != "begin" else 0 if step > 0 else _FAR)
        stops.append(stop if stop != "end" else _FAR if step > 0 else -_FAR)
    steps = (call["axes"], call["step"])
    return s("Slice", s["x"], s.integers(starts), s.integers(stops), *map(s.integers, steps))


def pad(s: Spelling) -> str:
    call = s.call
    value = "" if call["mode"] != "zeros" else s.constant(call["value"])
    around = (s.integers(pads(call["pad"])), value, s.integers(call["axes"]))
    return s("Pad", s["x"], *around, mode=PAD_MODES[call["mode"]])


def expand(s: Spelling) -> str:
    """An extent that the input has already is asked for as 1."""
    wanted, own = s.call.outputs[0].shape, s.call.type("x").shape
    own = (1,) * (len(wanted) - len(own)) + own
    sizes = [
        1 if size == has and not isinstance(size, int) else size
        for size, has in zip(wanted, own, strict=True)
    ]
    return s("Expand", s["x"], s.integers(sizes))


def tile(s: Spelling) -> str:
    return s("Tile", s["x"], s.integers(s.call["repeats"]))


def squeeze(s: Spelling) -> str:
    return s("Squeeze", s["x"], s.integers(s.call["axes"]))


def unsqueeze(s: Spelling) -> str:
    return s("Unsqueeze", s["x"], s.integers(s.call["axes"]))


def transpose(s: Spelling) -> str:
    return s("Transpose", s["x"], perm=s.call["axes"])


def channel_shuffle(s: Spelling) -> str:
    n, c, *space = s.call.type("x").shape
    groups = s.call["groups"]
    apart = s.reshaped(s["x"], [n, groups, floor_div(c, groups), *space], [n])
    order = [0, 2, 1, *range(3, 3 + len(space))]
    mixed = s("Transpose", apart, perm=order)
    return s.reshaped(mixed, [n, c, *space], [n])


def pixel_shuffle(s: Spelling) -> str:
    """One factor of a plane has a node of its own."""
    factor = s.call["factor"]
    n, _, *space = s.call.type("x").shape
    if len(factor) == 2 and factor[0] == factor[1]:
        return s("DepthToSpace", s["x"], blocksize=factor[0], mode="CRD")
    rank = len(factor)
    outer = s.call.outputs[0].shape
    apart = s.reshaped(s["x"], [n, outer[1], *factor, *space], [n])
    order = [0, 1]
    for axis in range(rank):
        order += [2 + rank + axis, 2 + axis]
    return s.reshaped(s("Transpose", apart, perm=order), outer, [n])


def pixel_unshuffle(s: Spelling) -> str:
    n, c, *space = s.call.type("x").shape
    factor = s.call["factor"]
    blocks: list[Dim] = [n, c]
    for extent, f in zip(space, factor, strict=True):
        blocks += [floor_div(extent, f), f]
    apart = s.reshaped(s["x"], blocks, [n, c])
    rank = len(factor)
    order = [0, 1, *(3 + 2 * axis for axis in range(rank)), *(2 + 2 * axis for axis in range(rank))]
    return s.reshaped(s("Transpose", apart, perm=order), s.call.outputs[0].shape, [n])


def resize(s: Spelling) -> str:
    call = s.call
    crops = call["roi"] != "whole"
    roi = s.constant(call["roi"], "float32") if crops else ""
    by_scale = call["scale"] != "fitting"
    size = (s.constant(call["scale"], "float32"),) if by_scale else ("", s.integers(call["size"]))
    how = {"extrapolation_value": call["extrapolation"]} if crops else {}
    return s(
        "Resize",
        s["x"],
        roi,
        *size,
        axes=list(range(2, call.type("x").rank)),
        mode=call["mode"],
        coordinate_transformation_mode=call["coordinates"],
        nearest_mode=call["rounding"],
        **how,
    )
