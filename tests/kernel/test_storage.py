"""Types that are only stored: casts between all pairs, and arithmetic that is widened for them."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes  # comes with onnx
import numpy as np
import pytest
from expressions import run_everywhere, run_machine_code
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.expr import (
    Axis,
    Cast,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    walk,
)
from convdsl.kernel.storage import widened
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import HOST_DTYPES, DType, TensorType
from convdsl.tensor.conversion import convert

pytestmark = pytest.mark.drawn

Array = np.ndarray[Any, Any]
BFLOAT16: Any = ml_dtypes.bfloat16
PAIRS = list(product(HOST_DTYPES, HOST_DTYPES))


def mapped(x: TensorVar, dtype: DType, body: Expr, axis: Axis) -> TensorExpr:
    y = TensorVar("y", TensorType(dtype, (axis.extent,)))
    return TensorExpr((x,), (Stage(y, (axis,), body),), ("y",))


def sample(dtype: DType, count: int = 400) -> Array:
    """Elements over the whole range of a type, and what lies at edges of others."""
    random = np.random.default_rng(3)
    if dtype in (DType.F16, DType.BF16):
        return np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)  # every one there is
    if dtype is DType.BOOL:
        return random.integers(0, 2, count).astype(bool)
    edges = [
        sign * (2.0**e + d) for e in (0, 7, 8, 15, 16, 24, 31, 32, 53, 62, 63, 64)
        for d in (-1.0, -0.5, 0.0, 0.5, 1.0) for sign in (1, -1)
    ]  # fmt: skip
    if dtype.is_float:
        ties = (1 + random.integers(0, 1 << 12, count) * 2.0**-11) * 2.0 ** random.integers(
            -26, 17, count
        )
        near = np.nextafter(ties, random.choice([-9e9, 9e9], count))
        bf = (1 + random.integers(0, 1 << 9, count) * 2.0**-8) * 2.0 ** random.integers(
            -120, 120, count
        )
        wide = random.standard_normal(count) * 10.0 ** random.uniform(-45, 39, count)
        special = [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            65504,
            65519.99,
            65520,
            3.4e38,
            3.3961e38,
            1e300,
        ]
        special += [
            2.0**-24,
            2.0**-25,
            2.0**-25 * 1.01,
            2.0**-14,
            2.0**-14 * (1 - 2.0**-12),
            1e-300,
        ]
        words = 2.0 ** random.integers(20, 46, 400) * random.integers(1, 1 << 24, 400)
        words = np.concatenate([words, words.astype(np.float32) * (1 + 2.0**-23), words + 0.5])
        parts = [ties, near, bf, np.nextafter(bf, 1e300), wide, edges, words, special]
        signed = np.concatenate([*parts, *(-np.asarray(p) for p in parts)])
        with np.errstate(over="ignore"):
            return signed.astype(dtype.numpy)
    whole = [int(e) for e in edges if dtype.lowest <= e <= dtype.highest]
    drawn = random.integers(dtype.lowest, dtype.highest, count, dtype.numpy, endpoint=True)
    return np.concatenate([drawn, np.array(whole, dtype.numpy)])


def numpy_cast(x: Array, old: DType, new: DType) -> Array:
    """By NumPy and ml_dtypes, integers from floats as `tensor.conversion` states."""
    wide = x.view(BFLOAT16).astype(np.float32) if old is DType.BF16 else x
    with np.errstate(all="ignore"):
        if new is DType.BF16:
            return wide.astype(BFLOAT16).view(np.uint16)
        if old.is_float and new.is_integer:
            return np.array([wrapped(v, new) for v in wide.tolist()]).astype(new.numpy)
        return wide.astype(new.numpy)


def wrapped(value: float, dtype: DType) -> int:
    """Python's own integers: cut off, held within i64, the low bits kept."""
    if value != value:
        return 0
    ends = (DType.I64.lowest, DType.I64.highest)
    whole = ends[value > 0] if abs(value) == np.inf else min(max(int(value), ends[0]), ends[1])
    low = int(whole) % (1 << 8 * dtype.bytes)
    return low - (1 << 8 * dtype.bytes) if low > dtype.highest else low


