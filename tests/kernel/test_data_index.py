"""Indices of the loop IR that are data: within their range, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import run_interpreter

from convdsl.kernel.builder import Builder
from convdsl.kernel.independence import check_bounds, check_independent
from convdsl.kernel.nodes import Const, IndexTest, Kernel, Load, ValueType
from convdsl.kernel.text import format_kernel
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType

F32, I64 = DType.F32, DType.I64


def stores_at_data(low: int, high: int) -> Kernel:
    """Iteration i stores at what ids[i] says, where that lies in low(i) .. high(i)."""
    b = Builder("data", F32, 1)
    ids = b.buffer("ids", I64, 4)
    y = b.buffer("y", F32, 13, written=True)
    with b.parallel(("i",), (4,)) as (i,):
        at = b.index(Load(ids, i, ValueType(I64)), 12, beyond=True)
        with b.when(IndexTest("ge", at, 3 * i + low)), b.when(IndexTest("lt", at, 3 * i + high)):
            b.store(y, at, Const(1.0, ValueType(F32)))
    return b.kernel()


def test_data_may_be_anything_in_its_range() -> None:
    check_independent(stores_at_data(0, 3))
    check_bounds(stores_at_data(0, 3))
    with pytest.raises(KernelError, match="has written"):
        check_independent(stores_at_data(0, 4))
    with pytest.raises(KernelError, match="out of bounds"):
        check_bounds(stores_at_data(-1, 3))


def test_an_index_is_brought_into_its_range() -> None:
    kernel = stores_at_data(0, 3)
    verify_kernel(kernel)
    assert "at = ids[i] within -1 .. 12" in format_kernel(kernel)
    ids = np.array([np.iinfo(np.int64).min, 4, np.iinfo(np.int64).max, 11])
    expected = np.zeros(13, "f4")
    expected[[4, 11]] = 1
    np.testing.assert_array_equal(run_interpreter(kernel, {"ids": ids})["y"], expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Const(0.0, ValueType(F32)), "an index of type f32"),
        (Const(0, ValueType(I64, 4)), "an index of type i64x4"),
    ],
)
def test_malformed_indices(value: Const, message: str) -> None:
    b = Builder("bad", F32, 1)
    y = b.buffer("y", F32, 4, written=True)
    with b.parallel(("i",), (4,)) as (i,):
        at = b.index(value, 4)
        b.store(y, i + at - at, Const(0.0, ValueType(F32)))
    with pytest.raises(KernelError, match=message):
        verify_kernel(b.kernel())


def test_an_index_is_known_where_it_was_let_and_nowhere_else() -> None:
    b = Builder("bad", F32, 1)
    y = b.buffer("y", F32, 4, written=True)
    with b.parallel(("i",), (4,)) as (i,):
        with b.when(IndexTest("lt", i, 2)):
            at = b.index(Const(0, ValueType(I64)), 4)
        b.store(y, at, Const(0.0, ValueType(F32)))
    with pytest.raises(KernelError, match="which is not in scope"):
        verify_kernel(b.kernel())
