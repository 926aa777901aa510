"""Denormals, NaN and infinity in machine code."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, evaluate_graph, random_arrays, rewritten

from convdsl.ir.graph import Graph, Value
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]
TINY = np.finfo(np.float32).tiny
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64's rounding modes")


def doubled(dtype: DType = DType.F32) -> Graph:
    b = Builder()
    x = b.input("x", 64, dtype=dtype)
    return b.output(y=b("add", x, x))


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
def test_denormals_are_flushed_inside(dtype: DType) -> None:
    """As arguments and as results, on every thread of the team."""
    b = Builder()
    x = b.input("x", 64, dtype=dtype)
    half = b.constant("half", 0.5, dtype)
    graph = b.output(halved=b("mul", x, half), doubled=b("add", x, x))
    tiny = np.finfo(dtype.numpy).tiny
    found = run_graph(graph, {"x": np.full(64, tiny, dtype.numpy)}, machine_code)
    assert not found["halved"].any()
    np.testing.assert_array_equal(found["doubled"], 2 * tiny)
    found = run_graph(graph, {"x": np.full(64, tiny * 0.75, dtype.numpy)}, machine_code)
    assert not found["doubled"].any()


def test_the_callers_mode_is_restored() -> None:
    def denormal() -> Array:
        return np.full(8, TINY, np.float32) * np.float32(0.5)

    assert denormal().all()
    run_graph(doubled(), {"x": np.full(64, TINY, np.float32)}, machine_code)
    assert denormal().all()


@on_x86
def test_the_callers_rounding_mode_is_restored() -> None:
    upward, libm = 0x800, ctypes.CDLL("libm.so.6")
    before = libm.fegetround()
    try:
        assert libm.fesetround(upward) == 0
        run_graph(doubled(), {"x": np.ones(64, np.float32)}, machine_code)
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(before)


# NaN and infinity


def through(name: str) -> Graph:
    """A convolution of ragged channels without borders, and what follows it."""
    b = Builder()
    x = b.input("x", 1, 5, 6, 7)
    h = b("conv", x, channels=11, kernel=3, pad="valid")
    return b.output(y=_FOLLOWED_BY[name](b, h))


def _residual(b: Builder, h: Value) -> Value:
    return b("relu", b("add", h, b.input("skip", 1, 11, 4, 5)))


_FOLLOWED_BY = {
    "nothing": lambda b, h: h,
    "relu": lambda b, h: b("relu", h),
    "relu6": lambda b, h: b("relu6", h),
    "max_pool": lambda b, h: b("max_pool", h, kernel=3, stride=2, pad=1),
    "avg_pool": lambda b, h: b("avg_pool", h, kernel="global"),
    "batch_norm": lambda b, h: b("relu", b("batch_norm", h)),
    "residual": _residual,
    "depthwise": lambda b, h: b("relu6", b("conv", h, channels=11, groups=11, kernel=3, pad=0)),
    "pointwise": lambda b, h: b("relu", b("conv", h, channels=6, kernel=1)),
    "linear": lambda b, h: b("relu", b("linear", b("flatten", h), channels=3)),
    "softmax": lambda b, h: b("softmax", b("flatten", h)),
    "concat": lambda b, h: b("relu", b("concat", h, b("relu", h))),
}


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("what", ["nan", "infinities"])
@pytest.mark.parametrize("name", _FOLLOWED_BY)
def test_special_numbers_spread_as_ieee_says(name: str, what: str, fused: bool) -> None:
    graph = through(name)
    arrays = {k: a.astype(np.float32) for k, a in random_arrays(graph, seed=1).items()}
    one, other = (np.nan, np.nan) if what == "nan" else (np.inf, -np.inf)
    arrays["x"][0, 2, 1, 1] = one
    arrays["x"][0, 2, 4, 5] = other
    if "skip" in arrays:
        arrays["skip"][0, 7, 0, 0] = other
    with np.errstate(all="ignore"):
        expected = evaluate_graph(graph, arrays)["y"]
    assert what == "infinities" or np.isnan(expected).any()
    run = rewritten(graph) if fused else graph
    for runner in (machine_code, interpreted) if fused else (machine_code,):
        found = run_graph(run, arrays, runner)["y"]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
