"""Other views of the same elements, in another order or repeated; and shapes as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.row import Keyword, Read, Row, only_spelled, same
from convdsl.interop.correspondence.wording import PyTorch, Wording, function, text
from convdsl.interop.reading.tensors import (
    Known,
    ReadError,
    Tensor,
    Undecided,
    known,
    known_sizes,
)
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import Dim, DType, SymDim, bounds, exact_div, floor_div

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX: what is known


def _read_constant(r: Reading) -> Tensor:
    for name, dtype in (("value_float", "float32"), ("value_floats", "float32"),
                        ("value_int", "int64"), ("value_ints", "int64")):  # fmt: skip
        if name in r.attributes:
            return Known(np.asarray(r.attributes[name], dtype))
    value = r.attribute("value")
    if not isinstance(value, Known):
        raise ReadError("only dense constants of numbers are supported")
    return value


def _read_constant_of_shape(r: Reading) -> Tensor:
    """Of a symbolic shape: a number, repeated."""
    value = r.attribute("value")
    fill = value.array if isinstance(value, Known) else np.zeros(1, np.float32)
    return r.unary("expand", Known(fill.reshape(())), shape=tuple(r.sizes(0)))


def _read_shape(r: Reading) -> Tensor:
    whole = r.shape(0)
    return known_sizes(whole[r.attribute("start", 0) : r.attribute("end", len(whole))])


def _read_size(r: Reading) -> Tensor:
    return known(prod(r.shape(0)))


# From ONNX: views


def _read_reshape(r: Reading) -> Tensor:
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
    if len(wanted) < 3:  # a row, taken apart, turned and put together
        return None
    is_even = all(axis == place for place, axis in enumerate(turn.attributes["axes"][3:], 3))
    apart = (wanted[0], groups, floor_div(wanted[1], groups), *wanted[2:])
    if not is_even or split.outputs[0].type.shape != apart:
        return None
    return r.unary("channel_shuffle", source, groups=groups)


def _indivisible(own: Sequence[Dim], wanted: Sequence[Any]) -> ReadError:
    message = f"{list(own)} does not divide into {wanted}"
    is_free = any(not isinstance(size, int) for size in (*own, *wanted))
    return Undecided(message) if is_free else ReadError(message)


def _read_flatten(r: Reading) -> Tensor:
    own = r.shape(0)
    axis = r.attribute("axis", 1)
    axis = axis + len(own) if axis < 0 else axis
    if axis == 1 and len(own) > 1:
        return r.unary("flatten", r[0])
    return r.reshape(r[0], (prod(own[:axis]), prod(own[axis:])))


def _read_squeeze(r: Reading) -> Tensor:
    axes = r.axes(1)
    if axes is None:
        odd = next((e for e in r.shape(0) if e != 1 and (bounds(e)[0] or 0) <= 1), None)
        if odd is not None:
            raise Undecided(f"{odd} may be 1, and squeezed")
        axes = [axis for axis, extent in enumerate(r.shape(0)) if extent == 1]
    return r.unary("squeeze", r[0], axes=tuple(axes)) if axes else r.unary("identity", r[0])


def _read_unsqueeze(r: Reading) -> Tensor:
    axes = r.axes(1)
    return r.unary("unsqueeze", r[0], axes=tuple(axes or ()))


def _read_transpose(r: Reading) -> Tensor:
    order = r.attribute("perm") or list(range(r.rank(0)))[::-1]
    return r.unary("transpose", r[0], axes=tuple(order))


def _read_depth_to_space(r: Reading) -> Tensor:
    n, c, *space = r.shape(0)
    b = r.attribute("blocksize")
    if r.attribute("mode", "DCR") == "CRD":
        return r.unary("pixel_shuffle", r[0], factor=b)
    apart = r.reshape(r[0], (n, b, b, floor_div(c, b * b), *space))
    mixed = r.unary("transpose", apart, axes=(0, 3, 4, 1, 5, 2))
    return r.reshape(mixed, (n, floor_div(c, b * b), *(extent * b for extent in space)))


def _read_space_to_depth(r: Reading) -> Tensor:
    n, c, h, w = r.shape(0)
    b = r.attribute("blocksize")
    if r.attribute("mode", "DCR") == "CRD":
        return r.unary("pixel_unshuffle", r[0], factor=b)
    rows, columns = floor_div(h, b), floor_div(w, b)
    apart = r.reshape(r[0], (n, c, rows, b, columns, b))
    mixed = r.unary("transpose", apart, axes=(0, 3, 5, 1, 2, 4))
    return r.reshape(mixed, (n, c * b * b, rows, columns))


def _read_expand(r: Reading) -> Tensor:
    wanted, own = r.sizes(1), r.shape(0)
    rank = max(len(wanted), len(own))
    wanted = [1] * (rank - len(wanted)) + wanted
    own = (1,) * (rank - len(own)) + own
    both = tuple(a if b == 1 else b for a, b in zip(own, wanted, strict=True))
    return r.unary("expand", r[0], shape=both)


def _read_tile(r: Reading) -> Tensor:
    return r.unary("tile", r[0], repeats=tuple(r.sizes(1)))


# As ONNX


def _spell_reshape(s: Spelling) -> str:
    """A row-major view in the output's shape."""
    return s.reshaped(s["x"], s.call.outputs[0].shape, s.call.type("x").shape)


