"""Nodes that stand for several: what ONNX Runtime writes where it saves an optimised network.

They are ONNX Runtime's own kinds ("Contrib Operators"), up to its level `extended`: a product and
the activation behind it, a sum and the normalisation behind it, transposes inside a product.
Attention is in fused_attention.py. What is laid out for one processor (com.microsoft.nchwc, of its
level `all`) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.convolution import read_conv
from convdsl.interop.correspondence.kinds import MICROSOFT, first_of, read_as
from convdsl.interop.correspondence.normalisation import read_layer_norm, read_rms_norm
from convdsl.interop.correspondence.positions import read_triangle
from convdsl.interop.correspondence.products import linear, read_gemm, read_matmul
from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.correspondence.sampling import read_grid_sample
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of
from convdsl.ir.graph import Value
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading


# A product and what is behind it


def _read_fused_conv(r: Reading) -> Tensor:
    """X, W, B and Z, which is added before the activation."""
    y: Tensor = read_conv(r.instead(r[0], r[1], r.given(2)))
    y = r.binary("add", y, r[3]) if r.has(3) else y
    numbers = r.attribute("activation_params") or ()
    return _activated(r, y, numbers)


def _read_fused_gemm(r: Reading) -> Tensor:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    numbers = [r.attribute(name) for name in names]
    return _activated(r, read_gemm(r), [number for number in numbers if number is not None])


_NUMBERS = {
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
    "Clip": ("min", "max"),
}
"""What the numbers of an activation are called where it is a node of its own."""


def _activated(r: Reading, y: Tensor, numbers: Sequence[float]) -> Tensor:
    kind = r.attribute("activation", "")
    if not kind:
        return y
    names = _NUMBERS.get(kind, ())
    return read_as(kind, r.instead(y, **dict(zip(names, numbers, strict=False))))


def _read_fused_matmul(r: Reading) -> Tensor:
    """alpha A B, where the last two axes of either may be exchanged, or its rows and batches."""
    a, b = (_turned(r, i, name) for i, name in enumerate("AB"))
    y = read_matmul(r.instead(a, b))
    alpha = r.attribute("alpha", 1.0)
    return y if alpha == 1.0 else r.binary("mul", y, r.like(alpha, y))


def _turned(r: Reading, index: int, name: str) -> Tensor:
    """One operand as it is multiplied: a vector stays what it is. transBatch says that the first
    axis stands before the last one, trans that the last two are exchanged then."""
    x, rank = r[index], r.rank(index)
    axes = list(range(rank))
    if rank > 1 and r.attribute(f"transBatch{name}", 0):
        axes = [*axes[1:-1], 0, axes[-1]]
    if rank > 1 and r.attribute(f"trans{name}", 0):
        axes[-2:] = reversed(axes[-2:])
    if axes == sorted(axes):
        return x
    if isinstance(x, Known):
        return Known(np.transpose(x.array, axes), x.name)
    return r.unary("transpose", x, axes=tuple(axes))


def _read_matmul_of_bits(r: Reading) -> Tensor:
    """A, and a matrix[N, K] whose rows are packed in blocks of a few bits a number: blocks, their
    scales and zero points, none, a bias."""
    if r.attribute("weight_prepacked", 0):
        raise ReadError("a matrix that is packed for one card is not supported")
    rows, columns, bits = (r.attribute(name) for name in ("N", "K", "bits"))
    packed, scales = r.array(1), r.array(2).reshape(rows, -1)
    numbers = _unpacked(packed.reshape(rows, -1), bits).reshape(rows, scales.shape[1], -1)
    zeros = np.full(scales.shape, 2.0 ** (bits - 1))
    if r.has(3):
        given = r.array(3).reshape(rows, -1)
        zeros = _unpacked(given, bits) if given.dtype == np.uint8 else given
        zeros = zeros[:, : scales.shape[1]]
    blocks = (numbers - zeros[..., None]) * scales[..., None].astype("f8")
    matrix = blocks.reshape(rows, -1)[:, :columns].astype(scales.dtype)
    return linear(r, r[0], Known(matrix), r.given(5))


def _unpacked(packed: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Numbers of `bits` bits, the lowest of a byte first."""
    if bits not in (2, 4, 8):
        raise ReadError(f"numbers of {bits} bits are not supported")
    shifts = np.arange(0, 8, bits)
    return ((packed[..., None] >> shifts) & (2**bits - 1)).reshape(*packed.shape[:-1], -1)


# Activations and sums


def _read_gelu(op: str, **how: Any) -> Callable[[Reading], Tensor]:
    """Of X, and of what is added to it."""

    def rule(r: Reading) -> Tensor:
        x = r.binary("add", r[0], r[1]) if r.has(1) else r[0]
        return r.unary(op, x, **how)

    return rule


