"""Positions that are data: picked reads, and sums by position, by every execution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import graph_of
from expressions import call_of, run_everywhere
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.analysis.access import Access, places, read_access
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.classify import OpClass, classify, is_broadcast
from convdsl.kernel.evaluate import Counter, evaluate
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
    flops,
    lookup,
)
from convdsl.kernel.scatter import match_scatter, scatter_sum
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, TensorType

pytestmark = pytest.mark.drawn

Array = np.ndarray[Any, Any]
F32, F64, I64 = DType.F32, DType.F64, DType.I64
POLICIES = [
    {},
    {"from_end": True},
    {"outside": -2.5},
    {"from_end": True, "outside": -2.5},
]


def var(name: str, dtype: DType, *shape: int) -> TensorVar:
    return TensorVar(name, TensorType(dtype, shape))


def one_stage(
    inputs: tuple[TensorVar, ...], target: TensorVar, axes: tuple[Axis, ...], body: Expr
) -> TensorExpr:
    return TensorExpr(inputs, (Stage(target, axes, body),), (target.name,))


def positions(random: np.random.Generator, extent: int, *shape: int) -> Array:
    """Within an axis, at its ends, just beyond them and far from it."""
    found = random.integers(-extent - 2, extent + 2, shape)
    far = random.integers(0, 12, shape)
    found = np.where(far == 0, np.iinfo(np.int64).max, found)
    return np.where(far == 1, np.iinfo(np.int64).min, found)


def picked(table: Array, ids: Array, policy: dict[str, Any], axis: int = 0) -> Array:
    """By NumPy's own indexing, one position at a time."""
    extent = table.shape[axis]
    out = np.empty((*ids.shape, *np.delete(table.shape, axis)), table.dtype)
    for at in np.ndindex(*ids.shape):
        i = int(ids[at])
        i += extent if policy.get("from_end") and i < 0 else 0
        if 0 <= i < extent:
            out[at] = np.take(table, i, axis)
        elif "outside" in policy:
            out[at] = policy["outside"]
        else:
            out[at] = np.take(table, min(max(i, 0), extent - 1), axis)
    return out


def same(found: dict[str, dict[str, Array]], expected: Array) -> None:
    for name, outputs in found.items():
        np.testing.assert_array_equal(outputs["y"], expected, name)


# Picks


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, I64, DType.F16, DType.U8], ids=str)
def test_rows_of_a_table(dtype: DType, policy: dict[str, Any]) -> None:
    """Vectors along a row: one position for all lanes."""
    if not dtype.is_float and "outside" in policy:
        policy = {**policy, "outside": 3}
    random = np.random.default_rng(1)
    for width in (1, 5, 16, 33):
        ids, table = var("ids", I64, 3, 4), var("table", dtype, 6, width)
        n, s, d = Axis("n", 3), Axis("s", 4), Axis("d", width)
        body = lookup(table, (Read(ids, (n.i, s.i)), d.i), **policy)
        expr = one_stage((ids, table), var("y", dtype, 3, 4, width), (n, s, d), body)
        arrays = {
            "ids": positions(random, 6, 3, 4),
            "table": random.integers(0, 99, (6, width)).astype(dtype.numpy),
        }
        same(run_everywhere(expr, arrays), picked(arrays["table"], arrays["ids"], policy))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("index", [I64, DType.I32, DType.U8], ids=str)
def test_elements_of_a_row(index: DType, policy: dict[str, Any]) -> None:
    """Every lane has a position of its own; positions are stored narrower, or computed."""
    random = np.random.default_rng(2)
    for width in (1, 7, 33):
        ids, table = var("ids", index, width), var("table", F32, 9)
        n = Axis("n", width)
        at = Cast(Read(ids, (n.i,)), I64) * 2 - 1
        expr = one_stage((ids, table), var("y", F32, width), (n,), lookup(table, (at,), **policy))
        raw = np.clip(positions(random, 6, width), index.lowest, index.highest)
        raw = np.where(np.abs(raw) > 1 << 40, 5, raw).astype(index.numpy)
        values = random.standard_normal(9).astype("f4")
        expected = picked(values, raw.astype(np.int64) * 2 - 1, policy)
        same(run_everywhere(expr, {"ids": raw, "table": values}), expected)


