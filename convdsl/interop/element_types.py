"""Element types by ONNX's numbers (`TensorProto.DataType` in onnx.proto)."""

from __future__ import annotations

from convdsl.tensor import LANGUAGE_DTYPES, DType

TO_ONNX: dict[DType, int] = {
    DType.F32: 1,
    DType.U8: 2,
    DType.I8: 3,
    DType.I32: 6,
    DType.I64: 7,
    DType.BOOL: 9,
    DType.F16: 10,
    DType.F64: 11,
    DType.U32: 12,
    DType.BF16: 16,
}
FROM_ONNX: dict[int, DType] = {TO_ONNX[dtype]: dtype for dtype in LANGUAGE_DTYPES}
"""The element types that files may name."""

INTEGERS = (4, 5, 12, 13)
"""ONNX's other integer types, u16, i16, u32 and u64: constants of them are held in 64 bits."""

HALVES = (DType.F16, DType.BF16)
"""Types that a graph is given and gives, and that it computes in single precision."""

NIBBLES = {21: DType.U8, 22: DType.I8}
"""Integers of four bits, by the type that holds them: constants of them are unpacked."""
