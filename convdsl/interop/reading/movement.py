"""What only moves elements, from ONNX; and what turns shapes into known integers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from convdsl.interop.reading.folding import integers
from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.tensors import (
    Known,
    ReadError,
    Tensor,
    Undecided,
    known,
    known_sizes,
    shape_of,
)
from convdsl.interop.reading.windows import Result, Rule, pairs
from convdsl.interop.spelling.windows import PAD_MODES
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import Dim, exact_div, floor_div


def constant(r: Reading) -> Tensor:
    for name, dtype in (("value_float", "float32"), ("value_floats", "float32"),
                        ("value_int", "int64"), ("value_ints", "int64")):  # fmt: skip
        if name in r.attributes:
            return Known(np.asarray(r.attributes[name], dtype))
    value = r.attribute("value")
    if not isinstance(value, onnx.TensorProto):
        raise ReadError("only dense constants of numbers are supported")
    return r.scene.tensor(value)


def constant_of_shape(r: Reading) -> Tensor:
    """Of a symbolic shape: a number, repeated."""
    value = r.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return r.unary("expand", Known(fill.reshape(())), shape=tuple(r.sizes(0)))


def shape(r: Reading) -> Tensor:
    whole = r.shape(0)
    return known_sizes(whole[r.attribute("start", 0) : r.attribute("end", len(whole))])


def size(r: Reading) -> Tensor:
    return known(prod(r.shape(0)))


# Views


def reshape(r: Reading) -> Tensor:
    x, own = r[0], r.shape(0)
    wanted = r.sizes(1) if r.has(1) else list(r.attribute("shape"))
    if not r.attribute("allowzero", 0):
        for axis, extent in enumerate(wanted):
            if isinstance(extent, int) and extent == 0:
                if axis >= len(own):
                    raise ReadError(f"a 0 at axis {axis} has nothing to copy from {list(own)}")
                wanted[axis] = own[axis]
    if -1 in wanted:
        rest = prod(extent for extent in wanted if extent != -1)
        found = exact_div(prod(own), rest) if rest != 0 else None
        if found is None:
            raise _indivisible(own, wanted)
        wanted[wanted.index(-1)] = found
    if len(own) > 2 and wanted == [own[0], prod(own[1:])]:
        return r.unary("flatten", x)
    return _shuffle(r, x, wanted) or r.unary("reshape", x, shape=tuple(wanted))


def _shuffle(r: Reading, x: Tensor, wanted: Sequence[Dim]) -> Tensor | None:
    """Channels in groups, axes swapped, and as before: the shuffle of ShuffleNet."""
    turn = x.node if isinstance(x, Value) else None
    if not isinstance(turn, OpNode) or turn.op.name != "transpose":
        return None
    split = turn.inputs["x"].node
    if tuple(turn.attributes["axes"][:3]) != (0, 2, 1) or not isinstance(split, OpNode):
        return None
    source = split.inputs.get("x")
    groups = split.attributes["shape"][1] if split.op.name == "reshape" else None
    if source is None or not isinstance(groups, int) or source.type.shape != tuple(wanted):
        return None
    is_even = all(axis == place for place, axis in enumerate(turn.attributes["axes"][3:], 3))
    apart = (wanted[0], groups, floor_div(wanted[1], groups), *wanted[2:])
    if not is_even or split.outputs[0].type.shape != apart or len(wanted) < 3:
        return None
    return r.unary("channel_shuffle", source, groups=groups)


def _indivisible(own: Sequence[Dim], wanted: Sequence[Any]) -> ReadError:
    message = f"{list(own)} does not divide into {wanted}"
    is_free = any(not isinstance(size, int) for size in (*own, *wanted))
    return Undecided(message) if is_free else ReadError(message)


def flatten(r: Reading) -> Tensor:
    own = r.shape(0)
    axis = r.attribute("axis", 1)
    axis = axis + len(own) if axis < 0 else axis
    if axis == 1 and len(own) > 1:
        return r.unary("flatten", r[0])
    return r.reshape(r[0], (prod(own[:axis]), prod(own[axis:])))


def squeeze(r: Reading) -> Tensor:
    axes = r.axes(1)
    if axes is None:
        axes = [axis for axis, extent in enumerate(r.shape(0)) if extent == 1]
    return r.unary("squeeze", r[0], axes=tuple(axes)) if axes else r.unary("identity", r[0])


def unsqueeze(r: Reading) -> Tensor:
    axes = r.axes(1)
    return r.unary("unsqueeze", r[0], axes=tuple(axes or ()))


def transpose(r: Reading) -> Tensor:
    order = r.attribute("perm") or list(range(r.rank(0)))[::-1]
    return r.unary("transpose", r[0], axes=tuple(order))


def depth_to_space(r: Reading) -> Tensor:
    n, c, *space = r.shape(0)
    b = r.attribute("blocksize")
    if r.attribute("mode", "DCR") == "CRD":
        return r.unary("pixel_shuffle", r[0], factor=b)
    apart = r.reshape(r[0], (n, b, b, floor_div(c, b * b), *space))
    mixed = r.unary("transpose", apart, axes=(0, 3, 4, 1, 5, 2))
    return r.reshape(mixed, (n, floor_div(c, b * b), *(extent * b for extent in space)))


def space_to_depth(r: Reading) -> Tensor:
    n, c, h, w = r.shape(0)
    b = r.attribute("blocksize")
    if r.attribute("mode", "DCR") == "CRD":
        return r.unary("pixel_unshuffle", r[0], factor=b)
    rows, columns = floor_div(h, b), floor_div(w, b)
    apart = r.reshape(r[0], (n, c, rows, b, columns, b))
    mixed = r.unary("transpose", apart, axes=(0, 3, 5, 1, 2, 4))
    return r.reshape(mixed, (n, c * b * b, rows, columns))


# Joining and parting


def concat(r: Reading) -> Tensor:
    rank = r.rank(0)
    given = [r[i] for i in range(len(r.inputs))]
    tensors = [x for x in given if 0 not in shape_of(x)] or given[:1]
    if len(tensors) == 1:
        return r.unary("identity", tensors[0])
    inputs = {f"x{i}": tensor for i, tensor in enumerate(tensors)}
    return r.apply("concat", inputs, axis=r.attribute("axis", 1) % rank)


def split(r: Reading) -> Result:
    axis: int = r.attribute("axis", 0) % r.rank(0)
    extent = r.shape(0)[axis]
    parts = r.sizes(1) if r.has(1) else r.attribute("split")
    if parts is None:
        count = r.attribute("num_outputs", r.outputs)
        if not isinstance(extent, int):
            raise Undecided("splitting evenly needs a known size")
        each = -(-extent // count)
        parts = [min(each, extent - each * i) for i in range(count)]
    if any(part == 0 for part in parts):
        raise ReadError("an empty part is not supported")
    return list(r.apply_all("split", {"x": r[0]}, parts=tuple(parts), axis=axis))


def slice_(r: Reading) -> Tensor:
    own = r.shape(0)
    if r.has(1):
        starts, stops = r.sizes(1), r.sizes(2)
        axes = r.sizes(3) if r.has(3) else list(range(len(starts)))
        steps = r.sizes(4) if r.has(4) else [1] * len(starts)
    else:
        starts, stops = list(r.attribute("starts")), list(r.attribute("ends"))
        axes = r.attribute("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    first = [
        _limit(s, own[a], step, "begin") for s, a, step in zip(starts, axes, steps, strict=True)
    ]
    last = [_limit(s, own[a], step, "end") for s, a, step in zip(stops, axes, steps, strict=True)]
    limits = {"start": tuple(first), "stop": tuple(last), "step": tuple(steps)}
    return r.unary("slice", r[0], axes=tuple(axes), **limits)


def _limit(limit: Dim, extent: Dim, step: int, word: str) -> Any:
    """A limit at or beyond the border is said by its word."""
    if limit == extent and ((word == "end") == (step > 0)):
        return word
    if isinstance(limit, int) and isinstance(extent, int):
        beyond_last, beyond_first = limit >= extent, limit < -extent
        if (beyond_last and (word == "end") == (step > 0)) or (
            beyond_first and (word == "end") != (step > 0)
        ):
            return word
        if limit == 0 and word == "begin" and step > 0:
            return word
        return min(max(limit, -extent if step > 0 else -extent - 1), extent)
    if isinstance(limit, int) and abs(limit) >= 2**31 - 1:
        return word
    return "begin" if word == "begin" and limit == 0 and step > 0 else limit


def gather(r: Reading) -> Tensor:
    """By indices known while reading: slices, joined."""
    axis: int = r.attribute("axis", 0) % r.rank(0)
    own = r.shape(0)
    indices = r.array(1)
    if not indices.size or indices.size > 4096:
        raise ReadError(f"{indices.size} indices are not supported")
    listed = integers(indices)
    if indices.ndim and listed == list(range(len(listed))) and len(listed) == own[axis]:
        picked: Tensor = r[0]
    else:
        pieces = [_run(r, axis, start, stop) for start, stop in _runs(listed, own[axis])]
        joined = {f"x{i}": piece for i, piece in enumerate(pieces)}
        picked = r.apply("concat", joined, axis=axis) if len(pieces) > 1 else pieces[0]
    wanted = (*own[:axis], *indices.shape, *own[axis + 1 :])
    return picked if indices.ndim == 1 else r.reshape(picked, wanted)


def _runs(indices: Sequence[int], extent: Dim) -> list[tuple[int, int]]:
    """Stretches of neighbours."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if index < 0:
            if not isinstance(extent, int):
                raise Undecided("an index from the end needs a known size")
            index += extent
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _run(r: Reading, axis: int, start: int, stop: int) -> Tensor:
    return r.unary("slice", r[0], axes=(axis,), start=(start,), stop=(stop,), step=(1,))