@pytest.mark.dear
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_drawn_gathers(data: st.DataObject) -> None:
    """One axis of a tensor of channels and space, which lies in blocks, at drawn positions."""
    shape = tuple(data.draw(st.integers(1, 20)) for _ in range(data.draw(st.integers(1, 4))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.integers(1, 19))
    policy = data.draw(st.sampled_from(POLICIES))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    out = (*shape[:axis], count, *shape[axis + 1 :])
    axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(out))
    ids, x = var("ids", I64, count), var("x", F32, *shape)
    place = tuple(Read(ids, (a.i,)) if k == axis else a.i for k, a in enumerate(axes))
    body = lookup(x, place, **policy) + 1.0
    expr = one_stage((ids, x), var("y", F32, *out), axes, body)
    arrays = {
        "ids": positions(random, shape[axis], count),
        "x": random.standard_normal(shape).astype("f4"),
    }
    expected = np.moveaxis(picked(arrays["x"], arrays["ids"], policy, axis), 0, axis)
    same(run_everywhere(expr, arrays, ("x86-64-v2", "native")), expected + np.float32(1))


def test_several_axes_and_elements_along_one() -> None:
    """GatherND over two axes, and GatherElements."""
    random = np.random.default_rng(5)
    i, j, x = var("i", I64, 18), var("j", I64, 18), var("x", F32, 5, 7, 3)
    n, d = Axis("n", 18), Axis("d", 3)
    body = lookup(x, (Read(i, (n.i,)), Read(j, (n.i,)), d.i), from_end=True)
    arrays = {
        "i": random.integers(-5, 5, 18),
        "j": random.integers(-7, 7, 18),
        "x": random.standard_normal((5, 7, 3)).astype("f4"),
    }
    expr = one_stage((i, j, x), var("y", F32, 18, 3), (n, d), body)
    same(run_everywhere(expr, arrays), arrays["x"][arrays["i"], arrays["j"]])

    along = var("along", I64, 18, 20)
    rows, columns = Axis("r", 18), Axis("c", 20)
    table = var("table", F32, 6, 20)
    at = (Read(along, (rows.i, columns.i)), columns.i)
    expr = one_stage(
        (along, table), var("y", F32, 18, 20), (rows, columns), lookup(table, at, from_end=True)
    )
    arrays = {
        "along": random.integers(-6, 6, (18, 20)),
        "table": random.standard_normal((6, 20)).astype("f4"),
    }
    same(run_everywhere(expr, arrays), np.take_along_axis(arrays["table"], arrays["along"], 0))


def test_positions_from_an_earlier_stage_and_a_sum_of_what_is_picked() -> None:
    """y[n] = sum over s of table[max over r of ids[n, s, r]] * w[s]"""
    random = np.random.default_rng(6)
    ids, table, w = var("ids", I64, 37, 5, 3), var("table", F64, 11), var("w", F64, 5)
    n, s, r = Axis("n", 37), Axis("s", 5), Axis("r", 3)
    top = Stage(var("top", I64, 37, 5), (n, s), Reduce("max", (r,), ids[n.i, s.i, r.i]))
    found = lookup(table, (Read(top.target, (n.i, s.i)),))
    y = Stage(var("y", F64, 37), (n,), Reduce("sum", (s,), found * w[s.i]))
    expr = TensorExpr((ids, table, w), (top, y), ("y",))
    arrays = {
        "ids": random.integers(0, 11, (37, 5, 3)),
        "table": random.standard_normal(11),
        "w": random.standard_normal(5),
    }
    expected = (arrays["table"][arrays["ids"].max(2)] * arrays["w"]).sum(1)
    for outputs in run_everywhere(expr, arrays).values():
        np.testing.assert_allclose(outputs["y"], expected, rtol=1e-13)


