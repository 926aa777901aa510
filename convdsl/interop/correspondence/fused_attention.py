"""Attention as ONNX Runtime's optimiser writes it (its own kinds, "Contrib Operators").

Each is brought to the form of ONNX's Attention: queries, keys and values with heads in the last
axis, and one bias of the scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.attention import read_attention, read_rotary
from convdsl.interop.correspondence.kinds import MICROSOFT, first_of
from convdsl.interop.correspondence.products import linear, read_matmul
from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of
from convdsl.ops.extent import BEGIN, END
from convdsl.tensor import Dim, DType, floor_div

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

_EARLIER = "keys and values of earlier calls are not supported"


def _read_attention(r: Reading) -> Tensor:
    """X, the matrices of queries, keys and values side by side, their biases, a mask, what is
    added to the scores (5)."""
    if r.has(4) or r.has(6) or r.wants(1):
        raise ReadError(_EARLIER)
    if r.attribute("do_rotary", 0):
        raise ReadError("attention that turns its queries is not supported")
    weight = r[1]
    if isinstance(weight, Known):
        y: Tensor = linear(r, r[0], Known(weight.array.T, weight.name), r.given(2))
    else:
        y = read_matmul(r.instead(r[0], weight))
        y = r.binary("add", y, r[2]) if r.has(2) else y
    whole = r.extent(r.shape(1)[1])
    widths = r.attribute("qkv_hidden_sizes") or [whole // 3] * 3
    parts = [_features(r, y, sum(widths[:i]), sum(widths[: i + 1])) for i in range(3)]
    return _attended(r, *parts, mask=r.given(3), bias=r.given(5))


def _read_multi_head(r: Reading) -> Tensor:
    """Queries, keys, values, biases of the three side by side, a mask of keys, what is added to
    the scores."""
    if any(r.has(index) for index in range(6, 10)) or any(r.wants(index) for index in (1, 2, 3)):
        raise ReadError(_EARLIER)
    parts = _apart(r)
    if r.has(3):
        parts = _with_biases(r, parts)
    return _attended(r, *parts, mask=r.given(4), bias=r.given(5))


def _apart(r: Reading) -> list[Tensor]:
    """Queries, keys and values, which may be packed into one or two tensors, heads between."""
    packed = 0 if r.rank(0) == 5 else 1
    if not (r.has(1) and r.has(2)):
        if r.rank(packed) != 5:
            raise ReadError("keys or values are missing")
        parts = [_packed(r, packed, part) for part in range(3 - packed)]
        return [*([] if packed == 0 else [r[0]]), *parts]
    return [r[0], r[1], r[2]]


def _packed(r: Reading, index: int, part: int) -> Tensor:
    """x[batch, positions, heads, part, width] as [batch, positions, features]"""
    batch, positions, heads, _, width = r.shape(index)
    one = r.unary("slice", r[index], axes=(3,), start=(part,), stop=(part + 1,), step=(1,))
    return r.reshape(one, (batch, positions, heads * width))


def _with_biases(r: Reading, parts: list[Tensor]) -> list[Tensor]:
    if any(len(shape_of(part)) != 3 for part in parts):
        raise ReadError("biases of keys that lie by heads are not supported")
    ends = np.cumsum([0, *(r.extent(shape_of(part)[2]) for part in parts)]).tolist()
    biases = [_features(r, r[3], ends[i], ends[i + 1], axis=0) for i in range(3)]
    return [r.binary("add", part, bias) for part, bias in zip(parts, biases, strict=True)]


def _features(r: Reading, x: Tensor, start: int, stop: int, axis: int = 2) -> Tensor:
    if isinstance(x, Known):
        return Known(np.take(x.array, range(start, stop), axis))
    first = start if start else BEGIN
    last = stop if stop != shape_of(x)[axis] else END
    return r.unary("slice", x, axes=(axis,), start=(first,), stop=(last,), step=(1,))


def _attended(
    r: Reading, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> Tensor:
    heads = r.attribute("num_heads")
    columns = shape_of(k)[1 if len(shape_of(k)) == 3 else 2]
    parts = [_bias_of(r, mask, q, columns)] if mask is not None else []
    parts += [bias] if bias is not None else []
    both = r.binary("add", *parts) if len(parts) == 2 else (parts or [None])[0]
    how = {"q_num_heads": heads, "kv_num_heads": heads}
    how["is_causal"] = r.attribute("unidirectional", 0)
    return first_of(read_attention(r.instead(q, k, v, both, **how)))


def _bias_of(r: Reading, mask: Tensor, q: Tensor, columns: Dim) -> Tensor:
    """A mask as what is added to the scores: -10000, or what the node says, where a key is masked.

    mask[batch, keys], or [batch, queries, keys]: 0 is masked. mask[batch]: so many keys are not;
    mask[2 batch]: where these end, then where they begin.
    """
    shape, batch = shape_of(mask), shape_of(q)[0]
    if len(shape) == 3:
        allowed = _positive(r, r.unary("unsqueeze", mask, axes=(1,)))
    elif len(shape) == 2:
        allowed = _positive(r, r.unary("unsqueeze", mask, axes=(1, 2)))
    elif len(shape) == 1 and shape[0] == batch:
        allowed = r.binary("less", _places(r, mask, columns), r.reshape(mask, (batch, 1, 1, 1)))
    elif len(shape) == 1 and shape[0] == 2 * batch:
        both = r.reshape(mask, (2, batch, 1, 1, 1))
        ends, starts = (r.unary("slice", both, axes=(0,), start=(i,), stop=(i + 1,), step=(1,))
                        for i in (0, 1))  # fmt: skip
        ends, starts = (r.reshape(x, (batch, 1, 1, 1)) for x in (ends, starts))
        places = _places(r, mask, columns)
        allowed = r.binary(
            "logical_and",
            r.binary("less", places, ends),
            r.binary("greater_equal", places, starts),
        )
    else:
        raise ReadError(f"a mask of shape {shape} is not supported")
    never = r.like(r.attribute("mask_filter_value", -10000.0), q)
    return r.apply("where", {"condition": allowed, "a": r.like(0.0, q), "b": never})


def _positive(r: Reading, mask: Tensor) -> Tensor:
    return r.binary("greater", mask, r.like(0, mask))


def _places(r: Reading, mask: Tensor, columns: Dim) -> Known:
    return Known(np.arange(r.extent(columns), dtype=dtype_of(mask).numpy).reshape(1, 1, 1, -1))


def _read_rotary(r: Reading) -> Tensor:
    """X, positions, cosines, sines; one position is that of the first, the others follow."""
    if r.attribute("is_packed_batching", 0) or r.attribute("scale", 1.0) != 1.0:
        raise ReadError("packed batches and scales are not supported")
    positions, shape = r[1], r.shape(0)
    axis = 1 if len(shape) == 3 else 2
    if shape_of(positions) == (1,):
        behind = np.arange(r.extent(shape[axis]), dtype=DType.I64.numpy)[None]
        positions = r.binary("add", Known(behind), positions)
        positions = r.unary("expand", positions, shape=(shape[0], shape[axis]))
    if dtype_of(positions) is not DType.I64:
        positions = r.unary("cast", positions, dtype="i64")
    width = 2 * r.extent(r.shape(2)[1])
    how = {"num_heads": r.attribute("num_heads", 0)}
    if len(shape) == 3 and not how["num_heads"]:
        how["num_heads"] = r.extent(floor_div(shape[2], width))
    return read_rotary(r.instead(r[0], r[2], r[3], positions, **how))


ROWS: tuple[Row, ...] = ()

READING = {
    f"{MICROSOFT}Attention": Read(_read_attention),
    f"{MICROSOFT}MultiHeadAttention": Read(_read_multi_head),
    f"{MICROSOFT}RotaryEmbedding": Read(_read_rotary),
}
"""Kinds of nodes that are several operators of ours."""
