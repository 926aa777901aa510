"""Normalisation, and softmax, which normalises too."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.row import (
    Keyword,
    Read,
    ReadRule,
    Result,
    Row,
    attributes_read,
    only_spelled,
    same,
)
from convdsl.interop.correspondence.wording import (
    Lacking,
    PyTorch,
    Wording,
    WordRule,
    keywords,
    listed,
    module,
    text,
)
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.ops.normalisation import AFTER, BEFORE, lrn_reach
from convdsl.tensor import Dim

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

_EPS = Keyword("eps", "epsilon", "eps", 1e-5)
_LRN = (
    Keyword("size", "size", "size"),
    Keyword("alpha", "alpha", "alpha", 1e-4),
    Keyword("beta", "beta", "beta", 0.75),
    Keyword("k", "bias", "k", 1.0),
)


# From ONNX


def _read_batch_norm(r: Reading) -> Result:
    if r.attribute("training_mode", 0):
        return _read_batch_norm_by_batch(r)
    if any(r.wants(i) for i in range(1, 5)):
        raise ReadError("batch normalisation in training mode is not supported before opset 14")
    if r.opset < 9 and not r.attribute("spatial", 1):
        raise ReadError("batch normalisation of every position by itself is not supported")
    names = ("x", "weight", "bias", "running_mean", "running_var")
    inputs = {name: r[index] for index, name in enumerate(names)}
    return r.apply("batch_norm", inputs, eps=r.attribute("epsilon", _EPS.default))


def _read_batch_norm_by_batch(r: Reading) -> Result:
    """By the statistics of the batch itself, and those of all batches moved on, as weights that are
    standardised go out from PyTorch."""
    x, rank = r[0], r.rank(0)
    axes = (0, *range(2, rank))

    def along(weights: Tensor) -> Tensor:
        return r.reshape(weights, (-1, *[1] * (rank - 2)))

    mean = r.unary("reduce_mean", x, axes=axes, keepdims=True)
    apart = r.binary("sub", x, mean)
    variance = r.unary("reduce_mean", r.binary("mul", apart, apart), axes=axes, keepdims=True)
    eps = r.like(r.attribute("epsilon", _EPS.default), x)
    spread = r.unary("sqrt", r.binary("add", variance, eps))
    y = r.binary("mul", r.binary("div", apart, spread), along(r[1]))
    y = r.binary("add", y, along(r[2]))
    if not (r.wants(1) or r.wants(2)):
        return y
    kept = r.attribute("momentum", 0.9)
    moved = [
        r.binary(
            "add",
            r.binary("mul", before, r.like(kept, x)),
            r.binary("mul", r.reshape(now, (-1,)), r.like(1 - kept, x)),
        )
        for before, now in ((r[3], mean), (r[4], variance))
    ]
    return [y, *moved]


def _read_instance_norm(r: Reading) -> Tensor:
    inputs = {"x": r[0], "weight": r[1], "bias": r[2]}
    eps = r.attribute("epsilon", _EPS.default)
    return r.apply("instance_norm", inputs, eps=eps, affine=True)


def _read_group_norm(r: Reading) -> Tensor:
    """Before opset 21 there is one weight a group, since then one a channel."""
    groups, channels = r.attribute("num_groups"), r.shape(0)[1]
    affine = {"weight": r[1], "bias": r[2]}
    if r.opset < 21:
        affine = {key: _repeated(r, tensor, channels) for key, tensor in affine.items()}
    eps = r.attribute("epsilon", _EPS.default)
    return r.apply("group_norm", {"x": r[0], **affine}, groups=groups, eps=eps)


def _repeated(r: Reading, x: Tensor, channels: Dim) -> Tensor:
    (groups,) = shape_of(x)
    each = channels // groups
    if isinstance(x, Known):
        return Known(np.repeat(x.array, r.extent(each)), x.name)
    apart = r.reshape(x, (groups, 1))
    return r.reshape(r.unary("expand", apart, shape=(groups, each)), (channels,))


def read_layer_norm(r: Reading) -> Result:
    """LayerNormalization: y, and the mean and 1 / deviation where they are wanted."""
    x, eps = r[0], r.attribute("epsilon", _EPS.default)
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


def read_rms_norm(r: Reading) -> Tensor:
    """RMSNormalization: x over its root mean square, times a weight."""
    axis, eps = r.attribute("axis", -1) % r.rank(0), r.attribute("epsilon", _EPS.default)
    if shape_of(r[1]) == r.shape(0)[axis:]:
        return r.apply("rms_norm", {"x": r[0], "weight": r[1]}, axis=axis, eps=eps)
    return r.binary("mul", r.unary("rms_norm", r[0], axis=axis, eps=eps, affine=False), r[1])


def _read_lp_normalisation(r: Reading) -> Tensor:
    """x over its norm along an axis; where that is 0, 0."""
    norm = {1: "reduce_l1", 2: "reduce_l2"}.get(r.attribute("p", 2))
    if norm is None:
        raise ReadError(f"there is no norm of {r.attribute('p')}, but of 1 and 2")
    size = r.unary(norm, r[0], axes=(r.attribute("axis", -1),), keepdims=True)
    is_zero = r.binary("equal", size, r.like(0.0, size))
    divisor = r.apply("where", {"condition": is_zero, "a": r.like(1.0, size), "b": size})
    return r.binary("div", r[0], divisor)


def _read_mean_variance(r: Reading) -> Tensor:
    axes = tuple(r.attribute("axes", (0, 2, 3)))
    apart = r.binary("sub", r[0], r.unary("reduce_mean", r[0], axes=axes, keepdims=True))
    squares = r.binary("mul", apart, apart)
    spread = r.unary("sqrt", r.unary("reduce_mean", squares, axes=axes, keepdims=True))
    return r.binary("div", apart, r.binary("add", spread, r.like(1e-9, spread)))


def _read_lrn(r: Reading) -> Tensor:
    """ONNX has floor((size - 1) / 2) channels before, and the rest after."""
    how = attributes_read("lrn", _LRN, r)
    return r.unary("lrn", r[0], extra=AFTER, **how)


def _read_softmax(op: str) -> ReadRule:
    """Before opset 13 everything from the axis on is one axis."""

    def rule(r: Reading) -> Tensor:
        rank, shape = r.rank(0), r.shape(0)
        axis = r.attribute("axis", 1 if r.opset < 13 else -1) % rank
        if r.opset >= 13 or axis == rank - 1 or all(size == 1 for size in shape[axis + 1 :]):
            return r.unary(op, r[0], axis=axis)
        flat = r.reshape(r[0], (*shape[:axis], prod(shape[axis:])))
        return r.reshape(r.unary(op, flat, axis=axis), shape)

    return rule


# As ONNX


def _spell_batch_norm(s: Spelling) -> str:
    state = (*s.affine(s.call.type("running_mean").shape), s["running_mean"], s["running_var"])
    return s("BatchNormalization", s["x"], *state, epsilon=s.call["eps"])


def _spell_layer_norm(s: Spelling) -> str:
    axis = s.call["axis"]
    state = s.affine(s.call.type("x").shape[axis:])
    return s("LayerNormalization", s["x"], *state, axis=axis, epsilon=s.call["eps"])


def _spell_group_norm(s: Spelling) -> str:
    state = s.affine(s.call.type("x").shape[1:2])
    how = {"num_groups": s.call["groups"], "epsilon": s.call["eps"], "stash_type": s.element}
    return s("GroupNormalization", s["x"], *state, **how)


def _spell_instance_norm(s: Spelling) -> str:
    state = s.affine(s.call.type("x").shape[1:2])
    return s("InstanceNormalization", s["x"], *state, epsilon=s.call["eps"])


def _spell_rms_norm(s: Spelling) -> str:
    """In the nodes of before opset 23."""
    axes = s.integers(range(s.call["axis"], s.call.type("x").rank))
    mean = s("ReduceMean", s("Mul", s["x"], s["x"]), axes, keepdims=1)
    root = s("Sqrt", s("Add", mean, s.constant(s.call["eps"])))
    y = s("Div", s["x"], root)
    return s("Mul", y, s["weight"]) if s["weight"] else y


def _spell_lrn(s: Spelling) -> str:
    """onnxruntime takes odd sizes and rank 4 only, and the reference evaluator sums over others
    where sizes are even: these are spelled out."""
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
    before, after = lrn_reach(call)
    total = s("Conv", plane, ones, pads=[before, 0, after, 0])
    base = s("Add", s("Mul", total, s.constant(alpha / size)), s.constant(k))
    divisor = s("Pow", base, s.constant(beta))
    return s("Div", s["x"], s("Reshape", divisor, s.integers(shape)))


# In PyTorch. Layers without weights are modules too, which have nothing in the state dict.


def _options(w: Wording, affine: str, default: bool) -> str:
    """What all layers say; whether they have weights under PyTorch's word and default."""
    has = (affine, str(w.call["affine"]), str(default))
    return keywords(("eps", repr(w.call["eps"]), "1e-05"), has, w.dtype)