def test_a_stage_that_picks_by_what_the_stage_before_it_holds() -> None:
    """The position is in registers, a vector of them."""
    random = np.random.default_rng(7)
    x, table = var("x", F32, 50), var("table", F32, 8)
    n = Axis("n", 50)
    at = Stage(var("at", I64, 50), (n,), Cast(x[n.i] * 3.0, I64))
    body = lookup(table, (Read(at.target, (n.i,)),), outside=0.0) + x[n.i]
    expr = TensorExpr((x, table), (at, Stage(var("y", F32, 50), (n,), body)), ("y", "at"))
    arrays = {
        "x": random.uniform(-2, 4, 50).astype("f4"),
        "table": random.standard_normal(8).astype("f4"),
    }
    places = (arrays["x"] * np.float32(3)).astype(np.int64)
    held = np.where((places >= 0) & (places < 8), arrays["table"][np.clip(places, 0, 7)], 0)
    same(run_everywhere(expr, arrays), held + arrays["x"])


def test_the_index_is_free_and_the_rest_is_counted() -> None:
    ids, table = var("ids", I64, 5), var("table", F32, 9)
    n = Axis("n", 5)
    body = lookup(table, (Read(ids, (n.i,)) * 2,)) + 1.0
    expr = one_stage((ids, table), var("y", F32, 5), (n,), body)
    counter = Counter()
    evaluate(expr, {"ids": np.arange(5), "table": np.ones(9, "f4")}, counter)
    assert flops(expr) == counter.operations == 5
    assert str(expr).endswith(
        "y[n] = (pick[table_at0 < 9 at (ids[n] * 2)](table[table_at0]) + 1.0)"
    )


def test_nothing_is_picked_from_nothing() -> None:
    ids, table = var("ids", I64, 5), var("table", F32, 0)
    n = Axis("n", 5)
    expr = one_stage((ids, table), var("y", F32, 5), (n,), lookup(table, (Read(ids, (n.i,)),)))
    with pytest.raises(ValueError, match="no position to pick"):
        evaluate(expr, {"ids": np.zeros(5, np.int64), "table": np.ones(0, "f4")})


# Sums by position


def added(shape: tuple[int, ...], ids: Array, values: Array) -> Array:
    """np.add.at over what lies within."""
    total = np.zeros(shape, values.dtype)
    inside = (ids >= 0) & (ids < shape[0])
    np.add.at(total, ids[inside], values[inside])
    return total


def rows_added(dtype: DType, count: int, places: int, *inner: int) -> TensorExpr:
    ids, v = var("ids", I64, count), var("v", dtype, count, *inner)
    i, j = Axis("i", count), Axis("j", places)
    rest = tuple(Axis(f"d{k}", extent) for k, extent in enumerate(inner))
    at = tuple(a.i for a in rest)
    body = scatter_sum((i,), j, Read(ids, (i.i,)), Read(v, (i.i, *at)))
    return one_stage((ids, v), var("y", dtype, places, *inner), (j, *rest), body)


