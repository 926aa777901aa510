"""Operators in PyTorch's words: constructors of layers with weights, calls of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, TypeAlias

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.graph import StateNode
from convdsl.ir.opdef import Call
from convdsl.ir.windows import SAME
from convdsl.tensor import DType, SymDim

Operands: TypeAlias = Mapping[str, str]
CallRule: TypeAlias = Callable[[Call, Operands], str]

_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate",
          "circular": "circular"}  # fmt: skip
_DTYPES = {DType.F32: "torch.float32", DType.F64: "torch.float64", DType.I64: "torch.int64",
           DType.BOOL: "torch.bool"}  # fmt: skip


def constant(node: StateNode) -> str:
    """A constant where it is used; numbers as themselves."""
    array = np.asarray(node.data)
    if array.size == 1 and not node.type.rank:
        return repr(array.reshape(-1)[0].item())
    if array.size > 64:
        raise InputError(f"the constant {node.name} ({node.type}) is too large for source text")
    return f"torch.tensor({array.tolist()!r}, dtype={_DTYPES[node.type.dtype]})"


def _text(value: Any) -> str:
    if isinstance(value, SymDim):
        raise InputError(f"the size {value} is free, which source text cannot say")
    if type(value) in (tuple, list):
        items: Sequence[Any] = value
        if len(items) > 0 and all(item == items[0] for item in items):
            return repr(items[0])
        return repr(tuple(items))
    return f'float("{value}")' if value in (inf, -inf) else repr(value)


def _pairs(call: Call) -> Sequence[tuple[int, int]]:
    if call["pad"] == SAME:
        raise InputError("pad = same needs known sizes; bind them before exporting")
    return call["pad"]


def _is_even(call: Call) -> bool:
    return all(before == after for before, after in _pairs(call))


def _padding(call: Call) -> str:
    """Padding that a layer adds itself: the same on both sides."""
    return _text(tuple(before for before, _ in _pairs(call))) if _is_even(call) else "0"


def _pad(x: str, pairs: Sequence[tuple[Any, Any]], mode: str, value: float | None = None) -> str:
    """PyTorch counts axes from the last."""
    flat = [amount for pair in reversed(pairs) for amount in pair]
    extra = "" if value is None else f", value={_text(value)}"
    return f'functional.pad({x}, {flat}, "{mode}"{extra})'


def around(call: Call, x: str) -> str:
    """x, padded as no layer can pad it."""
    if call.op.name != "conv" or _is_even(call):
        return x
    return _pad(x, _pairs(call), _MODES[call["pad_mode"]])


def _keywords(*given: tuple[str, str, str]) -> str:
    """Those (name, text, default) that differ from the default."""
    return "".join(f", {name}={text}" for name, text, default in given if text != default)


# Constructors


def _dtype(call: Call) -> tuple[str, str, str]:
    return ("dtype", _DTYPES[call.outputs[0].dtype], "torch.float32")


def conv(call: Call) -> str:
    if call["flip"]:
        raise InputError("PyTorch has no convolution with a flipped filter")
    rank = call.type("x").rank - 2
    options = _keywords(
        ("stride", _text(call["stride"]), "1"),
        ("padding", _padding(call), "0"),
        ("dilation", _text(call["dilation"]), "1"),
        ("groups", str(call["groups"]), "1"),
        ("bias", str(call["bias"]), "True"),
        ("padding_mode", repr(call["pad_mode"]) if _is_even(call) else "'zeros'", "'zeros'"),
        _dtype(call),
    ).replace("'", '"')
    channels = call.type("x").shape[1]
    return f"nn.Conv{rank}d({channels}, {call['channels']}, {_text(call['kernel'])}{options})"


def conv_transpose(call: Call) -> str:
    if not _is_even(call):
        raise InputError("PyTorch's transposed convolution cuts both sides alike")
    rank = call.type("x").rank - 2
    options = _keywords(
        ("stride", _text(call["stride"]), "1"),
        ("padding", _padding(call), "0"),
        ("output_padding", _text(call["output_pad"]), "0"),
        ("groups", str(call["groups"]), "1"),
        ("bias", str(call["bias"]), "True"),
        ("dilation", _text(call["dilation"]), "1"),
        _dtype(call),
    )
    sizes = f"{call.type('x').shape[1]}, {call['channels']}, {_text(call['kernel'])}"
    return f"nn.ConvTranspose{rank}d({sizes}{options})"


def linear(call: Call) -> str:
    options = _keywords(("bias", str(call["bias"]), "True"), _dtype(call))
    return f"nn.Linear({call.type('x').shape[-1]}, {call['channels']}{options})"


def batch_norm(call: Call) -> str:
    rank = max(call.type("x").rank - 2, 1)
    options = _keywords(
        ("eps", repr(call["eps"]), "1e-05"),
        ("momentum", repr(call["momentum"]), "0.1"),
        ("affine", str(call["affine"]), "True"),
        _dtype(call),
    )
    return f"nn.BatchNorm{rank}d({call.type('x').shape[1]}{options})"


def layer_norm(call: Call) -> str:
    shape = list(call.type("x").shape[call["axis"] :])
    return f"nn.LayerNorm({shape}{_keywords(('eps', repr(call['eps']), '1e-05'), _dtype(call))})"


def group_norm(call: Call) -> str:
    options = _keywords(("eps", repr(call["eps"]), "1e-05"), _dtype(call))
    return f"nn.GroupNorm({call['groups']}, {call.type('x').shape[1]}{options})"


def instance_norm(call: Call) -> str:
    rank = call.type("x").rank - 2
    options = _keywords(("eps", repr(call["eps"]), "1e-05"), _dtype(call))
    return f"nn.InstanceNorm{rank}d({call.type('x').shape[1]}, affine=True{options})"


def prelu(call: Call) -> str:
    return f"nn.PReLU({call.type('weight').shape[0]}{_keywords(_dtype(call))})"


def parameter(call: Call) -> str:
    """Under its key in the state dict; a module of its own would say no more."""
    type = call.type("weight")
    if not type.dtype.is_float:
        raise InputError(f"a parameter of {type.dtype} cannot be trained")
    shape = ", ".join(map(str, type.shape))
    return f'nn.ParameterDict({{"weight": torch.ones({shape}{_keywords(_dtype(call))})}})'


MODULES: Mapping[str, Callable[[Call], str]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "prelu": prelu,
    "parameter": parameter,
}


# Calls


def _pool(name: str, call: Call, at: Operands) -> str:
    rank, x = call.type("x").rank - 2, at["x"]
    if call["kernel"] == "global":
        return f"functional.adaptive_{name}_pool{rank}d({x}, 1)"
    if not _is_even(call):
        if name == "avg" and not call["count_include_pad"]:
            raise InputError("PyTorch's mean without padding pads both sides alike")
        x = _pad(x, _pairs(call), "constant", -inf if name == "max" else 0.0)
    options = _keywords(
        ("stride", _text(call["stride"]), _text(call["kernel"])),
        ("padding", _padding(call), "0"),
        ("dilation", _text(call.attributes.get("dilation", 1)), "1"),
        ("ceil_mode", str(call["ceil_mode"]), "False"),
        ("count_include_pad", str(call.attributes.get("count_include_pad", True)), "True"),
    )
    return f"functional.{name}_pool{rank}d({x}, {_text(call['kernel'])}{options})"


def _function(name: str, **attributes: str) -> CallRule:
    """name(operands, PyTorch's names of attributes = ours)."""

    def rule(call: Call, at: Operands) -> str:
        options = "".join(f", {theirs}={_text(call[ours])}" for ours, theirs in attributes.items())
        return f"{name}({', '.join(at.values())}{options})"

    return rule


def _infix(sign: str) -> CallRule:
    return lambda call, at: f"{at['a']} {sign} {at['b']}"


def _reduction(name: str) -> CallRule:
    def rule(call: Call, at: Operands) -> str:
        axes = tuple(call["axes"])
        keep = _keywords(("keepdim", str(call["keepdims"]), "False"))
        return f"torch.{name}({at['x']}, {axes}{keep})"

    return rule


def _reshape(call: Call, at: Operands) -> str:
    """A first axis that is free stays; another one is found."""
    own, wanted = call.type("x").shape, call.outputs[0].shape
    sizes = [
        f"{at['x']}.shape[{i}]" if isinstance(d, SymDim) and i < len(own) and own[i] == d else d
        for i, d in enumerate(wanted)
    ]
    free = [i for i, size in enumerate(sizes) if isinstance(size, SymDim)]
    if len(free) > 1:
        raise InputError(f"a shape of {wanted} has too many free sizes for source text")
    texts = ["-1" if isinstance(size, SymDim) else str(size) for size in sizes]
    return f"{at['x']}.reshape({', '.join(texts)})"


def _flatten(call: Call, at: Operands) -> str:
    return f"torch.flatten({at['x']}, {call['start']}, {call['end']})"


def _split(call: Call, at: Operands) -> str:
    return f"torch.split({at['x']}, {list(call['parts'])}, dim={call['axis']})"


def _concat(call: Call, at: Operands) -> str:
    return f"torch.cat([{', '.join(at.values())}], dim={call['axis']})"


def _slice(call: Call, at: Operands) -> str:
    """Python's own slices; PyTorch has none that run backwards."""
    parts = [":"] * call.type("x").rank
    limits = zip(call["axes"], call["start"], call["stop"], call["step"], strict=True)
    for axis, start, stop, step in limits:
        if step < 0:
            raise InputError("PyTorch has no slices that run backwards")
        first = "" if start == "begin" else _text(start)
        last = "" if stop == "end" else _text(stop)
        parts[axis] = f"{first}:{last}" + (f":{step}" if step > 1 else "")
    return f"{at['x']}[{', '.join(parts)}]"


def _resize(call: Call, at: Operands) -> str:
    """`functional.interpolate`, which has four of the conventions."""
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}.get(call.type("x").rank - 2, "linear")
    how = (call["mode"], call["coordinates"], call["rounding"])
    if how == ("nearest", "asymmetric", "floor"):
        mode = '"nearest"'
    elif how[:2] == ("linear", "half_pixel"):
        mode = f'"{linear}"'
    elif how[:2] == ("linear", "align_corners"):
        mode = f'"{linear}", align_corners=True'
    else:
        raise InputError(f"PyTorch has no {' '.join(how)} interpolation")
    if call["size"] != "fitting":
        size = ", ".join(map(_text, call["size"]))
        return f"functional.interpolate({at['x']}, size=({size},), mode={mode})"
    scale = tuple(float(factor) for factor in call["scale"])
    return f"functional.interpolate({at['x']}, scale_factor={scale}, mode={mode})"


