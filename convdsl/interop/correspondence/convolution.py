"""Convolutions, plain and transposed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from convdsl.interop.correspondence.padding import (
    ONNX_MODES,
    is_even,
    known_space,
    layer_padding,
    padded,
    padding_of,
    pads,
    pairs,
    puts_odd_last,
    read_padding,
    spell_padding,
)
from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.correspondence.wording import (
    Lacking,
    PyTorch,
    Wording,
    keywords,
    module,
    text,
)
from convdsl.interop.reading.tensors import ReadError, Tensor
from convdsl.ir.windows import explicit_window

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def _filter(r: Reading) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The kernel's size, and attributes that all convolutions share."""
    shape = r.shape(1)
    kernel = tuple(size for size in shape[2:] if isinstance(size, int))
    rank = len(kernel)
    if rank < 1 or rank != len(shape) - 2:
        raise ReadError(f"a filter of shape {shape} is not supported")
    return kernel, {
        "kernel": kernel,
        "stride": tuple(r.attribute("strides", [1] * rank)),
        "dilation": tuple(r.attribute("dilations", [1] * rank)),
        "groups": r.attribute("group", 1),
        "bias": r.has(2),
    }


def _operands(r: Reading) -> dict[str, Tensor]:
    return {"x": r[0], "weight": r[1], **({"bias": r[2]} if r.has(2) else {})}


def read_conv(r: Reading) -> Tensor:
    """Conv: a convolution of x by w, perhaps with a bias."""
    kernel, how = _filter(r)
    how["pad"] = read_padding(r, kernel, how["stride"], how["dilation"])
    return r.apply("conv", _operands(r), channels=r.shape(1)[0], **how)


def _read_conv_transpose(r: Reading) -> Tensor:
    kernel, how = _filter(r)
    rank = len(kernel)
    extra = list(r.attribute("output_padding", [0] * rank))
    channels = r.shape(1)[1] * how["groups"]
    auto, wanted = r.attribute("auto_pad", "NOTSET"), r.attribute("output_shape")
    if wanted is None and auto in ("NOTSET", "", "VALID"):
        around = pairs(r.attribute("pads", [0] * (2 * rank)))
    else:
        space = known_space(r)
        found: list[tuple[int, int]] = []
        sizes = wanted or [e * s for e, s in zip(space, how["stride"], strict=True)]
        for axis, size in enumerate(list(sizes)[-rank:]):
            reach = (kernel[axis] - 1) * how["dilation"][axis] + 1
            total = how["stride"][axis] * (space[axis] - 1) + extra[axis] + reach - size
            extra[axis] += max(-total, 0)
            half, rest = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
            found.append((half, rest) if puts_odd_last(r) else (rest, half))
        around = tuple(found)
    how |= {"pad": around, "output_pad": tuple(extra)}
    return r.apply("conv_transpose", _operands(r), channels=channels, **how)


def _read_deform_conv(r: Reading) -> Tensor:
    """X, W, offset, B, mask. How many channels move together, the offsets say as well."""
    kernel = tuple(size for size in r.shape(1)[2:] if isinstance(size, int))
    if len(kernel) != 2:
        raise ReadError(f"a filter of shape {r.shape(1)} is not supported")
    operands = {"x": r[0], "offset": r[2], **({"mask": r[4]} if r.has(4) else {})}
    operands |= {"weight": r[1], **({"bias": r[3]} if r.has(3) else {})}
    return r.apply(
        "deform_conv",
        operands,
        channels=r.shape(1)[0],
        kernel=kernel,
        stride=tuple(r.attribute("strides", [1, 1])),
        dilation=tuple(r.attribute("dilations", [1, 1])),
        pad=pairs(r.attribute("pads", [0] * 4)),
        groups=r.attribute("group", 1),
        bias=r.has(3),
    )


# As ONNX


def _spell_conv(s: Spelling) -> str:
    call, window = s.call, explicit_window(s.call)
    x, weight = s["x"], s["weight"]
    around = spell_padding(s)
    if call["pad_mode"] != "zeros":
        mode = ONNX_MODES[call["pad_mode"]]
        x = s("Pad", x, s.integers(pads(window.padding)), "", s.space(), mode=mode)
        around = {}
    if call["flip"]:
        weight = _flipped(s, weight, range(2, 2 + window.rank))
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


def _flipped(s: Spelling, x: str, axes: Sequence[int]) -> str:
    ends = [s.integers([value] * len(axes)) for value in (-1, -(2**31))]
    return s("Slice", x, *ends, s.integers(axes), s.integers([-1] * len(axes)))


