"""Linear layers, normalisation, activations and reductions as ONNX spells them."""

from __future__ import annotations

import numpy as np

from convdsl.interop.element_types import TO_ONNX
from convdsl.interop.spelling.writer import Spelling
from convdsl.tensor import DType


def linear(s: Spelling) -> str:
    """Gemm of a matrix; of deeper tensors a product and a sum."""
    if s.call.type("x").rank == 2:
        return s("Gemm", s["x"], s["weight"], s["bias"], transB=1)
    product = s("MatMul", s["x"], s("Transpose", s["weight"], perm=[1, 0]))
    return s("Add", product, s["bias"]) if s["bias"] else product


# Normalisation


def batch_norm(s: Spelling) -> str:
    state = (*s.affine(s.call.type("running_mean").shape), s["running_mean"], s["running_var"])
    return s("BatchNormalization", s["x"], *state, epsilon=s.call["eps"])


def layer_norm(s: Spelling) -> str:
    axis = s.call["axis"]
    state = s.affine(s.call.type("x").shape[axis:])
    return s("LayerNormalization", s["x"], *state, axis=axis, epsilon=s.call["eps"])


def group_norm(s: Spelling) -> str:
    state = s.affine(s.call.type("x").shape[1:2])
    how = {"num_groups": s.call["groups"], "epsilon": s.call["eps"], "stash_type": s.element}
    return s("GroupNormalization", s["x"], *state, **how)


def instance_norm(s: Spelling) -> str:
    state = s.affine(s.call.type("x").shape[1:2])
    return s("InstanceNormalization", s["x"], *state, epsilon=s.call["eps"])


def lrn(s: Spelling) -> str:
    """onnxruntime takes odd sizes and rank 4 only; even ones are spelled out as PyTorch does."""
    call, size = s.call, s.call["size"]
    shape = call.type("x").shape
    alpha, beta, k = call["alpha"], call["beta"], call["k"]
    if size % 2:
        x = s["x"] if len(shape) == 4 else s("Reshape", s["x"], s.integers([0, 0, -1, 1]))
        y = s("LRN", x, size=size, alpha=alpha, beta=beta, bias=k)
        return y if len(shape) == 4 else s.reshaped(y, shape)
    squares = s("Mul", s["x"], s["x"])
    plane = s("Reshape", squares, s.integers([shape[0], 1, shape[1], -1]))
    ones = s.constant(np.ones((1, 1, size, 1)))
    total = s("Conv", plane, ones, pads=[size // 2, 0, (size - 1) // 2, 0])
    base = s("Add", s("Mul", total, s.constant(alpha / size)), s.constant(k))
    divisor = s("Pow", base, s.constant(beta))
    return s("Div", s["x"], s("Reshape", divisor, s.integers(shape)))


# Activations. Some of ONNX's nodes hold constants in single precision, whatever they compute in.


def prelu(s: Spelling) -> str:
    rank = s.call.type("x").rank
    slope = s("Reshape", s["weight"], s.integers([-1, *(1 for _ in range(rank - 2))]))
    return s("PRelu", s["x"], slope)


def relu6(s: Spelling) -> str:
    return s("Clip", s["x"], s.constant(0.0), s.constant(6.0))


def selu(s: Spelling) -> str:
    if s.single:
        return s("Selu", s["x"])
    alpha, scale = s.constant(1.6732632423543772), s.constant(1.0507009873554805)
    negative = s("Mul", s("Sub", s("Exp", s["x"]), s.constant(1.0)), alpha)
    positive = s("Greater", s["x"], s.constant(0.0))
    return s("Mul", s("Where", positive, s["x"], negative), scale)


def hardswish(s: Spelling) -> str:
    if s.single:
        return s("HardSwish", s["x"])
    line = s("Add", s("Div", s["x"], s.constant(6.0)), s.constant(0.5))
    return s("Mul", s["x"], s("Clip", line, s.constant(0.0), s.constant(1.0)))


def hardsigmoid(s: Spelling) -> str:
    return s("HardSigmoid", s["x"], alpha=s.call["slope"], beta=s.call["offset"])


def silu(s: Spelling) -> str:
    return s("Mul", s["x"], s("Sigmoid", s["x"]))


def softplus(s: Spelling) -> str:
    if s.call["beta"] == 1.0:
        return s("Softplus", s["x"])
    beta = s.constant(s.call["beta"])
    return s("Div", s("Softplus", s("Mul", s["x"], beta)), beta)


def clip(s: Spelling) -> str:
    low, high = s.call["low"], s.call["high"]
    return s(
        "Clip",
        s["x"],
        "" if low == -np.inf else s.constant(low),
        "" if high == np.inf else s.constant(high),
    )


def cast(s: Spelling) -> str:
    return s("Cast", s["x"], to=TO_ONNX[DType(s.call["dtype"])])


def not_equal(s: Spelling) -> str:
    return s("Not", s("Equal", s["a"], s["b"]))


# Reductions


def reduction(kind: str, s: Spelling) -> str:
    return s(kind, s["x"], s.integers(s.call["axes"]), keepdims=int(s.call["keepdims"]))


def selection(kind: str, s: Spelling) -> str:
    return s(kind, s["x"], axis=s.call["axis"], keepdims=int(s.call["keepdims"]))


def top_k(s: Spelling) -> list[str]:
    count, largest = s.integers([s.call["k"]]), int(s.call["largest"])
    return s("TopK", s["x"], count, outputs=2, axis=s.call["axis"], largest=largest)