def _pad_call(call: Call, at: Operands) -> str:
    rank, axes = call.type("x").rank, list(call["axes"])
    pairs = [call["pad"][axes.index(a)] if a in axes else (0, 0) for a in range(min(axes), rank)]
    value = call["value"] if call["mode"] == "zeros" else None
    return _pad(at["x"], pairs, _MODES[call["mode"]], value)


def _shuffle(call: Call, at: Operands) -> str:
    return f"functional.channel_shuffle({at['x']}, {call['groups']})"


def _clip(call: Call, at: Operands) -> str:
    return f"torch.clamp({at['x']}, {_text(call['low'])}, {_text(call['high'])})"


def _hardsigmoid(call: Call, at: Operands) -> str:
    return f"torch.clamp({call['slope']!r} * {at['x']} + {call['offset']!r}, 0, 1)"


def _lrn(call: Call, at: Operands) -> str:
    options = f"{call['size']}, {call['alpha']!r}, {call['beta']!r}, {call['k']!r}"
    return f"functional.local_response_norm({at['x']}, {options})"


def _adaptive(name: str) -> CallRule:
    def rule(call: Call, at: Operands) -> str:
        rank = call.type("x").rank - 2
        return f"functional.adaptive_{name}_pool{rank}d({at['x']}, {_text(call['size'])})"

    return rule


