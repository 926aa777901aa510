"""Every operator spelled as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convdsl.ir.opdef import Call
from convdsl.ir.windows import explicit_window
from convdsl.tensor import DType

OPSET = 21
ELEMENT = {
    DType.F32: TensorProto.FLOAT,
    DType.F64: TensorProto.DOUBLE,
    DType.I64: TensorProto.INT64,
    DType.BOOL: TensorProto.BOOL,
}


class Builder:
    """Collects the nodes of one call. Tensors go by name; operands by operand name."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its output's name, or names where there are several."""
        names = [self._name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: str | None = None) -> str:
        """A constant, of the dtype of the first operand unless said."""
        first = next(iter(self.call.types.values())).dtype
        array = np.asarray(value, dtype or first.numpy)
        name = self._name()
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, values: Sequence[Any]) -> str:
        return self.constant(list(values), "int64")

    @property
    def element(self) -> int:
        """ONNX's number for the dtype of the first operand."""
        return ELEMENT[next(iter(self.call.types.values())).dtype]

    def space(self) -> str:
        """The spatial axes of x."""
        return self.integers(range(2, self.call.type("x").rank))

    def optional(self, operand: str) -> tuple[str, ...]:
        return (operand,) if self.call.has(operand) else ()

    def affine(self, shape: Sequence[Any]) -> tuple[str, str]:
        """Weight and bias; ones and zeros where the call has none."""
        if self.call.has("weight"):
            return "weight", "bias"
        return self.constant(np.ones(shape)), self.constant(np.zeros(shape))

    def model(self, outputs: Sequence[str]) -> onnx.ModelProto:
        call = self.call
        inputs = [
            helper.make_tensor_value_info(name, ELEMENT[type.dtype], type.shape)
            for name, type in call.types.items()
        ]
        results = [
            helper.make_tensor_value_info(name, ELEMENT[type.dtype], type.shape)
            for name, type in zip(outputs, call.outputs, strict=True)
        ]
        graph = helper.make_graph(self.nodes, call.op.name, inputs, results, self.constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)


Rule: TypeAlias = Callable[[Builder], "str | Sequence[str]"]


# Contractions


def pads(padding: Sequence[Any]) -> list[int]:
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def conv(b: Builder) -> str:
    call, window = b.call, explicit_window(b.call)
    x, weight, around = "x", "weight", pads(window.padding)
    if call["pad_mode"] != "zeros":
        x = b("Pad", "x", b.integers(around), "", b.space(), mode=PAD_MODES[call["pad_mode"]])
        around = [0] * len(around)
    if call["flip"]:
        weight = flipped(b, weight, range(2, 2 + window.rank))
    return b(
        "Conv",
        x,
        weight,
        *b.optional("bias"),
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        group=call["groups"],
        pads=around,
    )


def flipped(b: Builder, x: str, axes: Sequence[int]) -> str:
    ends = [b.integers([value] * len(axes)) for value in (-1, -(2**31))]
    return b("Slice", x, *ends, b.integers(axes), b.integers([-1] * len(axes)))


def conv_transpose(b: Builder) -> str:
    """onnxruntime wants output padding below the stride; larger, it is spelled out."""
    call = b.call
    around: dict[str, Any] = {"pads": pads(call["pad"]), "output_padding": call["output_pad"]}
    apart = any(extra >= s for extra, s in zip(call["output_pad"], call["stride"], strict=True))
    y = b(
        "ConvTranspose",
        "x",
        "weight",
        *(() if apart else b.optional("bias")),
        kernel_shape=call["kernel"],
        strides=call["stride"],
        dilations=call["dilation"],
        group=call["groups"],
        **({} if apart else around),
    )
    if not apart:
        return y
    rank = len(call["kernel"])
    longer = b("Pad", y, b.integers([0] * rank + list(call["output_pad"])), "", b.space())
    first = [before for before, _ in call["pad"]]
    last = [start + size for start, size in zip(first, call.outputs[0].shape[2:], strict=True)]
    y = b("Slice", longer, b.integers(first), b.integers(last), b.space())
    if not call.has("bias"):
        return y
    return b("Add", y, b("Reshape", "bias", b.integers([-1, *[1] * rank])))


def linear(b: Builder) -> str:
    product = b("MatMul", "x", b("Transpose", "weight", perm=[1, 0]))
    return b("Add", product, "bias") if b.call.has("bias") else product


# Pooling


