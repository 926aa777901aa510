"""Single layers drawn from a seed, each a graph of ONNX with its weights and an input.

A family is a kind of layer; its function draws kernel, stride, dilation, groups, channels, sizes,
activation and batch. Channels are as often ragged as not: what a schedule does with 58 of them
counts as much as what it does with 64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from benchmarks.block_layers import BLOCKS
from benchmarks.drawing import ELEMENTS, Draw, Layer
from benchmarks.more_drawn_layers import MORE

_PRODUCTS = 700e6  # multiply-adds of the largest layer

Family: TypeAlias = "Callable[[Draw], Sequence[str]]"


# Convolutions


def _activated(d: Draw, value: str) -> str:
    """With an activation as often as not."""
    kind = d.pick(
        None, None, None, "Relu", "Relu6", "LeakyRelu", "Silu", "HardSwish", "Gelu", "Sigmoid"
    )
    if kind is None:
        return value
    d.say(then=kind)
    if kind == "Silu":
        return d.node("Mul", value, d.node("Sigmoid", value))
    if kind == "Relu6":
        return d.node("Clip", value, d.constant(np.float32(0)), d.constant(np.float32(6)))
    return d.node(kind, value)


def _convolution(
    d: Draw,
    rank: int,
    kernel: Sequence[int],
    groups: int,
    channels: tuple[int, int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Sequence[str]:
    n, (c, k) = d.batch(), channels
    reach = [(tap - 1) * step + 1 for tap, step in zip(kernel, dilations, strict=True)]
    sides = d.sides(rank, n * max(c, k), max(7, *reach))
    while n * k * prod(sides) * c // groups * prod(kernel) / prod(strides) > _PRODUCTS:
        sides = [max(side * 3 // 4, most) for side, most in zip(sides, reach, strict=True)]
        n = max(1, n // 2)
        c, k = (c, k) if groups > 1 else (max(3, c * 3 // 4), max(3, k * 3 // 4))
    pads = d.pick([r // 2 for r in reach], [r // 2 for r in reach], [0] * rank)
    x = d.input((n, c, *sides))
    w = d.weight((k, c // groups, *kernel))
    d.say(to=k, kernel="x".join(map(str, kernel)), stride="x".join(map(str, strides)))
    d.say(dilation="x".join(map(str, dilations)), groups=groups, pad=pads[0])
    how = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    bias = [d.constant(d.rng.standard_normal(k).astype("f4"))] if d.rng.random() < 0.7 else []
    y = d.node("Conv", x, w, *bias, group=groups, pads=[*pads, *pads], **how)
    return [_activated(d, y)]


def _same(d: Draw, rank: int, *values: int) -> list[int]:
    """One value for all axes."""
    return [d.pick(*values)] * rank


def conv(d: Draw) -> Sequence[str]:
    """Two axes, one group."""
    kernel = d.pick([1, 1], [1, 1], [3, 3], [3, 3], [5, 5], [7, 7], [1, 7], [7, 1], [2, 2], [4, 4])
    dilations = _same(d, 2, 1, 1, 1, 2) if kernel != [1, 1] else [1, 1]
    channels = d.channels(), d.channels()
    return _convolution(d, 2, kernel, 1, channels, _same(d, 2, 1, 1, 2), dilations)


def depthwise(d: Draw) -> Sequence[str]:
    c = d.channels(16, 768)
    many = d.pick(1, 1, 1, 2)
    kernel = _same(d, 2, 3, 3, 5, 7, 9)
    return _convolution(d, 2, kernel, c, (c, c * many), _same(d, 2, 1, 1, 2), _same(d, 2, 1, 1, 2))


def grouped(d: Draw) -> Sequence[str]:
    groups = d.pick(2, 4, 8, 16, 32)
    own, made = d.between(2, 48), d.between(2, 48)
    own, made = d.pick((own, own), (own, made), (16, 16), (4, 4), (8, 8))
    kernel = _same(d, 2, 1, 3, 3, 5)
    strides = _same(d, 2, 1, 1, 2)
    return _convolution(d, 2, kernel, groups, (own * groups, made * groups), strides, [1, 1])


def conv1d(d: Draw) -> Sequence[str]:
    groups = d.pick(1, 1, 1, 4)
    c, k = (max(groups, d.channels() // groups * groups) for _ in range(2))
    kernel = d.pick([1], [3], [5], [9], [31])
    return _convolution(d, 1, kernel, groups, (c, k), _same(d, 1, 1, 1, 2), _same(d, 1, 1, 1, 2))


def conv3d(d: Draw) -> Sequence[str]:
    groups = d.pick(1, 1, 1, 4)
    c, k = (max(groups, d.channels(3, 96) // groups * groups) for _ in range(2))
    kernel = d.pick([1, 1, 1], [3, 3, 3], [3, 3, 3], [1, 3, 3], [3, 1, 1])
    return _convolution(d, 3, kernel, groups, (c, k), _same(d, 3, 1, 1, 2), [1, 1, 1])


def transposed(d: Draw) -> Sequence[str]:
    kernel, stride, pad = d.pick((2, 2, 0), (4, 2, 1), (3, 2, 1), (3, 1, 1), (5, 2, 2), (4, 4, 0))
    c, k = d.channels(8, 256), d.channels(3, 256)
    groups = d.pick(1, 1, 1, 0)
    groups = groups or c
    k = c if groups > 1 else k
    n = d.batch()
    sides = d.sides(2, n * max(c, k) * stride**2, 7, 64)
    while n * c * k // groups * kernel**2 * prod(sides) > _PRODUCTS:
        sides = [max(4, side * 3 // 4) for side in sides]
        n = max(1, n // 2)
    x = d.input((n, c, *sides))
    w = d.weight((c, k // groups, kernel, kernel))
    d.say(to=k, kernel=kernel, stride=stride, groups=groups, pad=pad)
    return [
        _activated(
            d, d.node("ConvTranspose", x, w, strides=[stride] * 2, pads=[pad] * 4, group=groups)
        )
    ]


# Products of matrices


def linear(d: Draw) -> Sequence[str]:
    rows, c, k = d.between(1, 512), d.channels(16, 3000), d.channels(10, 3000)
    while rows * c * k > _PRODUCTS or c * k > ELEMENTS:
        c, k = c * 2 // 3, k * 2 // 3
    bias = d.constant(d.rng.standard_normal(k).astype("f4"))
    if d.rng.random() < 0.5:
        x = d.input((rows, c))
        d.say(to=k, transB=1)
        return [_activated(d, d.node("Gemm", x, d.weight((k, c)), bias, transB=1))]
    outer = d.pick((), (d.batch(),), (d.batch(), d.pick(2, 3)))
    x = d.input((*outer, max(1, rows // max(1, prod(outer))), c))
    d.say(to=k)
    made = d.node("MatMul", x, d.weight((c, k)))
    return [_activated(d, d.node("Add", made, bias))]


def matmul(d: Draw) -> Sequence[str]:
    """Two operands of data; one of them transposed as in attention."""
    outer = d.pick((), (d.between(2, 12),), (1, d.between(2, 12)), (2, d.between(2, 8)))
    while True:
        m, k, n = d.between(16, 512), d.pick(32, 64, d.between(8, 512)), d.between(16, 512)
        if prod(outer) * m * n * k <= _PRODUCTS:
            break
    a = d.input((*outer, m, k))
    if d.rng.random() < 0.5:
        b = d.input((*outer, n, k), "y")
        rank = len(outer) + 2
        b = d.node("Transpose", b, perm=[*range(rank - 2), rank - 1, rank - 2])
        d.say(turned="b")
    else:
        b = d.input((*outer, k, n), "y")
    return [d.node("MatMul", a, b)]


# Windows


def pool(d: Draw) -> Sequence[str]:
    kind = d.pick("MaxPool", "AveragePool")
    kernel = d.pick(2, 2, 3, 3, 5, 7, 9, 13)
    stride = d.pick(1, 2, 2, kernel)
    pad = d.pick(0, kernel // 2) if kernel % 2 else 0
    n, c = d.batch(), d.channels(8, 512)
    x = d.input((n, c, *d.sides(2, n * c, kernel + 2)))
    d.say(kernel=kernel, stride=stride, pad=pad)
    return [d.node(kind, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)]


def pool_other(d: Draw) -> Sequence[str]:
    """One axis or three; over all positions."""
    kind = d.pick("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    rank, n, c = d.pick(1, 2, 3), d.batch(), d.channels(8, 256)
    if kind.startswith("Global"):
        return [d.node(kind, d.input((n, c, *d.sides(rank, n * c, 7))))]
    kernel, stride = d.pick((2, 2), (3, 2), (3, 1))
    rank = d.pick(1, 3)
    x = d.input((n, c, *d.sides(rank, n * c, 5, 2000 if rank == 1 else 60)))
    d.say(kernel=kernel, stride=stride)
    return [d.node(kind, x, kernel_shape=[kernel] * rank, strides=[stride] * rank)]


def resize(d: Draw) -> Sequence[str]:
    mode, n, c = d.pick("nearest", "linear", "linear", "cubic"), d.batch(), d.channels(3, 256)
    scale = d.pick(2.0, 2.0, 4.0, 0.5, 1.5)
    x = d.input((n, c, *d.sides(2, int(n * c * max(1, scale * scale)), 8)))
    d.say(mode=mode, scale=scale)
    how = d.pick("half_pixel", "align_corners", "asymmetric") if mode != "nearest" else "asymmetric"
    near = {"nearest_mode": "floor"} if mode == "nearest" else {}
    scales = d.constant(np.array([1, 1, scale, scale], "f4"))
    return [d.node("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how, **near)]


# Statistics


def softmax(d: Draw) -> Sequence[str]:
    kind, rank = d.pick("Softmax", "Softmax", "LogSoftmax"), d.pick(2, 3, 4)
    x = d.input(d.shape(rank))
    axis = d.pick(-1, -1, int(d.rng.integers(rank)))
    d.words.append(f"axis {axis}")
    return [d.node(kind, x, axis=axis)]


def norm(d: Draw) -> Sequence[str]:
    kind = d.pick(
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LRN",
        "BatchNormalization",
        "LpNormalization",
    )
    shape = d.shape(d.pick(2, 3, 4) if kind in ("LayerNormalization", "LpNormalization") else 4)
    if kind == "LayerNormalization":
        axis = -1 if d.rng.random() < 0.8 else len(shape) - 2
        x = d.input(shape)
        own = shape[axis:]
        weights = [d.constant(d.rng.standard_normal(own).astype("f4")) for _ in range(2)]
        d.words.append(f"axis {axis}")
        return [d.node(kind, x, *weights, axis=axis)]
    if kind == "LRN":
        return [d.node(kind, d.input(shape), size=d.pick(3, 5))]
    if kind == "LpNormalization":
        axis = d.pick(-1, len(shape) - 2)
        d.words.append(f"axis {axis}")
        return [d.node(kind, d.input(shape), axis=axis, p=2)]
    groups = d.pick(1, 4, 8, 32)
    if kind == "GroupNormalization":
        shape[1] = max(groups, shape[1] // groups * groups)
    x = d.input(shape)
    many = shape[1]
    weights = [d.constant(d.rng.standard_normal(many).astype("f4")) for _ in range(2)]
    if kind == "BatchNormalization":
        weights += [d.constant(d.rng.uniform(0.5, 2, many).astype("f4")) for _ in range(2)]
        return [d.node(kind, x, *weights)]
    if kind == "GroupNormalization":
        d.say(groups=groups)
        return [d.node(kind, x, *weights, num_groups=groups)]
    return [d.node(kind, x, *weights)]


def reduce(d: Draw) -> Sequence[str]:
    kind = d.pick(
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "ReduceMin",
    )
    rank = d.pick(2, 3, 4)
    x = d.input(d.shape(rank))
    axes = d.pick(
        [rank - 1],
        [int(d.rng.integers(rank))],
        sorted({int(d.rng.integers(rank)) for _ in range(2)}),
    )
    keep = d.pick(0, 1)
    d.words.append(f"axes {axes}")
    return [d.node(kind, x, d.constant(np.array(axes, "i8")), keepdims=keep)]


def choose(d: Draw) -> Sequence[str]:
    """What finds positions, and what adds up as it goes."""
    kind, rank = d.pick("ArgMax", "TopK", "CumSum"), d.pick(2, 3, 4)
    shape = d.shape(rank)
    x, axis = d.input(shape), d.pick(-1, int(d.rng.integers(rank)))
    d.words.append(f"axis {axis}")
    if kind == "ArgMax":
        return [d.node(kind, x, axis=axis, keepdims=0)]
    if kind == "CumSum":
        return [d.node(kind, x, d.constant(np.array(axis, "i8")))]
    k = min(d.pick(1, 5, 50), shape[axis])
    d.say(k=k)
    return [d.node(kind, x, d.constant(np.array([k], "i8")), axis=axis, outputs=2)]


# What moves


def transpose(d: Draw) -> Sequence[str]:
    rank = d.pick(2, 3, 4, 4)
    x = d.input(d.shape(rank))
    order = d.pick([0, 2, 3, 1], [0, 3, 1, 2], [0, 2, 1, 3]) if rank == 4 else list(range(rank))
    if rank < 4:
        while order == sorted(order):
            order = [int(i) for i in d.rng.permutation(rank)]
    d.words.append(f"order {order}")
    return [d.node("Transpose", x, perm=order)]


def move(d: Draw) -> Sequence[str]:
    kind = d.pick(
        "Slice",
        "Concat",
        "Split",
        "Shuffle",
        "Pad",
        "Gather",
        "DepthToSpace",
        "SpaceToDepth",
        "Tile",
        "Expand",
    )
    d.words.append(kind)
    n = d.batch()
    c = d.channels(8, 256)
    shape = [n, c, *d.sides(2, n * c * 2, 8)]
    axis = int(d.rng.integers(1, 4))
    if kind == "Slice":
        x = d.input(shape)
        step = d.pick(1, 1, 2)
        start, end = shape[axis] // 5, shape[axis] - shape[axis] // 7
        d.words.append(f"axis {axis} step {step}")
        return [
            d.node(kind, x, *(d.constant(np.array([v], "i8")) for v in (start, end, axis, step)))
        ]
    if kind == "Concat":
        other = list(shape)
        other[axis] = d.channels(3, 128) if axis == 1 else other[axis]
        d.words.append(f"axis {axis}")
        return [d.node(kind, d.input(shape), d.input(other, "y"), axis=axis)]
    if kind == "Split":
        first = shape[axis] * d.pick(1, 2) // 4
        d.words.append(f"axis {axis}")
        sizes = d.constant(np.array([first, shape[axis] - first], "i8"))
        d.node(kind, d.input(shape), sizes, axis=axis, outputs=2)
        return ["v0_0", "v0_1"]
    if kind == "Shuffle":
        groups = d.pick(2, 3, 4)
        shape[1] = max(groups, c // groups * groups)
        x = d.input(shape)
        apart = d.constant(np.array([n, groups, shape[1] // groups, *shape[2:]], "i8"))
        moved = d.node("Transpose", d.node("Reshape", x, apart), perm=[0, 2, 1, 3, 4])
        d.say(groups=groups)
        return [d.node("Reshape", moved, d.constant(np.array(shape, "i8")))]
    if kind == "Pad":
        mode = d.pick("constant", "constant", "reflect", "edge")
        pads = d.constant(np.array([0, 0, 1, 2, 0, 0, 3, 2], "i8"))
        d.say(mode=mode)
        return [d.node(kind, d.input(shape), pads, mode=mode)]
    if kind == "Gather":
        x = d.input(shape)
        places = d.rng.integers(shape[axis], size=shape[axis]).astype("i8")
        d.words.append(f"axis {axis}")
        return [d.node(kind, x, d.constant(places), axis=axis)]
    if kind == "DepthToSpace":
        shape[1] = max(4, c // 4 * 4)
        return [d.node(kind, d.input(shape), blocksize=2, mode=d.pick("DCR", "CRD"))]
    if kind == "SpaceToDepth":
        shape[2:] = [side // 2 * 2 for side in shape[2:]]
        return [d.node(kind, d.input(shape), blocksize=2)]
    if kind == "Tile":
        many = [1] * 4
        many[axis] = 2
        d.words.append(f"axis {axis}")
        return [d.node(kind, d.input(shape), d.constant(np.array(many, "i8")))]
    x = list(shape)
    x[axis] = 1
    d.words.append(f"axis {axis}")
    return [d.node(kind, d.input(x), d.constant(np.array(shape, "i8")))]


def embed(d: Draw) -> Sequence[str]:
    """Rows of a table, by indices that are data."""
    rows, wide = d.between(100, 20000), d.channels(16, 512)
    many = d.between(64, min(4096, ELEMENTS // wide))
    table = d.constant(d.rng.standard_normal((min(rows, ELEMENTS // wide), wide)).astype("f4"))
    places = d.rng.integers(min(rows, ELEMENTS // wide), size=(1, many)).astype("i8")
    d.feeds["x"] = places
    d.words.append(f"{many} rows of {rows}x{wide}")
    return [d.node("Gather", table, "x", axis=0)]


# Element by element


_ALONE = (
    *("Exp", "Tanh", "Sigmoid", "Erf", "Gelu", "Softplus", "Elu", "HardSwish", "LeakyRelu", "Mish"),
    *("Sqrt", "Log", "Abs", "Neg", "Relu", "Selu", "HardSigmoid", "Floor", "Reciprocal"),
)


def alone(d: Draw) -> Sequence[str]:
    kind = d.pick(*_ALONE)
    x = d.input(d.shape(d.pick(2, 3, 4)))
    if kind in ("Sqrt", "Log", "Reciprocal"):
        d.feeds["x"] = np.abs(d.feeds["x"]) + np.float32(0.1)
    return [d.node(kind, x)]


def together(d: Draw) -> Sequence[str]:
    """Two operands, the second broadcast as often as not."""
    kind = d.pick("Add", "Mul", "Sub", "Div", "Max", "Min", "PRelu", "Pow", "Where")
    shape = d.shape(d.pick(3, 4))
    other = d.pick(shape, [1, shape[1], *([1] * (len(shape) - 2))], shape[-1:], [])
    if kind == "PRelu":
        other = [shape[1], *([1] * (len(shape) - 2))]
    x = d.input(shape)
    y = d.input(other, "y") if kind not in ("PRelu",) else d.weight(other)
    if kind in ("Div", "Pow"):
        d.feeds["y"] = np.asarray(np.abs(d.feeds["y"]) + np.float32(0.5))
        d.feeds["x"] = np.abs(d.feeds["x"]) + np.float32(0.5)
    if kind == "Where":
        return [d.node(kind, d.node("Greater", x, d.constant(np.float32(0))), x, y)]
    return [d.node(kind, x, y)]


FAMILIES: dict[str, Family] = {
    made.__name__: made
    for made in (
        conv, depthwise, grouped, conv1d, conv3d, transposed, linear, matmul, pool, pool_other,
        resize, softmax, norm, reduce, choose, transpose, move, embed, alone, together, *MORE,
        *BLOCKS,
    )
}  # fmt: skip
"""Kinds of layers by name."""


def draw(family: str, seed: Sequence[int]) -> Layer:
    """The layer of a family that a seed stands for."""
    d = Draw(np.random.default_rng(list(seed)))
    outputs = FAMILIES[family](d)
    return d.layer(family, outputs)
