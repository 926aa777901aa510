"""Sampling by a grid, and patches of space."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.row import Read, Row, only_spelled
from convdsl.interop.correspondence.wording import Lacking, PyTorch, Wording, keywords, text
from convdsl.interop.reading.tensors import Tensor
from convdsl.ops.patches import places_of
from convdsl.tensor import Dim

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

_MODES = {"bilinear": "linear", "bicubic": "cubic", "trilinear": "linear"}
"""ONNX's words before opset 20, and PyTorch's."""


# From ONNX


def read_grid_sample(r: Reading) -> Tensor:
    """GridSample: modes are called as before opset 20, or since."""
    mode = r.attribute("mode", "linear")
    how = {
        "mode": _MODES.get(mode, mode),
        "padding": r.attribute("padding_mode", "zeros"),
        "align_corners": bool(r.attribute("align_corners", 0)),
    }
    return r.apply("grid_sample", {"x": r[0], "grid": r[1]}, **how)


def _read_affine_grid(r: Reading) -> Tensor:
    """theta times the middles (or with `align_corners` the corners) of the output's elements."""
    n, _, *space = (r.extent(size) for size in r.sizes(1))
    corners = r.attribute("align_corners", 0)
    lines = [
        np.linspace(-1, 1, extent) * (1.0 if corners else (extent - 1) / extent) for extent in space
    ]
    mesh = np.meshgrid(*lines, indexing="ij")
    base = np.stack([*mesh[::-1], np.ones(space)], axis=-1).reshape(-1, len(space) + 1)
    turned = r.unary("transpose", r[0], axes=(0, 2, 1))
    grid = r.binary("matmul", r.like(base[None], r[0]), turned)
    return r.reshape(grid, (n, *space, len(space)))


def _read_col2im(r: Reading) -> Tensor:
    size, kernel = r.sizes(1), r.sizes(2)
    rank = len(kernel)
    pads = r.attribute("pads") or [0] * (2 * rank)
    how = {
        "stride": tuple(r.attribute("strides") or (1,) * rank),
        "dilation": tuple(r.attribute("dilations") or (1,) * rank),
        "pad": tuple(zip(pads[:rank], pads[rank:], strict=True)),
    }
    return r.unary("fold", r[0], size=tuple(size), kernel=tuple(kernel), **how)


# As ONNX


def _spell_grid_sample(s: Spelling) -> str:
    how: dict[str, Any] = {"mode": s.call["mode"], "padding_mode": s.call["padding"]}
    return s("GridSample", s["x"], s["grid"], align_corners=int(s.call["align_corners"]), **how)


def _spell_fold(s: Spelling) -> str:
    starts, ends = zip(*s.call["pad"], strict=True)
    how: dict[str, Any] = {
        "strides": s.call["stride"],
        "dilations": s.call["dilation"],
        "pads": (*starts, *ends),
    }
    return s("Col2Im", s["x"], s.integers(s.call["size"]), s.integers(s.call["kernel"]), **how)


def _spell_unfold(s: Spelling) -> str:
    """Every element of the patches by itself: a slice of what is padded."""
    call, x = s.call, s["x"]
    shape, space = call.type("x").shape, list(range(2, call.type("x").rank))
    starts, ends = zip(*call["pad"], strict=True)
    if any((*starts, *ends)):
        amounts = s.integers([0, 0, *starts, 0, 0, *ends])
        x = s("Pad", x, amounts, s.constant(0.0))
    places = places_of(shape[2:], call.attributes)
    n, c, *_ = shape
    parts: list[str] = []
    for taps in product(*map(range, call["kernel"])):
        first = [tap * d for tap, d in zip(taps, call["dilation"], strict=True)]
        last: list[Dim] = [
            start + (count - 1) * step + 1
            for start, count, step in zip(first, places, call["stride"], strict=True)
        ]
        limits = (first, last, space, call["stride"])
        part = s("Slice", x, *map(s.integers, limits))
        parts.append(s("Reshape", part, s.integers([n, c, 1, prod(places)])))
    joined = s("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    return s("Reshape", joined, s.integers(call.outputs[0].shape))


# In PyTorch


_PLANES = "PyTorch has unfold and fold of planes only"


def _say_grid_sample(w: Wording) -> str:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(w.call["mode"], w.call["mode"])
    if w.call.type("x").rank not in (4, 5):
        raise Lacking(_SPACE)
    options = keywords(
        ("mode", repr(mode), "'bilinear'"),
        ("padding_mode", repr(w.call["padding"]), "'zeros'"),
        ("align_corners", str(w.call["align_corners"]), ""),
    )
    return f"functional.grid_sample({w['x']}, {w['grid']}{options})".replace("'", '"')


_SPACE = "PyTorch samples two and three axes of space"


def _options(w: Wording, pad: Any) -> str:
    return keywords(
        ("dilation", text(w.call["dilation"]), "1"),
        ("padding", text(pad), "0"),
        ("stride", text(w.call["stride"]), "1"),
    )


def _checked(w: Wording, rank: int) -> tuple[bool, list[int]]:
    """Whether padding is the same at both ends, and what pad() calls it."""
    if rank != 2:
        raise Lacking(_PLANES)
    around = [amount for pair in reversed(w.call["pad"]) for amount in pair]
    return all(a == b for a, b in w.call["pad"]), around


def _say_unfold(w: Wording) -> str:
    even, around = _checked(w, len(w.call["kernel"]))
    x = w["x"] if even else f"functional.pad({w['x']}, {tuple(around)})"
    pad = [a for a, _ in w.call["pad"]] if even else 0
    return f"functional.unfold({x}, {text(w.call['kernel'])}{_options(w, pad)})"


def _say_fold(w: Wording) -> str:
    """Uneven padding: added up in what is larger by it, and cut off."""
    even, _ = _checked(w, len(w.call["kernel"]))
    kernel, size = text(w.call["kernel"]), list(w.call["size"])
    if even:
        pad = [a for a, _ in w.call["pad"]]
        return f"functional.fold({w['x']}, {tuple(size)}, {kernel}{_options(w, pad)})"
    whole = tuple(e + a + b for e, (a, b) in zip(size, w.call["pad"], strict=True))
    cut = ", ".join(f"{a}:{a + e}" for e, (a, _) in zip(size, w.call["pad"], strict=True))
    return f"functional.fold({w['x']}, {whole}, {kernel}{_options(w, 0)})[:, :, {cut}]"


ROWS = (
    Row(
        "grid_sample",
        "GridSample",
        PyTorch("functional.grid_sample", _say_grid_sample, lacks=(_SPACE,)),
        _spell_grid_sample,
        Read(read_grid_sample),
    ),
    only_spelled(
        "unfold", "", PyTorch("functional.unfold", _say_unfold, lacks=(_PLANES,)), _spell_unfold
    ),
    Row(
        "fold",
        "Col2Im",
        PyTorch("functional.fold", _say_fold, lacks=(_PLANES,)),
        _spell_fold,
        Read(_read_col2im, deciding=(1, 2)),
    ),
)

READING = {"AffineGrid": Read(_read_affine_grid, deciding=(1,))}
"""A product with positions that are known."""