def pool(kind: str, b: Builder, outputs: int = 1) -> Any:
    call = b.call
    attributes: dict[str, Any] = {}
    if "order" in call.attributes:
        attributes["p"] = call["order"]
    if call["kernel"] == "global":
        if outputs == 1:
            return b(f"Global{kind}", "x", **attributes)
        return b(kind, "x", outputs=outputs, kernel_shape=call.type("x").shape[2:])
    window = explicit_window(call)
    attributes |= {"kernel_shape": window.kernel, "strides": window.stride}
    if "count_include_pad" in call.attributes:
        attributes["count_include_pad"] = int(call["count_include_pad"])
    if "dilation" in call.attributes:
        attributes["dilations"] = window.dilation
    around, ceil = pads(window.padding), int(call["ceil_mode"])
    return b(kind, "x", outputs=outputs, pads=around, ceil_mode=ceil, **attributes)


def max_pool_with_positions(b: Builder) -> list[str]:
    """ONNX counts through the whole tensor, we through a plane."""
    y, positions = pool("MaxPool", b, outputs=2)
    plane = b.constant(prod(b.call.type("x").shape[2:]), "int64")
    return [y, b("Mod", positions, plane)]


def max_unpool(b: Builder) -> str:
    call = b.call
    shape = call.outputs[0].shape
    planes = np.arange(shape[0] * shape[1]) * prod(shape[2:])
    offsets = planes.reshape(*shape[:2], *(1 for _ in shape[2:]))
    positions = b("Add", "positions", b.constant(offsets, "int64"))
    window = {"kernel_shape": call["kernel"], "strides": call["stride"], "pads": pads(call["pad"])}
    return b("MaxUnpool", "x", positions, b.integers(shape), **window)


def adaptive(kind: str, b: Builder) -> str:
    """Axis after axis: windows cut out, reduced, joined."""
    y = "x"
    for axis, size in enumerate(b.call["size"], start=2):
        extent = b.call.type("x").shape[axis]
        axes = b.integers([axis])
        pieces = []
        for o in range(size):
            start, stop = o * extent // size, -(-(o + 1) * extent // size)
            piece = b("Slice", y, b.integers([start]), b.integers([stop]), axes)
            pieces.append(b(kind, piece, axes, keepdims=1))
        y = b("Concat", *pieces, axis=axis)
    return y


# Normalisation


def batch_norm(b: Builder) -> str:
    channels = b.call.type("x").shape[1]
    state = (*b.affine((channels,)), "running_mean", "running_var")
    return b("BatchNormalization", "x", *state, epsilon=b.call["eps"])


def layer_norm(b: Builder) -> str:
    axis = b.call["axis"]
    state = b.affine(b.call.type("x").shape[axis:])
    return b("LayerNormalization", "x", *state, axis=axis, epsilon=b.call["eps"])


def group_norm(b: Builder) -> str:
    state = b.affine(b.call.type("x").shape[1:2])
    groups, eps = b.call["groups"], b.call["eps"]
    return b(
        "GroupNormalization", "x", *state, num_groups=groups, epsilon=eps, stash_type=b.element
    )


def instance_norm(b: Builder) -> str:
    state = b.affine(b.call.type("x").shape[1:2])
    return b("InstanceNormalization", "x", *state, epsilon=b.call["eps"])


