"""Padding of windows, in ONNX both ways and in PyTorch; and `pad` itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.correspondence.wording import Lacking, PyTorch, Wording, listed, text
from convdsl.interop.reading.tensors import ReadError, Tensor, Undecided
from convdsl.ir.opdef import Call
from convdsl.ir.windows import SAME, fold_index
from convdsl.tensor import Dim, DType, provably

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

Pairs: TypeAlias = "tuple[tuple[int, int], ...]"

ONNX_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""ONNX's words by ours."""
_OURS = {theirs: ours for ours, theirs in ONNX_MODES.items()}

_SAME_UPPER = "SAME_UPPER"
"""Our `same`: the odd position at the end."""


# From ONNX


def pairs(pads: Sequence[int]) -> Pairs:
    """(before, after) per axis from all starts, then all ends."""
    rank = len(pads) // 2
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def read_padding(
    r: Reading, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pairs | str:
    """Padding in pairs, or `same`; SAME_LOWER needs known sizes."""
    auto = r.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return pairs(r.attribute("pads", [0] * (2 * len(kernel))))
    if auto == "VALID":
        return ((0, 0),) * len(kernel)
    if auto == _SAME_UPPER:
        return SAME
    if auto != "SAME_LOWER":
        raise ReadError(f"auto_pad {auto} does not exist")
    found: list[tuple[int, int]] = []
    for extent, k, s, d in zip(known_space(r), kernel, stride, dilation, strict=True):
        total = max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
        found.append((total - total // 2, total // 2))
    return tuple(found)


def puts_odd_last(r: Reading) -> bool:
    """Whether an odd position of padding is put at the end."""
    return r.attribute("auto_pad", "NOTSET") == _SAME_UPPER


def known_space(r: Reading) -> list[int]:
    """Extents of space that have to be known; raises Undecided."""
    sizes = [size for size in r.shape(0)[2:] if isinstance(size, int)]
    if len(sizes) < r.rank(0) - 2:
        raise Undecided(f"needs known sizes, not {r.shape(0)}; bind them when loading")
    return sizes


def _read_pad(r: Reading) -> Tensor:
    mode = r.attribute("mode", "constant")
    if mode not in _OURS:
        raise ReadError(f"padding mode {mode} does not exist")
    around = r.sizes(1) if r.has(1) else list(r.attribute("pads", r.attribute("paddings")))
    value = r.number(2) if r.has(2) else r.attribute("value", 0.0)
    axes = [axis % r.rank(0) for axis in r.axes(3) or range(r.rank(0))]
    x, found = _cropped(r, axes, pairs(around))
    kept = [(axis, pair) for axis, pair in zip(axes, found, strict=True) if pair != (0, 0)]
    if not kept:
        return r.unary("identity", x)
    where = tuple(axis for axis, _ in kept)
    amounts = tuple(pair for _, pair in kept)
    return r.unary("pad", x, pad=amounts, mode=_OURS[mode], value=value, axes=where)


def _cropped(r: Reading, axes: Sequence[int], around: Any) -> tuple[Tensor, list[tuple[Dim, Dim]]]:
    """Negative padding cuts off."""
    x = r[0]
    found: list[tuple[Dim, Dim]] = []
    for axis, (before, after) in zip(axes, around, strict=True):
        start, stop = (-p if _is_negative(p) else 0 for p in (before, after))
        if start or stop:
            end = r.shape(0)[axis] - stop
            limits = {"start": (start,), "stop": (end,), "step": (1,)}
            x = r.unary("slice", x, axes=(axis,), **limits)
        found.append((before + start, after + stop))
    return x, found


def _read_center_crop_pad(r: Reading) -> Tensor:
    """The middle along axes, or zeros around them; an odd position more is at the end."""
    x = r[0]
    axes = [axis % r.rank(0) for axis in r.attribute("axes") or range(r.rank(0))]
    for axis, wanted in zip(axes, r.sizes(1), strict=True):
        extent = r.extent(r.shape(0)[axis])
        before = abs(wanted - extent) // 2
        if wanted < extent:
            limits = {"start": (before,), "stop": (before + wanted,), "step": (1,)}
            x = r.unary("slice", x, axes=(axis,), **limits)
        elif wanted > extent:
            around = ((before, wanted - extent - before),)
            x = r.unary("pad", x, pad=around, mode="zeros", value=0.0, axes=(axis,))
    return r.unary("identity", x) if x is r[0] else x


def _is_negative(amount: Dim) -> bool:
    if provably(">=", amount, 0):
        return False
    if not provably(">=", -1, amount):
        raise Undecided(f"whether {amount} is negative is open")
    return True


# As ONNX


def pads(padding: Sequence[tuple[Dim, Dim]]) -> list[Dim]:
    """All starts, then all ends."""
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def spell_padding(s: Spelling) -> dict[str, Any]:
    """`same` of a size not yet known is the one word that ONNX shares."""
    if s.call["pad"] == SAME:
        return {"auto_pad": _SAME_UPPER}
    return {"pads": pads(s.call["pad"])}


def _spell_pad(s: Spelling) -> str:
    call = s.call
    value = "" if call["mode"] != "zeros" else s.constant(call["value"])
    around = (s.integers(pads(call["pad"])), value, s.integers(call["axes"]))
    return s("Pad", s["x"], *around, mode=ONNX_MODES[call["mode"]])


# In PyTorch


def padding_of(call: Call) -> Sequence[tuple[int, int]]:
    """Padding in pairs; raises InputError for `same` of free sizes."""
    if call["pad"] == SAME:
        raise InputError("pad = same needs known sizes; bind them before exporting")
    return call["pad"]


def is_even(call: Call) -> bool:
    """Whether both sides are padded alike, which is all that PyTorch's layers do."""
    return all(before == after for before, after in padding_of(call))


def layer_padding(call: Call) -> str:
    """Padding that a layer adds itself."""
    return text(tuple(before for before, _ in padding_of(call))) if is_even(call) else "0"


def padded(
    x: str, around: Sequence[tuple[Any, Any]], mode: str = "zeros", value: Any = None
) -> str:
    """x with padding of its last axes; PyTorch counts them from the last."""
    flat = [amount for pair in reversed(around) for amount in pair]
    words = "constant" if mode == "zeros" else mode
    extra = "" if value is None else f", value={text(value)}"
    return f'functional.pad({x}, {listed(flat)}, "{words}"{extra})'


_FOLDED = "PyTorch folds the axes of space only, and others only where their sizes are known"


def _say_pad(w: Wording) -> str:
    """Folding is for axes of space; along others positions are picked one by one."""
    call, x = w.call, w["x"]
    rank: int = call.type("x").rank
    axes: list[int] = list(call["axes"])
    if call["mode"] == "zeros":
        around = [
            call["pad"][axes.index(a)] if a in axes else (0, 0) for a in range(min(axes), rank)
        ]
        is_mask = call.type("x").dtype is DType.BOOL
        return padded(x, around, value=bool(call["value"]) if is_mask else call["value"])
    if rank <= 5 and min(axes) >= 2:
        around = [call["pad"][axes.index(a)] if a in axes else (0, 0) for a in range(2, rank)]
        return padded(x, around, call["mode"])
    for axis, (before, after) in zip(axes, call["pad"], strict=True):
        extent = call.type("x").shape[axis]
        if not isinstance(extent, int):
            raise Lacking(_FOLDED)
        picked = [fold_index(call["mode"], i, extent) for i in range(-before, extent + after)]
        x = f"{x}[{':, ' * axis}{listed(picked)}]"
    return x


ROWS = (
    Row(
        "pad",
        "Pad",
        PyTorch("functional.pad", _say_pad, lacks=(_FOLDED,)),
        _spell_pad,
        Read(_read_pad, deciding=(1, 2, 3)),
    ),
)

READING = {"CenterCropPad": Read(_read_center_crop_pad, deciding=(1,))}
