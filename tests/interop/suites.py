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

from convdsl.diagnostics import Error
from convdsl.interop.onnx_import import convert
from convdsl.ir.model import Model

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "convolution": ("Conv",),
    "transposed convolution": ("ConvTranspose",),
    "pooling and unpooling": (
        "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
        "MaxUnpool",
    ),
    "normalisation": (
        "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization",
        "LRN",
    ),
    "matrix products": ("Gemm", "MatMul"),
    "softmax": ("Softmax", "LogSoftmax"),
    "activations and clip": (
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "HardSigmoid",
        "Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Swish", "Clip",
    ),
    "concat and split": ("Concat", "Split"),
    "resize and upsample": ("Resize", "Upsample"),
    "pad": ("Pad",),
    "reductions": (
        "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin", "TopK",
    ),
    "elementwise": (
        "Abs", "Add", "And", "Ceil", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Greater",
        "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
        "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Sign", "Sin", "Sqrt", "Sub",
        "Sum", "Where", "Xor",
    ),
    "shape operators": (
        "Cast", "CastLike", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten",
        "Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Squeeze",
        "Tile", "Transpose", "Unsqueeze",
    ),
    "dropout": ("Dropout",),
}  # fmt: skip

TYPES = {TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL}


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
        if any(p.type.tensor_type.elem_type not in TYPES for p in ports):
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


def imported(proto: onnx.ModelProto, inputs: Sequence[Any]) -> tuple[Model, dict[str, np.ndarray]]:
    """The model and its inputs by name; inputs that shapes depend on are fixed to their values."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    names = [info.name for info in proto.graph.input if info.name not in stored]
    arrays = {name: np.asarray(a) for name, a in zip(names, inputs, strict=False)}
    values: dict[str, np.ndarray] = {}
    while True:
        try:
            model = convert(proto, "test", {}, values)
            break
        except Error as error:
            needed = re.search(r"input \d+ \(([^)]*)\) has to be a constant", str(error))
            if needed is None or needed[1] in values or needed[1] not in arrays:
                raise
            values[needed[1]] = arrays[needed[1]]
    left = [name for name in names if name not in values]
    return model, {port: arrays[name] for port, name in zip(model.inputs, left, strict=False)}


def check(case: Case, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for found, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(
            found, np.asarray(wanted), rtol=case.rtol, atol=case.atol, equal_nan=True
        )
        assert found.shape == np.asarray(wanted).shape
        assert found.dtype == np.asarray(wanted).dtype
