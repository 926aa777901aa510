"""Elements taken from, and put at, positions that are data; elements chosen by where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence.row import Keyword, Read, Row, only_spelled, same
from convdsl.interop.correspondence.wording import Lacking, PyTorch, Wording, keywords
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of
from convdsl.tensor import Dim, DType, bounds

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

_ADDED = {"none": "last", "add": "add", "mul": "mul", "max": "max", "min": "min"}
"""ONNX's words for what is made of several for one place, and ours."""


# From ONNX


def _positions(r: Reading) -> Tensor:
    given = r[1]
    return given if dtype_of(given) is DType.I64 else r.unary("cast", given, dtype="i64")


def _read_take_along(r: Reading) -> Tensor:
    inputs = {"x": r[0], "positions": _positions(r)}
    return r.apply("take_along", inputs, axis=r.attribute("axis", 0))


def _read_take_at(r: Reading) -> Tensor:
    inputs = {"x": r[0], "positions": _positions(r)}
    return r.apply("take_at", inputs, batch=r.attribute("batch_dims", 0))


def _by(r: Reading) -> str:
    word = r.attribute("reduction", "none")
    if word not in _ADDED:
        raise ReadError(f"there is no reduction called {word}")
    return _ADDED[word]


def _read_put_along(r: Reading) -> Tensor:
    inputs = {"x": r[0], "positions": _positions(r), "updates": r[2]}
    return r.apply("put_along", inputs, axis=r.attribute("axis", 0), by=_by(r))


def _read_put_at(r: Reading) -> Tensor:
    """Known positions that are a box, as of `x[:, 2:5] = updates`: what lies before it along an
    axis, the box, and what lies behind."""
    start = _box(r) if _by(r) == "last" else None
    if start is not None:
        return _pasted(r, r[0], r[2], start)
    inputs = {"x": r[0], "positions": _positions(r), "updates": r[2]}
    return r.apply("put_at", inputs, by=_by(r))


def _box(r: Reading) -> tuple[int, ...] | None:
    """Where the box begins that positions are, if axis k of them walks along axis k of x."""
    given = r[1]
    if not isinstance(given, Known) or given.is_symbolic:
        return None
    rows = np.asarray(given.array, np.int64)
    said = rows.shape[-1] if rows.ndim else 0
    known = [size for size in r.shape(0)[:said] if isinstance(size, int)]
    if rows.ndim != said + 1 or not rows.size or len(known) < said:
        return None
    rows = np.where(rows < 0, rows + np.array(known), rows)
    first = rows.reshape(-1, said)[0]
    walked = np.meshgrid(*map(np.arange, rows.shape[:-1]), indexing="ij")
    return tuple(map(int, first)) if np.array_equal(rows, np.stack(walked, -1) + first) else None


def _pasted(r: Reading, x: Tensor, updates: Tensor, start: Sequence[int]) -> Tensor:
    """x with a box of it replaced, axis by axis from the first on that it does not fill."""
    for axis, first in enumerate(start):
        extent, last = shape_of(x)[axis], first + shape_of(updates)[axis]
        if (first, last) == (0, extent):
            continue
        filled = (*(0 for _ in start[: axis + 1]), *start[axis + 1 :])
        parts: list[Tensor] = [_cut(r, x, axis, 0, first)] if first else []
        parts.append(_pasted(r, _cut(r, x, axis, first, last), updates, filled))
        parts += [] if last == extent else [_cut(r, x, axis, last, extent)]
        return r.apply("concat", {f"x{k}": part for k, part in enumerate(parts)}, axis=axis)
    return updates


def _cut(r: Reading, x: Tensor, axis: int, start: Dim, stop: Dim) -> Tensor:
    return r.unary("slice", x, axes=(axis,), start=(start,), stop=(stop,), step=(1,))


def read_triangle(r: Reading) -> Tensor:
    """Trilu: what lies on one side of a diagonal, which is known."""
    diagonal = r.sizes(1)[0] if r.has(1) else 0
    return r.unary("triu" if r.attribute("upper", 1) else "tril", r[0], diagonal=diagonal)


def _read_eye_like(r: Reading) -> Tensor:
    rows, columns = (r.extent(size) for size in r.shape(0))
    to = r.attribute("dtype")
    dtype = r.dtype(0) if to is None else FROM_ONNX.get(to)
    if dtype is None:
        raise ReadError(f"elements of ONNX's type {to} are not supported")
    return Known(np.eye(rows, columns, r.attribute("k", 0), dtype=dtype.numpy))


def _read_cumsum(r: Reading) -> Tensor:
    how = {name: bool(r.attribute(name, 0)) for name in ("exclusive", "reverse")}
    return r.unary("cumsum", r[0], axis=r.sizes(1)[0], **how)


# As ONNX


def _spell_put(kind: str, s: Spelling) -> str:
    word = next(theirs for theirs, ours in _ADDED.items() if ours == s.call["by"])
    how: dict[str, Any] = {} if kind == "ScatterND" else {"axis": s.call["axis"]}
    if word != "none":
        how["reduction"] = word
    return s(kind, s["x"], s["positions"], s["updates"], **how)


def _spell_triangle(s: Spelling) -> str:
    diagonal = s.constant(s.call["diagonal"], "int64")
    return s("Trilu", s["x"], diagonal, upper=int(s.call.op.name == "triu"))


