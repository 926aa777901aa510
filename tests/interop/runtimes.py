"""Networks run by onnxruntime, and by convdsl, on the same arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

import convdsl
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model

Arrays = Mapping[str, np.ndarray]


def run_onnxruntime(proto: onnx.ModelProto | bytes, arrays: Arrays) -> dict[str, np.ndarray]:
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(arrays)), strict=True))


def run_convdsl(model: Model, arrays: Arrays, weights: Any = None, **more: Any) -> dict[str, Any]:
    """Outputs by name, also where there is one."""
    executable = convdsl.compile(model, weights, threads=1, **more)
    result = executable(**arrays)
    return result if isinstance(result, dict) else {next(iter(model.outputs)): result}


def as_model(graph: Graph, name: str = "net") -> Model:
    return Model(name, graph)


def draw_inputs(model: Model, seed: int = 0, **symbols: int) -> dict[str, np.ndarray]:
    """Normal numbers for every input; symbols that nothing is said of are 2."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(
            [d if isinstance(d, int) else symbols.get(str(d), 2) for d in type.shape]
        ).astype(type.dtype.numpy)
        for name, type in model.inputs.items()
    }


def assert_close(found: Arrays, expected: Arrays, relative: float = 1e-4) -> None:
    """Largest error within `relative` of the largest magnitude of each output."""
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        got = found[name]
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        scale = max(float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=relative * scale)
