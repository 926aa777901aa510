"""Pooling over windows, over parts of an axis, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.padding import (
    is_even,
    known_space,
    layer_padding,
    padded,
    padding_of,
    read_padding,
    spell_padding,
)
from convdsl.interop.correspondence.row import Read, ReadRule, Result, Row, only_spelled
from convdsl.interop.correspondence.wording import (
    Lacking,
    PyTorch,
    Wording,
    keywords,
    text,
    torch_dtype,
)
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, Undecided
from convdsl.ir.graph import Value
from convdsl.ir.windows import GLOBAL, SAME, explicit_window
from convdsl.tensor import Dim

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


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
        "pad": read_padding(r, kernel, stride, dilation),
        "ceil_mode": bool(r.attribute("ceil_mode", 0)),
    }


def _is_wide(how: dict[str, Any]) -> bool:
    """Whether windows may lie in the padding for more than half, which ours may not."""
    if how["pad"] == SAME:
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


def _read_max_pool(r: Reading) -> Result:
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


def _read_max_unpool(r: Reading) -> Tensor:
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


def _read_avg_pool(r: Reading) -> Tensor:
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
    if how["pad"] == SAME:
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


def _read_lp_pool(r: Reading) -> Tensor:
    how = _window(r)
    return r.unary("lp_pool", _padded(r, how, 0.0), **how, order=r.attribute("p", 2))


def _read_global(op: str) -> ReadRule:
    """Pooling over all of space."""

    def rule(r: Reading) -> Tensor:
        order = {"order": r.attribute("p", 2)} if op == "lp_pool" else {}
        return r.unary(op, r[0], kernel=GLOBAL, **order)

    return rule


# As ONNX


def _spell_pool(kind: str, s: Spelling, outputs: int = 1) -> Any:
    call = s.call
    attributes: dict[str, Any] = {}
    if "order" in call.attributes:
        attributes["p"] = call["order"]
    if call["kernel"] == GLOBAL:
        if outputs == 1:
            return s(f"Global{kind}", s["x"], **attributes)
        return s(kind, s["x"], outputs=outputs, kernel_shape=call.type("x").shape[2:])
    attributes |= {"kernel_shape": call["kernel"], "strides": call["stride"]}
    if "count_include_pad" in call.attributes:
        attributes["count_include_pad"] = int(call["count_include_pad"])
    if "dilation" in call.attributes:
        attributes["dilations"] = call["dilation"]
    attributes |= spell_padding(s) | {"ceil_mode": int(call["ceil_mode"])}
    return s(kind, s["x"], outputs=outputs, **attributes)


def _spell_positions(s: Spelling) -> list[str]:
    """ONNX counts through the whole tensor, we through a plane."""
    y, positions = _spell_pool("MaxPool", s, outputs=2)
    plane: Dim = prod(s.call.type("x").shape[2:])
    return [y, s("Mod", positions, s.integers([plane]))]


def _spell_max_unpool(s: Spelling) -> str:
    """Onto what the windows reach, and zeros behind: of an `output_shape` beyond the smallest,
    positions count through the smallest by ONNX's reference and through the larger by onnxruntime.
    """
    call = s.call
    (whole,) = call.outputs
    batch, channels, *space = whole.shape
    ends: list[int] = []
    least: list[Dim] = []
    steps = zip(call.type("x").shape[2:], call["stride"], call["pad"], call["kernel"], strict=True)
    for wanted, (size, step, (before, _), kernel) in zip(space, steps, strict=True):
        reach = (size - 1) * step - before + kernel
        beyond = reach - wanted
        ends.append(max(beyond, 0) if isinstance(beyond, int) else 0)
        least.append(reach - ends[-1])
    positions = s["positions"]
    if least[1:] != space[1:]:
        positions = _counted_through(s, positions, space, least)
    known = [size for size in (batch, channels, *least) if isinstance(size, int)]
    if len(known) < whole.rank:
        planes = s("Range", s.constant(0, "int64"), _scalar(s, batch * channels),
                   s.constant(1, "int64"))  # fmt: skip
        scaled = s("Mul", planes, s.integers([prod(least)]))
        offsets = s("Reshape", scaled, s.integers([batch, channels, *(1 for _ in space)]))
    else:
        counted = np.arange(prod(known[:2])) * prod(known[2:])
        offsets = s.constant(counted.reshape(*known[:2], *(1 for _ in space)), "int64")
    window: dict[str, Any] = {"kernel_shape": call["kernel"], "strides": call["stride"]}
    window["pads"] = [*(before for before, _ in call["pad"]), *ends]
    y = s("MaxUnpool", s["x"], s("Add", positions, offsets), **window)
    behind = [size - has for size, has in zip(space, least, strict=True)]
    if not any(behind):
        return y
    return s("Pad", y, s.integers([*[0] * (whole.rank + 2), *behind]))


def _counted_through(s: Spelling, positions: str, own: Sequence[Dim], other: Sequence[Dim]) -> str:
    """Positions in a plane of some sizes as positions in one of others."""
    rest, total = positions, ""
    for axis in range(len(own) - 1, -1, -1):
        place = s("Mod", rest, s.integers([own[axis]])) if axis else rest
        rest = s("Div", rest, s.integers([own[axis]])) if axis else ""
        inner = other[axis + 1 :]
        scaled = s("Mul", place, s.integers([prod(inner)])) if inner else place
        total = s("Add", total, scaled) if total else scaled
    return total


def _scalar(s: Spelling, size: Dim) -> str:
    return s("Squeeze", s.integers([size]), s.integers([0]))


def _spell_adaptive(kind: str, s: Spelling) -> str:
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


# In PyTorch


def _options(w: Wording, *more: tuple[str, str, str]) -> str:
    call = w.call
    return text(call["kernel"]) + keywords(
        ("stride", text(call["stride"]), text(call["kernel"])),
        ("dilation", text(call.attributes.get("dilation", 1)), "1"),
        *more,
    )


def _own_padding(w: Wording) -> tuple[tuple[str, str, str], ...]:
    """Padding that PyTorch does: the same on both sides."""
    call = w.call
    return (
        ("padding", layer_padding(call), "0"),
        ("ceil_mode", str(call["ceil_mode"]), "False"),
        ("count_include_pad", str(call.attributes.get("count_include_pad", True)), "True"),
    )


def _covering(w: Wording) -> list[tuple[Dim, Dim]]:
    """Padding that makes the windows of the output just fit, rounded up or not."""
    call, window = w.call, explicit_window(w.call)
    padding_of(call)  # known sizes
    if not call["ceil_mode"]:
        return list(window.padding)
    found: list[tuple[Dim, Dim]] = []
    for axis, size in enumerate(call.outputs[0].shape[2:]):
        before, extent = window.padding[axis][0], call.type("x").shape[2 + axis]
        last = (size - 1) * window.stride[axis] + window.extent(axis)
        found.append((before, last - extent - before))
    return found


def _say_max_pool(w: Wording) -> str:
    name = f"max_pool{w.rank}d"
    if w.call["kernel"] == GLOBAL:
        return f"functional.adaptive_{name}({w['x']}, 1)"
    if is_even(w.call):
        return f"functional.{name}({w['x']}, {_options(w, *_own_padding(w))})"
    return f"functional.{name}({padded(w['x'], _covering(w), value=-inf)}, {_options(w)})"


_COUNTED = "PyTorch has positions in windows that are padded on both sides alike only"


def _say_positions(w: Wording) -> str:
    name = f"max_pool{w.rank}d"
    if w.call["kernel"] == GLOBAL:
        return f"functional.adaptive_{name}({w['x']}, 1, return_indices=True)"
    if not is_even(w.call):
        raise Lacking(_COUNTED)
    options = _options(w, *_own_padding(w), ("return_indices", "True", ""))
    return f"functional.{name}({w['x']}, {options})"


def _say_avg_pool(w: Wording) -> str:
    """A mean of less than PyTorch would count is a mean over the mean of what counts."""
    call, x, name = w.call, w["x"], f"avg_pool{w.rank}d"
    if call["kernel"] == GLOBAL:
        return f"functional.adaptive_{name}({x}, 1)"
    if is_even(call):
        return f"functional.{name}({x}, {_options(w, *_own_padding(w))})"
    mean = f"functional.{name}({padded(x, _covering(w))}, {_options(w)})"
    counts_all = call["count_include_pad"]
    if counts_all and not call["ceil_mode"]:
        return mean
    counted, around = f"torch.ones_like({x})", _covering(w)
    if counts_all:
        own = padding_of(call)
        counted = padded(counted, own, value=1.0)
        around = [(0, after - has) for (_, after), (_, has) in zip(around, own, strict=True)]
    return f"{mean} / functional.{name}({padded(counted, around)}, {_options(w)})"


def _say_lp_pool(w: Wording) -> str:
    """Sums of powers, by a convolution with ones; PyTorch's own pads and dilates nothing."""
    call, x, order = w.call, w["x"], w.call["order"]
    if call["kernel"] == GLOBAL:
        axes = tuple(range(2, 2 + w.rank))
        return f"torch.linalg.vector_norm({x}, {order}, {axes}, keepdim=True)"
    channels, kernel = text(call.type("x").shape[1]), ", ".join(map(str, call["kernel"]))
    ones = f"torch.ones({channels}, 1, {kernel}, dtype={torch_dtype(call.type('x').dtype)})"
    options = keywords(
        ("stride", text(call["stride"]), "1"),
        ("dilation", text(call["dilation"]), "1"),
        ("groups", channels, "1"),
    )
    powers = padded(f"{x}.abs() ** {order}", _covering(w))
    return f"functional.conv{w.rank}d({powers}, {ones}{options}) ** (1 / {order})"


