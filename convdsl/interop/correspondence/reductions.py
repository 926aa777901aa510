"""Reductions along axes, and where the largest elements are."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.arithmetic import magnitude
from convdsl.interop.correspondence.row import (
    Keyword,
    Read,
    Result,
    Row,
    attributes_read,
    same,
)
from convdsl.interop.correspondence.wording import PyTorch, Wording, keywords
from convdsl.interop.reading.tensors import Known, Tensor, shape_of
from convdsl.ops.extent import BEGIN, END
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def _read_reduction(op: str, r: Reading) -> Tensor:
    x, axes = r[0], r.axes(1)
    rank = r.rank(0)
    if not axes:
        if r.attribute("noop_with_empty_axes", 0):
            return _elementwise(op, r)
        axes = list(range(rank))
    if not rank:
        return _elementwise(op, r)
    keep = bool(r.attribute("keepdims", 1))
    if str(r.dtype(0)) == "bool":
        number = r.unary("cast", x, dtype="i64")
        return r.unary("cast", r.unary(op, number, axes=tuple(axes), keepdims=keep), dtype="bool")
    if not r.dtype(0).is_float and op in _OF_SUMS:
        return _whole(op, r, [axis % rank for axis in axes], keep)
    return r.unary(op, x, axes=tuple(axes), keepdims=keep)


_OF_SUMS = ("reduce_mean", "reduce_l1", "reduce_sum_square")
"""Reductions of integers that are sums; a mean is cut to a whole number, as quotients are."""


def _whole(op: str, r: Reading, axes: list[int], keep: bool) -> Tensor:
    x = _elementwise(op, r)
    total = r.unary("reduce_sum", x, axes=tuple(axes), keepdims=keep)
    if op != "reduce_mean":
        return total
    count = prod(r.extent(r.shape(0)[axis]) for axis in axes)
    return r.binary("quotient", total, r.like(count, total))


def _elementwise(op: str, r: Reading) -> Tensor:
    """A reduction of every element by itself."""
    if op in ("reduce_l1", "reduce_l2", "reduce_log_sum_exp"):
        return r[0] if op == "reduce_log_sum_exp" else magnitude(r, r[0])
    if op == "reduce_sum_square":
        return r.binary("mul", r[0], r[0])
    return r.unary("identity", r[0])


def _read_log_sum(r: Reading) -> Tensor:
    return r.unary("log", _read_reduction("reduce_sum", r))


def _read_selection(op: str, r: Reading) -> Tensor:
    how = attributes_read(op, _SELECTION, r)
    if not r.attribute("select_last_index", 0):
        return r.unary(op, r[0], **how)
    axis: int = how["axis"] % r.rank(0)
    backwards = r.unary("slice", r[0], axes=(axis,), start=(BEGIN,), stop=(END,), step=(-1,))
    last = r.extent(r.shape(0)[axis]) - 1
    return r.binary("sub", Known(np.asarray(last)), r.unary(op, backwards, **how))


def _read_top_k(r: Reading) -> Result:
    count = r.sizes(1)[0] if r.has(1) else r.attribute("k")
    return list(r.apply_all("top_k", {"x": r[0]}, k=count, **attributes_read("top_k", _TOP_K, r)))


def _read_hardmax(r: Reading) -> Tensor:
    """1 where the first of the largest is, else 0; before opset 13 everything from the axis on is
    one axis."""
    x, shape = r[0], r.shape(0)
    axis: int = r.attribute("axis", 1 if r.opset < 13 else -1) % max(len(shape), 1)
    if r.opset < 13:
        x = r.reshape(x, (*shape[:axis], prod(shape[axis:])))
    places = np.arange(r.extent(shape_of(x)[axis]))
    places = places.reshape(-1, *(1 for _ in shape_of(x)[axis + 1 :]))
    best = r.unary("argmax", x, axis=axis, keepdims=True)
    y = r.unary("cast", r.binary("equal", best, Known(places)), dtype=str(r.dtype(0)))
    return y if r.opset >= 13 else r.reshape(y, shape)


def _read_one_hot(r: Reading) -> Tensor:
    """on where the position is the index, else off; of an index beyond the depth nothing is on."""
    rank = r.rank(0)
    axis: int = r.attribute("axis", -1) % (rank + 1)
    depth = int(r.number(1))
    index = r[0] if r.dtype(0) is DType.I64 else r.unary("cast", r[0], dtype="i64")
    below = r.binary("less", index, r.like(0, index))
    counted = r.binary("add", index, r.like(depth, index))
    index = r.apply("where", {"condition": below, "a": counted, "b": index})
    index = r.unary("unsqueeze", index, axes=(axis,))
    places = np.arange(depth).reshape(-1, *(1 for _ in range(rank - axis)))
    off, on = r.apply_all("split", {"x": r[2]}, parts=(1, 1), axis=0)
    is_it = r.binary("equal", index, Known(places))
    numbers = {"a": r.reshape(on, ()), "b": r.reshape(off, ())}
    return r.apply("where", {"condition": is_it, **numbers})


# As ONNX


def _spell_reduction(kind: str, s: Spelling) -> str:
    return s(kind, s["x"], s.integers(s.call["axes"]), keepdims=int(s.call["keepdims"]))


def _spell_top_k(s: Spelling) -> list[str]:
    count, largest = s.integers([s.call["k"]]), int(s.call["largest"])
    return s("TopK", s["x"], count, outputs=2, axis=s.call["axis"], largest=largest)


# In PyTorch


def _along(name: str, x: str = "{x}", before: str = "") -> PyTorch:
    """name(x, before, axes, keepdim)"""

    def say(w: Wording) -> str:
        keep = keywords(("keepdim", str(w.call["keepdims"]), "False"))
        return f"{name}({x.format(x=w['x'])}{before}, {tuple(w.call['axes'])}{keep})"

    return PyTorch(name, say)


def _say_prod(w: Wording) -> str:
    """PyTorch multiplies along one axis at a time."""
    keep = keywords(("keepdim", str(w.call["keepdims"]), "False"))
    return w["x"] + "".join(f".prod({axis}{keep})" for axis in sorted(w.call["axes"])[::-1])


def _say_top_k(w: Wording) -> str:
    """By a stable sort: torch.topk leaves the order of equals open."""
    axis, k = w.call["axis"], w.call["k"]
    order = f"dim={axis}, descending={w.call['largest']}, stable=True"
    return f"(part.narrow({axis}, 0, {k}) for part in torch.sort({w['x']}, {order}))"


def _reduction(op: str, kind: str, pytorch: PyTorch) -> Row:
    return Row(
        op,
        kind,
        pytorch,
        lambda s: _spell_reduction(kind, s),
        Read(lambda r: _read_reduction(op, r), deciding=(1,)),
    )


def _selection(op: str, kind: str, name: str) -> Row:
    return same(op, kind, name, *_SELECTION, read=lambda r: _read_selection(op, r))


_SELECTION = (Keyword("axis", "axis", "dim", 0), Keyword("keepdims", "keepdims", "keepdim", 1))
_TOP_K = (Keyword("axis", "axis", "dim", -1), Keyword("largest", "largest", "descending", 1))

ROWS = (
    _reduction("reduce_sum", "ReduceSum", _along("torch.sum")),
    _reduction("reduce_mean", "ReduceMean", _along("torch.mean")),
    _reduction("reduce_max", "ReduceMax", _along("torch.amax")),
    _reduction("reduce_min", "ReduceMin", _along("torch.amin")),
    _reduction("reduce_prod", "ReduceProd", PyTorch("torch.prod", _say_prod)),
    _reduction("reduce_l1", "ReduceL1", _along("torch.linalg.vector_norm", before=", 1")),
    _reduction("reduce_l2", "ReduceL2", _along("torch.linalg.vector_norm", before=", 2")),
    _reduction("reduce_sum_square", "ReduceSumSquare", _along("torch.sum", "{x} * {x}")),
    _reduction("reduce_log_sum_exp", "ReduceLogSumExp", _along("torch.logsumexp")),
    _selection("argmax", "ArgMax", "torch.argmax"),
    _selection("argmin", "ArgMin", "torch.argmin"),
    Row(
        "top_k",
        "TopK",
        PyTorch("torch.sort", _say_top_k),
        _spell_top_k,
        Read(_read_top_k, deciding=(1,)),
        _TOP_K,
    ),
)

READING = {
    "ReduceLogSum": Read(_read_log_sum, deciding=(1,)),
    "Hardmax": Read(_read_hardmax),
    "OneHot": Read(_read_one_hot, deciding=(1,)),
}