@pytest.mark.dear
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_drawn_sums_by_position(data: st.DataObject) -> None:
    """Bits as np.add.at leaves them: the order of the terms is theirs in memory, on one thread,
    two and three."""
    count, places = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    inner = data.draw(st.sampled_from([(), (1,), (3,), (16,), (33,), (35, 2), (2, 17), (3, 5, 2)]))
    dtype = data.draw(st.sampled_from([F32, F64, I64, DType.U32]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    expr = rows_added(dtype, count, places, *inner)
    (stage,) = expr.stages
    assert match_scatter(stage.body) is not None
    values = random.standard_normal((count, *inner)) * 10.0 ** random.uniform(
        -6, 6, (count, *inner)
    )
    with np.errstate(all="ignore"):
        arrays = {
            "ids": positions(random, places, count),
            "v": np.abs(values).astype(dtype.numpy)
            if dtype is DType.U32
            else values.astype(dtype.numpy),
        }
    expected = added((places, *inner), arrays["ids"], arrays["v"])
    same(run_everywhere(expr, arrays, ("x86-64-v2", "native")), expected)


def test_the_transpose_of_a_gather() -> None:
    """sum(gather(x, ids) * g) = sum(x * scatter(g, ids)), exactly in integers."""
    random = np.random.default_rng(9)
    ids = random.integers(0, 30, 200)
    x, g = random.integers(-9, 9, (30, 20)), random.integers(-9, 9, (200, 20))
    outputs = run_everywhere(rows_added(I64, 200, 30, 20), {"ids": ids, "v": g})
    for found in outputs.values():
        assert (x[ids] * g).sum() == (x * found["y"]).sum()


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_positions_that_differ_along_the_other_axes(dtype: DType) -> None:
    """The gradient of GatherElements."""
    random = np.random.default_rng(10)
    ids, v = var("ids", I64, 18, 20), var("v", dtype, 18, 20)
    i, j, c = Axis("i", 18), Axis("j", 6), Axis("c", 20)
    body = scatter_sum((i,), j, Read(ids, (i.i, c.i)), Read(v, (i.i, c.i)))
    expr = one_stage((ids, v), var("y", dtype, 6, 20), (j, c), body)
    arrays = {
        "ids": random.integers(-2, 8, (18, 20)),
        "v": random.standard_normal((18, 20)).astype(dtype.numpy),
    }
    expected = np.zeros((6, 20), dtype.numpy)
    for at in np.ndindex(18, 20):
        if 0 <= arrays["ids"][at] < 6:
            expected[arrays["ids"][at], at[1]] += arrays["v"][at]
    same(run_everywhere(expr, arrays), expected)


def test_a_sum_by_position_over_two_axes_of_what_is_computed() -> None:
    """Positions counted from the end, values that are products: a row of a batch after another."""
    random = np.random.default_rng(11)
    ids, v = var("ids", I64, 4, 9), var("v", F32, 4, 9, 17)
    b, i, j, d = Axis("b", 4), Axis("i", 9), Axis("j", 5), Axis("d", 17)
    read = Read(ids, (b.i, i.i))
    index = Select(Compare("lt", read, Literal(0, I64)), read + 5, read)
    body = scatter_sum((b, i), j, index, Read(v, (b.i, i.i, d.i)) * 3.0)
    expr = one_stage((ids, v), var("y", F32, 5, 17), (j, d), body)
    arrays = {
        "ids": random.integers(-6, 6, (4, 9)),
        "v": random.standard_normal((4, 9, 17)).astype("f4"),
    }
    flat = arrays["ids"].reshape(-1)
    flat = np.where(flat < 0, flat + 5, flat)
    expected = added((5, 17), flat, (arrays["v"] * np.float32(3)).reshape(-1, 17))
    same(run_everywhere(expr, arrays), expected)


def test_halves_are_added_in_f32() -> None:
    """3000 ones in f16: the sum is rounded once."""
    expr = rows_added(DType.F16, 3000, 2, 3)
    arrays = {"ids": np.arange(3000) % 2, "v": np.ones((3000, 3), np.float16)}
    same(run_everywhere(expr, arrays, ("native",)), np.full((2, 3), 1500, np.float16))


@pytest.mark.parametrize("inner", [(), (17,)], ids=str)
def test_many_terms_at_one_position(inner: tuple[int, ...]) -> None:
    """In order though nothing but the sum is left to cut, and other long sums are cut."""
    random = np.random.default_rng(13)
    arrays = {
        "ids": random.integers(-1, 2, 9000),
        "v": random.standard_normal((9000, *inner)).astype("f4"),
    }
    expected = added((1, *inner), arrays["ids"], arrays["v"])
    same(run_everywhere(rows_added(F32, 9000, 1, *inner), arrays, ("native",)), expected)


def test_other_sums_are_no_sums_by_position() -> None:
    i, j = Axis("i", 4), Axis("j", 5)
    v, ids = var("v", F32, 4), var("ids", I64, 4)
    here = Compare("eq", ids[i.i], IndexValue(j.i, I64))
    value, zero = v[i.i], Literal(0.0, F32)
    assert match_scatter(Reduce("sum", (i,), Select(here, value, zero))) is not None
    for other in (
        Reduce("max", (i,), Select(here, value, zero)),
        Reduce("sum", (i,), Select(here, value, Literal(1.0, F32))),
        Reduce("sum", (i,), Select(Compare("ne", here.a, here.b), value, zero)),
        Reduce("sum", (i,), Select(here, value, zero), F64),
        Reduce("sum", (i, j), Select(here, value, zero)),
        Reduce("sum", (i,), Select(here, IndexValue(j.i, F32), zero)),
        Reduce("sum", (i,), Select(Compare("eq", ids[i.i], IndexValue(j.i + 1, I64)), value, zero)),
        value,
    ):
        assert match_scatter(other) is None, str(other)


def test_the_schedule_is_found_by_the_form() -> None:
    graph = graph_of(call_of(rows_added(F32, 40, 30, 20)))
    (choice,) = lower(graph, cpu_machine(find_target()), "test").choices
    assert choice.schedule == "scatter"


def test_a_table_of_the_shape_of_what_is_picked_from_it() -> None:
    """y[n, d] = t[ids[n], d] + t[n, d] with t = x * 2: the sum may not take t from registers."""
    random = np.random.default_rng(12)
    ids, x = var("ids", I64, 19), var("x", F32, 19, 17)
    n, d = Axis("n", 19), Axis("d", 17)
    table = Stage(var("t", F32, 19, 17), (n, d), x[n.i, d.i] * 2.0)
    body = lookup(table.target, (Read(ids, (n.i,)), d.i)) + table.target[n.i, d.i]
    expr = TensorExpr((ids, x), (table, Stage(var("y", F32, 19, 17), (n, d), body)), ("y",))
    arrays = {
        "ids": random.integers(0, 19, 19),
        "x": random.standard_normal((19, 17)).astype("f4"),
    }
    twice = arrays["x"] * np.float32(2)
    same(run_everywhere(expr, arrays), twice[arrays["ids"]] + twice)


# What is read off the form


def test_any_position_of_the_axis_may_be_read() -> None:
    ids, table = var("ids", I64, 5), var("table", F32, 9, 4)
    n, d = Axis("n", 5), Axis("d", 4)
    expr = one_stage(
        (ids, table), var("y", F32, 5, 4), (n, d), lookup(table, (Read(ids, (n.i,)), d.i))
    )
    (stage,) = expr.stages
    found = {place.read.tensor.name: place for place in places(stage)}
    whole = read_access(found["table"], 0, stage.axes)
    own = read_access(found["table"], 1, stage.axes)
    assert whole == Access(None, 0, (range(9),))
    assert own is not None
    assert (own.axis, own.advance) == (1, 1)
    assert classify(expr) is OpClass.MOVEMENT
    assert not is_broadcast(found["table"].read, stage.axes)
    assert is_broadcast(found["ids"].read, stage.axes)


def test_axes_of_picks_keep_their_names_apart() -> None:
    """A chain gives its stages one set of axes: an axis called like a pick's stays another."""
    ids, x = var("ids", I64, 6), var("x", F32, 6)
    at = Axis("x_at0", 6)
    first = Stage(var("t", F32, 6), (at,), lookup(x, (Read(ids, (at.i,)),)) * 3.0)
    n = Axis("n", 6)
    second = Stage(var("y", F32, 6), (n,), first.target[n.i] + 1.0)
    arrays = {"ids": np.array([5, 0, 2, 2, 1, 4]), "x": np.arange(6, dtype="f4")}
    expected = arrays["x"][arrays["ids"]] * 3 + 1
    same(run_everywhere(TensorExpr((ids, x), (first, second), ("y",)), arrays), expected)