def _spell_flatten(s: Spelling) -> str:
    call = s.call
    if call["start"] == 1 and call["end"] in (-1, call.type("x").rank - 1):
        return s("Flatten", s["x"], axis=1)
    return _spell_reshape(s)


def _spell_expand(s: Spelling) -> str:
    """An extent that the input has already is asked for as 1."""
    wanted, own = s.call.outputs[0].shape, s.call.type("x").shape
    own = (1,) * (len(wanted) - len(own)) + own
    sizes = [
        1 if size == has and not isinstance(size, int) else size
        for size, has in zip(wanted, own, strict=True)
    ]
    return s("Expand", s["x"], s.integers(sizes))


def _spell_channel_shuffle(s: Spelling) -> str:
    apart, order = _shuffled(s.call.type("x").shape, s.call["groups"])
    first = s.call.type("x").shape[:1]
    mixed = s("Transpose", s.reshaped(s["x"], apart, first), perm=order)
    return s.reshaped(mixed, s.call.type("x").shape, first)


def _shuffled(shape: Sequence[Dim], groups: int) -> tuple[list[Dim], list[int]]:
    """Channels taken apart, and the order in which they come back."""
    n, c, *space = shape
    return [n, groups, floor_div(c, groups), *space], [0, 2, 1, *range(3, 3 + len(space))]


def _spell_pixel_shuffle(s: Spelling) -> str:
    """One factor of a plane has a node of its own."""
    factor = s.call["factor"]
    if len(factor) == 2 and factor[0] == factor[1]:
        return s("DepthToSpace", s["x"], blocksize=factor[0], mode="CRD")
    n, outer = s.call.type("x").shape[0], s.call.outputs[0].shape
    apart, order = _from_depth(s.call.type("x").shape, outer[1], factor)
    return s.reshaped(s("Transpose", s.reshaped(s["x"], apart, [n]), perm=order), outer, [n])


def _from_depth(
    shape: Sequence[Dim], channels: Dim, factor: Sequence[int]
) -> tuple[list[Dim], list[int]]:
    """Channels taken apart by the factors, and the order that puts these behind space."""
    rank = len(factor)
    order = [0, 1]
    for axis in range(rank):
        order += [2 + rank + axis, 2 + axis]
    return [shape[0], channels, *factor, *shape[2:]], order


def _spell_pixel_unshuffle(s: Spelling) -> str:
    n, c = s.call.type("x").shape[:2]
    apart, order = _to_depth(s.call.type("x").shape, s.call["factor"])
    mixed = s("Transpose", s.reshaped(s["x"], apart, [n, c]), perm=order)
    return s.reshaped(mixed, s.call.outputs[0].shape, [n])


def _to_depth(shape: Sequence[Dim], factor: Sequence[int]) -> tuple[list[Dim], list[int]]:
    """Space taken apart by the factors, and the order that puts these behind the channels."""
    n, c, *space = shape
    blocks: list[Dim] = [n, c]
    for extent, f in zip(space, factor, strict=True):
        blocks += [floor_div(extent, f), f]
    rank = len(factor)
    inner, outer = (range(start, start + 2 * rank, 2) for start in (3, 2))
    return blocks, [0, 1, *inner, *outer]


# In PyTorch


def _reshaped(x: str, shape: Sequence[Dim], own: Sequence[Dim]) -> str:
    """An axis that is free and stays is copied; another one is found, or said if there are more."""
    sizes = [
        f"{x}.shape[{i}]" if isinstance(d, SymDim) and i < len(own) and own[i] == d else d
        for i, d in enumerate(shape)
    ]
    alone = sum(isinstance(size, SymDim) for size in sizes) == 1
    words = ("-1" if alone and isinstance(s, SymDim) else s for s in sizes)
    return ", ".join(w if isinstance(w, str) else text(w) for w in words)


def _say_reshape(w: Wording) -> str:
    sizes = _reshaped(w["x"], w.call.outputs[0].shape, w.call.type("x").shape)
    return f"{w['x']}.reshape({sizes})"


def _say_unsqueeze(w: Wording) -> str:
    return w["x"] + "".join(f".unsqueeze({axis})" for axis in sorted(w.call["axes"]))


