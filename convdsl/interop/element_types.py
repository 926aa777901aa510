"""Element types by ONNX's numbers (`TensorProto.DataType` in onnx.proto)."""

from __future__ import annotations

from convdsl.tensor import DType

TO_ONNX: dict[DType, int] = {DType.F32: 1, DType.F64: 11, DType.I64: 7, DType.BOOL: 9}
FROM_ONNX: dict[int, DType] = {number: dtype for dtype, number in TO_ONNX.items()}

INTEGERS = (2, 3, 4, 5, 6, 12, 13)
"""ONNX's other integer types, held in 64 bits."""
