"""Sums in another type than that of their terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expressions import run_everywhere, run_machine_code

from convdsl.kernel.expr import (
    Axis,
    Cast,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    flops,
    products,
)
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]
F16, F32, F64, I8, I32, I64 = (
    DType.F16,
    DType.F32,
    DType.F64,
    DType.I8,
    DType.I32,
    DType.I64,
)


def matmul(
    dtype: DType, accumulate: DType | None, rows: int, inner: int, columns: int
) -> TensorExpr:
    """y[n, k] = sum over c of a[n, c] * b[k, c], in the type of the sum."""
    n, k, c = Axis("n", rows), Axis("k", columns), Axis("c", inner)
    a = TensorVar("a", TensorType(dtype, (rows, inner)))
    b = TensorVar("b", TensorType(dtype, (columns, inner)))
    total = Reduce("sum", (c,), a[n.i, c.i] * b[k.i, c.i], accumulate)
    y = TensorVar("y", TensorType(accumulate or dtype, (rows, columns)))
    return TensorExpr((a, b), (Stage(y, (n, k), total),), ("y",))


each_role = pytest.mark.parametrize("weights", [(), ("b",)], ids=["data", "weight"])
"""A sum over weights is what the schedules of products look for."""


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@each_role
@pytest.mark.parametrize("columns", [1, 5, 16, 33])
@pytest.mark.parametrize(
    ("dtype", "accumulate"), [(I8, I32), (I8, I64), (DType.U8, I32), (I32, I64)], ids=str
)
def test_integers(dtype: DType, accumulate: DType, columns: int, weights: tuple[str, ...]) -> None:
    random = np.random.default_rng(columns)
    shapes = {"a": (3, 70), "b": (columns, 70)}
    arrays = {
        name: random.integers(dtype.lowest, dtype.highest, shape, dtype.numpy, endpoint=True)
        for name, shape in shapes.items()
    }
    if dtype is I32:
        arrays = {name: array // 256 for name, array in arrays.items()}
    exact = arrays["a"].astype(object) @ arrays["b"].T.astype(object)
    assert abs(exact).max() > 127
    expr = matmul(dtype, accumulate, 3, 70, columns)
    found = run_everywhere(expr, arrays, weights=weights)
    for name, outputs in found.items():
        assert outputs["y"].dtype == accumulate.numpy
        np.testing.assert_array_equal(outputs["y"], exact.astype(accumulate.numpy), name)


@pytest.mark.drawn(share=3)
@each_role
@pytest.mark.parametrize("columns", [1, 17])
def test_an_i32_sum_wraps_as_i32(columns: int, weights: tuple[str, ...]) -> None:
    arrays = {"a": np.full((2, 200), -(2**31), "i4"), "b": np.full((columns, 200), 3, "i4")}
    arrays["a"][1] = 2**30 + 7
    with np.errstate(all="ignore"):
        expected = (arrays["a"][:, None] * arrays["b"][None]).sum(2, dtype=np.int32)
    for name, outputs in run_everywhere(
        matmul(I32, I32, 2, 200, columns), arrays, weights=weights
    ).items():
        np.testing.assert_array_equal(outputs["y"], expected, name)


@pytest.mark.drawn(share=4)
@each_role
@pytest.mark.parametrize("columns", [1, 17])
def test_f32_in_f64(columns: int, weights: tuple[str, ...]) -> None:
    """1 and many terms that are less than half of its last place: an f32 sum would stay at 1."""
    random = np.random.default_rng(3)
    size = 1000
    arrays = {"a": np.ones((2, size), "f4"), "b": np.full((columns, size), 2.0**-26, "f4")}
    arrays["b"][:, 0] = 1
    arrays["a"][1] = random.standard_normal(size)
    terms = (arrays["a"][:, None] * arrays["b"][None]).astype(np.float64)
    expr = matmul(F32, F64, 2, size, columns)
    for name, outputs in run_everywhere(expr, arrays, weights=weights).items():
        np.testing.assert_allclose(outputs["y"], terms.sum(2), rtol=1e-14, err_msg=name)
        assert (outputs["y"][0] > 1).all()


@pytest.mark.dear
def test_back_to_the_type_of_the_terms() -> None:
    """The mean of a large offset, rounded once."""
    c = Axis("c", 3001)
    n = Axis("n", 19)
    x = TensorVar("x", TensorType(F32, (19, 3001)))
    mean = Cast(Reduce("sum", (c,), x[n.i, c.i], F64) / 3001, F32)
    y = TensorVar("y", TensorType(F32, (19,)))
    expr = TensorExpr((x,), (Stage(y, (n,), mean),), ("y",))
    values = (1e6 + np.random.default_rng(4).standard_normal((19, 3001))).astype("f4")
    expected = (values.astype(np.float64).sum(1) / 3001).astype("f4")
    for name, outputs in run_everywhere(expr, {"x": values}).items():
        np.testing.assert_array_equal(outputs["y"], expected, name)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("shape", [(70_001,), (3, 40_001), (2, 3001, 17)], ids=str)
def test_long_sums_that_are_split(shape: tuple[int, ...]) -> None:
    """Of f32 in f64, over all axes but those of two at either end."""
    axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(shape))
    kept = axes[-1:] if len(shape) == 3 else axes[:-1]
    over = tuple(axis for axis in axes if axis not in kept)
    x = TensorVar("x", TensorType(F32, shape))
    read = x[tuple(axis.i for axis in axes)]
    y = TensorVar("y", TensorType(F64, tuple(axis.extent for axis in kept)))
    for body in (read, read * read):
        expr = TensorExpr((x,), (Stage(y, kept, Reduce("sum", over, body, F64)),), ("y",))
        values = (1e4 + np.random.default_rng(5).standard_normal(shape)).astype("f4")
        terms = (values if body is read else values * values).astype(np.float64)
        expected = terms.sum(tuple(axes.index(axis) for axis in over))
        for name, outputs in run_machine_code(expr, {"x": values}, ("native",)).items():
            np.testing.assert_allclose(outputs["y"], expected, rtol=1e-13, err_msg=name)


@pytest.mark.dear
def test_halves_accumulate_in_f32_by_themselves() -> None:
    arrays = {"a": np.ones((2, 5000), np.float16), "b": np.ones((3, 5000), np.float16)}
    for name, outputs in run_everywhere(matmul(F16, None, 2, 5000, 3), arrays).items():
        np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 5000, np.float16), name)
    for name, outputs in run_everywhere(
        matmul(F16, F32, 2, 5001, 3),
        {key: np.ones((len(value), 5001), np.float16) for key, value in arrays.items()},
    ).items():
        np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 5001, "f4"), name)


def test_it_costs_what_the_sum_costs_and_is_written() -> None:
    plain, wide = matmul(F32, None, 3, 4, 5), matmul(F32, F64, 3, 4, 5)
    assert flops(plain) == flops(wide) == 15 * 7
    assert products(plain) == products(wide) == 60
    assert "sum[c < 4 in f64]((a[n, c] * b[k, c]))" in str(wide)
