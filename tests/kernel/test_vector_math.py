"""Vector mathematics: errors in units in the last place, and special values, by both executions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from kernels import run_interpreter, run_machine_code

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.kernel.vector_math import Vectors
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]
LANES = 8
NAMES = ["exp", "expm1", "log", "tanh", "erf"]

each_function = pytest.mark.parametrize("name", NAMES)
each_dtype = pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)


def mapped(name: str, dtype: DType, size: int) -> Kernel:
    """y[i] = f(x[i]), a vector at a time."""
    b = Builder(name, dtype, LANES)
    x = b.buffer("x", dtype, size)
    y = b.buffer("y", dtype, size, written=True)
    with b.parallel(("i",), (size // LANES,)) as (i,):
        b.store(y, i * LANES, Vectors(b).apply(name, (b.load(x, i * LANES),)))
    return b.kernel()


@lru_cache(maxsize=16)
def sample(name: str, dtype: DType, count: int) -> Array:
    """Arguments over the whole range, and many where the function changes its ways."""
    random = np.random.default_rng(7)
    most = 88.0 if dtype is DType.F32 else 709.0
    exponents = 37 if dtype is DType.F32 else 300
    small = random.choice([-1, 1], count) * 10.0 ** random.uniform(-exponents, 1, count)
    parts = {
        "exp": [random.uniform(-most + 1, most, count), random.uniform(-2, 2, count), small],
        "expm1": [random.uniform(-most, most, count), random.uniform(-2, 2, count), small],
        "tanh": [random.uniform(-20, 20, count), random.uniform(-2, 2, count), small],
        "erf": [random.uniform(-6, 6, count), random.uniform(-1.1, 1.1, count), small],
        "log": [
            10.0 ** random.uniform(-exponents, exponents, count),
            random.uniform(0.5, 2, count),
            1 + random.standard_normal(count) * 1e-3,
        ],
    }
    return np.concatenate(parts[name]).astype(dtype.numpy)


def truth(name: str, x: Array) -> Array:
    """In 64 bits of mantissa or more."""
    assert np.finfo(np.longdouble).nmant >= 63
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        return exact_erf(wide) if name == "erf" else getattr(np, name)(wide)


def exact_erf(x: Array) -> Array:
    """2 / sqrt(pi) exp(-x**2) sum of x (2 x**2)**n / (1 3 5 .. (2n + 1)): no cancellation."""
    size = np.minimum(np.abs(x), 7)
    term = total = size
    for n in range(1, 300):
        term = term * (2 * size * size) / (2 * n + 1)
        total = total + term
    root_of_pi = np.sqrt(4 * np.arctan(np.longdouble(1)))
    return np.copysign(2 / root_of_pi * np.exp(-size * size) * total, x)


def worst_ulps(found: Array, x: Array, name: str) -> float:
    """Largest distance from the truth, in units in the last place of the rounded truth."""
    exact = truth(name, x)
    rounded = exact.astype(found.dtype)
    normal = np.abs(rounded) >= np.finfo(found.dtype).tiny
    error = np.abs(found.astype(np.longdouble) - exact) / np.spacing(np.abs(rounded))
    return float(error[normal].max())


@pytest.mark.parametrize("cpu", ["native", "x86-64-v2"])  # with fused multiply-adds and without
@each_dtype
@each_function
def test_error_of_machine_code(name: str, dtype: DType, cpu: str) -> None:
    x = sample(name, dtype, 1 << 16)
    found = run_machine_code(mapped(name, dtype, x.size), {"x": x}, find_target(cpu))["y"]
    worst = worst_ulps(found, x, name)
    assert worst <= FUNCTIONS[name].ulps
    assert worst > FUNCTIONS[name].ulps - 2, "the stated bound is slack"


@each_dtype
@each_function
def test_error_of_the_interpreter(name: str, dtype: DType) -> None:
    x = sample(name, dtype, 256)
    found = run_interpreter(mapped(name, dtype, x.size), {"x": x})["y"]
    assert worst_ulps(found, x, name) <= FUNCTIONS[name].ulps


def specials(dtype: DType) -> Array:
    info = np.finfo(dtype.numpy)
    edges = [88.72, 88.73, 89.0, 90.0, 709.78, 709.79, 710.0, 712.0, 1.0, 20.0, 1e6, 1e30]
    numbers = [0.0, np.inf, np.nan, info.max, info.tiny, *edges]
    both = [sign * n for n in numbers for sign in (1, -1)]
    return np.array(both, dtype.numpy)[: len(both) // LANES * LANES]


@pytest.mark.parametrize("execution", [run_machine_code, run_interpreter])
@each_dtype
@each_function
def test_special_values(name: str, dtype: DType, execution: Any) -> None:
    x = specials(dtype)
    assert {str(v) for v in x} >= {"0.0", "-0.0", "inf", "-inf", "nan"}
    found = flushed(execution(mapped(name, dtype, x.size), {"x": x})["y"])
    with np.errstate(all="ignore"):
        expected = flushed(truth(name, x).astype(dtype.numpy))
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype.numpy).eps))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


def flushed(x: Array) -> Array:
    """Denormals as zeros of their sign."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(0, x), x)


@each_dtype
@each_function
def test_denormal_arguments_count_as_zeros(name: str, dtype: DType) -> None:
    least = np.finfo(dtype.numpy).smallest_subnormal
    x = np.full(LANES, least * 100, dtype.numpy)
    found = run_machine_code(mapped(name, dtype, LANES), {"x": x})["y"]
    expected = {"exp": 1.0, "log": -np.inf}.get(name, 0.0)
    np.testing.assert_allclose(found, expected, atol=np.finfo(dtype.numpy).tiny)
