"""Activations, and what passes its operand on."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.row import Keyword, Read, Result, Row, only_spelled, same
from convdsl.interop.correspondence.wording import (
    Lacking,
    PyTorch,
    Wording,
    function,
    keywords,
    module,
    text,
)
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.ops.identity import SHARING

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def _read_clip(r: Reading) -> Tensor:
    """Bounds are attributes before opset 11, inputs since."""
    x = r[0]
    bounds: list[float] = []
    for index, name, default in ((1, "min", -inf), (2, "max", inf)):
        tensor = r.given(index)
        if tensor is not None and not (isinstance(tensor, Known) and tensor.array.size == 1):
            return _clip_by_tensors(r)
        bounds.append(r.number(index) if tensor is not None else r.attribute(name, default))
    low, high = bounds
    if r.dtype(0).is_float:
        if (low, high) == (0.0, 6.0):
            return r.unary("relu6", x)
        if (low, high) == (0.0, inf):
            return r.unary("relu", x)
        if low <= high:
            return r.unary("clip", x, low=low, high=high)
    return _clip_by_tensors(r)


def _clip_by_tensors(r: Reading) -> Tensor:
    y: Tensor = r[0]
    for index, op, name in ((1, "max", "min"), (2, "min", "max")):
        limit = r.given(index)
        if limit is None and name in r.attributes:
            limit = r.like(r.attribute(name), y)
        if limit is not None:
            y = r.binary(op, y, limit)
    return r.unary("identity", y) if y is r[0] else y


def _read_relu(r: Reading) -> Tensor:
    if r.dtype(0).is_float:
        return r.unary("relu", r[0])
    return r.binary("max", r[0], r.like(0, r[0]))


def _read_prelu(r: Reading) -> Tensor:
    """One slope, one a channel, or any that broadcasts."""
    slope, x = r[1], r[0]
    shape, rank = shape_of(slope), r.rank(0)
    channels = r.shape(0)[1] if rank > 1 else None
    if isinstance(slope, Known):
        if slope.array.size == 1:
            weight = Known(slope.array.reshape(1), slope.name)
            return r.apply("prelu", {"x": x, "weight": weight}, shared=True)
        if channels is not None and shape in (
            (channels, *[1] * (rank - 2)),
            (1, channels, *[1] * (rank - 2)),
            (channels,) if r.opset < 7 else (channels, *[1] * (rank - 2)),
        ):
            weight = Known(slope.array.reshape(-1), slope.name)
            return r.apply("prelu", {"x": x, "weight": weight}, shared=False)
    below = r.binary("less", x, r.like(0.0, x))
    return r.apply("where", {"condition": below, "a": r.binary("mul", x, slope), "b": x})


def _read_selu(r: Reading) -> Tensor:
    alpha = r.attribute("alpha", 1.67326319217681884765625)
    gamma = r.attribute("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return r.unary("selu", r[0])
    return r.binary("mul", r.unary("elu", r[0], alpha=alpha), r.like(gamma, r[0]))


def _read_thresholded_relu(r: Reading) -> Tensor:
    alpha, zero = r.like(r.attribute("alpha", 1.0), r[0]), r.like(0.0, r[0])
    above = r.binary("greater", r[0], alpha)
    return r.apply("where", {"condition": above, "a": r[0], "b": zero})


def _read_shrink(r: Reading) -> Tensor:
    """x, moved towards zero by the bias; 0 within -lambd .. lambd."""
    x, bias = r[0], r.like(r.attribute("bias", 0.0), r[0])
    limit = r.attribute("lambd", 0.5)
    above, below = (
        r.binary(op, x, r.like(sign * limit, x)) for op, sign in (("greater", 1), ("less", -1))
    )
    low = {"condition": below, "a": r.binary("add", x, bias), "b": r.like(0.0, x)}
    high = {"condition": above, "a": r.binary("sub", x, bias), "b": r.apply("where", low)}
    return r.apply("where", high)


def _read_swish(r: Reading) -> Tensor:
    alpha = r.attribute("alpha", 1.0)
    if alpha == 1.0:
        return r.unary("silu", r[0])
    scaled = r.binary("mul", r[0], r.like(alpha, r[0]))
    return r.binary("mul", r[0], r.unary("sigmoid", scaled))


def _read_dropout(r: Reading) -> Result:
    if r.has(2) and bool(np.any(r.array(2))) and (not r.has(1) or r.number(1) != 0.0):
        raise ReadError("dropout in training mode is not supported")
    # as the file says it, 0.1, and not what of it fits single precision
    ratio = float(str(r.array(1).reshape(())[()])) if r.has(1) else r.attribute("ratio", 0.5)
    y = r.unary("dropout", r[0], p=ratio)
    if not r.wants(1):
        return y
    masked = r.unary("isnan", r[0]) if r.dtype(0).is_float else r.binary("equal", r[0], r[0])
    kept = r.binary("logical_or", masked, r.unary("logical_not", masked))
    return [y, kept if r.opset >= 10 else r.unary("cast", kept, dtype=str(r.dtype(0)))]


# As ONNX. Some of its nodes hold constants in single precision, whatever they compute in.


def _spell_prelu(s: Spelling) -> str:
    rank = s.call.type("x").rank
    slope = s("Reshape", s["weight"], s.integers([-1, *(1 for _ in range(rank - 2))]))
    return s("PRelu", s["x"], slope)


def clipped(s: Spelling, low: float, high: float) -> str:
    """x within two limits; an infinite one is left out."""
    limits = ("" if limit in (-inf, inf) else s.constant(limit) for limit in (low, high))
    return s("Clip", s["x"], *limits)


def _spell_selu(s: Spelling) -> str:
    if s.single:
        return s("Selu", s["x"])
    alpha, scale = s.constant(1.6732632423543772), s.constant(1.0507009873554805)
    negative = s("Mul", s("Sub", s("Exp", s["x"]), s.constant(1.0)), alpha)
    positive = s("Greater", s["x"], s.constant(0.0))
    return s("Mul", s("Where", positive, s["x"], negative), scale)


def _spell_hardswish(s: Spelling) -> str:
    if s.single:
        return s("HardSwish", s["x"])
    line = s("Add", s("Div", s["x"], s.constant(6.0)), s.constant(0.5))
    return s("Mul", s["x"], s("Clip", line, s.constant(0.0), s.constant(1.0)))


def _spell_silu(s: Spelling) -> str:
    return s("Mul", s["x"], s("Sigmoid", s["x"]))


def _spell_softplus(s: Spelling) -> str:
    if s.call["beta"] == 1.0:
        return s("Softplus", s["x"])
    beta = s.constant(s.call["beta"])
    return s("Div", s("Softplus", s("Mul", s["x"], beta)), beta)


# In PyTorch


def _layer_prelu(w: Wording) -> str:
    return text(w.call.type("weight").shape[0]) + keywords(w.dtype)


def _say_hardsigmoid(w: Wording) -> str:
    """PyTorch's own has its line fixed."""
    slope, offset = w.call["slope"], w.call["offset"]
    return f"torch.clamp({slope!r} * {w['x']} + {offset!r}, 0, 1)"


