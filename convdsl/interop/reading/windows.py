"""Convolutions and pooling, from ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np

from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, Undecided
from convdsl.ir.graph import Value
from convdsl.tensor import Dim

Result: TypeAlias = "Tensor | Sequence[Tensor | None]"
Rule: TypeAlias = Callable[[Reading], Result]
Pairs: TypeAlias = "tuple[tuple[int, int], ...]"


def pairs(pads: Sequence[int]) -> Pairs:
    """(before, after) per axis from all starts, then all ends."""
    rank = len(pads) // 2
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def padding(
    r: Reading, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pairs | str:
    auto = r.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return pairs(r.attribute("pads", [0] * (2 * len(kernel))))
    if auto == "VALID":
        return ((0, 0),) * len(kernel)
    if auto == "SAME_UPPER":
        return "same"
    if auto != "SAME_LOWER":
        raise ReadError(f"auto_pad {auto} does not exist")
    found: list[tuple[int, int]] = []
    for extent, k, s, d in zip(known_space(r), kernel, stride, dilation, strict=True):
        total = max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
        found.append((total - total // 2, total // 2))
    return tuple(found)


def known_space(r: Reading) -> list[int]:
    sizes = [size for size in r.shape(0)[2:] if isinstance(size, int)]
    if len(sizes) < r.rank(0) - 2:
        raise Undecided(f"needs known sizes, not {r.shape(0)}; bind them when loading")
    return sizes


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


def conv(r: Reading) -> Tensor:
    kernel, how = _filter(r)
    how["pad"] = padding(r, kernel, how["stride"], how["dilation"])
    return r.apply("conv", _operands(r), channels=r.shape(1)[0], **how)


def conv_transpose(r: Reading) -> Tensor:
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
            found.append((half, rest) if auto == "SAME_UPPER" else (rest, half))
        around = tuple(found)
    how |= {"pad": around, "output_pad": tuple(extra)}
    return r.apply("conv_transpose", _operands(r), channels=channels, **how)


# Pooling


def _window(r: Reading) -> dict[str, Any]:
    kernel = tuple(r.attribute("kernel_shape", ()))
    rank = len(kernel)
    if not rank or rank != r.rank(0) - 2:
        raise ReadError(f"a window of {list(kernel)} does not fit {r.shape(0)}")
    stride = tuple(r.attribute("strides", [1] * rank))
    dilation = tuple(r.attribute("dilations", [1] * rank))
    return {
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "pad": padding(r, kernel, stride, dilation),
        "ceil_mode": bool(r.attribute("ceil_mode", 0)),
    }


def _is_wide(how: dict[str, Any]) -> bool:
    """Whether windows may lie in the padding for more than half, which ours may not."""
    if how["pad"] == "same":
        return False
    return any(2 * max(pad) > k for pad, k in zip(how["pad"], how["kernel"], strict=True))


def _padded(r: Reading, how: dict[str, Any], value: float) -> Tensor:
    """The input, wide padding spelled out."""
    if not _is_wide(how):
        return r[0]
    if how["ceil_mode"]:
        raise ReadError("padding of more than half a window with ceil_mode is not supported")
    x = r.unary("pad", r[0], pad=how["pad"], value=value)
    how["pad"] = ((0, 0),) * len(how["kernel"])
    return x


def max_pool(r: Reading) -> Result:
    how = _window(r)
    if not r.wants(1):
        return r.unary("max_pool", _padded(r, how, -inf), **how)
    y, positions = r.apply_all("max_pool_with_positions", {"x": r[0]}, **how)
    shape = positions.type.shape
    if r.attribute("storage_order", 0):
        positions = _by_columns(r, positions)
    planes = _planes(shape, r.shape(0)[2:])
    return [y, r.binary("add", positions, planes)]


def _planes(shape: Sequence[Dim], space: Sequence[Dim]) -> Known:
    """Where each plane starts in a tensor: ours count through a plane, ONNX's through all."""
    sizes = [size for size in (*shape[:2], *space) if isinstance(size, int)]
    if len(sizes) < 2 + len(space):
        raise Undecided(f"positions need known sizes, not {list(shape)}; bind them when loading")
    starts = np.arange(sizes[0] * sizes[1], dtype=np.int64) * prod(sizes[2:])
    return Known(starts.reshape(sizes[0], sizes[1], *(1 for _ in space)))


