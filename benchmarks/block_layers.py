"""More kinds of layers: what blocks of networks hold, which single operators do not show.

As those of `drawn_layers`, whose families these join: convolutions of rare forms, linear layers of
few rows, normalisations and gates as exporters write them, attention in windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from benchmarks.drawing import ELEMENTS, Draw

_PRODUCTS = 500e6  # multiply-adds of the largest layer


def _within(n: int, channels: Sequence[int], sides: list[int], each: float, low: int) -> list[int]:
    """Sizes of maps with which a layer of so many products a position has not too many."""
    while n * each * prod(sides) > _PRODUCTS or n * max(channels) * prod(sides) > ELEMENTS:
        if max(sides) <= low:
            break
        sides = [max(low, side * 3 // 4) for side in sides]
    return sides


def _conv(d: Draw, x: str, k: int, own: int, kernel: Sequence[int], **how: Any) -> str:
    bias = [d.constant(d.rng.standard_normal(k).astype("f4"))] if d.rng.random() < 0.7 else []
    return d.node("Conv", x, d.weight((k, own, *kernel)), *bias, kernel_shape=kernel, **how)


def rare_conv(d: Draw) -> Sequence[str]:
    """Convolutions whose kernels, strides, borders or groups few layers have."""
    kind = d.pick(
        "dilated depthwise", "large depthwise", "depthwise rows", "depthwise volumes", "uneven",
        "strided 1x1", "grouped transposed", "pixel shuffle", "patches", "grouped volumes",
    )  # fmt: skip
    d.words.append(kind)
    n, c = d.batch(), d.channels(16, 384)
    if kind in ("depthwise rows", "depthwise volumes", "grouped volumes"):
        rank = 1 if kind == "depthwise rows" else 3
        groups = d.pick(2, 8, 16) if kind == "grouped volumes" else c
        c = max(groups, c // groups * groups)
        taps = d.pick(3, 7, 31) if rank == 1 else d.pick(3, 3, 5)
        sides = d.sides(rank, n * c, taps + 2, 4000 if rank == 1 else 48)
        sides = _within(n, [c], sides, c * c // groups * taps**rank, taps)
        stride = d.pick(1, 1, 2)
        x = d.input((n, c, *sides))
        d.say(kernel=taps, stride=stride, groups=groups)
        how: dict[str, Any] = {
            "strides": [stride] * rank,
            "pads": [taps // 2] * (2 * rank),
            "group": groups,
        }
        return [_conv(d, x, c, c // groups, [taps] * rank, **how)]
    if kind in ("dilated depthwise", "large depthwise"):
        taps = d.pick(3, 5) if kind.startswith("dilated") else d.pick(11, 13, 21, 31)
        step = d.pick(3, 4, 6) if kind.startswith("dilated") else 1
        reach = (taps - 1) * step + 1
        sides = _within(n, [c], d.sides(2, n * c, 14), c * taps**2, 7)
        x = d.input((n, c, *sides))
        d.say(kernel=taps, dilation=step)
        how = {"dilations": [step] * 2, "pads": [reach // 2] * 4, "group": c}
        return [_conv(d, x, c, 1, [taps] * 2, **how)]
    k = d.channels(16, 384)
    if kind == "grouped transposed":
        groups = d.pick(2, 4, 8)
        c, k = (max(groups, channels // groups * groups) for channels in (c, k))
        taps, stride, pad = d.pick((4, 2, 1), (3, 2, 1), (2, 2, 0), (3, 1, 1))
        sides = d.sides(2, n * max(c, k) * stride**2, 7, 64)
        sides = _within(n, [c, k * stride**2], sides, c * k // groups * taps**2, 4)
        x = d.input((n, c, *sides))
        d.say(to=k, kernel=taps, stride=stride, groups=groups)
        w = d.weight((c, k // groups, taps, taps))
        how = {"strides": [stride] * 2, "pads": [pad] * 4, "group": groups}
        return [d.node("ConvTranspose", x, w, **how)]
    if kind == "pixel shuffle":
        factor, made = d.pick(2, 3, 4), d.pick(3, 16, 32, 64)
        k = made * factor**2
        sides = _within(n, [c, k], d.sides(2, n * max(c, k), 8), 9 * c * k, 8)
        x = d.input((n, c, *sides))
        d.say(to=made, factor=factor)
        made_wide = _conv(d, x, k, c, [3, 3], pads=[1] * 4)
        return [d.node("DepthToSpace", made_wide, blocksize=factor, mode="CRD")]
    if kind == "patches":
        side, c = d.pick(4, 7, 8, 14, 16, 32), d.pick(1, 3, 4)
        k = d.channels(64, 1024)
        many = _within(n, [c * side**2, k], d.sides(2, n * max(c * side**2, k)), c * side**2 * k, 2)
        x = d.input((n, c, *(m * side for m in many)))
        d.say(to=k, patch=side)
        return [_conv(d, x, k, c, [side] * 2, strides=[side] * 2)]
    if kind == "strided 1x1":
        sides = _within(n, [c, k], d.sides(2, n * max(c, k), 7), c * k / 4, 7)
        x = d.input((n, c, *sides))
        d.say(to=k)
        return [_conv(d, x, k, c, [1, 1], strides=[2, 2])]
    kernel = d.pick([3, 3], [3, 5], [1, 5], [2, 3], [5, 1])
    strides, pads = d.pick([1, 1], [2, 1], [1, 2], [2, 2]), [d.pick(0, 1, 2) for _ in range(4)]
    sides = _within(n, [c, k], d.sides(2, n * max(c, k), 9), c * k * prod(kernel), 8)
    x = d.input((n, c, *sides))
    for name, values in (("kernel", kernel), ("strides", strides), ("pads", pads)):
        d.words.append(f"{name} {'x'.join(map(str, values))}")
    d.say(to=k)
    return [_conv(d, x, k, c, kernel, strides=strides, pads=pads)]


def few_rows(d: Draw) -> Sequence[str]:
    """Linear layers of one row to sixteen, as classifiers and decoders have."""
    rows, c, k = d.between(1, 16), d.channels(256, 8192), d.channels(64, 8192)
    while c * k > ELEMENTS:
        c, k = c * 3 // 4, k * 3 // 4
    x = d.input((rows, c))
    d.say(to=k)
    bias = d.constant(d.rng.standard_normal(k).astype("f4"))
    made = d.node("Gemm", x, d.weight((k, c)), bias, transB=1)
    return [d.node("Relu", made)] if d.rng.random() < 0.5 else [made]


def _over(d: Draw, kind: str, x: str, axes: Sequence[int]) -> str:
    return d.node(kind, x, d.constant(np.array(axes, "i8")), keepdims=1)


def _scaled(d: Draw, x: str, shape: Sequence[int]) -> str:
    scale, shift = (d.constant(d.rng.standard_normal(shape).astype("f4")) for _ in range(2))
    return d.node("Add", d.node("Mul", x, scale), shift)


def block_norm(d: Draw) -> Sequence[str]:
    """Normalisations as networks write them, with what follows."""
    kind = d.pick("channels first", "channels last", "group silu", "grn", "rms", "l2 rows")
    d.words.append(kind)
    n, c, small = d.batch(), d.channels(32, 768), d.constant(np.float32(1e-6))
    maps = (n, c, *d.sides(2, n * c, 7))
    if kind in ("rms", "l2 rows"):
        x = d.input((n, max(1, ELEMENTS // (4 * n * c)), c))
        squares = _over(d, "ReduceMean" if kind == "rms" else "ReduceSum", d.node("Mul", x, x), [2])
        rows = d.node("Div", x, d.node("Sqrt", d.node("Add", squares, small)))
        if kind == "l2 rows":
            return [rows]
        return [d.node("Mul", rows, d.constant(d.rng.standard_normal(c).astype("f4")))]
    x = d.input(maps)
    if kind == "channels first":
        away = d.node("Sub", x, _over(d, "ReduceMean", x, [1]))
        spread = _over(d, "ReduceMean", d.node("Mul", away, away), [1])
        return [
            _scaled(d, d.node("Div", away, d.node("Sqrt", d.node("Add", spread, small))), (c, 1, 1))
        ]
    if kind == "channels last":
        last = d.node("Transpose", x, perm=[0, 2, 3, 1])
        weights = [d.constant(d.rng.standard_normal(c).astype("f4")) for _ in range(2)]
        made = d.node("LayerNormalization", last, *weights, axis=-1)
        return [d.node("Transpose", made, perm=[0, 3, 1, 2])]
    if kind == "grn":
        size = d.node("Sqrt", _over(d, "ReduceSum", d.node("Mul", x, x), [2, 3]))
        share = d.node("Div", size, d.node("Add", _over(d, "ReduceMean", size, [1]), small))
        return [d.node("Add", _scaled(d, d.node("Mul", x, share), (c, 1, 1)), x)]
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if c % g == 0)
    d.say(groups=groups)
    weights = [d.constant(d.rng.standard_normal(c).astype("f4")) for _ in range(2)]
    made = d.node("GroupNormalization", x, *weights, num_groups=groups)
    return [d.node("Mul", made, d.node("Sigmoid", made))]


def gate(d: Draw) -> Sequence[str]:
    """What multiplies a value by a function of itself, or of another part of it."""
    kind = d.pick("glu", "swiglu", "geglu", "rotary", "squeeze", "simple", "quick gelu")
    d.words.append(kind)
    n, c = d.batch(), d.channels(32, 768)
    if kind == "squeeze":
        x = d.input((n, c, *d.sides(2, n * c, 7)))
        less = max(4, c // 4)
        mean = d.node("GlobalAveragePool", x)
        inner = d.node("Relu", _conv(d, mean, less, c, [1, 1]))
        return [d.node("Mul", x, d.node("Sigmoid", _conv(d, inner, c, less, [1, 1])))]
    if kind == "rotary":
        heads, e = d.between(2, 16), d.pick(32, 64, 128)
        rows = max(16, min(1024, ELEMENTS // (4 * n * heads * e)))
        x = d.input((n, heads, rows, e))
        angles = d.rng.uniform(0, 6, (rows, e)).astype("f4")
        cos, sin = d.constant(np.cos(angles)), d.constant(np.sin(angles))
        half = d.constant(np.array([e // 2, e - e // 2], "i8"))
        first = d.node("Split", x, half, axis=3, outputs=2)
        second = first.replace("_0", "_1")
        turned = d.node("Concat", d.node("Neg", second), first, axis=3)
        return [d.node("Add", d.node("Mul", x, cos), d.node("Mul", turned, sin))]
    x = d.input((n, max(1, ELEMENTS // (8 * n * c)), 2 * c))
    if kind == "quick gelu":
        inner = d.node("Mul", x, d.constant(np.float32(1.702)))
        return [d.node("Mul", x, d.node("Sigmoid", inner))]
    first = d.node("Split", x, d.constant(np.array([c, c], "i8")), axis=2, outputs=2)
    second = first.replace("_0", "_1")
    if kind == "glu":
        return [d.node("Mul", first, d.node("Sigmoid", second))]
    if kind == "geglu":
        return [d.node("Mul", first, d.node("Gelu", second))]
    if kind == "swiglu":
        return [d.node("Mul", d.node("Mul", first, d.node("Sigmoid", first)), second)]
    return [d.node("Mul", first, second)]


def window(d: Draw) -> Sequence[str]:
    """Attention within windows of a map, with a bias by distance: from tokens to tokens."""
    side, many, heads, e = d.pick(7, 8, 12), d.between(2, 8), d.between(2, 12), d.pick(16, 32)
    size, c = side * many, heads * e
    while size * size * c * (4 * c + 2 * side**2) > _PRODUCTS and many > 1:
        many -= 1
        size = side * many
    tokens, shift = side * side, d.pick(0, side // 2)
    d.words.append(f"windows of {side}, {heads} heads of {e}, shift {shift}")
    x = d.input((1, size, size, c))
    value = x
    if shift:
        for axis in (1, 2):
            ends = d.constant(np.array([shift, size - shift], "i8"))
            first = d.node("Split", value, ends, axis=axis, outputs=2)
            value = d.node("Concat", first.replace("_0", "_1"), first, axis=axis)

    def reshaped(value: str, *shape: int) -> str:
        return d.node("Reshape", value, d.constant(np.array(shape, "i8")))

    value = reshaped(value, 1, many, side, many, side, c)
    value = reshaped(d.node("Transpose", value, perm=[0, 1, 3, 2, 4, 5]), many**2, tokens, c)
    bias = d.constant(d.rng.standard_normal(3 * c).astype("f4"))
    value = d.node("Add", d.node("MatMul", value, d.weight((c, 3 * c))), bias)
    value = d.node("Transpose", reshaped(value, many**2, tokens, 3, heads, e), perm=[2, 0, 3, 1, 4])
    q, k, v = (
        d.node("Gather", value, d.constant(np.array(part, "i8")), axis=0) for part in range(3)
    )
    q = d.node("Mul", q, d.constant(np.float32(e**-0.5)))
    scores = d.node("MatMul", q, d.node("Transpose", k, perm=[0, 1, 3, 2]))
    near = d.constant(d.rng.standard_normal((1, heads, tokens, tokens)).astype("f4"))
    made = d.node("MatMul", d.node("Softmax", d.node("Add", scores, near), axis=-1), v)
    made = reshaped(d.node("Transpose", made, perm=[0, 2, 1, 3]), many**2, tokens, c)
    made = reshaped(d.node("MatMul", made, d.weight((c, c))), 1, many, many, side, side, c)
    return [reshaped(d.node("Transpose", made, perm=[0, 1, 3, 2, 4, 5]), 1, size, size, c)]


BLOCKS = (rare_conv, few_rows, block_norm, gate, window)
