"""Every operator spelled as ONNX nodes: one rule each, here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from convdsl.interop.spelling import maps, movement, windows
from convdsl.interop.spelling.writer import Spelling, Writer

Rule: TypeAlias = "Callable[[Spelling], str | Sequence[str]]"

OPSET, IR_VERSION = 23, 11


def _named(kind: str, *attributes: str) -> Rule:
    """The node of that kind, operands in order, attributes that are called the same."""

    def rule(s: Spelling) -> str:
        operands = (s[name] for name in s.call.types)
        return s(kind, *operands, **{name: s.call[name] for name in attributes})

    return rule


_NAMED = {
    "abs": "Abs", "add": "Add", "ceil": "Ceil", "div": "Div", "dropout": "Dropout",
    "equal": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor", "greater": "Greater",
    "greater_equal": "GreaterOrEqual", "identity": "Identity", "isnan": "IsNaN", "less": "Less",
    "less_equal": "LessOrEqual", "log": "Log", "logical_and": "And", "logical_not": "Not",
    "logical_or": "Or", "logical_xor": "Xor", "matmul": "MatMul", "max": "Max", "min": "Min",
    "mish": "Mish", "mul": "Mul", "neg": "Neg", "parameter": "Identity", "pow": "Pow",
    "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid",
    "sign": "Sign", "softsign": "Softsign", "sqrt": "Sqrt", "sub": "Sub", "tanh": "Tanh",
    "where": "Where",
}  # fmt: skip
_REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd", "reduce_l1": "ReduceL1",
    "reduce_l2": "ReduceL2", "reduce_sum_square": "ReduceSumSquare",
    "reduce_log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip

RULES: dict[str, Rule] = {
    **{name: _named(kind) for name, kind in _NAMED.items()},
    **{name: partial(maps.reduction, kind) for name, kind in _REDUCTIONS.items()},
    "conv": windows.conv,
    "conv_transpose": windows.conv_transpose,
    "linear": maps.linear,
    "max_pool": partial(windows.pool, "MaxPool"),
    "avg_pool": partial(windows.pool, "AveragePool"),
    "lp_pool": partial(windows.pool, "LpPool"),
    "max_pool_with_positions": windows.max_pool_with_positions,
    "max_unpool": windows.max_unpool,
    "adaptive_avg_pool": partial(windows.adaptive, "ReduceMean"),
    "adaptive_max_pool": partial(windows.adaptive, "ReduceMax"),
    "batch_norm": maps.batch_norm,
    "layer_norm": maps.layer_norm,
    "group_norm": maps.group_norm,
    "instance_norm": maps.instance_norm,
    "lrn": maps.lrn,
    "relu6": maps.relu6,
    "leaky_relu": lambda s: s("LeakyRelu", s["x"], alpha=s.call["slope"]),
    "prelu": maps.prelu,
    "elu": _named("Elu", "alpha"),
    "selu": maps.selu,
    "celu": _named("Celu", "alpha"),
    "gelu": _named("Gelu", "approximate"),
    "silu": maps.silu,
    "hardswish": maps.hardswish,
    "hardsigmoid": maps.hardsigmoid,
    "softplus": maps.softplus,
    "softmax": _named("Softmax", "axis"),
    "log_softmax": _named("LogSoftmax", "axis"),
    "clip": maps.clip,
    "cast": maps.cast,
    "not_equal": maps.not_equal,
    "argmax": partial(maps.selection, "ArgMax"),
    "argmin": partial(maps.selection, "ArgMin"),
    "top_k": maps.top_k,
    "concat": movement.concat,
    "split": movement.split,
    "slice": movement.slice_,
    "pad": movement.pad,
    "expand": movement.expand,
    "tile": movement.tile,
    "flatten": movement.flatten,
    "reshape": movement.reshape,
    "squeeze": movement.squeeze,
    "unsqueeze": movement.unsqueeze,
    "transpose": movement.transpose,
    "channel_shuffle": movement.channel_shuffle,
    "pixel_shuffle": movement.pixel_shuffle,
    "pixel_unshuffle": movement.pixel_unshuffle,
    "resize": movement.resize,
}


def spell(s: Spelling) -> list[str]:
    """Add the nodes of one call to its writer; returns the names of the outputs."""
    names = RULES[s.call.op.name](s)
    return [names] if isinstance(names, str) else list(names)


__all__ = ["IR_VERSION", "OPSET", "RULES", "Spelling", "Writer", "spell"]
