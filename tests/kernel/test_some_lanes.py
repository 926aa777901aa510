"""Loads and stores of the first lanes of a vector."""

from __future__ import annotations

import platform
import re
from functools import partial

import numpy as np
import pytest
from kernels import print_kernel, run_interpreter, run_machine_code

from convdsl.backends.llvm.objects import emit_assembly, find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.independence import check_bounds
from convdsl.kernel.nodes import Cast, Const, Kernel, Load, ValueType
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, stored


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64, DType.BOOL])
@pytest.mark.parametrize("count", range(1, 9))
def test_some_lanes_of_a_vector(dtype: DType, count: int) -> None:
    """Nothing behind them is read or written, and the others are what is said."""
    kernel = first_lanes(dtype, count)
    verify_kernel(kernel)
    check_bounds(kernel)
    array = np.zeros(count, dtype.numpy)
    expected = np.concatenate([array, np.ones(8 - count, dtype.numpy)])
    without_masks = partial(run_machine_code, target=find_target("x86-64-v2"))
    ways = [run_interpreter, run_machine_code]
    for run in [*ways, without_masks] if platform.machine() == "x86_64" else ways:
        made = run(kernel, {"x": array})
        np.testing.assert_array_equal(made["y"], expected)
        np.testing.assert_array_equal(made["z"], array)


def first_lanes(dtype: DType, count: int) -> Kernel:
    """Loads the first lanes of a vector and ones, and stores all of them, and the first."""
    b = Builder("some", dtype, 8)
    x = b.buffer("x", dtype, count)
    y, z = (b.buffer(name, dtype, size, written=True) for name, size in (("y", 8), ("z", count)))
    with b.parallel(("i",), (1,)):
        found = b.let(Load(x, 0, ValueType(dtype, 8), (), 1, count))
        b.store(y, 0, found)
        b.store(z, 0, found, count)
    return b.kernel()


@pytest.mark.parametrize(("cpu", "masked"), [("x86-64-v3", False), ("x86-64-v4", True)])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64's code")
def test_masks_are_for_processors_that_have_them(cpu: str, masked: bool) -> None:
    """AVX2's masked stores take longer than a store for each power of two."""
    target = find_target(cpu)
    code = emit_assembly(print_kernel(first_lanes(DType.F32, 5), target), target)
    stores = re.findall(r"vmaskmovps\t%[xy]mm\d+, %[xy]mm\d+, |vmovups\t%[xyz]mm\d+, .*{%k", code)
    assert bool(stores) == masked


@pytest.mark.parametrize("count", [0, 9])
def test_more_lanes_than_there_are(count: int) -> None:
    b = Builder("some", DType.F32, 8)
    x, y = b.buffer("x", DType.F32, 16), b.buffer("y", DType.F32, 8, written=True)
    with b.parallel(("i",), (1,)):
        b.store(y, 0, Load(x, 0, ValueType(DType.F32, 8), (), 0, count))
    with pytest.raises(KernelError, match="lanes"):
        verify_kernel(b.kernel())


@pytest.mark.drawn(share=3)
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
