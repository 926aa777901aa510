"""Regions of maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.correspondence.wording import Lacking, PyTorch, Wording
from convdsl.interop.reading.tensors import Tensor
from convdsl.ir.graph import OpNode, Value
from convdsl.ops.regions import LARGEST, MEAN
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

_ALIGNED = {"half_pixel": True, "output_half_pixel": False}
"""ONNX's words for where a coordinate lies."""

_NEWEST = 21
"""onnxruntime 1.32 has no kernels for the definitions of opset 22."""

_MODES = {"avg": MEAN, "max": LARGEST}


# From ONNX


def _read_roi_align(r: Reading) -> Tensor:
    """Before opset 16 coordinates lay as `output_half_pixel` has them."""
    usual = "half_pixel" if r.opset >= 16 else "output_half_pixel"
    how = {
        "size": (r.attribute("output_height", 1), r.attribute("output_width", 1)),
        "scale": r.attribute("spatial_scale", 1.0),
        "samples": r.attribute("sampling_ratio", 0),
        "aligned": _ALIGNED[r.attribute("coordinate_transformation_mode", usual)],
        "mode": _MODES[r.attribute("mode", "avg")],
    }
    return r.apply("roi_align", {"x": r[0], "regions": r[1], "images": r[2]}, **how)


def _read_max_roi_pool(r: Reading) -> Tensor:
    """A region is the number of its image, then its corners."""
    images, corners = _joined(r[1]) or _parted(r)
    how = {
        "size": tuple(r.attribute("pooled_shape")),
        "scale": r.attribute("spatial_scale", 1.0),
    }
    return r.apply("roi_pool", {"x": r[0], "regions": corners, "images": images}, **how)


def _parted(r: Reading) -> tuple[Tensor, Tensor]:
    first = r.unary("slice", r[1], axes=(1,), start=(0,), stop=(1,))
    corners = r.unary("slice", r[1], axes=(1,), start=(1,), stop=(5,))
    return r.unary("squeeze", r.unary("cast", first, dtype="i64"), axes=(1,)), corners


def _joined(regions: Tensor) -> tuple[Tensor, Tensor] | None:
    """The images and corners that regions were joined from, as we write them."""
    found = _made_by(regions, "concat")
    if found is None or found.attributes["axis"] != 1 or len(found.data_inputs) != 2:
        return None
    numbers, corners = found.data_inputs
    column = _made_by(numbers, "unsqueeze")
    cast = None if column is None else _made_by(column.data_inputs[0], "cast")
    images = None if cast is None else cast.data_inputs[0]
    if images is None or images.type.rank != 1 or images.type.dtype is not DType.I64:
        return None
    return images, corners


def _made_by(x: Tensor, op: str) -> OpNode | None:
    node = x.node if isinstance(x, Value) else None
    return node if isinstance(node, OpNode) and node.op.name == op else None


# As ONNX


def _spell_roi_align(s: Spelling) -> str:
    words = {aligned: word for word, aligned in _ALIGNED.items()}
    modes = {ours: theirs for theirs, ours in _MODES.items()}
    height, width = s.call["size"]
    how: dict[str, Any] = {
        "output_height": height,
        "output_width": width,
        "spatial_scale": float(s.call["scale"]),
        "sampling_ratio": s.call["samples"],
        "coordinate_transformation_mode": words[s.call["aligned"]],
        "mode": modes[s.call["mode"]],
    }
    return s("RoiAlign", s["x"], s["regions"], s["images"], **how)


def _spell_roi_pool(s: Spelling) -> str:
    numbers = s("CastLike", s["images"], s["regions"])
    column = s("Unsqueeze", numbers, s.integers([1]))
    rows = s("Concat", column, s["regions"], axis=1)
    how: dict[str, Any] = {
        "pooled_shape": s.call["size"],
        "spatial_scale": float(s.call["scale"]),
    }
    return s("MaxRoiPool", s["x"], rows, **how)


# In PyTorch


_ELSEWHERE = "PyTorch has no regions of maps: they are torchvision's"


def _say(w: Wording) -> str:
    """PyTorch's source imports PyTorch alone."""
    raise Lacking(_ELSEWHERE)


ROWS = (
    Row(
        "roi_align",
        "RoiAlign",
        PyTorch("torchvision.ops.roi_align", _say, lacks=(_ELSEWHERE,)),
        _spell_roi_align,
        Read(_read_roi_align),
        newest=_NEWEST,
    ),
    Row(
        "roi_pool",
        "MaxRoiPool",
        PyTorch("torchvision.ops.roi_pool", _say, lacks=(_ELSEWHERE,)),
        _spell_roi_pool,
        Read(_read_max_roi_pool),
        newest=_NEWEST,
    ),
)

READING: dict[str, Read] = {}
