"""Tensors joined, parted, and cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.row import Keyword, Read, Result, Row, same
from convdsl.interop.correspondence.wording import PyTorch, Wording, listed, text
from convdsl.interop.reading.scene import follows_from_sizes
from convdsl.interop.reading.tensors import (
    Known,
    ReadError,
    Tensor,
    Undecided,
    dtype_of,
    integers,
    shape_of,
)
from convdsl.ir.graph import OpNode, StateNode, Value
from convdsl.ops.extent import BEGIN, END, cut
from convdsl.tensor import Dim, DType, SymDim

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

_FAR = 2**62


# From ONNX


def read_concat(r: Reading) -> Tensor:
    """Concat: tensors one behind the other along an axis."""
    rank = r.rank(0)
    given = [r[i] for i in range(len(r.inputs))]
    tensors = [x for x in given if 0 not in shape_of(x)] or given[:1]
    if len(tensors) == 1:
        return r.unary("identity", tensors[0])
    inputs = {f"x{i}": tensor for i, tensor in enumerate(tensors)}
    return r.apply("concat", inputs, axis=r.attribute("axis", 1) % rank)


def _read_split(r: Reading) -> Result:
    axis: int = r.attribute("axis", 0) % r.rank(0)
    extent = r.shape(0)[axis]
    parts = r.sizes(1) if r.has(1) else r.attribute("split")
    if parts is None:
        count = r.attribute("num_outputs", r.outputs)
        if not isinstance(extent, int):
            raise Undecided("splitting evenly needs a known size")
        each = -(-extent // count)
        parts = [min(each, extent - each * i) for i in range(count)]
    x = r[0]
    if isinstance(x, Known) and (x.is_symbolic or not dtype_of(x).is_float):  # sizes, positions
        return _parts_of(x, axis, parts)
    shapes = [(*r.shape(0)[:axis], part, *r.shape(0)[axis + 1 :]) for part in parts]
    empty = [r.nothing(r[0], shape) for shape in shapes]
    held = tuple(part for part, nothing in zip(parts, empty, strict=True) if nothing is None)
    if not held:
        raise ReadError("nothing is left of any part")
    made = iter(r.apply_all("split", {"x": r[0]}, parts=held, axis=axis))
    return [next(made) if nothing is None else nothing for nothing in empty]


def _parts_of(x: Known, axis: int, parts: Sequence[Any]) -> list[Tensor]:
    """What is known, cut as it is read. Raises ReadError if the parts are not all of it."""
    if any(isinstance(part, SymDim) for part in parts):
        raise Undecided("parts of free sizes")
    if min(parts) < 0 or sum(parts) != x.array.shape[axis]:
        raise ReadError(f"parts of {list(parts)} are not {x.array.shape[axis]} in all")
    return [Known(part, x.name) for part in np.split(x.array, np.cumsum(parts)[:-1], axis)]


def _read_slice(r: Reading) -> Tensor:
    own = r.shape(0)
    if r.has(1):
        starts, stops = r.sizes(1), r.sizes(2)
        axes = r.sizes(3) if r.has(3) else list(range(len(starts)))
        steps = r.sizes(4) if r.has(4) else [1] * len(starts)
    else:
        starts, stops = list(r.attribute("starts")), list(r.attribute("ends"))
        axes = r.attribute("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    first = [_limit(s, own[a], step, BEGIN) for s, a, step in zip(starts, axes, steps, strict=True)]
    last = [_limit(s, own[a], step, END) for s, a, step in zip(stops, axes, steps, strict=True)]
    left = list(own)
    for axis, *limits in zip(axes, first, last, steps, strict=True):
        left[axis] = cut(own[axis], *limits)[1]
    nothing = r.nothing(r[0], left)
    if nothing is not None:
        return nothing
    how = {"start": tuple(first), "stop": tuple(last), "step": tuple(steps)}
    return r.unary("slice", r[0], axes=tuple(axes), **how)


def _limit(limit: Dim, extent: Dim, step: int, word: str) -> Any:
    """A limit at or beyond the border is said by its word."""
    if limit == extent and ((word == END) == (step > 0)):
        return word
    if isinstance(limit, int) and isinstance(extent, int):
        beyond_last, beyond_first = limit >= extent, limit < -extent
        if (beyond_last and (word == END) == (step > 0)) or (
            beyond_first and (word == END) != (step > 0)
        ):
            return word
        if limit == 0 and word == BEGIN and step > 0:
            return word
        return min(max(limit, -extent if step > 0 else -extent - 1), extent)
    if isinstance(limit, int) and abs(limit) >= 2**31 - 1:
        return word
    return BEGIN if word == BEGIN and limit == 0 and step > 0 else limit


def _read_gather(r: Reading) -> Tensor:
    """By a few runs of indices known while reading: slices, joined; by others one copy."""
    axis: int = r.attribute("axis", 0) % r.rank(0)
    own = r.shape(0)
    given = r[1]
    if isinstance(given, Value) and not follows_from_sizes(given):
        return _taken(r, axis, given)
    indices = r.array(1)
    nothing = r.nothing(r[0], (*own[:axis], *indices.shape, *own[axis + 1 :]))
    if nothing is not None:
        return nothing
    listed = integers(indices)
    _check_indices(listed, own[axis])
    if indices.ndim and listed == list(range(len(listed))) and len(listed) == own[axis]:
        picked: Tensor = r[0]
    else:
        runs = _runs(listed, own[axis])
        if len(runs) > FEW_RUNS:
            return _taken(r, axis, Known(indices.astype(np.int64)))
        pieces = [_run(r, axis, part) for part in runs]
        joined = {f"x{i}": piece for i, piece in enumerate(pieces)}
        picked = r.apply("concat", joined, axis=axis) if len(pieces) > 1 else pieces[0]
    wanted = (*own[:axis], *indices.shape, *own[axis + 1 :])
    return picked if indices.ndim == 1 else r.reshape(picked, wanted)


FEW_RUNS = 8
"""As many stretches are slices; more are positions."""


def _taken(r: Reading, axis: int, positions: Tensor) -> Tensor:
    if dtype_of(positions) is not DType.I64:
        positions = r.unary("cast", positions, dtype="i64")
    return r.apply("take", {"x": r[0], "positions": positions}, axis=axis)


def _check_indices(indices: Sequence[Any], extent: Dim) -> None:
    """Every one is a position of the axis; raises ReadError."""
    if any(isinstance(index, SymDim) for index in indices):
        raise Undecided("an index is a size that is free")
    if isinstance(extent, int):
        odd = next((i for i in indices if not -extent <= i < extent), None)
        if odd is not None:
            raise ReadError(f"there is no index {odd} in an axis of {extent}")


def _read_reverse_sequence(r: Reading) -> Tensor:
    """The first positions in time turned round, as many as each sample says."""
    time: int = r.attribute("time_axis", 0)
    batch: int = r.attribute("batch_axis", 1)
    lengths = _lengths(r)
    if len(set(lengths)) == 1:
        return _start_turned(r, r[0], time, lengths[0])
    if len(lengths) != r.extent(r.shape(0)[batch]):
        raise ReadError(f"{len(lengths)} lengths for {r.shape(0)[batch]} sequences")
    samples = r.apply_all("split", {"x": r[0]}, parts=(1,) * len(lengths), axis=batch)
    turned = [_start_turned(r, x, time, n) for x, n in zip(samples, lengths, strict=True)]
    return r.joined(turned, batch)


def _lengths(r: Reading) -> list[Any]:
    """Of sequences; one if all are alike, which is seen where a free batch repeats it."""
    given = r[1]
    while (
        isinstance(given, Value)
        and isinstance(given.node, OpNode)
        and given.node.op.name == "expand"
    ):
        given = given.node.inputs["x"]
    if isinstance(given, Value) and isinstance(given.node, StateNode):
        return integers(given.node.data) if given.node.data is not None else r.sizes(1)
    return r.sizes(1)


def _start_turned(r: Reading, x: Tensor, axis: int, count: Any) -> Tensor:
    extent = shape_of(x)[axis]
    if count == extent:
        return r.unary("slice", x, axes=(axis,), start=(BEGIN,), stop=(END,), step=(-1,))
    if count in (0, 1):
        return x
    if not isinstance(extent, int) or not 1 < count < extent:
        raise ReadError(f"sequences of {extent} steps have no {count} to turn round")
    first = r.unary("slice", x, axes=(axis,), start=(count - 1,), stop=(END,), step=(-1,))
    rest = r.unary("slice", x, axes=(axis,), start=(count,), stop=(END,), step=(1,))
    return r.joined([first, rest], axis)


def _runs(indices: Sequence[int], extent: Dim) -> list[range]:
    """Stretches of neighbours, or of three and more at one distance: `channels[::-1]` is one."""
    if any(index < 0 for index in indices):
        if not isinstance(extent, int):
            raise Undecided("an index from the end needs a known size")
        indices = [index + extent if index < 0 else index for index in indices]
    runs: list[range] = []
    start = 0
    while start < len(indices):
        step = indices[start + 1] - indices[start] if start + 1 < len(indices) else 1
        run = _stretch(indices, start, step)
        runs.append(run if step == 1 or len(run) > 2 else range(indices[start], indices[start] + 1))
        start += len(runs[-1])
    return runs


def _stretch(indices: Sequence[int], start: int, step: int) -> range:
    """As many positions from a start on as stand at one distance."""
    stop = start + 1
    while step and stop < len(indices) and indices[stop] == indices[stop - 1] + step:
        stop += 1
    count = stop - start
    return range(indices[start], indices[start] + count * (step or 1), step or 1)


def _run(r: Reading, axis: int, part: range) -> Tensor:
    stop: Any = part[-1] + 1 if part.step > 0 else part[-1] - 1
    limits = {"start": (part[0],), "stop": (stop if stop >= 0 else END,), "step": (part.step,)}
    return r.unary("slice", r[0], axes=(axis,), **limits)


# As ONNX


def _spell_split(s: Spelling) -> list[str]:
    parts, axis = s.call["parts"], s.call["axis"]
    names = s("Split", s["x"], s.integers(parts), outputs=len(parts), axis=axis)
    return names if len(parts) > 1 else [names]


def _spell_slice(s: Spelling) -> str:
    call = s.call
    starts: list[Dim] = []
    stops: list[Dim] = []
    for start, stop, step in zip(call["start"], call["stop"], call["step"], strict=True):
        starts.append(start if start != BEGIN else 0 if step > 0 else _FAR)
        stops.append(stop if stop != END else _FAR if step > 0 else -_FAR)
    steps = (call["axes"], call["step"])
    return s("Slice", s["x"], s.integers(starts), s.integers(stops), *map(s.integers, steps))


# In PyTorch


def _say_concat(w: Wording) -> str:
    return f"torch.cat([{', '.join(w.operands.values())}], dim={w.call['axis']})"


def _say_split(w: Wording) -> str:
    called = f"torch.split({w['x']}, {listed(w.call['parts'])}, dim={w.call['axis']})"
    return called if len(w.call["parts"]) > 1 else f"{called}[0]"


def _say_slice(w: Wording) -> str:
    """Python's own slices. PyTorch has none that run backwards: the axis is turned, and position
    i from one end is -1 - i from the other."""
    call = w.call
    parts = [":"] * call.type("x").rank
    turned: list[int] = []
    limits = zip(call["axes"], call["start"], call["stop"], call["step"], strict=True)
    for axis, start, stop, step in limits:
        first, last = (limit if step > 0 else _turned(limit) for limit in (start, stop))
        if step < 0:
            turned.append(axis)
        limits_text = (
            "" if first == BEGIN else text(first),
            "" if last == END else text(last),
        )
        parts[axis] = ":".join(limits_text) + (f":{abs(step)}" if abs(step) > 1 else "")
    flipped = f".flip({', '.join(map(str, turned))})" if turned else ""
    return f"{w['x']}{flipped}[{', '.join(parts)}]"


def _say_take(w: Wording) -> str:
    """A tensor of positions as an index."""
    return f"{w['x']}[{':, ' * w.call['axis']}{w['positions']}]"


def _turned(limit: Any) -> Any:
    return limit if isinstance(limit, str) else -1 - limit


ROWS = (
    same(
        "concat",
        "Concat",
        PyTorch("torch.cat", _say_concat),
        Keyword("axis", "axis", "dim"),
        read=read_concat,
    ),
    Row(
        "split",
        "Split",
        PyTorch("torch.split", _say_split),
        _spell_split,
        Read(_read_split, deciding=(1,)),
    ),
    Row(
        "slice",
        "Slice",
        PyTorch("[:]", _say_slice),
        _spell_slice,
        Read(_read_slice, deciding=(1, 2, 3, 4)),
    ),
    same(
        "take",
        "Gather",
        PyTorch("[]", _say_take),
        Keyword("axis", "axis", "", 0),
        read=_read_gather,
    ),
)

READING = {"ReverseSequence": Read(_read_reverse_sequence, deciding=(1,))}
"""Kinds of nodes that are several operators of ours."""
