"""Convolutions and pooling as ONNX spells them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from convdsl.interop.spelling.writer import Spelling
from convdsl.ir.windows import SAME, explicit_window
from convdsl.tensor import Dim

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Ours by ONNX's."""


def pads(padding: Sequence[tuple[Dim, Dim]]) -> list[Dim]:
    """All starts, then all ends."""
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def padding_attributes(s: Spelling) -> dict[str, Any]:
    """`same` of a size not yet known is the one word that ONNX shares."""
    if s.call["pad"] == SAME:
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": pads(s.call["pad"])}


def conv(s: Spelling) -> str:
    call, window = s.call, explicit_window(s.call)
    x, weight = s["x"], s["weight"]
    around = padding_attributes(s)
    if call["pad_mode"] != "zeros":
        mode = PAD_MODES[call["pad_mode"]]
        x = s("Pad", x, s.integers(pads(window.padding)), "", s.space(), mode=mode)
        around = {}
    if call["flip"]:
        weight = flipped(s, weight, range(2, 2 + window.rank))
    return s(
        "Conv",
        x,
        weight,
        s["bias"],
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        group=call["groups"],
        **around,
    )


def flipped(s: Spelling, x: str, axes: Sequence[int]) -> str:
    ends = [s.integers([value] * len(axes)) for value in (-1, -(2**31))]
    return s("Slice", x, *ends, s.integers(axes), s.integers([-1] * len(axes)))


def conv_transpose(s: Spelling) -> str:
    """onnxruntime wants output padding below the stride; larger, it is spelled out."""
    call = s.call
    apart = any(extra >= u for extra, u in zip(call["output_pad"], call["stride"], strict=True))
    around: dict[str, Any] = (
        {} if apart else {"pads": pads(call["pad"]), "output_padding": call["output_pad"]}
    )
    y: str = s(
        "ConvTranspose",
        s["x"],
        s["weight"],
        "" if apart else s["bias"],
        kernel_shape=call["kernel"],
        strides=call["stride"],
        dilations=call["dilation"],
        group=call["groups"],
        **around,
    )
    if not apart:
        return y
    rank = len(call["kernel"])
    longer = s("Pad", y, s.integers([0] * rank + list(call["output_pad"])), "", s.space())
    first = [before for before, _ in call["pad"]]
    last = [start + size for start, size in zip(first, call.outputs[0].shape[2:], strict=True)]
    y = s("Slice", longer, s.integers(first), s.integers(last), s.space())
    if not call.has("bias"):
        return y
    return s("Add", y, s("Reshape", s["bias"], s.integers([-1, *[1] * rank])))


def pool(kind: str, s: Spelling, outputs: int = 1) -> Any:
    call = s.call
    attributes: dict[str, Any] = {}
    if "order" in call.attributes:
        attributes["p"] = call["order"]
    if call["kernel"] == "global":
        if outputs == 1:
            return s(f"Global{kind}", s["x"], **attributes)
        return s(kind, s["x"], outputs=outputs, kernel_shape=call.type("x").shape[2:])
    attributes |= {"kernel_shape": call["kernel"], "strides": call["stride"]}
    if "count_include_pad" in call.attributes:
        attributes["count_include_pad"] = int(call["count_include_pad"])
    if "dilation" in call.attributes:
        attributes["dilations"] = call["dilation"]
    attributes |= padding_attributes(s) | {"ceil_mode": int(call["ceil_mode"])}
    return s(kind, s["x"], outputs=outputs, **attributes)


def max_pool_with_positions(s: Spelling) -> list[str]:
    """ONNX counts through the whole tensor, we through a plane."""
    y, positions = pool("MaxPool", s, outputs=2)
    plane: Dim = prod(s.call.type("x").shape[2:])
    return [y, s("Mod", positions, s.integers([plane]))]


def max_unpool(s: Spelling) -> str:
    """Positions count through the output asked for, as onnxruntime reads them."""
    call = s.call
    shape = call.outputs[0].shape
    known = [size for size in shape if isinstance(size, int)]
    if len(known) < len(shape):
        planes = s("Range", s.constant(0, "int64"), _scalar(s, shape[0] * shape[1]),
                   s.constant(1, "int64"))  # fmt: skip
        scaled = s("Mul", planes, s.integers([prod(shape[2:])]))
        offsets = s("Reshape", scaled, s.integers([*shape[:2], *(1 for _ in shape[2:])]))
    else:
        counted = np.arange(prod(known[:2])) * prod(known[2:])
        offsets = s.constant(counted.reshape(*known[:2], *(1 for _ in known[2:])), "int64")
    positions = s("Add", s["positions"], offsets)
    window: dict[str, Any] = {"kernel_shape": call["kernel"], "strides": call["stride"]}
    window["pads"] = pads(call["pad"])
    return s("MaxUnpool", s["x"], positions, s.integers(shape), **window)


def _scalar(s: Spelling, size: Dim) -> str:
    return s("Squeeze", s.integers([size]), s.integers([0]))


def adaptive(kind: str, s: Spelling) -> str:
    """Axis after axis: windows cut out, reduced, joined."""
    y = s["x"]
    for axis, size in enumerate(s.call["size"], start=2):
        extent = s.call.type("x").shape[axis]
        axes = s.integers([axis])
        pieces: list[str] = []
        for o in range(size):
            start, stop = o * extent // size, -(-(o + 1) * extent // size)
            piece = s("Slice", y, s.integers([start]), s.integers([stop]), axes)
            pieces.append(s(kind, piece, axes, keepdims=1))
        y = s("Concat", *pieces, axis=axis)
    return y
