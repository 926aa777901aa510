"""More kinds of layers: what gathers, scatters, samples, compares and attends.

As those of `drawn_layers`, whose families these join.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from benchmarks.drawing import ELEMENTS, Draw

_PRODUCTS = 300e6  # multiply-adds of the largest product


def gather(d: Draw) -> Sequence[str]:
    """Elements at positions that are data."""
    kind = d.pick("GatherElements", "GatherND", "OneHot", "Gather")
    d.words.append(kind)
    if kind == "OneHot":
        depth = d.channels(10, 1000)
        many = d.between(64, max(128, ELEMENTS // depth))
        d.feeds["x"] = d.rng.integers(depth, size=many).astype("i8")
        d.words.append(f"{many} of {depth}")
        values = d.constant(np.array([0, 1], "f4"))
        return [d.node(kind, "x", d.constant(np.array(depth, "i8")), values, axis=-1)]
    shape = d.shape(d.pick(2, 3))
    x, axis = d.input(shape), int(d.rng.integers(len(shape)))
    if kind == "GatherND":
        rows = d.between(8, max(16, ELEMENTS // prod(shape[1:])))
        d.feeds["i"] = d.rng.integers(shape[0], size=(rows, 1)).astype("i8")
        d.words.append(f"{rows} rows")
        return [d.node(kind, x, "i")]
    d.words.append(f"axis {axis}")
    if kind == "Gather":
        d.feeds["i"] = d.rng.integers(shape[axis], size=shape[axis]).astype("i8")
        return [d.node(kind, x, "i", axis=axis)]
    d.feeds["i"] = d.rng.integers(shape[axis], size=shape).astype("i8")
    return [d.node(kind, x, "i", axis=axis)]


def scatter(d: Draw) -> Sequence[str]:
    """Updates at positions that are data: of rows, of elements, added or put there."""
    kind, how = d.pick("ScatterElements", "ScatterND"), d.pick("none", "add", "max")
    shape = d.shape(d.pick(2, 3))
    d.words += [kind, how]
    x = d.input(shape)
    if kind == "ScatterND":
        rows = d.between(1, shape[0])
        places = d.rng.permutation(shape[0])[:rows, None].astype("i8")
        d.feeds["i"] = places
        u = d.input((rows, *shape[1:]), "u")
        return [d.node(kind, x, "i", u, reduction=how)]
    axis = int(d.rng.integers(len(shape)))
    own = list(shape)
    own[axis] = d.between(1, shape[axis])
    order = np.argsort(d.rng.random(shape), axis=axis)  # positions that no two updates share
    d.feeds["i"] = np.take(order, range(own[axis]), axis=axis).astype("i8")
    d.words.append(f"axis {axis}")
    return [d.node(kind, x, "i", d.input(own, "u"), axis=axis, reduction=how)]


def sample(d: Draw) -> Sequence[str]:
    """Maps between their elements, and patches put back where they were."""
    kind = d.pick("GridSample", "GridSample", "RoiAlign", "MaxRoiPool", "Col2Im", "Col2Im")
    n, c = d.batch(), d.channels(3, 256)
    h, w = d.sides(2, n * c * 2, 8)
    d.words.append(kind)
    if kind == "GridSample":
        mode = d.pick("linear", "linear", "nearest", "cubic")
        padding = d.pick("zeros", "border", "reflection")
        x = d.input((n, c, h, w))
        oh, ow = d.sides(2, n * c * 2, 8)
        d.feeds["g"] = d.rng.uniform(-1.1, 1.1, (n, oh, ow, 2)).astype("f4")
        d.say(to=f"{oh}x{ow}", mode=mode, padding=padding)
        return [d.node(kind, x, "g", mode=mode, padding_mode=padding)]
    if kind == "Col2Im":
        kernel, stride = d.pick((2, 2), (3, 1), (3, 2), (4, 4), (5, 1), (7, 2))
        c = max(1, min(c, ELEMENTS // (n * h * w * kernel * kernel) * stride * stride))
        pad = d.pick(0, kernel // 2)
        out = [(side + 2 * pad - kernel) // stride + 1 for side in (h, w)]
        x = d.input((n, c * kernel * kernel, prod(out)))
        d.say(to=f"{h}x{w}", kernel=kernel, stride=stride, pad=pad)
        sizes = (d.constant(np.array(pair, "i8")) for pair in ((h, w), (kernel, kernel)))
        return [d.node(kind, x, *sizes, strides=[stride] * 2, pads=[pad] * 4)]
    many, side = d.between(8, 200), d.pick(7, 14)
    many = max(1, min(many, ELEMENTS // (c * side * side)))
    x = d.input((n, c, h, w))
    first = d.rng.uniform(0, 0.6, (many, 2)) * (w, h)
    sizes = d.rng.uniform(0.1, 0.4, (many, 2)) * (w, h)
    boxes = np.concatenate([first, first + sizes], axis=1).astype("f4")
    images = d.rng.integers(n, size=many)
    d.words.append(f"{many} regions to {side}x{side}")
    if kind == "RoiAlign":
        d.feeds["r"], d.feeds["b"] = boxes, images.astype("i8")
        how = {"output_height": side, "output_width": side, "sampling_ratio": 2}
        return [d.node(kind, x, "r", "b", **how)]
    rounded = np.round(boxes)
    d.feeds["r"] = np.concatenate([images[:, None], rounded], axis=1).astype("f4")
    return [d.node(kind, x, "r", pooled_shape=[side, side])]


def attention(d: Draw) -> Sequence[str]:
    """softmax(q k^T / sqrt(e) + mask) v, as exporters write it."""
    n, heads, e = d.pick(1, 1, 2), d.between(1, 16), d.pick(32, 64, 64, d.between(8, 128))
    while True:
        rows, keys = d.between(16, 1024), d.between(16, 1024)
        if d.rng.random() < 0.6:
            keys = rows
        if n * heads * rows * keys * e * 2 <= _PRODUCTS and n * heads * rows * keys <= ELEMENTS:
            break
    q, k, v = (d.input((n, heads, m, e), x) for m, x in ((rows, "x"), (keys, "k"), (keys, "v")))
    turned = d.node("Transpose", k, perm=[0, 1, 3, 2])
    scores = d.node("MatMul", q, turned)
    scores = d.node("Mul", scores, d.constant(np.float32(e**-0.5)))
    mask = d.pick("none", "causal", "data")
    d.say(mask=mask)
    if mask == "causal":
        hidden = np.triu(np.full((rows, keys), -1e9, "f4"), 1)
        scores = d.node("Add", scores, d.constant(hidden))
    if mask == "data":
        d.feeds["m"] = d.rng.random((n, 1, 1, keys)) < 0.8
        hidden = d.constant(np.float32(-1e9))
        scores = d.node("Where", "m", scores, hidden)
    return [d.node("MatMul", d.node("Softmax", scores, axis=-1), v)]


def einsum(d: Draw) -> Sequence[str]:
    """Products over axes in any order."""
    equation = d.pick(
        "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bij,bkj->bik", "nchw,kc->nkhw", "bhwc,hkc->bhwk",
        "ij,jk->ki", "bi,bj->bij", "bthd,bshd->bhts", "nkctv,kvw->nctw", "bij->bji", "bii->bi",
    )  # fmt: skip
    operands, made = equation.split("->")
    letters = sorted(set(equation) - set(",->"))
    while True:
        extents = {x: d.between(2, 12) if x in "bhn" else d.between(4, 256) for x in letters}
        sizes = [prod(extents[i] for i in part) for part in (*operands.split(","), made)]
        if prod(extents.values()) <= _PRODUCTS and max(sizes) <= ELEMENTS:
            break
    d.words.append(equation)
    names = [
        d.input([extents[i] for i in part], name)
        for part, name in zip(operands.split(","), "xy", strict=False)
    ]
    return [d.node("Einsum", *names, equation=equation)]


def compare(d: Draw) -> Sequence[str]:
    """What makes truth values and whole numbers, or takes them."""
    kind = d.pick(
        "Greater", "LessOrEqual", "Equal", "And", "Not", "IsNaN", "Clip", "Mod", "Sin", "Cos",
        "Cast", "CastDown", "Where", "Sign", "Round", "Trilu", "Abs", "AddInts", "ArgMin",
    )  # fmt: skip
    shape = d.shape(d.pick(2, 3, 4))
    d.words.append(kind)
    if kind in ("And", "Not", "Where"):
        d.feeds["x"] = d.rng.random(shape) < 0.5
        d.words.append("x".join(map(str, shape)))
        if kind == "Not":
            return [d.node(kind, "x")]
        if kind == "Where":
            return [d.node(kind, "x", d.input(shape, "y"), d.input(shape[-1:], "z"))]
        d.feeds["y"] = d.rng.random(shape) < 0.5
        return [d.node(kind, "x", "y")]
    if kind in ("Cast", "AddInts"):
        d.feeds["x"] = d.rng.integers(-100, 100, shape).astype("i8")
        d.words.append("x".join(map(str, shape)))
        if kind == "Cast":
            return [d.node(kind, "x", to=1)]
        d.feeds["y"] = d.rng.integers(-100, 100, shape).astype("i8")
        return [d.node("Add", "x", "y")]
    x = d.input(shape)
    if kind == "Clip":
        return [d.node(kind, x, d.constant(np.float32(-0.5)), d.constant(np.float32(0.7)))]
    if kind == "CastDown":
        return [d.node("Cast", x, to=d.pick(6, 7, 9))]
    if kind == "Mod":
        return [d.node(kind, x, d.constant(np.float32(0.3)), fmod=1)]
    if kind == "Trilu":
        return [d.node(kind, x, upper=d.pick(0, 1))]
    if kind in ("Greater", "LessOrEqual", "Equal"):
        return [d.node(kind, x, d.input(d.pick(shape, shape[-1:]), "y"))]
    return [d.node(kind, x, **({"axis": -1} if kind == "ArgMin" else {}))]


def spread(d: Draw) -> Sequence[str]:
    """Statistics that few networks take."""
    kind = d.pick(
        "Hardmax", "MeanVarianceNormalization", "ReduceProd", "ReduceL1", "LpPool", "ReduceLogSum",
        "CumSum", "DFT",
    )  # fmt: skip
    d.words.append(kind)
    if kind == "DFT":
        rows, length = d.between(4, 200), d.pick(64, 100, 256, 400, 512)
        x = d.input((rows, length, 1))
        axis = d.constant(np.array(1, "i8"))
        return [d.node(kind, x, "", axis, onesided=1)]
    if kind in ("LpPool", "MeanVarianceNormalization"):
        n, c = d.batch(), d.channels(8, 256)
        x = d.input((n, c, *d.sides(2, n * c, 8)))
        if kind == "LpPool":
            return [d.node(kind, x, kernel_shape=[3, 3], strides=[2, 2], p=d.pick(1, 2))]
        return [d.node(kind, x, axes=[0, 2, 3])]
    rank = d.pick(2, 3)
    shape = d.shape(rank)
    axis = int(d.rng.integers(rank))
    d.words.append(f"axis {axis}")
    x = d.input(shape)
    if kind == "Hardmax":
        return [d.node(kind, x, axis=axis)]
    if kind == "CumSum":
        how = {"exclusive": d.pick(0, 1), "reverse": d.pick(0, 1)}
        return [d.node(kind, x, d.constant(np.array(axis, "i8")), **how)]
    d.feeds["x"] = np.abs(d.feeds["x"]) + np.float32(0.5)
    return [d.node(kind, x, d.constant(np.array([axis], "i8")))]


MORE = (gather, scatter, sample, attention, einsum, compare, spread)
