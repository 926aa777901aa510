"""What ONNX says an operator computes: each operator spelled as ONNX nodes, then evaluated.

The reference evaluator is the judge. Where it is known to be wrong onnxruntime judges, and
the entry says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convdsl.ir.opdef import Call
from convdsl.ir.windows import explicit_window
from convdsl.tensor import DType, TensorType

Array: TypeAlias = "np.ndarray[Any, Any]"

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


def onnx_says(call: Call, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The operator's outputs by name, according to ONNX; f32 where onnxruntime has no f64."""
    by_runtime = call.op.name in RUN_BY_ONNXRUNTIME
    if by_runtime:
        call, arrays = in_single(call), {k: _single(a) for k, a in arrays.items()}
    builder = Builder(call)
    names = RULES[call.op.name](builder)
    outputs = [names] if isinstance(names, str) else list(names)
    model = builder.model(outputs)
    if by_runtime:
        found = _run_onnxruntime(model, arrays)
    else:
        found = ReferenceEvaluator(model).run(None, dict(arrays))
    return dict(zip(call.output_names, map(np.asarray, found), strict=True))


def in_single(call: Call) -> Call:
    """The call with f32 for f64."""
    types = {
        name: TensorType(DType.F32, t.shape) if t.dtype is DType.F64 else t
        for name, t in call.types.items()
    }
    return call.op.call(types, call.attributes)


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _run_onnxruntime(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(arrays)))


# Rules, one per operator


def pads(window: Any) -> list[int]:
    return [p[0] for p in window.padding] + [p[1] for p in window.padding]


def padded(b: Builder, mode: str, padding: Sequence[tuple[int, int]]) -> str:
    """x padded in its spatial axes by ONNX's Pad."""
    name = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    both = [0, 0, *(p[0] for p in padding)], [0, 0, *(p[1] for p in padding)]
    return b("Pad", "x", b.integers([*both[0], *both[1]]), mode=name)


def conv(b: Builder) -> str:
    call, window = b.call, explicit_window(b.call)
    x, weight, around = "x", "weight", pads(window)
    if call["pad_mode"] != "zeros":
        x, around = padded(b, call["pad_mode"], window.padding), [0] * len(around)
    if call["flip"]:
        rank = window.rank
        ends = [b.integers([value] * rank) for value in (-1, -(2**31))]
        weight = b("Slice", weight, *ends, b.integers(range(2, 2 + rank)), b.integers([-1] * rank))
    return b(
        "Conv",
        x,
        weight,
        *(["bias"] if call.has("bias") else []),
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        group=call["groups"],
        pads=around,
    )


def linear(b: Builder) -> str:
    product = b("MatMul", "x", b("Transpose", "weight", perm=[1, 0]))
    return b("Add", product, "bias") if b.call.has("bias") else product


def pool(kind: str, b: Builder) -> str:
    call = b.call
    if call["kernel"] == "global":
        return b(f"Global{kind}", "x")
    window = explicit_window(call)
    attributes: dict[str, Any] = {"kernel_shape": window.kernel, "strides": window.stride}
    if "count_include_pad" in call.attributes:
        attributes["count_include_pad"] = int(call["count_include_pad"])
    if "dilation" in call.attributes:
        attributes["dilations"] = window.dilation
    return b(kind, "x", pads=pads(window), ceil_mode=int(call["ceil_mode"]), **attributes)


def batch_norm(b: Builder) -> str:
    channels = b.call.type("x").shape[1]
    assert isinstance(channels, int)
    weight = "weight" if b.call.has("weight") else b.constant([1.0] * channels)
    bias = "bias" if b.call.has("bias") else b.constant([0.0] * channels)
    state = (weight, bias, "running_mean", "running_var")
    return b("BatchNormalization", "x", *state, epsilon=b.call["eps"])


def same_named(kind: str, b: Builder) -> str:
    """Operands in order, no attributes."""
    return b(kind, *b.call.types)


def flatten(b: Builder) -> str:
    return b("Reshape", "x", b.integers(b.call.outputs[0].shape))


def _named(kind: str) -> Rule:
    return lambda b: same_named(kind, b)


RULES: dict[str, Rule] = {
    "conv": conv,
    "linear": linear,
    "max_pool": lambda b: pool("MaxPool", b),
    "avg_pool": lambda b: pool("AveragePool", b),
    "batch_norm": batch_norm,
    "relu": _named("Relu"),
    "relu6": lambda b: b("Clip", "x", b.constant(0.0), b.constant(6.0)),
    "softmax": lambda b: b("Softmax", "x", axis=b.call["axis"]),
    "log_softmax": lambda b: b("LogSoftmax", "x", axis=b.call["axis"]),
    "add": _named("Add"),
    "sub": _named("Sub"),
    "mul": _named("Mul"),
    "div": _named("Div"),
    "sqrt": _named("Sqrt"),
    "identity": _named("Identity"),
    "dropout": _named("Dropout"),
    "concat": lambda b: b("Concat", *b.call.types, axis=b.call["axis"]),
    "flatten": flatten,
    "reshape": flatten,
}

RUN_BY_ONNXRUNTIME = frozenset({"max_pool", "avg_pool"})
"""Operators whose reference evaluation is wrong: pooling with ceil_mode counts other windows."""