def _say_dropout(w: Wording) -> str:
    """PyTorch has channels by rank, and samples in torchvision: here they are factors."""
    p, own, x = w.call["p"], SHARING[w.call["per"]], w["x"]
    if own is None:
        return f"functional.dropout({x}, {p!r}, self.training)"
    ones = f"{x}.new_ones({x}.shape[:{own}] + (1,) * {w.call.type('x').rank - own})"
    return f"{x} * functional.dropout({ones}, {p!r}, self.training)"


def _spell_dropout(s: Spelling) -> str:
    """ONNX's drops elements: of what shares its fate nothing is said, as nothing is dropped."""
    if s.call["per"] != "element":
        return s("Identity", s["x"])
    p = s.call["p"]
    return s("Dropout", s["x"], *(() if p == 0.5 else (s.constant(p, "float32"),)))


_NOT_TRAINED = "PyTorch has parameters of floating-point numbers only"


def _loose_prelu(w: Wording) -> str:
    return f"functional.prelu({w['x']}, {w['weight']})"


def _layer_parameter(w: Wording) -> str:
    """A module of its own would say no more than its key in the state dict."""
    type = w.call.type("weight")
    if not type.dtype.is_float:
        raise Lacking(_NOT_TRAINED)
    ones = f"torch.ones({', '.join(map(text, type.shape))}{keywords(w.dtype)})"
    return ones if w.call["bare"] else f'{{"weight": {ones}}}'