def _channels(w: Wording) -> str:
    return text(w.call.type("x").shape[1])


def _layer_batch_norm(w: Wording) -> str:
    momentum = keywords(("momentum", repr(w.call["momentum"]), "0.1"))
    return f"{_channels(w)}{momentum}{_options(w, 'affine', True)}"


def _layer_layer_norm(w: Wording) -> str:
    shape = listed(w.call.type("x").shape[w.call["axis"] :])
    return f"{shape}{_options(w, 'elementwise_affine', True)}"


def _layer_group_norm(w: Wording) -> str:
    return f"{w.call['groups']}, {_channels(w)}{_options(w, 'affine', True)}"


def _layer_instance_norm(w: Wording) -> str:
    return f"{_channels(w)}{_options(w, 'affine', False)}"


def _loose_norm(name: str, *before: str) -> WordRule:
    """name(x, .., weight, bias, eps), where weights are tensors."""

    def call(w: Wording) -> str:
        shape = listed(w.call.type("x").shape[w.call["axis"] :]) if "shape" in before else ""
        words = {"shape": shape, "groups": str(w.call.attributes.get("groups")), "None": "None"}
        given = [words[word] for word in before]
        given += [w.operands[key] for key in ("weight", "bias") if key in w.operands]
        return f"functional.{name}({', '.join([w['x'], *given])}, eps={w.call['eps']!r})"

    return call


