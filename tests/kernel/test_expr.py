"""Tensor expressions as data: writing, walking, rewriting, counting, printing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    arithmetic,
    axes_over,
    broadcast_read,
    children,
    elementwise,
    flops,
    format_expr,
    maximum,
    minimum,
    products,
    reads,
    rebuild,
    reindex,
    transform,
    walk,
)
from convdsl.kernel.scalar import FUNCTIONS, REDUCTIONS
from convdsl.tensor import DType, TensorType, symbol

F32 = DType.F32
N = symbol("N")
X = TensorVar("x", TensorType(F32, (N, 3, 8)))
W = TensorVar("w", TensorType(F32, (5, 3, 3)))
n, k, p = Axis("n", N), Axis("k", 5), Axis("p", 8)
c, r = Axis("c", 3), Axis("r", 3)

CONV = Reduce("sum", (c, r), X.at(n.i, c.i, p.i + r.i - 1, outside=0.0) * W[k.i, c.i, r.i])
RECTIFIED = maximum(CONV + 1.0, 0.0)
STAGE = Stage(TensorVar("y", TensorType(F32, (N, 5, 8))), (n, k, p), RECTIFIED)
EXPR = TensorExpr((X, W), (STAGE,), ("y",))


def test_python_numbers_become_literals_of_the_same_dtype() -> None:
    x = X[n.i, 0, 0]
    assert x + 2 == Binary("add", x, Literal(2, F32))
    assert 2 - x == Binary("sub", Literal(2, F32), x)
    assert 1.0 / x == Binary("div", Literal(1.0, F32), x)
    assert 3 * x == Binary("mul", Literal(3, F32), x)
    assert -x == Unary("neg", x)
    assert minimum(x, 6.0) == Binary("min", x, Literal(6.0, F32))


def test_dtypes_of_nodes() -> None:
    x = X[n.i, 0, 0]
    assert (x + 1.0).dtype is F32
    assert Compare("lt", x, x).dtype is IndexCompare("lt", n.i, 3).dtype is DType.BOOL
    assert Unary("isnan", x).dtype is DType.BOOL
    assert Unary("exp", x).dtype is Select(Compare("lt", x, x), x, x).dtype is F32
    assert Cast(x, DType.I64).dtype is IndexValue(n.i, DType.I64).dtype is DType.I64
    assert Reduce("max", (c,), x).dtype is F32


def test_counting_is_symbolic_and_by_the_convention() -> None:
    assert arithmetic(CONV) == 9 + 8
    assert flops(EXPR) == N * 40 * (17 + 2)
    assert products(EXPR) == N * 40 * 9
    free = Select(IndexCompare("lt", p.i, 3), Cast(X[n.i, 0, p.i], F32), Literal(0.0, F32))
    assert arithmetic(free) == 0
    chosen = Select(Compare("lt", Literal(0.0, F32), X[n.i, 0, 0]), -X[n.i, 0, 0], X[n.i, 0, 0])
    assert arithmetic(chosen) == 2


def test_walking_and_rebuilding() -> None:
    nodes = list(walk(RECTIFIED))
    assert nodes[0] is RECTIFIED
    assert [read.tensor.name for read in reads(RECTIFIED)] == ["x", "w"]
    for node in nodes:
        parts = children(node)
        assert (rebuild(node, parts) if parts else node) == node


def test_transforming_bottom_up() -> None:
    def double(e: object) -> object:
        return Literal(e.value * 2, e.type) if isinstance(e, Literal) else None

    assert transform(RECTIFIED, double) == maximum(CONV + 2.0, 0.0)  # pyright: ignore[reportArgumentType]


def test_reindexing_replaces_axes_everywhere() -> None:
    e = Select(IndexCompare("lt", p.i, 3), X[n.i, 0, p.i], IndexValue(p.i, F32))
    moved = Select(IndexCompare("lt", p.i + 2, 3), X[n.i, 0, p.i + 2], IndexValue(p.i + 2, F32))
    assert reindex(e, {"p": p.i + 2}) == moved


def test_broadcasting_repeats_ones_and_aligns_the_last_axes() -> None:
    axes = axes_over((N, 3, 4, 5))
    gate = TensorVar("g", TensorType(F32, (3, 1, 1)))
    assert broadcast_read(gate, axes).index == (axes[1].i, 0, 0)
    scalar = TensorVar("s", TensorType(F32, ()))
    assert broadcast_read(scalar, axes).index == ()


def test_printing() -> None:
    total = "sum[c < 3, r < 3]((x[n, c, p + r - 1 outside 0.0] * w[k, c, r]))"
    assert str(EXPR).splitlines() == [
        "in  x: f32[N, 3, 8]",
        "in  w: f32[5, 3, 3]",
        "out y: f32[N, 5, 8]",
        f"    y[n, k, p] = max(({total} + 1.0), 0.0)",
    ]
    e = Select(
        IndexCompare("ge", p.i, 3), Cast(Compare("ne", X[0, 0, 0], X[0, 0, 1]), F32), -X[0, 0, 0]
    )
    assert format_expr(e) == "select((p >= 3), f32((x[0, 0, 0] != x[0, 0, 1])), neg(x[0, 0, 0]))"


def test_every_operation_can_be_executed() -> None:
    """Every function, of every element type that it takes, gives what its record says."""
    i, j = Axis("i", 3), Axis("j", 3)
    for function in FUNCTIONS.values():
        for dtype in function.takes:
            x = TensorVar("x", TensorType(dtype, (3,)))
            value = Read(x, (i.i,))
            if function.arity == 1:
                body = Unary(function.name, value)
            else:
                kind = Compare if function.is_comparison else Binary
                body = kind(function.name, value, value)
            found = run_stage(x, i, body)
            assert found.dtype == function.result(dtype).numpy == body.dtype.numpy, function.name
    for name in REDUCTIONS:
        dtype = DType.BOOL if name in ("any", "all") else F32
        x = TensorVar("x", TensorType(dtype, (3,)))
        assert run_stage(x, i, Reduce(name, (j,), Read(x, (j.i,)))).dtype == dtype.numpy


def run_stage(x: TensorVar, i: Axis, body: Expr) -> np.ndarray[Any, Any]:
    stage = Stage(TensorVar("y", TensorType(body.dtype, (3,))), (i,), body)
    array = np.array([1, 2, 3]).astype(x.type.dtype.numpy)
    return evaluate(TensorExpr((x,), (stage,), ("y",)), {"x": array})["y"]


def test_an_elementwise_expression_of_many_operands() -> None:
    a = TensorVar("a", TensorType(F32, (2, 1)))
    b = TensorVar("b", TensorType(F32, (3,)))
    expr = elementwise((a, b), TensorType(F32, (2, 3)), lambda u, v: u - v)
    x, y = np.ones((2, 1), np.float32), np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(evaluate(expr, {"a": x, "b": y})["y"], x - y)


def test_stages_are_found_by_name() -> None:
    assert EXPR.stage("y") is STAGE
    with pytest.raises(StopIteration):
        EXPR.stage("z")
