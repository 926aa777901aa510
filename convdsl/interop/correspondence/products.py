"""Products with matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convdsl.interop.correspondence.row import Keyword, Read, only_spelled, same
from convdsl.interop.correspondence.wording import PyTorch, Wording, keywords, module, text
from convdsl.interop.reading.tensors import Known, Tensor, shape_of
from convdsl.ir.graph import Value

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def read_gemm(r: Reading) -> Tensor:
    """alpha A B + beta C; a linear layer where it is one."""
    a, b, c = r[0], r[1], r.given(2)
    alpha, beta = r.attribute("alpha", 1.0), r.attribute("beta", 1.0)
    c = None if beta == 0.0 else c  # whatever it holds: NaN too is of no account
    if r.attribute("transA", 0):
        a = _transposed(r, a)
    plain = alpha == 1.0 and (c is None or beta == 1.0)
    if isinstance(b, Known) and plain and not isinstance(a, Known):
        weight = b if r.attribute("transB", 0) else _transposed(r, b)
        columns = shape_of(weight)[0]
        bias = c if c is not None and shape_of(c) in ((columns,), (1, columns)) else None
        if isinstance(bias, Known) and bias.array.ndim == 2:
            bias = Known(bias.array.reshape(-1), bias.name)
        if c is None or isinstance(bias, Known):
            return linear(r, a, weight, bias)
    if r.attribute("transB", 0):
        b = _transposed(r, b)
    y: Tensor = r.binary("matmul", a, b)
    if alpha != 1.0:
        y = r.binary("mul", y, r.like(alpha, y))
    if c is not None and beta != 1.0:
        c = r.binary("mul", c, r.like(beta, c))
    return y if c is None else r.binary("add", y, c)


def _transposed(r: Reading, x: Tensor) -> Tensor:
    if isinstance(x, Known):
        return Known(x.array.T, x.name)
    return r.unary("transpose", x, axes=(1, 0))


def linear(r: Reading, x: Tensor, weight: Tensor, bias: Tensor | None) -> Value:
    """x times the rows of a matrix, a bias added."""
    inputs = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    return r.apply("linear", inputs, channels=shape_of(weight)[0], bias=bias is not None)


def read_matmul(r: Reading) -> Tensor:
    """MatMul: a linear layer where the right side is a matrix known while reading."""
    a, b = r[0], r[1]
    if isinstance(b, Known) and b.array.ndim == 2 and not isinstance(a, Known) and r.rank(0) > 1:
        return linear(r, a, Known(b.array.T, b.name), None)
    left, right = r.rank(0) == 1, r.rank(1) == 1
    if left:
        a = r.unary("unsqueeze", a, axes=(0,))
    if right:
        b = r.unary("unsqueeze", b, axes=(1,))
    y = r.binary("matmul", a, b)
    if left or right:
        rank = len(y.type.shape)
        axes = ([rank - 2] if left else []) + ([rank - 1] if right else [])
        y = r.unary("squeeze", y, axes=tuple(axes))
    return y


def _read_einsum(r: Reading) -> Tensor:
    inputs = {f"x{i}": r[i] for i in range(len(r.inputs))}
    return r.apply("einsum", inputs, equation=r.attribute("equation"))


# As ONNX, in PyTorch


def _spell_linear(s: Spelling) -> str:
    """Gemm of a matrix; of deeper tensors a product and a sum."""
    if s.call.type("x").rank == 2:
        return s("Gemm", s["x"], s["weight"], s["bias"], transB=1)
    product = s("MatMul", s["x"], s("Transpose", s["weight"], perm=[1, 0]))
    return s("Add", product, s["bias"]) if s["bias"] else product


def _layer_linear(w: Wording) -> str:
    options = keywords(("bias", str(w.call["bias"]), "True"), w.dtype)
    return f"{text(w.call.type('x').shape[-1])}, {w.call['channels']}{options}"


def _loose_linear(w: Wording) -> str:
    bias = f", {w['bias']}" if w.call["bias"] else ""
    return f"functional.linear({w['x']}, {w['weight']}{bias})"


def _say_einsum(w: Wording) -> str:
    return f'torch.einsum("{w.call["equation"]}", {", ".join(w.operands.values())})'


ROWS = (
    only_spelled(
        "linear", "Gemm", module("nn.Linear", _layer_linear, loose=_loose_linear), _spell_linear
    ),
    same("matmul", "MatMul", "torch.matmul", read=read_matmul),
    same(
        "einsum",
        "Einsum",
        PyTorch("torch.einsum", _say_einsum),
        Keyword("equation", "equation", ""),
        read=_read_einsum,
    ),
)

READING = {"Gemm": Read(read_gemm)}
"""A linear layer where the matrix is a weight, else a product and a sum."""