# Enlarging

_MODES = {theirs: ours for ours, theirs in PAD_MODES.items()}


def pad(r: Reading) -> Tensor:
    mode = r.attribute("mode", "constant")
    if mode not in _MODES:
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
    return r.unary("pad", x, pad=amounts, mode=_MODES[mode], value=value, axes=where)


def _cropped(r: Reading, axes: Sequence[int], around: Any) -> tuple[Tensor, list[tuple[Dim, Dim]]]:
    """Negative padding cuts off."""
    x = r[0]
    found: list[tuple[Dim, Dim]] = []
    for axis, (before, after) in zip(axes, around, strict=True):
        start, stop = (-p if isinstance(p, int) and p < 0 else 0 for p in (before, after))
        if start or stop:
            end = r.shape(0)[axis] - stop
            limits = {"start": (start,), "stop": (end,), "step": (1,)}
            x = r.unary("slice", x, axes=(axis,), **limits)
        found.append((before + start, after + stop))
    return x, found


def expand(r: Reading) -> Tensor:
    wanted, own = r.sizes(1), r.shape(0)
    rank = max(len(wanted), len(own))
    wanted = [1] * (rank - len(wanted)) + wanted
    own = (1,) * (rank - len(own)) + own
    both = tuple(a if b == 1 else b for a, b in zip(own, wanted, strict=True))
    return r.unary("expand", r[0], shape=both)


def tile(r: Reading) -> Tensor:
    return r.unary("tile", r[0], repeats=tuple(r.sizes(1)))


RULES: dict[str, Rule] = {
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Shape": shape,
    "Size": size,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Pad": pad,
    "Expand": expand,
    "Tile": tile,
}
