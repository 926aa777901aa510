"""Gradients through positions that are data: of picked reads, and of sums by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expressions import run_everywhere

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import (
    Axis,
    Expr,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    lookup,
    walk,
)
from convdsl.kernel.gradient import gradient
from convdsl.kernel.scatter import match_scatter, scatter_sum
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]
F32, F64, I64 = DType.F32, DType.F64, DType.I64
POLICIES = [{}, {"from_end": True}, {"outside": -2.5}, {"from_end": True, "outside": -2.5}]


def var(name: str, dtype: DType, *shape: int) -> TensorVar:
    return TensorVar(name, TensorType(dtype, shape))


def one_stage(
    inputs: tuple[TensorVar, ...], target: TensorVar, axes: tuple[Axis, ...], body: Expr
) -> TensorExpr:
    return TensorExpr(inputs, (Stage(target, axes, body),), (target.name,))


def positions(random: np.random.Generator, extent: int, *shape: int) -> Array:
    """Some of them beyond the axis, and some far from it."""
    found = random.integers(-extent - 2, extent + 2, shape)
    far = random.integers(0, 12, shape)
    return np.where(far == 0, np.iinfo(np.int64).max, np.where(far == 1, -(2**63), found))


def check(expr: TensorExpr, arrays: dict[str, Array], operand: str, everywhere: bool = True) -> Any:
    """By differences in double precision, and by all executions in that of the expression."""
    (name,) = expr.outputs
    target = next(s.target for s in expr.stages if s.target.name == name)
    dy = TensorVar(f"d{name}", target.type)
    found = gradient(expr, operand, {name: dy})
    assert found is not None
    random = np.random.default_rng(1)
    given = arrays | {
        dy.name: random.standard_normal(target.type.sizes).astype(dy.type.dtype.numpy)
    }
    here = evaluate(found, {x.name: given[x.name] for x in found.inputs})[f"d{operand}"]
    if target.type.dtype is F64:

        def total(place: int, step: float) -> float:
            moved = arrays[operand].copy()
            moved.reshape(-1)[place] += step
            return float((evaluate(expr, arrays | {operand: moved})[name] * given[dy.name]).sum())

        step = 1e-6
        size = arrays[operand].size
        wanted = [(total(p, step) - total(p, -step)) / (2 * step) for p in range(size)]
        np.testing.assert_allclose(here.reshape(-1), wanted, rtol=1e-6, atol=1e-7)
    if everywhere:
        given = {x.name: given[x.name] for x in found.inputs}
        for way, outputs in run_everywhere(found, given).items():
            np.testing.assert_allclose(outputs[f"d{operand}"], here, 1e-5, 1e-5, err_msg=way)
    return found


@pytest.mark.dear
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_rows_of_a_table(policy: dict[str, Any]) -> None:
    """A sum by position, which adds each row where it belongs."""
    random = np.random.default_rng(1)
    for dtype, width in ((F64, 3), (F32, 17)):
        ids, table = var("ids", I64, 4, 5), var("table", dtype, 6, width)
        n, s, d = Axis("n", 4), Axis("s", 5), Axis("d", width)
        body = lookup(table, (Read(ids, (n.i, s.i)), d.i), **policy)
        expr = one_stage((ids, table), var("y", dtype, 4, 5, width), (n, s, d), body)
        arrays = {
            "ids": positions(random, 6, 4, 5),
            "table": random.standard_normal((6, width)).astype(dtype.numpy),
        }
        found = check(expr, arrays, "table")
        assert match_scatter(found.stages[-1].body) is not None


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_of_two_axes_and_of_one_that_is_computed(policy: dict[str, Any]) -> None:
    """y[n, d] = exp(x[i[n], j[n], d] * w[d]) of both."""
    random = np.random.default_rng(2)
    i, j = var("i", I64, 9), var("j", I64, 9)
    x, w = var("x", F64, 3, 4, 2), var("w", F64, 2)
    n, d = Axis("n", 9), Axis("d", 2)
    picked = lookup(x, (Read(i, (n.i,)), Read(j, (n.i,)), d.i), **policy)
    expr = one_stage((i, j, x, w), var("y", F64, 9, 2), (n, d), Unary("exp", picked * w[d.i]))
    arrays = {
        "i": positions(random, 3, 9),
        "j": positions(random, 4, 9),
        "x": random.standard_normal((3, 4, 2)),
        "w": random.standard_normal(2),
    }
    check(expr, arrays, "x", everywhere=False)
    check(expr, arrays, "w", everywhere=False)


@pytest.mark.dear
@pytest.mark.parametrize("outside", [None, 4.0])
def test_what_is_read_beside_what_is_picked(outside: float | None) -> None:
    """Pick(v < 5, ids[n], exp(table[v] * x[n])): x is read at n, times what is read at v; beyond
    the axis nothing flows."""
    random = np.random.default_rng(3)
    ids, table, x = var("ids", I64, 8), var("table", F64, 5), var("x", F64, 8)
    n, v = Axis("n", 8), Axis("v", 5)
    inner = Unary("exp", table[v.i] * x[n.i])
    chosen = Select(Unary("isnan", x[n.i]), Literal(0.0, F64), inner)
    body = Pick(v, Read(ids, (n.i,)), chosen, outside=outside)
    expr = one_stage((ids, table, x), var("y", F64, 8), (n,), body)
    arrays = {
        "ids": positions(random, 5, 8),
        "table": random.standard_normal(5),
        "x": random.standard_normal(8),
    }
    check(expr, arrays, "x")
    check(expr, arrays, "table")


@pytest.mark.dear(share=4)
def test_a_sum_of_what_is_picked() -> None:
    """y[n] = sum over s of table[ids[n, s]]**2 * w[s]: embeddings, summed."""
    random = np.random.default_rng(4)
    ids, table, w = var("ids", I64, 7, 5), var("table", F64, 6), var("w", F64, 5)
    n, s = Axis("n", 7), Axis("s", 5)
    found = lookup(table, (Read(ids, (n.i, s.i)),))
    expr = one_stage(
        (ids, table, w), var("y", F64, 7), (n,), Reduce("sum", (s,), found * found * w[s.i])
    )
    arrays = {
        "ids": random.integers(-1, 7, (7, 5)),
        "table": random.standard_normal(6),
        "w": random.standard_normal(5),
    }
    check(expr, arrays, "table")
    check(expr, arrays, "w")


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_a_sum_by_position(dtype: DType) -> None:
    """Its gradient is picked, at once; the other way round for that of the gradient."""
    random = np.random.default_rng(5)
    ids, v = var("ids", I64, 9), var("v", dtype, 9, 4)
    i, j, d = Axis("i", 9), Axis("j", 5), Axis("d", 4)
    body = scatter_sum((i,), j, Read(ids, (i.i,)), v[i.i, d.i] * v[i.i, d.i])
    expr = one_stage((ids, v), var("y", dtype, 5, 4), (j, d), body)
    arrays = {
        "ids": positions(random, 5, 9),
        "v": random.standard_normal((9, 4)).astype(dtype.numpy),
    }
    found = check(expr, arrays, "v")
    bodies = [e for stage in found.stages for e in walk(stage.body)]
    assert any(isinstance(e, Pick) for e in bodies)
    assert not any(isinstance(e, Reduce) for e in bodies)
    dy = random.standard_normal((5, 4)).astype(dtype.numpy)
    check(found, arrays | {"dy": dy}, "v")
    again = check(found, arrays | {"dy": dy}, "dy")
    assert match_scatter(again.stages[-1].body) is not None
