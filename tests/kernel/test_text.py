"""The loop IR as people read it."""

from __future__ import annotations

from collections.abc import Callable

from kernels import row_sums

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import (
    Binary,
    Cast,
    Compare,
    Const,
    Gather,
    Get,
    IndexAsValue,
    IndexTest,
    Load,
    ReduceLanes,
    Select,
    Splat,
    Unary,
    Value,
    ValueType,
)
from convdsl.kernel.text import format_kernel
from convdsl.tensor import DType


def test_a_small_kernel(golden: Callable[[str, str], None]) -> None:
    golden("loops/row_sums.txt", format_kernel(row_sums()) + "\n")


def test_every_kind_of_value(golden: Callable[[str, str], None]) -> None:
    b = Builder("values", DType.F32, 4)
    x = b.buffer("x", DType.F32, 64)
    y = b.buffer("y", DType.F32, 64, written=True)
    acc = b.registers(1)
    f32x4 = ValueType(DType.F32, 4)
    with b.parallel(("n",), (4,)) as (n,):
        a, one = b.load(x, n * 16), b.splat(x, n)
        guard = IndexTest("lt", n, 3)
        values: list[Value] = [
            Load(x, n + 1, f32x4, (guard, IndexTest("ge", n, 1)), -1.0),
            Gather(tuple(Load(x, n * 4 + i, ValueType(DType.F32)) for i in (3, 1, 0, 2)), f32x4),
            Binary("div", Binary("add", a, one), Binary("max", a, Const(2.0, f32x4))),
            Unary("sqrt", Unary("abs", a)),
            Select(Compare("le", a, one), a, Cast(IndexAsValue(n * 2, 3, a.type), f32x4)),
            Select(Cast(one, ValueType(DType.BOOL, 4)), one, a),
            Splat(ReduceLanes("sum", a), f32x4),
        ]
        for slot, value in enumerate(values):
            b.set(acc, 0, value)
            b.accumulate(acc, 0, a, one)
            with b.when(guard):
                b.store(y, n * 8 + slot, Get(acc, 0), valid=3 if slot else None)
    golden("loops/values.txt", format_kernel(b.kernel()) + "\n")