def _by_columns(r: Reading, positions: Value) -> Value:
    """row * width + column, as column * height + row. Exact: positions are far below 2^53."""
    space = known_space(r)
    if len(space) != 2:
        raise ReadError("storage_order 1 is supported in planes only")
    height, width = (Known(np.asarray(float(size))) for size in space)
    place = r.unary("cast", positions, dtype="f64")
    row = r.unary("floor", r.binary("div", place, width))
    column = r.binary("sub", place, r.binary("mul", row, width))
    turned = r.binary("add", r.binary("mul", column, height), row)
    return r.unary("cast", turned, dtype="i64")


def max_unpool(r: Reading) -> Tensor:
    """Positions are those of the smallest output; a larger one is that, and zeros behind."""
    how = _window(r)
    del how["dilation"], how["ceil_mode"]
    space = tuple(
        (extent - 1) * s - sum(pad) + k
        for extent, s, pad, k in zip(
            known_space(r), how["stride"], how["pad"], how["kernel"], strict=True
        )
    )
    positions = r.binary("sub", r[1], _planes(r.shape(0), space))
    y = r.apply("max_unpool", {"x": r[0], "positions": positions}, **how)
    wanted = r.sizes(2)[2:] if r.has(2) else list(space)
    if wanted == list(space):
        return y
    around = tuple((0, size - has) for size, has in zip(wanted, space, strict=True))
    return r.unary("pad", y, pad=around)


def avg_pool(r: Reading) -> Tensor:
    how = _window(r)
    counts = bool(r.attribute("count_include_pad", 0))
    if any(d > 1 for d in how["dilation"]) or _is_wide(how):
        return _dilated_mean(r, how, counts)
    del how["dilation"]
    return r.unary("avg_pool", r[0], **how, count_include_pad=counts)


def _dilated_mean(r: Reading, how: dict[str, Any], counts: bool) -> Tensor:
    """Sums by a depthwise convolution of ones, over how many were summed."""
    space, channels = known_space(r), r.shape(0)[1]
    divisor: Any = np.ones(())
    around: list[tuple[int, int]] = []
    if how["pad"] == "same":
        raise ReadError("dilation with auto_pad SAME_UPPER is not supported")
    for axis, extent in enumerate(space):
        k, s, d = (how[name][axis] for name in ("kernel", "stride", "dilation"))
        before, after = how["pad"][axis]
        slack = extent + before + after - d * (k - 1) - 1
        size = slack // s + 1
        if how["ceil_mode"]:
            size = min(-(-slack // s) + 1, (extent + before - 1) // s + 1)
        low, high = (-before, extent + after) if counts else (0, extent)
        summed = [sum(low <= o * s - before + t * d < high for t in range(k)) for o in range(size)]
        divisor = np.multiply.outer(divisor, np.asarray(summed))
        around.append((before, max((size - 1) * s + d * (k - 1) + 1 - extent - before, 0)))
    if not isinstance(channels, int):
        raise Undecided("dilation needs a known number of channels")
    ones = r.like(np.ones((channels, 1, *how["kernel"])), r[0])
    same = {name: how[name] for name in ("kernel", "stride", "dilation")}
    same |= {"pad": tuple(around), "groups": channels, "bias": False}
    total = r.apply("conv", {"x": r[0], "weight": ones}, channels=channels, **same)
    return r.binary("div", total, r.like(divisor[None, None], r[0]))


def lp_pool(r: Reading) -> Tensor:
    how = _window(r)
    return r.unary("lp_pool", _padded(r, how, 0.0), **how, order=r.attribute("p", 2))


def whole(op: str) -> Rule:
    """Pooling over all of space."""

    def rule(r: Reading) -> Tensor:
        order = {"order": r.attribute("p", 2)} if op == "lp_pool" else {}
        return r.unary(op, r[0], kernel="global", **order)

    return rule


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "AveragePool": avg_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": whole("max_pool"),
    "GlobalAveragePool": whole("avg_pool"),
    "GlobalLpPool": whole("lp_pool"),
}