def _spell_deform_conv(s: Spelling) -> str:
    call, window = s.call, explicit_window(s.call)
    return s(
        "DeformConv",
        s["x"],
        s["weight"],
        s["offset"],
        s["bias"],
        s["mask"],
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=pads(window.padding),
        group=call["groups"],
        offset_group=call.type("offset").shape[1] // (2 * prod(window.kernel)),
    )


def _spell_conv_transpose(s: Spelling) -> str:
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


# In PyTorch


def _layer(w: Wording, *more: tuple[str, str, str]) -> str:
    call = w.call
    options = keywords(
        ("stride", text(call["stride"]), "1"),
        ("padding", layer_padding(call), "0"),
        ("dilation", text(call["dilation"]), "1"),
        ("groups", str(call["groups"]), "1"),
        ("bias", str(call["bias"]), "True"),
        *more,
        w.dtype,
    )
    channels = text(call.type("x").shape[1])
    return f"{channels}, {call['channels']}, {text(call['kernel'])}{options}"


def _layer_conv(w: Wording) -> str:
    mode = w.call["pad_mode"] if is_even(w.call) else "zeros"
    return _layer(w, ("padding_mode", f'"{mode}"', '"zeros"'))


def _say_conv(w: Wording) -> str:
    """What no layer does is done by hand: uneven padding, mirrored filters."""
    call, x = w.call, w["x"]
    if call["flip"]:
        return _loose_conv(w)
    if not is_even(call):
        x = padded(x, padding_of(call), call["pad_mode"])
    return f"{w.layer}({x})"


def _loose_conv(w: Wording) -> str:
    call, weight = w.call, w["weight"]
    if call["flip"]:
        weight += f".flip({', '.join(str(2 + axis) for axis in range(w.rank))})"
    x, around = w["x"], layer_padding(call)
    if not is_even(call) or call["pad_mode"] != "zeros":
        x, around = padded(x, padding_of(call), call["pad_mode"]), "0"
    options = _loose_options(w, ("padding", around, "0"))
    return f"functional.conv{w.rank}d({x}, {weight}{options})"


def _loose_options(w: Wording, *more: tuple[str, str, str]) -> str:
    call = w.call
    return keywords(
        ("bias", w["bias"] if call["bias"] else "None", "None"),
        ("stride", text(call["stride"]), "1"),
        *more,
        ("dilation", text(call["dilation"]), "1"),
        ("groups", str(call["groups"]), "1"),
    )


def _layer_conv_transpose(w: Wording) -> str:
    return _layer(w, ("output_padding", text(w.call["output_pad"]), "0"))


def _say_conv_transpose(w: Wording) -> str:
    return _cut(w, f"{w.layer}({w['x']})")


def _loose_conv_transpose(w: Wording) -> str:
    more = (
        ("padding", layer_padding(w.call), "0"),
        ("output_padding", text(w.call["output_pad"]), "0"),
    )
    options = _loose_options(w, *more)
    return _cut(w, f"functional.conv_transpose{w.rank}d({w['x']}, {w['weight']}{options})")


def _cut(w: Wording, called: str) -> str:
    """Padding on one side only is cut off afterwards."""
    if is_even(w.call):
        return called
    cuts = [f"{before or ''}:{-after or ''}" for before, after in padding_of(w.call)]
    return f"{called}[:, :, {', '.join(cuts)}]"


_ELSEWHERE = "PyTorch has no deformable convolution: it is torchvision's"


def _lacking(w: Wording) -> str:
    """PyTorch's source imports PyTorch alone."""
    raise Lacking(_ELSEWHERE)


ROWS = (
    Row(
        "conv",
        "Conv",
        module("nn.Conv{rank}d", _layer_conv, _say_conv, loose=_loose_conv),
        _spell_conv,
        Read(read_conv),
    ),
    Row(
        "conv_transpose",
        "ConvTranspose",
        module(
            "nn.ConvTranspose{rank}d",
            _layer_conv_transpose,
            _say_conv_transpose,
            loose=_loose_conv_transpose,
        ),
        _spell_conv_transpose,
        Read(_read_conv_transpose),
    ),
    Row(
        "deform_conv",
        "DeformConv",
        PyTorch("torchvision.ops.deform_conv2d", _lacking, _lacking, lacks=(_ELSEWHERE,)),
        _spell_deform_conv,
        Read(_read_deform_conv),
    ),
)

READING: dict[str, Read] = {}
