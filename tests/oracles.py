"""What ONNX says an operator computes: each operator spelled as ONNX nodes, then evaluated.

The reference evaluator is the judge; onnxruntime is where the reference is wrong. The
spellings are those of `convdsl export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx_rules import RUN_BY_ONNXRUNTIME, spelled

from convdsl.ir.opdef import Call
from convdsl.tensor import DType, TensorType

Array: TypeAlias = "np.ndarray[Any, Any]"


def onnx_says(call: Call, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The operator's outputs by name, according to ONNX; f32 where onnxruntime has no f64."""
    by_runtime = call.op.name in RUN_BY_ONNXRUNTIME
    if by_runtime:
        call, arrays = in_single(call), {k: _single(a) for k, a in arrays.items()}
    model = spelled(call)
    if by_runtime:
        found = _run_onnxruntime(model, arrays)
    else:
        with np.errstate(all="ignore"):
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
