"""Nodes that are several operators of ours: attention, and small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, axis_of, floats


def attention(kind: str, d: Draw, opset: int) -> Node:
    """Heads that share keys or not, in three axes or four; every kind of mask; earlier keys."""
    batch, kept, each, rows, columns, width = (d.integer(1, 3) for _ in range(6))
    heads = kept * each
    wide = d.integer(1, 3)
    q, k, v = (
        floats(d, (batch, count, length, size))
        for count, length, size in (
            (heads, rows, width),
            (kept, columns, width),
            (kept, columns, wide),
        )
    )
    how: dict[str, Any] = {
        name: v for name, v in (("scale", 0.5), ("softcap", 1.5)) if d.chance(0.3)
    }
    if d.chance():
        how["is_causal"] = 1
    operands: dict[str, Any] = {"q": q, "k": k, "v": v, "m": None, "pk": None, "pv": None}
    earlier = d.integer(1, 3) if d.chance(0.3) else 0
    if earlier:
        operands["pk"] = floats(d, (batch, kept, earlier, width))
        operands["pv"] = floats(d, (batch, kept, earlier, wide))
    mask = d.pick(None, "bool", "float")
    if mask:
        shape = (*d.pick((), (1,), (batch, heads)), rows, columns + earlier)
        m = d.rng.random(shape) < 0.7
        m[..., 0] = True
        operands["m"] = m if mask == "bool" else floats(d, shape)
    if d.chance():
        how |= {"q_num_heads": heads, "kv_num_heads": kept}
        for name, x in (("q", q), ("k", k), ("v", v)):
            operands[name] = x.transpose(0, 2, 1, 3).reshape(batch, x.shape[2], -1)
    while list(operands.values())[-1] is None:
        operands.popitem()
    return Node(kind, operands, how, ("m",) if mask and d.chance(0.3) else ())


def rotary(kind: str, d: Draw, opset: int) -> Node:
    batch, heads, length, width = d.integer(1, 2), d.integer(1, 3), d.integer(1, 4), d.pick(2, 4, 6)
    how: dict[str, Any] = {"interleaved": 1} if d.chance() else {}
    turned = width
    if width > 2 and d.chance(0.3):
        how["rotary_embedding_dim"] = turned = 2
    shape = (batch, heads, length, width)
    if d.chance() or "rotary_embedding_dim" in how:
        how["num_heads"] = heads
        shape = (batch, length, heads * width)
    angles = d.rng.uniform(0, 3, (batch, length, turned // 2)).astype("f4")
    operands: dict[str, Any] = {"x": floats(d, shape)}
    if d.chance():
        angles = d.rng.uniform(0, 3, (7, turned // 2)).astype("f4")
        places = d.rng.integers(0, 7, (batch, length))
        operands |= {"c": np.cos(angles), "s": np.sin(angles), "p": places}
        return Node(kind, operands, how, d.pick((), ("c", "s")))
    return Node(kind, {**operands, "c": np.cos(angles), "s": np.sin(angles)}, how)


def rms_norm(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(2, 4), 1, 5))
    axis = d.integer(1, x.ndim - 1)
    weight = floats(d, d.pick(x.shape[axis:], x.shape[axis:], x.shape[-1:]))
    how = {"axis": d.pick(axis, axis - x.ndim), "epsilon": d.pick(1e-3, 0.1)}
    return Node(kind, {"x": x, "w": weight}, how, d.pick((), ("w",)))


def normalised(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(4, 2, 4))
    if kind == "MeanVarianceNormalization":
        return Node(kind, {"x": x}, {"axes": d.pick([0, 2, 3], [2, 3], [1])} if d.chance() else {})
    how = {"p": d.integer(1, 2)} if d.chance() else {}
    return Node(kind, {"x": x}, {"axis": axis_of(d, 4, opset, 1), **how})


def hardmax(kind: str, d: Draw, opset: int) -> Node:
    x = d.distinct(d.shape(d.integer(2, 4), 1, 4)).astype("f4")
    return Node(kind, {"x": x}, {"axis": axis_of(d, x.ndim, opset, 11)} if d.chance(0.8) else {})


def one_hot(kind: str, d: Draw, opset: int) -> Node:
    shape, depth = d.shape(d.integer(1, 3), 1, 4), d.integer(1, 5)
    low = -depth - 1 if opset >= 11 else 0
    index = d.rng.integers(low, depth + 2, shape).astype(d.pick("i8", "f4"))
    values = np.sort(floats(d, (2,))) if d.chance() else np.int64([2, 5])
    axis = axis_of(d, len(shape) + 1, opset, 11)
    operands = {"i": index, "d": np.asarray(depth), "v": values}
    return Node(kind, operands, {"axis": axis} if d.chance(0.8) else {}, d.pick(("d",), ("d", "v")))


def center_crop_pad(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 4), 1, 7))
    axes = d.rng.permutation(x.ndim)[: d.integer(1, x.ndim)].tolist()
    how = {"axes": [a - x.ndim if d.chance(0.3) else a for a in axes]}
    if d.chance(0.3):
        axes, how = list(range(x.ndim)), {}
    wanted = np.int64([d.integer(1, 8) for _ in axes])
    return Node(kind, {"x": x, "s": wanted}, how, ("s",))


def shrink(kind: str, d: Draw, opset: int) -> Node:
    how = {name: d.pick(0.5, 1.5) for name in ("lambd", "bias") if d.chance()}
    return Node(kind, {"x": floats(d, d.shape(3))}, how)


def eye_like(kind: str, d: Draw, opset: int) -> Node:
    how: dict[str, Any] = {"k": d.integer(-2, 2)} if d.chance() else {}
    if d.chance():
        how["dtype"] = d.pick(TensorProto.INT64, TensorProto.DOUBLE)
    return Node(kind, {"x": floats(d, (d.integer(1, 4), d.integer(1, 4)))}, how)


def dft(kind: str, d: Draw, opset: int) -> Node:
    """Real or complex, there or back, whole spectra or halves; longer or shorter than the input."""
    shape = tuple(d.integer(1, 7) for _ in range(d.integer(2, 3)))
    axis = d.integer(0, len(shape) - 1)
    inverse, onesided = d.chance(), d.chance()
    parts = (2 if inverse else 1) if onesided else d.pick(1, 2)
    how: dict[str, Any] = {
        name: 1 for name, on in (("inverse", inverse), ("onesided", onesided)) if on
    }
    operands: dict[str, Any] = {"x": floats(d, (*shape, parts)), "length": None}
    length = d.integer(1, 9) if d.chance() else None
    if (
        inverse and onesided
    ):  # onnxruntime and the reference differ on halves that are cut or filled
        length = max(1, 2 * shape[axis] - d.integer(1, 2))
    if length is not None:
        operands["length"] = np.array(length, np.int64)
    if opset >= 20:
        operands["axis"] = np.array(d.pick(axis, axis - len(shape) - 1), np.int64)
    else:
        how["axis"] = axis
    known = tuple(name for name in ("length", "axis") if operands.get(name) is not None)
    return Node(kind, operands, how, known)


def stft(kind: str, d: Draw, opset: int) -> Node:
    length = d.integer(1, 8)
    signal = floats(d, (d.integer(1, 3), length + d.integer(0, 12), 1))
    how: dict[str, Any] = {"onesided": d.pick(0, 1)} if d.chance() else {}
    window = floats(d, (length,)) if d.chance() else None
    operands = {
        "x": signal,
        "step": np.array(d.integer(1, 4), np.int64),
        "window": window,
        "length": np.array(length, np.int64) if window is None or d.chance() else None,
    }
    known = tuple(n for n in ("step", "window", "length") if operands[n] is not None)
    return Node(kind, operands, how, known)


def window(kind: str, d: Draw, opset: int) -> Node:
    how = {"periodic": d.pick(0, 1)} if d.chance() else {}
    return Node(kind, {"size": np.array(d.integer(2, 12), np.int64)}, how, ("size",))


GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), window),
    "DFT": dft,
    "STFT": stft,
    "Attention": attention,
    "RotaryEmbedding": rotary,
    "RMSNormalization": rms_norm,
    **dict.fromkeys(("LpNormalization", "MeanVarianceNormalization"), normalised),
    "Hardmax": hardmax,
    "OneHot": one_hot,
    "CenterCropPad": center_crop_pad,
    "Shrink": shrink,
    "EyeLike": eye_like,
}