def _layer_rms_norm(w: Wording) -> str:
    """Its own default of epsilon depends on the dtype."""
    shape = listed(w.call.type("x").shape[w.call["axis"] :])
    affine = keywords(("elementwise_affine", str(w.call["affine"]), "True"), w.dtype)
    return f"{shape}, eps={w.call['eps']!r}{affine}"


_SPACELESS = "PyTorch has local response normalisation with axes of space only"


def _say_lrn(w: Wording) -> str:
    if w.call.type("x").rank < 3:
        raise Lacking(_SPACELESS)
    options = ", ".join(repr(w.call[name]) for name in ("size", "alpha", "beta", "k"))
    if w.call["extra"] == BEFORE:
        return f"functional.local_response_norm({w['x']}, {options})"
    return f"functional.local_response_norm({w['x']}.flip(1), {options}).flip(1)"


ROWS: tuple[Row, ...] = (
    same(
        "batch_norm",
        "BatchNormalization",
        module("nn.BatchNorm{rank}d", _layer_batch_norm),
        _EPS,
        read=_read_batch_norm,
        spell=_spell_batch_norm,
    ),
    same(
        "layer_norm",
        "LayerNormalization",
        module("nn.LayerNorm", _layer_layer_norm, loose=_loose_norm("layer_norm", "shape")),
        Keyword("axis", "axis", "", -1),
        _EPS,
        read=read_layer_norm,
        spell=_spell_layer_norm,
    ),
    only_spelled(
        "rms_norm",
        "",
        module("nn.RMSNorm", _layer_rms_norm, loose=_loose_norm("rms_norm", "shape")),
        _spell_rms_norm,
    ),
    same(
        "group_norm",
        "GroupNormalization",
        module("nn.GroupNorm", _layer_group_norm, loose=_loose_norm("group_norm", "groups")),
        Keyword("groups", "num_groups", "num_groups"),
        _EPS,
        read=_read_group_norm,
        spell=_spell_group_norm,
    ),
    same(
        "instance_norm",
        "InstanceNormalization",
        module(
            "nn.InstanceNorm{rank}d",
            _layer_instance_norm,
            loose=_loose_norm("instance_norm", "None", "None"),
        ),
        _EPS,
        read=_read_instance_norm,
        spell=_spell_instance_norm,
    ),
    same(
        "lrn",
        "LRN",
        PyTorch("functional.local_response_norm", _say_lrn, lacks=(_SPACELESS,)),
        *_LRN,
        read=_read_lrn,
        spell=_spell_lrn,
    ),
    same(
        "softmax",
        "Softmax",
        "torch.softmax",
        Keyword("axis", "axis", "dim", -1),
        read=_read_softmax("softmax"),
    ),
    same(
        "log_softmax",
        "LogSoftmax",
        "torch.log_softmax",
        Keyword("axis", "axis", "dim", -1),
        read=_read_softmax("log_softmax"),
    ),
)

READING = {
    "RMSNormalization": Read(read_rms_norm),
    "LpNormalization": Read(_read_lp_normalisation),
    "MeanVarianceNormalization": Read(_read_mean_variance),
}
