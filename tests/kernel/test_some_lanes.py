"""Loads and stores of the first lanes of a vector."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import run_interpreter, run_machine_code

from convdsl.kernel.builder import Builder
from convdsl.kernel.independence import check_bounds
from convdsl.kernel.nodes import Cast, Const, Load, ValueType
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, stored


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64, DType.BOOL])
@pytest.mark.parametrize("count", [1, 3, 7, 8])
def test_some_lanes_of_a_vector(dtype: DType, count: int) -> None:
    """Nothing behind them is read or written, and the others are what is said."""
    b = Builder("some", dtype, 8)
    x = b.buffer("x", dtype, count)
    y, z = (b.buffer(name, dtype, size, written=True) for name, size in (("y", 8), ("z", count)))
    with b.parallel(("i",), (1,)):
        found = b.let(Load(x, 0, ValueType(dtype, 8), (), 1, count))
        b.store(y, 0, found)
        b.store(z, 0, found, count)
    kernel = b.kernel()
    verify_kernel(kernel)
    check_bounds(kernel)
    array = np.zeros(count, dtype.numpy)
    expected = np.concatenate([array, np.ones(8 - count, dtype.numpy)])
    for run in (run_interpreter, run_machine_code):
        made = run(kernel, {"x": array})
        np.testing.assert_array_equal(made["y"], expected)
        np.testing.assert_array_equal(made["z"], array)


@pytest.mark.parametrize("count", [0, 9])
def test_more_lanes_than_there_are(count: int) -> None:
    b = Builder("some", DType.F32, 8)
    x, y = b.buffer("x", DType.F32, 16), b.buffer("y", DType.F32, 8, written=True)
    with b.parallel(("i",), (1,)):
        b.store(y, 0, Load(x, 0, ValueType(DType.F32, 8), (), 0, count))
    with pytest.raises(KernelError, match="lanes"):
        verify_kernel(b.kernel())


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (DType.I64, DType.I32),
        (DType.I64, DType.I8),
        (DType.I64, DType.U8),
        (DType.I64, DType.U32),
        (DType.F32, DType.F16),
        (DType.F32, DType.BF16),
        (DType.F64, DType.F32),
        (DType.F32, DType.F64),
    ],
)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_casts_of_some_lanes_leave_the_others(wide: DType, narrow: DType, count: int) -> None:
    b = Builder("some", wide, 8)
    x = b.buffer("x", wide, 8)
    y = b.buffer("y", narrow, 8, written=True)
    with b.parallel(("i",), (1,)):
        found = b.let(Load(x, 0, ValueType(wide, 8)))
        b.store(y, 0, Const(1, ValueType(narrow, 8)))
        b.store(y, 0, Cast(found, ValueType(narrow, 8)), count)
    kernel = b.kernel()
    verify_kernel(kernel)
    array = np.arange(2, 10).astype(wide.numpy)
    expected = convert(array, wide, narrow)
    expected[count:] = stored(1, narrow)
    for run in (run_interpreter, run_machine_code):
        np.testing.assert_array_equal(run(kernel, {"x": array})["y"], expected)