def equal(found: Array, expected: Array, dtype: DType, *, flushed: bool) -> None:
    """Equal bits, any NaN for any NaN; with denormals as zeros where machine code flushes."""
    assert found.dtype == expected.dtype
    if not dtype.is_float:
        np.testing.assert_array_equal(found, expected)
        return
    pair = [convert(a, dtype, DType.F64) for a in (found, expected)]
    if flushed and dtype is not DType.F16:
        least = np.finfo(np.float64 if dtype is DType.F64 else np.float32).tiny
        pair = [np.where(np.abs(a) < least, np.copysign(0.0, a), a) for a in pair]
    np.testing.assert_array_equal(*pair)
    signs = [np.signbit(a[~np.isnan(a)]) for a in pair]
    np.testing.assert_array_equal(*signs)


def flush(x: Array, old: DType) -> Array:
    """As machine code takes arguments."""
    if old is DType.BF16:
        return np.where(x & 0x7F80, x, x & 0x8000).astype(np.uint16)
    if old not in (DType.F32, DType.F64):
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_numpy_casts_so(old: DType, new: DType) -> None:
    x = sample(old)
    found = convert(x, old, new)
    expected = numpy_cast(x, old, new)
    if (old, new) == (DType.F64, DType.BF16):  # rounded once; ml_dtypes goes through f32
        expected = nearest_bf16(x)
    equal(found, expected, new, flushed=False)


