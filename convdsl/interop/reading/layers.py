"""Matrix products, normalisation and reductions, from ONNX."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np

from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.interop.reading.windows import Result, Rule
from convdsl.ir.graph import Value
from convdsl.tensor import Dim

# Products


def gemm(r: Reading) -> Tensor:
    """alpha A B + beta C; a linear layer where it is one."""
    a, b, c = r[0], r[1], r.given(2)
    alpha, beta = r.attribute("alpha", 1.0), r.attribute("beta", 1.0)
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
    inputs = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    return r.apply("linear", inputs, channels=shape_of(weight)[0], bias=bias is not None)


def matmul(r: Reading) -> Tensor:
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


# Normalisation


def batch_norm(r: Reading) -> Tensor:
    if r.attribute("training_mode", 0) or any(r.wants(i) for i in range(1, 5)):
        raise ReadError("batch normalisation in training mode is not supported")
    names = ("x", "weight", "bias", "running_mean", "running_var")
    inputs = {name: r[index] for index, name in enumerate(names)}
    return r.apply("batch_norm", inputs, eps=r.attribute("epsilon", 1e-5))


def instance_norm(r: Reading) -> Tensor:
    inputs = {"x": r[0], "weight": r[1], "bias": r[2]}
    return r.apply("instance_norm", inputs, eps=r.attribute("epsilon", 1e-5), affine=True)


def group_norm(r: Reading) -> Tensor:
    """Before opset 21 there is one weight a group, since then one a channel."""
    groups, channels = r.attribute("num_groups"), r.shape(0)[1]
    affine = {"weight": r[1], "bias": r[2]}
    if r.opset < 21:
        affine = {key: _repeated(r, tensor, channels) for key, tensor in affine.items()}
    eps = r.attribute("epsilon", 1e-5)
    return r.apply("group_norm", {"x": r[0], **affine}, groups=groups, eps=eps)


def _repeated(r: Reading, x: Tensor, channels: Dim) -> Tensor:
    (groups,) = shape_of(x)
    each = channels // groups
    if isinstance(x, Known):
        return Known(np.repeat(x.array, r.extent(each)), x.name)
    apart = r.reshape(x, (groups, 1))
    return r.reshape(r.unary("expand", apart, shape=(groups, each)), (channels,))


def layer_norm(r: Reading) -> Result:
    x, eps = r[0], r.attribute("epsilon", 1e-5)
    axis = r.attribute("axis", -1) % r.rank(0)
    whole = r.shape(0)[axis:]
    if shape_of(r[1]) == whole and (not r.has(2) or shape_of(r[2]) == whole):
        bias = r[2] if r.has(2) else r.like(np.zeros([r.extent(size) for size in whole]), x)
        y = r.apply("layer_norm", {"x": x, "weight": r[1], "bias": bias}, axis=axis, eps=eps)
    else:
        y = r.unary("layer_norm", x, axis=axis, eps=eps, affine=False)
        y = r.binary("mul", y, r[1])
        y = r.binary("add", y, r[2]) if r.has(2) else y
    if not (r.wants(1) or r.wants(2)):
        return y
    axes = tuple(range(axis, r.rank(0)))
    mean = r.unary("reduce_mean", x, axes=axes, keepdims=True)
    apart = r.binary("sub", x, mean)
    variance = r.unary("reduce_mean", r.binary("mul", apart, apart), axes=axes, keepdims=True)
    spread = r.unary("sqrt", r.binary("add", variance, r.like(eps, x)))
    return [y, mean, r.unary("reciprocal", spread)]


def lrn(r: Reading) -> Tensor:
    how = {"alpha": r.attribute("alpha", 1e-4), "beta": r.attribute("beta", 0.75)}
    return r.unary("lrn", r[0], size=r.attribute("size"), k=r.attribute("bias", 1.0), **how)


# Softmax


def softmax(op: str) -> Rule:
    """Before opset 13 everything from the axis on is one axis."""

    def rule(r: Reading) -> Tensor:
        rank, shape = r.rank(0), r.shape(0)
        axis = r.attribute("axis", 1 if r.opset < 13 else -1) % rank
        if r.opset >= 13 or axis == rank - 1 or all(size == 1 for size in shape[axis + 1 :]):
            return r.unary(op, r[0], axis=axis)
        flat = r.reshape(r[0], (*shape[:axis], prod(shape[axis:])))
        return r.reshape(r.unary(op, flat, axis=axis), shape)

    return rule


# Reductions


def reduction(op: str, r: Reading) -> Tensor:
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
    return r.unary(op, x, axes=tuple(axes), keepdims=keep)


def _elementwise(op: str, r: Reading) -> Tensor:
    """A reduction of every element by itself."""
    if op in ("reduce_l1", "reduce_l2", "reduce_log_sum_exp"):
        return r[0] if op == "reduce_log_sum_exp" else r.unary("abs", r[0])
    if op == "reduce_sum_square":
        return r.binary("mul", r[0], r[0])
    return r.unary("identity", r[0])


def log_sum(r: Reading) -> Tensor:
    return r.unary("log", reduction("reduce_sum", r))


def selection(op: str, r: Reading) -> Tensor:
    axis: int = r.attribute("axis", 0) % r.rank(0)
    keep = bool(r.attribute("keepdims", 1))
    if not r.attribute("select_last_index", 0):
        return r.unary(op, r[0], axis=axis, keepdims=keep)
    backwards = r.unary("slice", r[0], axes=(axis,), start=("begin",), stop=("end",), step=(-1,))
    last = r.extent(r.shape(0)[axis]) - 1
    found = r.unary(op, backwards, axis=axis, keepdims=keep)
    return r.binary("sub", Known(np.asarray(last)), found)


def top_k(r: Reading) -> Result:
    count = r.sizes(1)[0] if r.has(1) else r.attribute("k")
    axis = r.attribute("axis", -1) % r.rank(0)
    largest = bool(r.attribute("largest", 1))
    return list(r.apply_all("top_k", {"x": r[0]}, k=count, axis=axis, largest=largest))


_REDUCTIONS = {
    "ReduceSum": "reduce_sum", "ReduceMean": "reduce_mean", "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min", "ReduceProd": "reduce_prod", "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2", "ReduceSumSquare": "reduce_sum_square",
    "ReduceLogSumExp": "reduce_log_sum_exp",
}  # fmt: skip

RULES: dict[str, Rule] = {
    **{kind: partial(reduction, op) for kind, op in _REDUCTIONS.items()},
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "LRN": lrn,
    "Softmax": softmax("softmax"),
    "LogSoftmax": softmax("log_softmax"),
    "ReduceLogSum": log_sum,
    "ArgMax": partial(selection, "argmax"),
    "ArgMin": partial(selection, "argmin"),
    "TopK": top_k,
}