_ALPHA = Keyword("alpha", "alpha", "alpha", 1.0)

ROWS = (
    same("relu", "Relu", "functional.relu", read=_read_relu),
    only_spelled("relu6", "Clip", function("functional.relu6"), lambda s: clipped(s, 0.0, 6.0)),
    same(
        "leaky_relu",
        "LeakyRelu",
        "functional.leaky_relu",
        Keyword("slope", "alpha", "negative_slope", 0.01),
    ),
    Row(
        "prelu",
        "PRelu",
        module("nn.PReLU", _layer_prelu, loose=_loose_prelu),
        _spell_prelu,
        Read(_read_prelu),
    ),
    same("elu", "Elu", "functional.elu", _ALPHA),
    same("celu", "Celu", "functional.celu", _ALPHA),
    same("selu", "Selu", "functional.selu", read=_read_selu, spell=_spell_selu),
    same(
        "gelu",
        "Gelu",
        "functional.gelu",
        Keyword("approximate", "approximate", "approximate", "none"),
    ),
    only_spelled("silu", "", function("functional.silu"), _spell_silu),
    same("mish", "Mish", "functional.mish"),
    same("hardswish", "HardSwish", "functional.hardswish", spell=_spell_hardswish),
    same(
        "hardsigmoid",
        "HardSigmoid",
        PyTorch("torch.clamp", _say_hardsigmoid),
        Keyword("slope", "alpha", "", 0.2),
        Keyword("offset", "beta", "", 0.5),
    ),
    only_spelled(
        "hard_tanh",
        "Clip",
        function("functional.hardtanh", min_val="min", max_val="max"),
        lambda s: clipped(s, s.call["min"], s.call["max"]),
    ),
    same("sigmoid", "Sigmoid", "torch.sigmoid"),
    same("tanh", "Tanh", "torch.tanh"),
    same(
        "softplus",
        "Softplus",
        function("functional.softplus", beta="beta"),
        spell=_spell_softplus,
    ),
    same("softsign", "Softsign", "functional.softsign"),
    Row(
        "clip",
        "Clip",
        function("torch.clamp", min="low", max="high"),
        lambda s: clipped(s, s.call["low"], s.call["high"]),
        Read(_read_clip),
    ),
    Row(
        "identity",
        "Identity",
        PyTorch("=", lambda w: w["x"]),
        lambda s: s("Identity", s["x"]),
        Read(lambda r: r[0]),
    ),
    only_spelled(
        "parameter",
        "Identity",
        PyTorch(
            "nn.ParameterDict",
            lambda w: w.layer if w.call["bare"] else f'{w.layer}["weight"]',
            _layer_parameter,
            (_NOT_TRAINED,),
            made=lambda w: "nn.Parameter" if w.call["bare"] else "nn.ParameterDict",
        ),
        lambda s: s("Identity", s["weight"]),
    ),
    Row(
        "dropout",
        "Dropout",
        PyTorch("functional.dropout", _say_dropout),
        _spell_dropout,
        Read(_read_dropout, deciding=(1, 2)),
    ),
    only_spelled(
        "stop_gradient",
        "Identity",
        PyTorch("detach", lambda w: f"{w['x']}.detach()"),
        lambda s: s("Identity", s["x"]),
    ),
)

READING = {
    "ThresholdedRelu": Read(_read_thresholded_relu),
    "Swish": Read(_read_swish),
    "Shrink": Read(_read_shrink),
}
"""Kinds of nodes that are several operators of ours, or one in some configurations."""
