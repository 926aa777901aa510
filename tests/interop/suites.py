"""The ONNX project's own tests: single operators by family, converted networks, light models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.loader import load_model_tests

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import assert_close, run_convdsl, run_onnxruntime

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "convolution": ("Conv", "DeformConv"),
    "transposed convolution": ("ConvTranspose",),
    "pooling and unpooling": (
        "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
        "MaxUnpool",
    ),
    "normalisation": (
        "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization",
        "LRN", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization",
    ),
    "attention": ("Attention", "RotaryEmbedding"),
    "matrix products": ("Gemm", "MatMul", "Einsum"),
    "softmax": ("Softmax", "LogSoftmax"),
    "activations and clip": (
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "HardSigmoid",
        "Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Swish", "Clip",
        "Shrink",
    ),
    "concat and split": ("Concat", "Split"),
    "recurrent layers": ("LSTM", "GRU", "RNN"),
    "resize and upsample": ("Resize", "Upsample"),
    "sampling and patches": ("GridSample", "AffineGrid", "Col2Im"),
    "regions": ("RoiAlign",),
    "signals": ("DFT", "STFT", "HannWindow", "HammingWindow", "BlackmanWindow"),
    "pad": ("Pad", "CenterCropPad"),
    "reductions": (
        "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin", "TopK",
        "Hardmax", "OneHot",
    ),
    "elementwise": (
        "Abs", "Add", "And", "Ceil", "Div", "Equal", "Erf", "Exp", "Floor", "Greater",
        "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
        "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Sign", "Sqrt", "Sub",
        "Sum", "Where", "Xor", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh",
        "Asinh", "Acosh", "Atanh",
    ),
    "positions": (
        "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "Trilu", "CumSum",
        "ReverseSequence",
        "EyeLike",
    ),
    "shape operators": (
        "Cast", "CastLike", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten",
        "Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Squeeze",
        "Tile", "Transpose", "Unsqueeze",
    ),
    "dropout": ("Dropout",),
    "small integers": (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger",
        "MatMulInteger", "QLinearConv", "QLinearMatMul",
    ),
}  # fmt: skip

TYPES = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
}
SMALL = {TensorProto.UINT8, TensorProto.INT8}
"""Element types that the tests of small integers have besides."""


@dataclass(frozen=True)
class Case:
    """A model, and what it puts out for given inputs, at the suite's own tolerance."""

    name: str
    kind: str
    proto: onnx.ModelProto
    data: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
    rtol: float
    atol: float


@cache
def node_tests() -> tuple[Case, ...]:
    """Single operators of the families, of element types that convdsl has."""
    found: list[Case] = []
    kinds = {kind for family in FAMILIES.values() for kind in family}
    for case in node_cases.collect_testcases(None):
        proto = case.model
        nodes = proto.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in kinds or nodes[0].domain:
            continue
        ports = [*proto.graph.input, *proto.graph.output]
        if any(p.type.WhichOneof("value") != "tensor_type" for p in ports):
            continue
        small = SMALL if nodes[0].op_type in FAMILIES["small integers"] else set()
        if any(p.type.tensor_type.elem_type not in TYPES | small for p in ports):
            continue
        found.append(Case(case.name, nodes[0].op_type, proto, case.data_sets, case.rtol, case.atol))
    return tuple(found)


def stored_tests(kind: str) -> Iterator[Case]:
    """`pytorch-converted`, `pytorch-operator`, `light`: models and arrays in files."""
    for case in load_model_tests(kind=kind):
        folder = Path(case.model_dir)
        proto = onnx.load(folder / "model.onnx")
        data = [
            (_arrays(folder / part, "input"), _arrays(folder / part, "output"))
            for part in sorted(p.name for p in folder.glob("test_data_set_*"))
        ]
        yield Case(case.name, kind, proto, data, case.rtol, case.atol)


def _arrays(folder: Path, prefix: str) -> list[np.ndarray]:
    count = len(list(folder.glob(f"{prefix}_*.pb")))
    return [
        numpy_helper.to_array(onnx.load_tensor(str(folder / f"{prefix}_{i}.pb")))
        for i in range(count)
    ]


def check(case: Case, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for found, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(
            found, np.asarray(wanted), rtol=case.rtol, atol=case.atol, equal_nan=True
        )
        assert found.shape == np.asarray(wanted).shape
        assert found.dtype == np.asarray(wanted).dtype


EXCLUSIONS: Mapping[str, str] = {
    r"test_reduce_\w*empty_set\w*|test_reshape_allowzero_reordered"
    r"|test_split_zero_size_splits\w*|test_tri[lu]_zero"
    r"|test_castlike_(FLOAT_to_DOUBLE|DOUBLE_to_FLOAT)(_expanded)?": "tensors without "
    "elements: an extent is at least 1",
    r"test_training_dropout(_default)?(_mask)?": "training mode is for training",
    r"test_dft_inverse(_opset19)?": "rounding errors of float32 are expected where the result is 0",
}
"""Tests that are known to fail, by name, and why. The list only shrinks."""


def exclusion(name: str) -> str | None:
    for pattern, reason in EXCLUSIONS.items():
        if re.fullmatch(pattern, name):
            return reason
    return None


def _array(given: Any) -> np.ndarray:
    """An array; casts have theirs as tensors of a file."""
    is_tensor = isinstance(given, TensorProto)
    return numpy_helper.to_array(given) if is_tensor else np.asarray(given)


def run_by(case: Case, passes: Any) -> None:
    """Import, compile, run and compare; raises whatever goes wrong."""
    model = model_of(case.proto, "test", {})
    network = convdsl.compile(model, threads=1, passes=passes)
    names = [output.name for output in case.proto.graph.output]
    for inputs, expected in case.data:
        result = network(*map(_array, inputs))
        found = result if isinstance(result, dict) else {names[0]: result}
        check(case, [found[name] for name in names], [*map(_array, expected)])


def light_models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """The package's `light` networks, their constant fills replaced by seeded random weights."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(folder.glob("*.onnx")):
        yield path.stem, _with_weights(onnx.load(path))


def _with_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """He-scaled weights, small biases, statistics around 0 and 1."""
    random = np.random.default_rng(len(proto.graph.node))
    sizes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    kept = []
    variances = {node.input[4] for node in proto.graph.node if node.op_type == "BatchNormalization"}
    scales = {node.input[1] for node in proto.graph.node if node.op_type == "BatchNormalization"}
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape, name = tuple(int(n) for n in sizes[node.input[0]]), node.output[0]
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        array = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan))
        if name in variances or name in scales:
            array = 1 + np.abs(array)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    stored = {t.name for t in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name in used and i.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    weights = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
    return proto


def check_light(proto: onnx.ModelProto, passes: Any) -> float:
    """The largest error against onnxruntime, as a part of the output's range."""
    last = proto.graph.node[-1]
    if last.op_type == "Softmax":  # which may hide all but one of the numbers it is given
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None)
        )
    model = model_of(proto, "light", {})
    random = np.random.default_rng(0)
    arrays = {
        name: random.standard_normal(
            [d if isinstance(d, int) else 1 for d in type.shape], np.float32
        )
        for name, type in model.inputs.items()
    }
    given = {i.name: a for i, a in zip(proto.graph.input, arrays.values(), strict=True)}
    expected = run_onnxruntime(proto, given)
    found = run_convdsl(model, arrays, passes=passes)
    assert_close(found, expected)
    return max(float(np.abs(found[n] - expected[n]).max() / np.ptp(expected[n])) for n in expected)