def _spell_cumsum(s: Spelling) -> str:
    axis = s.constant(s.call["axis"], "int64")
    how = {name: int(s.call[name]) for name in ("exclusive", "reverse")}
    return s("CumSum", s["x"], axis, **how)


def _spell_roll(s: Spelling) -> str:
    """Along each axis what comes to the beginning, then the rest."""
    x = s["x"]
    axes: tuple[int, ...] = s.call["axes"]
    for axis, shift in zip(axes, s.call["shift"], strict=True):
        extent = s.call.type("x").shape[axis]
        if shift == 0:
            continue
        if abs(shift) > (bounds(extent)[0] or 0):
            raise InputError(
                f"{s.name} (roll): ONNX needs to know that axis {axis}, {extent}, has {abs(shift)} "
                "elements; bind the sizes before exporting"
            )
        cut, on = s.integers([-shift]), s.integers([axis])
        tail = s("Slice", x, cut, s.integers([2**62]), on)
        head = s("Slice", x, s.integers([0]), cut, on)
        x = s("Concat", tail, head, axis=axis)
    return x if x != s["x"] else s("Identity", x)


# In PyTorch


def _counted(w: Wording, axis: int) -> str:
    """Positions along an axis of x, those from the end counted from the beginning."""
    p = w["positions"]
    return f"torch.where({p} < 0, {p} + {w['x']}.shape[{axis}], {p})"


def _say_take_along(w: Wording) -> str:
    axis = w.call["axis"]
    return f"torch.gather({w['x']}, {axis}, {_counted(w, axis)})"


def _say_take_at(w: Wording) -> str:
    """Tensors of positions as an index, one for each axis; those of the batch count it."""
    batch = w.call["batch"]
    axes = w.call.type("positions").rank - 1
    counts: list[str] = []
    for axis in range(batch):
        ones = ", ".join(["-1", *["1"] * (axes - axis - 1)])
        counts.append(f"torch.arange({w['x']}.shape[{axis}]).reshape({ones}), ")
    return f"{w['x']}[({''.join(counts)}*{w['positions']}.unbind(-1),)]"


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _say_put_along(w: Wording) -> str:
    axis, by = w.call["axis"], w.call["by"]
    where = f"{axis}, {_counted(w, axis)}, {w['updates']}"
    if by == "last":
        return f"torch.scatter({w['x']}, {where})"
    return f'torch.scatter_reduce({w["x"]}, {where}, "{_REDUCE[by]}")'


_ONLY_SUMS = "PyTorch puts at places of several axes what is last, or adds"


def _say_put_at(w: Wording) -> str:
    by = w.call["by"]
    if by not in ("last", "add"):
        raise Lacking(_ONLY_SUMS)
    added = keywords(("accumulate", str(by == "add"), "False"))
    return f"{w['x']}.index_put(tuple({w['positions']}.unbind(-1)), {w['updates']}{added})"


def _say_triangle(w: Wording) -> str:
    name = w.call.op.name
    return f"torch.{name}({w['x']}, {w.call['diagonal']})"


def _say_cumsum(w: Wording) -> str:
    """Backwards: of the axis turned, and turned back. Exclusive: moved on by one, a 0 first."""
    axis, x = w.call["axis"], w["x"]
    turned = f".flip({axis})" if w.call["reverse"] else ""
    total = f"torch.cumsum({x}{turned}, {axis})"
    if w.call["exclusive"]:
        before = f"{total}.narrow({axis}, 0, {x}.shape[{axis}] - 1)"
        total = f"torch.cat([torch.zeros_like({x}.narrow({axis}, 0, 1)), {before}], dim={axis})"
    return total + turned


def _say_roll(w: Wording) -> str:
    return f"torch.roll({w['x']}, {tuple(w.call['shift'])}, {tuple(w.call['axes'])})"


def _triangle(op: str) -> Row:
    return only_spelled(op, "Trilu", PyTorch(f"torch.{op}", _say_triangle), _spell_triangle)


ROWS = (
    same(
        "take_along",
        "GatherElements",
        PyTorch("torch.gather", _say_take_along),
        Keyword("axis", "axis", "dim", 0),
        read=_read_take_along,
    ),
    same(
        "take_at",
        "GatherND",
        PyTorch("[]", _say_take_at),
        Keyword("batch", "batch_dims", "", 0),
        read=_read_take_at,
    ),
    Row(
        "put_along",
        "ScatterElements",
        PyTorch("torch.scatter", _say_put_along),
        lambda s: _spell_put("ScatterElements", s),
        Read(_read_put_along),
    ),
    Row(
        "put_at",
        "ScatterND",
        PyTorch("Tensor.index_put", _say_put_at, lacks=(_ONLY_SUMS,)),
        lambda s: _spell_put("ScatterND", s),
        Read(_read_put_at),
    ),
    _triangle("tril"),
    _triangle("triu"),
    Row(
        "cumsum",
        "CumSum",
        PyTorch("torch.cumsum", _say_cumsum),
        _spell_cumsum,
        Read(_read_cumsum, deciding=(1,)),
    ),
    only_spelled("roll", "", PyTorch("torch.roll", _say_roll), _spell_roll),
)

READING = {
    "Trilu": Read(read_triangle, deciding=(1,)),
    "Scatter": Read(_read_put_along),
    "EyeLike": Read(_read_eye_like),
}
"""One node for both triangles; the name that ScatterElements had before opset 11; a constant."""