def lrn(b: Builder) -> str:
    """onnxruntime takes odd sizes only; even ones are spelled out as PyTorch does it."""
    call, size = b.call, b.call["size"]
    shape = call.type("x").shape
    if size % 2:
        x = b("Reshape", "x", b.integers([*shape[:2], -1, 1]))
        y = b("LRN", x, size=size, alpha=call["alpha"], beta=call["beta"], bias=call["k"])
        return b("Reshape", y, b.integers(shape))
    plane = b("Reshape", b("Mul", "x", "x"), b.integers([shape[0], 1, shape[1], -1]))
    ones = b.constant(np.ones((1, 1, size, 1)))
    total = b("Conv", plane, ones, pads=[size // 2, 0, (size - 1) // 2, 0])
    base = b("Add", b("Mul", total, b.constant(call["alpha"] / size)), b.constant(call["k"]))
    divisor = b("Pow", base, b.constant(call["beta"]))
    return b("Div", "x", b("Reshape", divisor, b.integers(shape)))


# Maps


def prelu(b: Builder) -> str:
    rank = b.call.type("x").rank
    slope = b("Reshape", "weight", b.integers([-1, *(1 for _ in range(rank - 2))]))
    return b("PRelu", "x", slope)


def selu(b: Builder) -> str:
    """ONNX's own node holds its constants in single precision."""
    alpha, scale = b.constant(1.6732632423543772), b.constant(1.0507009873554805)
    negative = b("Mul", b("Sub", b("Exp", "x"), b.constant(1.0)), alpha)
    return b("Mul", b("Where", b("Greater", "x", b.constant(0.0)), "x", negative), scale)


def hardswish(b: Builder) -> str:
    """ONNX's own node holds a sixth in single precision."""
    line = b("Add", b("Div", "x", b.constant(6.0)), b.constant(0.5))
    return b("Mul", "x", b("Clip", line, b.constant(0.0), b.constant(1.0)))


def softplus(b: Builder) -> str:
    beta = b.constant(b.call["beta"])
    return b("Div", b("Softplus", b("Mul", "x", beta)), beta)


def hardsigmoid(b: Builder) -> str:
    return b("HardSigmoid", "x", alpha=b.call["slope"], beta=b.call["offset"])


def clip(b: Builder) -> str:
    return b("Clip", "x", b.constant(b.call["low"]), b.constant(b.call["high"]))


def cast(b: Builder) -> str:
    return b("Cast", "x", to=ELEMENT[DType(b.call["dtype"])])


# Reductions


def reduction(kind: str, b: Builder) -> str:
    return b(kind, "x", b.integers(b.call["axes"]), keepdims=int(b.call["keepdims"]))


def arg(kind: str, b: Builder) -> str:
    return b(kind, "x", axis=b.call["axis"], keepdims=int(b.call["keepdims"]))


def top_k(b: Builder) -> list[str]:
    count, largest = b.integers([b.call["k"]]), int(b.call["largest"])
    return b("TopK", "x", count, outputs=2, axis=b.call["axis"], largest=largest)


# Movement

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def as_output(b: Builder) -> str:
    """A row-major view in the output's shape."""
    return b("Reshape", "x", b.integers(b.call.outputs[0].shape))


def split(b: Builder) -> Any:
    parts = b.call["parts"]
    names = b("Split", "x", b.integers(parts), outputs=len(parts), axis=b.call["axis"])
    return names if len(parts) > 1 else [names]


def slice_(b: Builder) -> str:
    call, far = b.call, 2**62
    starts, stops = [], []
    for start, stop, step in zip(call["start"], call["stop"], call["step"], strict=True):
        starts.append(start if start != "begin" else 0 if step > 0 else far)
        stops.append(stop if stop != "end" else far if step > 0 else -far)
    return b("Slice", "x", *map(b.integers, (starts, stops, call["axes"], call["step"])))


def pad(b: Builder) -> str:
    call = b.call
    value = "" if call["mode"] != "zeros" else b.constant(call["value"])
    around = (b.integers(pads(call["pad"])), value, b.integers(call["axes"]))
    return b("Pad", "x", *around, mode=PAD_MODES[call["mode"]])


def channel_shuffle(b: Builder) -> str:
    n, c, *space = b.call.type("x").shape
    groups = b.call["groups"]
    split_up = b("Reshape", "x", b.integers([n, groups, c // groups, *space]))
    order = [0, 2, 1, *range(3, 3 + len(space))]
    return b("Reshape", b("Transpose", split_up, perm=order), b.integers([n, c, *space]))


def pixel_shuffle(b: Builder) -> str:
    return b("DepthToSpace", "x", blocksize=b.call["factor"][0], mode="CRD")


def pixel_unshuffle(b: Builder) -> str:
    n, c, h, w = b.call.type("x").shape
    f, g = b.call["factor"]
    blocks = b("Reshape", "x", b.integers([n, c, h // f, f, w // g, g]))
    return b(
        "Reshape",
        b("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4]),
        b.integers([n, c * f * g, h // f, w // g]),
    )


def resize(b: Builder) -> str:
    call = b.call
    rank = call.type("x").rank - 2
    crops = call["roi"] != "whole"
    roi = b.constant(call["roi"] if crops else [], "float32")
    by_scale = call["scale"] != "fitting"
    size = (b.constant(call["scale"], "float32"),) if by_scale else ("", b.integers(call["size"]))
    return b(
        "Resize",
        "x",
        roi,
        *size,
        axes=list(range(2, 2 + rank)),
        mode=call["mode"],
        coordinate_transformation_mode=call["coordinates"],
        nearest_mode=call["rounding"],
        extrapolation_value=call["extrapolation"],
    )


def named(kind: str, *attributes: str) -> Rule:
    """The node of that kind, operands in order, attributes that are called the same."""

    def rule(b: Builder) -> str:
        return b(kind, *b.call.types, **{name: b.call[name] for name in attributes})

    return rule


def along(kind: str, *attributes: str) -> Rule:
    return named(kind, "axis", *attributes)


RULES: dict[str, Rule] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "matmul": named("MatMul"),
    "max_pool": lambda b: pool("MaxPool", b),
    "max_pool_with_positions": max_pool_with_positions,
    "avg_pool": lambda b: pool("AveragePool", b),
    "lp_pool": lambda b: pool("LpPool", b),
    "adaptive_avg_pool": lambda b: adaptive("ReduceMean", b),
    "adaptive_max_pool": lambda b: adaptive("ReduceMax", b),
    "max_unpool": max_unpool,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "lrn": lrn,
    "relu": named("Relu"),
    "relu6": lambda b: b("Clip", "x", b.constant(0.0), b.constant(6.0)),
    "leaky_relu": lambda b: b("LeakyRelu", "x", alpha=b.call["slope"]),
    "prelu": prelu,
    "elu": named("Elu", "alpha"),
    "selu": selu,
    "celu": named("Celu", "alpha"),
    "gelu": named("Gelu", "approximate"),
    "silu": lambda b: b("Mul", "x", b("Sigmoid", "x")),
    "mish": named("Mish"),
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "sigmoid": named("Sigmoid"),
    "tanh": named("Tanh"),
    "softplus": softplus,
    "softsign": named("Softsign"),
    "softmax": along("Softmax"),
    "log_softmax": along("LogSoftmax"),
    "add": named("Add"),
    "sub": named("Sub"),
    "mul": named("Mul"),
    "div": named("Div"),
    "pow": named("Pow"),
    "min": named("Min"),
    "max": named("Max"),
    "equal": named("Equal"),
    "not_equal": lambda b: b("Not", b("Equal", *b.call.types)),
    "less": named("Less"),
    "less_equal": named("LessOrEqual"),
    "greater": named("Greater"),
    "greater_equal": named("GreaterOrEqual"),
    "logical_and": named("And"),
    "logical_or": named("Or"),
    "logical_xor": named("Xor"),
    "logical_not": named("Not"),
    "isnan": named("IsNaN"),
    "sqrt": named("Sqrt"),
    "neg": named("Neg"),
    "abs": named("Abs"),
    "exp": named("Exp"),
    "log": named("Log"),
    "reciprocal": named("Reciprocal"),
    "erf": named("Erf"),
    "floor": named("Floor"),
    "ceil": named("Ceil"),
    "round": named("Round"),
    "sign": named("Sign"),
    "where": named("Where"),
    "clip": clip,
    "cast": cast,
    "identity": named("Identity"),
    "dropout": named("Dropout"),
    "reduce_sum": lambda b: reduction("ReduceSum", b),
    "reduce_mean": lambda b: reduction("ReduceMean", b),
    "reduce_max": lambda b: reduction("ReduceMax", b),
    "reduce_min": lambda b: reduction("ReduceMin", b),
    "reduce_prod": lambda b: reduction("ReduceProd", b),
    "reduce_l1": lambda b: reduction("ReduceL1", b),
    "reduce_l2": lambda b: reduction("ReduceL2", b),
    "reduce_sum_square": lambda b: reduction("ReduceSumSquare", b),
    "reduce_log_sum_exp": lambda b: reduction("ReduceLogSumExp", b),
    "argmax": lambda b: arg("ArgMax", b),
    "argmin": lambda b: arg("ArgMin", b),
    "top_k": top_k,
    "concat": along("Concat"),
    "split": split,
    "slice": slice_,
    "pad": pad,
    "expand": lambda b: b("Expand", "x", b.integers(b.call.outputs[0].shape)),
    "tile": lambda b: b("Tile", "x", b.integers(b.call["repeats"])),
    "flatten": as_output,
    "reshape": as_output,
    "squeeze": lambda b: b("Squeeze", "x", b.integers(b.call["axes"])),
    "unsqueeze": lambda b: b("Unsqueeze", "x", b.integers(b.call["axes"])),
    "transpose": lambda b: b("Transpose", "x", perm=b.call["axes"]),
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "resize": resize,
}

RUN_BY_ONNXRUNTIME = {
    "max_pool": "the reference counts other windows with ceil_mode",
    "avg_pool": "the reference counts other windows with ceil_mode",
    "lp_pool": "the reference counts other windows with ceil_mode and lacks the global one",
    "max_pool_with_positions": "the reference prefers the last of equal values",
    "max_unpool": "the reference misses its shape where windows leave a rest",
    "conv_transpose": "the reference fails on groups with output padding",
    "lrn": "the reference sums over other channels at the borders",
    "erf": "the reference computes in single precision",
    "gelu": "the reference computes erf in single precision",
}
"""Operators whose reference evaluation is wrong, and how."""