def _extreme(name: str) -> CallRule:
    """PyTorch wants tensors on both sides."""

    def rule(call: Call, at: Operands) -> str:
        a, b = (f"torch.tensor({text})" if _is_number(text) else text for text in at.values())
        return f"torch.{name}({a}, {b})"

    return rule


def _is_number(text: str) -> bool:
    return not text.replace("self.", "").isidentifier() and not text.startswith("torch.")


def _cast(call: Call, at: Operands) -> str:
    return f"{at['x']}.to({_DTYPES[DType(call['dtype'])]})"


_PLAIN = {
    "relu": "functional.relu", "relu6": "functional.relu6", "silu": "functional.silu",
    "selu": "functional.selu", "mish": "functional.mish", "hardswish": "functional.hardswish",
    "sigmoid": "torch.sigmoid", "tanh": "torch.tanh", "softsign": "functional.softsign",
    "sqrt": "torch.sqrt", "abs": "torch.abs", "exp": "torch.exp", "log": "torch.log",
    "erf": "torch.erf", "neg": "torch.neg", "reciprocal": "torch.reciprocal",
    "floor": "torch.floor", "ceil": "torch.ceil", "round": "torch.round", "sign": "torch.sign",
    "matmul": "torch.matmul", "where": "torch.where", "logical_not": "torch.logical_not",
    "isnan": "torch.isnan", "pow": "torch.pow",
}  # fmt: skip
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "equal": "==", "not_equal": "!=",
          "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
          "logical_and": "&", "logical_or": "|", "logical_xor": "^"}  # fmt: skip

CALLS: Mapping[str, CallRule] = {
    **{name: _function(called) for name, called in _PLAIN.items()},
    **{name: _infix(sign) for name, sign in _INFIX.items()},
    "leaky_relu": _function("functional.leaky_relu", slope="negative_slope"),
    "elu": _function("functional.elu", alpha="alpha"),
    "celu": _function("functional.celu", alpha="alpha"),
    "gelu": _function("functional.gelu", approximate="approximate"),
    "softplus": _function("functional.softplus", beta="beta"),
    "softmax": _function("torch.softmax", axis="dim"),
    "log_softmax": _function("torch.log_softmax", axis="dim"),
    "hardsigmoid": _hardsigmoid,
    "clip": _clip,
    "cast": _cast,
    "min": _extreme("minimum"),
    "max": _extreme("maximum"),
    "lrn": _lrn,
    "identity": lambda call, at: at["x"],
    "dropout": lambda call, at: f"functional.dropout({at['x']}, {call['p']!r}, self.training)",
    "max_pool": lambda call, at: _pool("max", call, at),
    "avg_pool": lambda call, at: _pool("avg", call, at),
    "adaptive_avg_pool": _adaptive("avg"),
    "adaptive_max_pool": _adaptive("max"),
    "reduce_sum": _reduction("sum"),
    "reduce_mean": _reduction("mean"),
    "reduce_max": _reduction("amax"),
    "reduce_min": _reduction("amin"),
    "concat": _concat,
    "split": _split,
    "pad": _pad_call,
    "slice": _slice,
    "resize": _resize,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": lambda call, at: f"{at['x']}.permute({', '.join(map(str, call['axes']))})",
    "channel_shuffle": _shuffle,
}
