"""Element types by ONNX's numbers."""

from __future__ import annotations

from onnx import TensorProto

from convdsl.tensor import DType

TO_ONNX: dict[DType, int] = {
    DType.F32: int(TensorProto.FLOAT),
    DType.F64: int(TensorProto.DOUBLE),
    DType.I64: int(TensorProto.INT64),
    DType.BOOL: int(TensorProto.BOOL),
}
FROM_ONNX: dict[int, DType] = {number: dtype for dtype, number in TO_ONNX.items()}