def nearest_bf16(x: Array) -> Array:
    """The nearest of all 65,536, the even one of two."""
    every = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = every.view(BFLOAT16).astype(np.float64)
    order = np.argsort(values[np.isfinite(values)], kind="stable")
    bits, sorted_values = every[np.isfinite(values)][order], values[np.isfinite(values)][order]
    found: list[int] = []
    for v in x.tolist():
        if not np.isfinite(v) or abs(v) >= float(values[0x7F7F]) * (1 + 2.0**-9):
            with np.errstate(all="ignore"):
                found.append(int(np.asarray(v, np.float32).astype(BFLOAT16).view(np.uint16)))
            continue
        above = int(np.clip(np.searchsorted(sorted_values, v), 1, len(bits) - 1))
        pair = [
            (abs(sorted_values[i] - v), int(bits[i]) & 1, int(bits[i])) for i in (above - 1, above)
        ]
        best = min(pair)[2]
        if best & 0x7FFF == 0:
            best = 0x8000 if np.signbit(v) else 0
        found.append(best)
    return np.array(found, np.uint16)


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_casts_of_every_execution(old: DType, new: DType) -> None:
    x = sample(old)
    x = x[:: 1 + len(x) // 6000]
    x = x[: len(x) // 2 * 2 - 1]  # an odd number: the last ones are done one by one
    axis = Axis("i", len(x))
    var = TensorVar("x", TensorType(old, (len(x),)))
    found = run_everywhere(mapped(var, new, Cast(var[axis.i], new), axis), {"x": x})
    for name in ("oracle", "loops"):
        equal(found.pop(name)["y"], convert(x, old, new), new, flushed=False)
    for outputs in found.values():
        equal(outputs["y"], convert(flush(x, old), old, new), new, flushed=True)


@pytest.mark.parametrize("new", [DType.F32, DType.F64, DType.F16, DType.BF16, DType.I32], ids=str)
@pytest.mark.parametrize("old", [DType.F16, DType.BF16], ids=str)
def test_every_half_by_machine_code(old: DType, new: DType) -> None:
    x = sample(old)
    axis = Axis("i", len(x))
    var = TensorVar("x", TensorType(old, (len(x),)))
    expr = mapped(var, new, Cast(var[axis.i], new), axis)
    for outputs in run_machine_code(expr, {"x": x}).values():
        equal(outputs["y"], convert(flush(x, old), old, new), new, flushed=True)


# Widening


def types_of_arithmetic(e: Expr) -> set[str]:
    """Element types of all nodes but those that only move values."""
    moves = (Cast, Read, Select)
    return {str(node.dtype) for node in walk(e) if not isinstance(node, moves)}


def test_expressions_that_compute_are_left_alone() -> None:
    axis = Axis("i", 4)
    x = TensorVar("x", TensorType(DType.F32, (4,)))
    expr = mapped(x, DType.F32, x[axis.i] + 1.0, axis)
    assert widened(expr) is expr


@pytest.mark.parametrize("dtype", [d for d in HOST_DTYPES if not d.computes], ids=str)
def test_arithmetic_is_widened(dtype: DType) -> None:
    axis, taps = Axis("i", 4), Axis("r", 3)
    x = TensorVar("x", TensorType(dtype, (6,)))
    near = Reduce("max", (taps,), Read(x, (axis.i + taps.i,)))
    inner = Cast(near * 2 + IndexValue(axis.i, dtype), dtype)
    body = Select(Compare("lt", inner, Literal(7, dtype)), inner, near)
    once = widened(mapped(x, dtype, body, axis))
    (stage,) = once.stages
    assert types_of_arithmetic(stage.body) == {str(dtype.computed), "bool"}
    assert stage.body.dtype is dtype
    assert widened(once) == once


@pytest.mark.parametrize("dtype", [d for d in HOST_DTYPES if not d.computes], ids=str)
def test_what_is_moved_stays_as_it_is(dtype: DType) -> None:
    axis = Axis("i", 4)
    x = TensorVar("x", TensorType(dtype, (6,)))
    expr = mapped(x, dtype, Read(x, (axis.i + 1,), 0.0), axis)
    assert widened(expr) == expr


@pytest.mark.parametrize("size", [1, 5, 16, 33])
@pytest.mark.parametrize("dtype", [d for d in DType if d.is_integer], ids=str)
def test_integers_wrap(dtype: DType, size: int) -> None:
    """Products and sums modulo 2 to the number of bits, as NumPy's own of that type."""
    random = np.random.default_rng(size)
    a, b = (
        random.integers(dtype.lowest, dtype.highest, size, dtype.numpy, endpoint=True)
        for _ in range(2)
    )
    axis = Axis("i", size)
    x, y = (TensorVar(name, TensorType(dtype, (size,))) for name in "ab")
    body = x[axis.i] * y[axis.i] + x[axis.i] - 3
    target = TensorVar("y", TensorType(dtype, (size,)))
    expr = TensorExpr((x, y), (Stage(target, (axis,), body),), ("y",))
    with np.errstate(all="ignore"):
        expected = a * b + a - np.asarray(3, dtype.numpy)
    for name, outputs in run_everywhere(expr, {"a": a, "b": b}).items():
        np.testing.assert_array_equal(outputs["y"], expected, name)


@pytest.mark.parametrize(
    ("old", "new", "element"),
    [
        (DType.F32, DType.I32, DType.F32),
        (DType.F32, DType.U8, DType.F32),
        (DType.F16, DType.I32, DType.F32),
        (DType.F64, DType.U8, DType.F64),
        (DType.F32, DType.I64, DType.I64),
        (DType.U8, DType.I32, DType.I64),
    ],
    ids=str,
)
def test_vectors_of_a_cast_are_as_wide_as_what_it_computes_in(
    old: DType, new: DType, element: DType
) -> None:
    b = Builder()
    graph = b.output(y=b("cast", b.input("x", 40, dtype=old), dtype=new))
    (choice,) = lower(graph, cpu_machine(find_target("x86-64-v3")), "t").choices
    assert choice.task.element is element
