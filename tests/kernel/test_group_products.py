"""Products of warp groups: what they compute, and faults that must be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grids import ORDERS
from group_units import FAULTS, group_matmul, group_matmul_across

from convdsl.kernel.group_mma import ACROSS, GroupForm
from convdsl.kernel.interpret import interpret
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, nearest_tf32

Array = np.ndarray[Any, Any]
TF32, BF16, F16 = (GroupForm(dtype, 64) for dtype in (DType.F32, DType.BF16, DType.F16))
SIZES = (70, 50, 90)


def matrices(form: GroupForm, m: int, n: int, k: int) -> tuple[Array, Array]:
    """As a form takes them, filled up with NaN; and what they say in double precision."""
    random = np.random.default_rng(m * 100 + n * 10 + k)
    each = 16 // form.dtype.bytes
    made: list[Array] = []
    for rows in (m, n):
        x = random.standard_normal((rows, k)).astype("f4")
        x = nearest_tf32(x) if form.dtype is DType.F32 else convert(x, DType.F32, form.dtype)
        made.append(x)
    filler = (
        np.nan
        if form.dtype is DType.F32
        else convert(np.float32([np.nan]), DType.F32, form.dtype)[0]
    )
    return tuple(np.pad(x, ((0, 0), (0, -k % each)), constant_values=filler) for x in made)


def run(
    kernel: Kernel, form: GroupForm, sizes: tuple[int, int, int], order: str
) -> tuple[Array, Array]:
    """What it writes, and what it should."""
    verify_kernel(kernel)
    m, n, k = sizes
    x, y = matrices(form, m, n, k)
    c = np.full(m * n, np.nan, "f4")
    interpret(kernel, {"a": x.reshape(-1), "b": y.reshape(-1), "c": c}, ORDERS[order])
    a, b = (
        z[:, :k].astype("f8")
        if form.dtype is DType.F32
        else convert(z[:, :k], form.dtype, DType.F64)
        for z in (x, y)
    )
    return c.reshape(m, n), a @ b.T


@pytest.mark.dear
@pytest.mark.parametrize("form", [TF32, BF16, F16], ids=str)
def test_a_product_of_matrices(form: GroupForm) -> None:
    order = list(ORDERS)[form.k % len(ORDERS)]
    found, exact = run(group_matmul(form, *SIZES), form, SIZES, order)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.dear
@pytest.mark.parametrize(("dtype", "columns"), [(DType.BF16, 64), (DType.F16, 128)], ids=str)
def test_a_product_of_what_lies_across(dtype: DType, columns: int) -> None:
    """Neighbours of a row lie side by side; the second block of columns behind all depths."""
    (m, n, k), form = (41, columns - 11, 75), GroupForm(dtype, columns, ACROSS)
    kernel = group_matmul_across(form, m, n, k)
    verify_kernel(kernel)
    x, y = (z[:, :k].T for z in matrices(form, m, n, k))
    padded = [np.pad(z, ((0, 0), (0, -z.shape[1] % 8))).reshape(-1) for z in (x, y)]
    c = np.full(m * n, np.nan, "f4")
    interpret(kernel, {"a": padded[0], "b": padded[1], "c": c}, ORDERS["shuffled"])
    a, b = (convert(z, dtype, DType.F64) for z in (x, y))
    np.testing.assert_allclose(c.reshape(m, n), a.T @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str) -> None:
    with pytest.raises(KernelError, match=FAULTS[fault]):
        run(group_matmul(TF32, *SIZES, fault), TF32, SIZES, "shuffled")
