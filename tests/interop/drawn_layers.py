"""Nodes of layers: convolutions, pools, normalisation, products, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, floats, image


def padding(d: Draw, rank: int, most: int) -> dict[str, Any]:
    if d.chance(0.3):
        return {"auto_pad": d.pick("SAME_UPPER", "SAME_LOWER", "VALID")}
    return {"pads": [d.integer(0, most) for _ in range(2 * rank)]} if d.chance(0.7) else {}


def conv(kind: str, d: Draw, opset: int) -> Node:
    rank, groups = d.integer(1, 2), d.pick(1, 1, 2)
    c, k = groups * d.integer(1, 3), groups * d.integer(1, 3)
    kernel = [d.integer(1, 3) for _ in range(rank)]
    x = floats(d, (d.integer(1, 2), c, *(d.integer(5, 8) for _ in range(rank))))
    shape = (c, k // groups, *kernel) if kind == "ConvTranspose" else (k, c // groups, *kernel)
    how: dict[str, Any] = {"group": groups, **padding(d, rank, 1)}
    if d.chance():
        how["strides"] = [d.integer(1, 2) for _ in range(rank)]
    if d.chance(0.3) and "auto_pad" not in how:
        how["dilations"] = [d.integer(1, 2) for _ in range(rank)]
    if kind == "ConvTranspose" and how.get("auto_pad"):
        del how["auto_pad"]
    operands = {"x": x, "w": floats(d, shape, -1, 1)}
    if d.chance(0.6):
        operands["b"] = floats(d, (k,))
    return Node(kind, operands, how, tuple(operands)[1:])


def pool(kind: str, d: Draw, opset: int) -> Node:
    rank = d.integer(1, 2)
    kernel = [d.integer(2, 3) for _ in range(rank)]
    how: dict[str, Any] = {"kernel_shape": kernel, **padding(d, rank, 1)}
    if d.chance(0.7):
        how["strides"] = [d.integer(1, 3) for _ in range(rank)]
    if "auto_pad" in how:  # windows apart, of the same size, ask for negative padding elsewhere
        how["strides"] = [
            min(s, k) for s, k in zip(how.get("strides", kernel), kernel, strict=True)
        ]
    since = {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[kind]
    if opset >= since and d.chance(0.4) and "auto_pad" not in how:
        how["ceil_mode"] = 1
    dilated = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[kind]
    if opset >= dilated and d.chance(0.3) and "auto_pad" not in how:
        how["dilations"] = [d.integer(1, 2) for _ in range(rank)]
    if kind == "AveragePool" and d.chance():
        how["count_include_pad"] = 1
    if kind == "LpPool" and d.chance():
        how["p"] = d.integer(1, 3)
    positions = kind == "MaxPool" and opset >= 8 and rank == 2 and d.chance(0.2)
    return Node(kind, {"x": image(d, rank, 6)}, how, (), 2 if positions else 1)


def unpool(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, (1, 1, 2, 2))
    i = np.int64([[[[0, 3], [12, 10]]]]) + 4 * np.int64([[[[d.integer(0, 1), 1], [0, 1]]]])
    return Node(kind, {"x": x, "i": i}, {"kernel_shape": [2, 2], "strides": [2, 2]})


def everywhere(kind: str, d: Draw, opset: int) -> Node:
    how = {"p": d.integer(1, 3)} if kind == "GlobalLpPool" and d.chance() else {}
    return Node(kind, {"x": image(d)}, how)


def norm(kind: str, d: Draw, opset: int) -> Node:
    x = image(d, 2)
    c = x.shape[1]
    eps = {"epsilon": d.pick(1e-3, 0.1)} if d.chance() else {}
    if kind == "LRN":
        how = {n: v for n, v in (("alpha", 0.02), ("beta", 0.5), ("bias", 2.0)) if d.chance()}
        return Node(kind, {"x": x}, {"size": d.pick(1, 3, 5), **how})
    if kind == "LayerNormalization":
        axis = d.pick(-1, 1, 2, -2)
        shape = x.shape[axis:]
        operands = {"x": x, "s": floats(d, shape)} | ({"b": floats(d, shape)} if d.chance() else {})
        return Node(kind, operands, {"axis": axis, **eps})
    if kind == "GroupNormalization":
        groups = d.pick(*(g for g in range(1, c + 1) if c % g == 0))
        each = (groups if opset < 21 else c,)
        operands = {"x": x, "s": floats(d, each), "b": floats(d, each)}
        return Node(kind, operands, {"num_groups": groups, **eps}, ("s", "b"))
    operands = {"x": x, "s": floats(d, (c,)), "b": floats(d, (c,))}
    if kind == "BatchNormalization":
        operands |= {"m": floats(d, (c,)), "v": floats(d, (c,), 0.2, 2)}
        if opset < 9 and d.chance(0.3):
            eps |= {"spatial": 1}
    return Node(kind, operands, eps, tuple(operands)[1:])


def gemm(kind: str, d: Draw, opset: int) -> Node:
    m, k, n = (d.integer(1, 5) for _ in range(3))
    how: dict[str, Any] = {t: 1 for t in ("transA", "transB") if d.chance()}
    how |= {t: d.pick(0.5, 2.0) for t in ("alpha", "beta") if d.chance(0.4)}
    a = floats(d, (k, m) if "transA" in how else (m, k))
    b = floats(d, (n, k) if "transB" in how else (k, n))
    operands = {"a": a, "b": b}
    if opset < 11 or d.chance(0.8):
        operands["c"] = floats(d, d.pick((n,), (m, n), (1, n), (m, 1), (1,)))
    return Node(kind, operands, how, d.pick((), ("b",), tuple(operands)[1:]))


def matmul(kind: str, d: Draw, opset: int) -> Node:
    m, k, n, b = (d.integer(1, 4) for _ in range(4))
    left, right = d.pick(
        ((m, k), (k, n)), ((b, m, k), (k, n)), ((b, m, k), (b, k, n)), ((k,), (k, n)),
        ((m, k), (k,)), ((2, 1, m, k), (b, k, n)),
    )  # fmt: skip
    return Node(kind, {"a": floats(d, left), "b": floats(d, right)}, {}, d.pick((), ("b",)))


def dropout(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(3))
    outputs = d.pick(1, 1, 2)
    if opset < 12:  # onnxruntime has a mask of zeros there, whatever is kept
        return Node(kind, {"x": x}, {"ratio": 0.3} if d.chance() else {})
    ratio = {"r": np.float32(0.3)} if d.chance() else {}
    return Node(kind, {"x": x, **ratio}, {}, tuple(ratio), outputs)


def resize(kind: str, d: Draw, opset: int) -> Node:
    x = image(d, 2, 2)
    mode = d.pick("nearest", "linear")
    factors = np.float32([1, 1, d.pick(1, 2, 3, 0.5, 1.5), d.pick(1, 2, 0.5, 4)])
    if kind == "Upsample" or opset == 10:
        factors = np.maximum(factors, 1) if kind == "Upsample" else factors
        if kind == "Upsample" and opset < 9:
            return Node(kind, {"x": x}, {"scales": factors.tolist(), "mode": mode})
        return Node(kind, {"x": x, "s": factors}, {"mode": mode}, ("s",))
    words = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    words += ["half_pixel_symmetric"] if opset >= 19 else []
    how: dict[str, Any] = {"mode": d.pick(mode, "cubic")}
    how["coordinate_transformation_mode"] = d.pick(*words)
    if how["mode"] == "nearest":
        how["nearest_mode"] = d.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if how["mode"] == "cubic" and d.chance():
        how["exclude_outside"] = 1
    if opset >= 18 and how["mode"] != "nearest" and d.chance(0.3):
        how["antialias"] = 1
    roi = np.zeros(0, "f4") if opset < 13 else None
    whole = how["coordinate_transformation_mode"] == "align_corners"
    if d.chance() or whole:
        sizes = np.int64([*x.shape[:2], d.integer(2, 9), d.integer(2, 9)])
        scales = np.zeros(0, "f4") if opset < 13 else None
        operands = {"x": x, "r": roi, "s": scales, "z": sizes}
        if opset >= 18 and d.chance(0.4):
            operands["z"], how["axes"] = sizes[2:], [2, 3]
    else:
        operands = {"x": x, "r": roi, "s": factors}
        if opset >= 18 and d.chance(0.4):
            operands["s"], how["axes"] = factors[2:], [2, 3]
    return Node(kind, operands, how, tuple(n for n in "rsz" if operands.get(n) is not None))


GENERATORS: dict[str, Generator] = {
    "Conv": conv, "ConvTranspose": conv, "MaxUnpool": unpool,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), everywhere),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization",
         "LayerNormalization", "LRN"), norm),
    "Gemm": gemm, "MatMul": matmul, "Dropout": dropout, "Resize": resize, "Upsample": resize,
}  # fmt: skip
