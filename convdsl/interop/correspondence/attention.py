"""Attention and rotary embeddings, which are one node in ONNX and some operators of ours."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of
from convdsl.ops.extent import BEGIN, END
from convdsl.tensor import Dim, DType, floor_div

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading


def read_attention(r: Reading) -> Result:
    """softmax(cap(scale Q K^T) + bias) V, heads apart. Heads that share keys are rows of one
    product; what no key may be attended for is zero."""
    q, k, v = (_heads(r, index) for index in range(3))
    if r.has(4):
        k = r.apply("concat", {"x0": r[4], "x1": k}, axis=2)
        v = r.apply("concat", {"x0": r[5], "x1": v}, axis=2)
    scores = _scores(r, q, k)
    batch, heads, rows, columns = *shape_of(q)[:3], shape_of(k)[2]
    scores = r.reshape(scores, (batch, heads, rows, columns)) if _shares(q, k) else scores
    plain = scores
    cap = r.attribute("softcap", 0.0)
    if cap:
        scores = r.binary("div", scores, r.like(cap, scores))
        scores = r.binary("mul", r.unary("tanh", scores), r.like(cap, scores))
    capped = scores
    bias = _bias(r, rows, columns)
    scores = scores if bias is None else r.binary("add", scores, bias)
    shares = _softmax(r, scores, bias)
    y = _weighted(r, shares, v)
    if r.rank(0) == 3:
        width = shape_of(v)[3] * heads
        y = r.reshape(r.unary("transpose", y, axes=(0, 2, 1, 3)), (batch, rows, width))
    modes: Sequence[Tensor] = (
        plain if r.opset < 24 and not cap else capped,
        capped,
        scores,
        shares,
    )
    mode: int = r.attribute("qk_matmul_output_mode", 0)
    return [y, k, v, modes[mode]]


def _heads(r: Reading, index: int) -> Tensor:
    """x[batch, heads, positions, width]: heads that lie in the last axis are taken apart."""
    shape = r.shape(index)
    if len(shape) == 4:
        return r[index]
    count = r.attribute("kv_num_heads" if index else "q_num_heads")
    if count is None:
        raise ReadError("the number of heads is missing")
    apart = r.reshape(r[index], (*shape[:2], count, floor_div(shape[2], count)))
    return r.unary("transpose", apart, axes=(0, 2, 1, 3))


def _shares(q: Tensor, k: Tensor) -> bool:
    """Whether several heads attend to the keys of one."""
    return shape_of(q)[1] != shape_of(k)[1]


def _scores(r: Reading, q: Tensor, k: Tensor) -> Tensor:
    """scale Q K^T; heads that share keys in an axis of their own."""
    scale = r.attribute("scale", 0.0) or 1 / sqrt(r.extent(shape_of(q)[3]))
    q = r.binary("mul", q, r.like(scale, q))
    k = r.unary("transpose", k, axes=(0, 1, 3, 2))
    if _shares(q, k):
        batch, heads, rows, width = shape_of(q)
        kept = shape_of(k)[1]
        q = r.reshape(q, (batch, kept, floor_div(heads, kept), rows, width))
        k = r.unary("unsqueeze", k, axes=(2,))
    return r.binary("matmul", q, k)


def _weighted(r: Reading, shares: Tensor, v: Tensor) -> Tensor:
    """shares V"""
    if not _shares(shares, v):
        return r.binary("matmul", shares, v)
    batch, heads, rows, columns = shape_of(shares)
    kept = shape_of(v)[1]
    apart = r.reshape(shares, (batch, kept, floor_div(heads, kept), rows, columns))
    y = r.binary("matmul", apart, r.unary("unsqueeze", v, axes=(2,)))
    return r.reshape(y, (batch, heads, rows, shape_of(v)[3]))


# What is added to the scores: 0, or -inf where a key may not be attended


def _bias(r: Reading, rows: Dim, columns: Dim) -> Tensor | None:
    parts: list[Tensor] = []
    if r.has(3):
        parts.append(_mask(r, columns))
    if r.has(6):
        parts.append(_filled_keys(r, columns))
    parts += _borders(r, rows, columns)
    bias = parts[0] if parts else None
    for part in parts[1:]:
        bias = r.binary("add", bias, part) if bias is not None else part
    return bias


def _mask(r: Reading, columns: Dim) -> Tensor:
    """The mask as a bias; keys behind its end may not be attended."""
    mask = r[3]
    if dtype_of(mask) is DType.BOOL:
        zero, never = r.like(0.0, r[0]), r.like(-inf, r[0])
        mask = r.apply("where", {"condition": mask, "a": zero, "b": never})
    last = len(shape_of(mask)) - 1
    missing = columns - shape_of(mask)[last]
    if missing == 0 or shape_of(mask)[last] == 1:
        return mask
    return r.unary("pad", mask, pad=((0, missing),), mode="zeros", value=-inf, axes=(last,))


def _filled_keys(r: Reading, columns: Dim) -> Tensor:
    """Of each sample so many keys, from the first on."""
    places = Known(np.arange(r.extent(columns)).reshape(1, 1, 1, -1))
    count = r.reshape(r[6], (shape_of(r[6])[0], 1, 1, 1))
    return _never(r, r.binary("less", places, count))


def _never(r: Reading, allowed: Tensor) -> Tensor:
    zero, never = r.like(0.0, r[0]), r.like(-inf, r[0])
    return r.apply("where", {"condition": allowed, "a": zero, "b": never})


def _borders(r: Reading, rows: Dim, columns: Dim) -> list[Tensor]:
    """Keys may lie so far before a query and so far behind it; queries stand behind all earlier
    keys."""
    left, right = r.attribute("left_window_size", -1), r.attribute("right_window_size", -1)
    if r.attribute("is_causal", 0):
        right = 0
    if left < 0 and right < 0:
        return []
    if r.has(6):
        return _borders_by_sample(r, rows, columns, left, right)
    before = r.extent(r.shape(4)[2]) if r.has(4) else 0
    never = r.unary("expand", r.like(-inf, r[0]), shape=(rows, columns))
    found: list[Tensor] = []
    if right >= 0:
        found.append(r.unary("triu", never, diagonal=before + right + 1))
    if left >= 0:
        found.append(r.unary("tril", never, diagonal=before - left - 1))
    return found


def _borders_by_sample(r: Reading, rows: Dim, columns: Dim, left: int, right: int) -> list[Tensor]:
    """The same where each sample has its own number of keys, of which the queries are the last."""
    i, j = np.arange(r.extent(rows)), np.arange(r.extent(columns))
    apart = Known((j[None, :] - i[:, None] + len(i))[None, None])
    count = r.reshape(r[6], (shape_of(r[6])[0], 1, 1, 1))
    over = r.binary("sub", apart, count)
    found: list[Tensor] = []
    if right >= 0:
        found.append(_never(r, r.binary("less_equal", over, r.like(right, over))))
    if left >= 0:
        found.append(_never(r, r.binary("greater_equal", over, r.like(-left, over))))
    return found


def _softmax(r: Reading, scores: Tensor, bias: Tensor | None) -> Tensor:
    """In the precision asked for. Where nothing may be attended there is nothing, and not NaN."""
    own, wanted = dtype_of(scores), FROM_ONNX.get(r.attribute("softmax_precision", 0))
    if wanted is DType.F64 and own is not wanted:
        scores = r.unary("cast", scores, dtype="f64")
    shares: Tensor = r.unary("softmax", scores, axis=-1)
    if dtype_of(shares) is not own:
        shares = r.unary("cast", shares, dtype=str(own))
    if bias is None or not _may_be_dead(bias):
        return shares
    best = r.unary("reduce_max", bias, axes=(-1,), keepdims=True)
    dead = r.binary("equal", best, r.like(-inf, best))
    return r.apply("where", {"condition": dead, "a": r.like(0.0, shares), "b": shares})


def _may_be_dead(bias: Tensor) -> bool:
    """Whether for some query no key may be attended; a known mask tells."""
    if not isinstance(bias, Known):
        return True
    return bool(np.any(np.max(bias.array, axis=-1) == -inf))


# Rotary embedding


def read_rotary(r: Reading) -> Tensor:
    """Pairs of features, (first half, second half) or neighbours, turned by angles that grow with
    the position: (a cos - b sin, a sin + b cos). Su et al. 2021, arXiv:2104.09864."""
    shape = r.shape(0)
    x, apart = r[0], shape
    if len(shape) == 3:
        heads = r.attribute("num_heads", 0)
        apart = (*shape[:2], heads, floor_div(shape[2], heads))
        x = r.reshape(x, apart)
    width = r.extent(apart[3])
    turned = r.attribute("rotary_embedding_dim", 0) or width
    cos, sin = (_angles(r, index, 1 if len(shape) == 4 else 2) for index in (1, 2))
    if r.attribute("interleaved", 0):
        a, b = (_part(r, x, start, turned, 2) for start in (0, 1))
    else:
        a, b = _part(r, x, 0, turned // 2, 1), _part(r, x, turned // 2, turned, 1)
    real = r.binary("sub", r.binary("mul", cos, a), r.binary("mul", sin, b))
    imag = r.binary("add", r.binary("mul", sin, a), r.binary("mul", cos, b))
    parts: list[Tensor] = [real, imag]
    if r.attribute("interleaved", 0):
        pairs = [r.unary("unsqueeze", part, axes=(4,)) for part in parts]
        both = r.apply("concat", {"x0": pairs[0], "x1": pairs[1]}, axis=4)
        parts = [r.reshape(both, (*apart[:3], turned))]
    if turned < width:
        parts.append(_part(r, x, turned, width, 1))
    y: Tensor = parts[0]
    if len(parts) > 1:
        y = r.apply("concat", {f"x{i}": part for i, part in enumerate(parts)}, axis=3)
    return y if len(shape) == 4 else r.reshape(y, shape)


def _angles(r: Reading, index: int, heads: int) -> Tensor:
    """Sines or cosines at the positions, the same for all heads."""
    cache: Tensor = r[index]
    if r.has(3):
        cache = r.apply("take", {"x": cache, "positions": r[3]}, axis=0)
    return r.unary("unsqueeze", cache, axes=(heads,))


def _part(r: Reading, x: Tensor, start: int, stop: int, step: int) -> Tensor:
    """Features start .. stop of the last axis."""
    limits: dict[str, Sequence[Any]] = {
        "start": (start if start else BEGIN,),
        "stop": (stop if stop != shape_of(x)[3] else END,),
        "step": (step,),
    }
    return r.unary("slice", x, axes=(3,), **limits)


ROWS: tuple[Row, ...] = ()

READING = {
    "Attention": Read(read_attention),
    "RotaryEmbedding": Read(read_rotary),
}
"""Nodes that are several operators of ours."""