def _read_quick_gelu(r: Reading) -> Tensor:
    return read_as("Swish", r.instead(r[0], alpha=r.attribute("alpha", 1.702)))


def _read_skip_layer_norm(r: Reading) -> Result:
    """The sum of an input, what skips it and a bias (4), normalised by gamma and beta."""
    total = _sum(r, r[0], r[1], r.given(4))
    beta = r.given(3)
    weights = (r[2],) if beta is None else (r[2], beta)
    how = {"axis": -1, "epsilon": r.attribute("epsilon", 1e-12)}
    found = read_layer_norm(r.instead(total, *weights, **how))
    outputs = [found] if isinstance(found, Value | Known) else list(found)
    return [*outputs, *[None] * (3 - len(outputs)), total]


def _read_skip_rms_norm(r: Reading) -> Result:
    """The same without means; the bias is input 3."""
    if r.wants(1) or r.wants(2):
        raise ReadError("means and deviations as outputs are not supported")
    total = _sum(r, r[0], r[1], r.given(3))
    how = {"axis": -1, "epsilon": r.attribute("epsilon", 1e-12)}
    return [read_rms_norm(r.instead(total, r[2], **how)), None, None, total]


def _read_simplified_layer_norm(r: Reading) -> Tensor:
    if r.wants(1):
        raise ReadError("deviations as an output are not supported")
    return read_rms_norm(r.instead(r[0], r[1], epsilon=r.attribute("epsilon", 1e-5)))


def _sum(r: Reading, *parts: Tensor | None) -> Tensor:
    given = [part for part in parts if part is not None]
    total = given[0]
    for part in given[1:]:
        total = r.binary("add", total, part)
    return total


def _read_embed_layer_norm(r: Reading) -> Result:
    """Rows of three tables (words, positions, segments) summed and normalised; how many words of
    each sample the mask keeps; the sums."""
    words = _taken(r, r[2], r[0])
    places = r.given(8)
    if places is None:
        length = r.extent(r.shape(0)[1])
        positions = r.unary("slice", r[3], axes=(0,), start=(0,), stop=(length,), step=(1,))
    else:
        positions = _taken(r, r[3], places)
    segments = _taken(r, r[4], r[1]) if r.has(4) and r.has(1) else None
    total = _sum(r, words, positions, segments)
    how = {"axis": -1, "epsilon": r.attribute("epsilon", 1e-12)}
    y = first_of(read_layer_norm(r.instead(total, r[5], r[6], **how)))
    return [y, _kept(r) if r.wants(1) else None, total]


def _taken(r: Reading, table: Tensor, rows: Tensor) -> Tensor:
    rows = rows if dtype_of(rows) is DType.I64 else r.unary("cast", rows, dtype="i64")
    return r.apply("take", {"x": table, "positions": rows}, axis=0)


def _kept(r: Reading) -> Tensor:
    """Of each sample how many positions the mask keeps; none where there is no mask."""
    batch = r.shape(0)[0]
    if not r.has(7):
        return r.unary("expand", Known(np.zeros(1, np.int32)), shape=(batch,))
    kept = r.unary("cast", r.binary("equal", r[7], r.like(1, r[7])), dtype="i32")
    return r.unary("reduce_sum", kept, axes=(1,), keepdims=False)


def _read_expand_dims(r: Reading) -> Tensor:
    (axis,) = r.sizes(1)
    rank = len(shape_of(r[0]))
    return r.unary("unsqueeze", r[0], axes=(axis % (rank + 1),))


ROWS: tuple[Row, ...] = ()

READING = {
    **{
        f"{MICROSOFT}{kind}": Read(rule)
        for kind, rule in {
            "FusedConv": _read_fused_conv,
            "FusedGemm": _read_fused_gemm,
            "FusedMatMul": _read_fused_matmul,
            "TransposeMatMul": _read_fused_matmul,
            "MatMulNBits": _read_matmul_of_bits,
            "Gelu": _read_gelu("gelu", approximate="none"),
            "BiasGelu": _read_gelu("gelu", approximate="none"),
            "FastGelu": _read_gelu("gelu", approximate="tanh"),
            "QuickGelu": _read_quick_gelu,
            "SkipLayerNormalization": _read_skip_layer_norm,
            "SkipSimplifiedLayerNormalization": _read_skip_rms_norm,
            "EmbedLayerNormalization": _read_embed_layer_norm,
            "GridSample": read_grid_sample,
        }.items()
    },
    f"{MICROSOFT}Trilu": Read(read_triangle, deciding=(1,)),
    f"{MICROSOFT}ExpandDims": Read(_read_expand_dims, deciding=(1,)),
    "SimplifiedLayerNormalization": Read(_read_simplified_layer_norm),
}
"""Kinds of nodes that are several operators of ours."""