def _say_expand(w: Wording) -> str:
    """An extent that the input has already is asked for as -1."""
    wanted, own = w.call.outputs[0].shape, w.call.type("x").shape
    own = (1,) * (len(wanted) - len(own)) + own
    sizes = ["-1" if a == b != 1 else text(b) for a, b in zip(own, wanted, strict=True)]
    return f"{w['x']}.expand({', '.join(sizes)})"


def _say_tile(w: Wording) -> str:
    return f"torch.tile({w['x']}, ({', '.join(map(text, w.call['repeats']))},))"


def _say_channel_shuffle(w: Wording) -> str:
    """By hand where there is no space, which PyTorch's own wants."""
    if w.call.type("x").rank > 2:
        return f"functional.channel_shuffle({w['x']}, {w.call['groups']})"
    return _moved(w, *_shuffled(w.call.type("x").shape, w.call["groups"]))


def _say_pixels(name: str, to_depth: bool, w: Wording) -> str:
    """By hand where the factors differ, and for masks, which PyTorch's own do not take."""
    factor, x = w.call["factor"], w.call.type("x")
    if len(factor) == 2 and factor[0] == factor[1] and x.dtype is not DType.BOOL:
        return f"functional.{name}({w['x']}, {factor[0]})"
    if to_depth:
        return _moved(w, *_to_depth(x.shape, factor))
    return _moved(w, *_from_depth(x.shape, w.call.outputs[0].shape[1], factor))


def _moved(w: Wording, apart: Sequence[Dim], order: Sequence[int]) -> str:
    """x taken apart, in another order, and put together as the output."""
    x, own = w["x"], w.call.type("x").shape
    turned = f"{x}.reshape({_reshaped(x, apart, own)}).permute({', '.join(map(str, order))})"
    return f"{turned}.reshape({_reshaped(x, w.call.outputs[0].shape, own)})"


def _pixels(name: str, kind: str, spell: Any, read: Any) -> Row:
    pytorch = PyTorch(
        f"functional.{name}", lambda w: _say_pixels(name, name == "pixel_unshuffle", w)
    )
    return Row(name, kind, pytorch, spell, read)


def _with_axes(op: str, kind: str, pytorch: PyTorch, read: Any) -> Row:
    """The axes are an input of the node, which decides shapes."""
    return Row(
        op,
        kind,
        pytorch,
        lambda s: s(kind, s["x"], s.integers(s.call["axes"])),
        Read(read, deciding=(1,)),
    )


ROWS = (
    Row(
        "reshape",
        "Reshape",
        PyTorch("Tensor.reshape", _say_reshape),
        _spell_reshape,
        Read(_read_reshape, deciding=(1,)),
    ),
    same(
        "flatten",
        "Flatten",
        function("torch.flatten", start_dim="start", end_dim="end"),
        read=_read_flatten,
        spell=_spell_flatten,
    ),
    _with_axes(
        "squeeze",
        "Squeeze",
        PyTorch("torch.squeeze", lambda w: f"torch.squeeze({w['x']}, {tuple(w.call['axes'])})"),
        _read_squeeze,
    ),
    _with_axes(
        "unsqueeze", "Unsqueeze", PyTorch("Tensor.unsqueeze", _say_unsqueeze), _read_unsqueeze
    ),
    same(
        "transpose",
        "Transpose",
        PyTorch(
            "Tensor.permute", lambda w: f"{w['x']}.permute({', '.join(map(str, w.call['axes']))})"
        ),
        Keyword("axes", "perm", "dims"),
        read=_read_transpose,
    ),
    Row(
        "expand",
        "Expand",
        PyTorch("Tensor.expand", _say_expand),
        _spell_expand,
        Read(_read_expand, deciding=(1,)),
    ),
    Row(
        "tile",
        "Tile",
        PyTorch("torch.tile", _say_tile),
        lambda s: s("Tile", s["x"], s.integers(s.call["repeats"])),
        Read(_read_tile, deciding=(1,)),
    ),
    only_spelled(
        "channel_shuffle",
        "",
        PyTorch("functional.channel_shuffle", _say_channel_shuffle),
        _spell_channel_shuffle,
    ),
    _pixels("pixel_shuffle", "DepthToSpace", _spell_pixel_shuffle, Read(_read_depth_to_space)),
    _pixels("pixel_unshuffle", "", _spell_pixel_unshuffle, None),
)

READING = {
    "SpaceToDepth": Read(_read_space_to_depth),
    "Constant": Read(_read_constant),
    "ConstantOfShape": Read(_read_constant_of_shape, deciding=(0,)),
    "Shape": Read(_read_shape),
    "Size": Read(_read_size),
}
"""Kinds of nodes that are known while reading, or several operators of ours."""