def _say_max_unpool(w: Wording) -> str:
    """With the one kernel whose smallest output without padding is the output."""
    call, x = w.call, w.call.type("x").shape[2:]
    kernel = tuple(
        size - (extent - 1) * stride
        for size, extent, stride in zip(call.outputs[0].shape[2:], x, call["stride"], strict=True)
    )
    sizes = f"{text(kernel)}, {text(call['stride'])}"
    return f"functional.max_unpool{w.rank}d({w['x']}, {w['positions']}, {sizes})"


def _adaptive(kind: str, inner: str) -> Row:
    def say(w: Wording) -> str:
        return f"functional.adaptive_{kind}_pool{w.rank}d({w['x']}, {text(w.call['size'])})"

    return only_spelled(
        f"adaptive_{kind}_pool",
        "",
        PyTorch(f"functional.adaptive_{kind}_pool{{rank}}d", say),
        partial(_spell_adaptive, inner),
    )


ROWS = (
    Row(
        "max_pool",
        "MaxPool",
        PyTorch("functional.max_pool{rank}d", _say_max_pool),
        partial(_spell_pool, "MaxPool"),
        Read(_read_max_pool),
    ),
    only_spelled(
        "max_pool_with_positions",
        "MaxPool",
        PyTorch("functional.max_pool{rank}d", _say_positions, lacks=(_COUNTED,)),
        _spell_positions,
    ),
    Row(
        "avg_pool",
        "AveragePool",
        PyTorch("functional.avg_pool{rank}d", _say_avg_pool),
        partial(_spell_pool, "AveragePool"),
        Read(_read_avg_pool),
    ),
    Row(
        "lp_pool",
        "LpPool",
        PyTorch("functional.conv{rank}d", _say_lp_pool),
        partial(_spell_pool, "LpPool"),
        Read(_read_lp_pool),
    ),
    Row(
        "max_unpool",
        "MaxUnpool",
        PyTorch("functional.max_unpool{rank}d", _say_max_unpool),
        _spell_max_unpool,
        Read(_read_max_unpool, deciding=(2,)),
    ),
    _adaptive("avg", "ReduceMean"),
    _adaptive("max", "ReduceMax"),
)

READING = {
    "GlobalMaxPool": Read(_read_global("max_pool")),
    "GlobalAveragePool": Read(_read_global("avg_pool")),
    "GlobalLpPool": Read(_read_global("lp_pool")),
}
"""Kinds of nodes that are operators of ours in one configuration."""
