"""The NumPy oracle against loops in plain Python, and its own guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from convdsl.kernel import evaluate as oracle
from convdsl.kernel.evaluate import Counter, evaluate
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
    axes_over,
    elementwise,
    flops,
)
from convdsl.tensor import Dim, DType, TensorType, dim_max, dim_min, symbol
from convdsl.tensor import evaluate as evaluate_dim

F64, I64, BOOL = DType.F64, DType.I64, DType.BOOL
Array = np.ndarray[Any, Any]


def naive(expr: TensorExpr, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Element by element, in double precision."""
    known = dict(arrays)
    for stage in expr.stages:
        extents = [int(str(axis.extent)) for axis in stage.axes]
        out = np.empty(extents, stage.target.type.dtype.numpy)
        for position in product(*map(range, extents)):
            at = dict(zip((a.name for a in stage.axes), position, strict=True))
            out[position] = scalar(stage.body, at, known)
        known[stage.target.name] = out
    return {name: known[name] for name in expr.outputs}


OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": lambda *values: max(values[0] if len(values) == 1 else values),
    "min": min,
    "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "abs": abs,
    "neg": lambda a: -a,
    "sum": lambda values: sum(values),
}


def scalar(e: Expr, at: dict[str, int], known: Mapping[str, Array]) -> Any:
    def value(part: Expr) -> Any:
        return scalar(part, at, known)

    match e:
        case Literal():
            return e.value
        case Read():
            index = tuple(int(evaluate_dim(d, at)) for d in e.index)
            shape = known[e.tensor.name].shape
            if all(0 <= i < extent for i, extent in zip(index, shape, strict=True)):
                return known[e.tensor.name][index]
            assert e.outside is not None
            return e.outside
        case IndexValue():
            return evaluate_dim(e.index, at)
        case IndexCompare():
            return OPERATIONS[e.op](evaluate_dim(e.a, at), evaluate_dim(e.b, at))
        case Unary():
            return OPERATIONS[e.op](value(e.x))
        case Binary() | Compare():
            return OPERATIONS[e.op](value(e.a), value(e.b))
        case Select():
            return value(e.yes) if value(e.condition) else value(e.no)
        case Cast():
            return value(e.x)
        case Reduce():
            ranges = [range(int(str(axis.extent))) for axis in e.axes]
            found = [
                scalar(e.body, at | dict(zip((a.name for a in e.axes), inner, strict=True)), known)
                for inner in product(*ranges)
            ]
            return OPERATIONS[e.op](found)


A, B, R, S = Axis("a", 3), Axis("b", 4), Axis("r", 2), Axis("s", 3)
X = TensorVar("x", TensorType(F64, (3, 4)))
V = TensorVar("v", TensorType(F64, (5,)))
ARRAYS = {
    "x": np.arange(12.0).reshape(3, 4) - 5,
    "v": np.array([2.0, -1.0, 0.5, 3.0, -2.0]),
}


@st.composite
def indices(draw: st.DrawFn, axes: tuple[Axis, ...]) -> Dim:
    """Affine, folded or divided; it may leave any tensor."""
    total: Dim = draw(st.integers(-3, 3))
    for axis in axes:
        total = total + axis.i * draw(st.integers(-1, 2))
    kind = draw(st.sampled_from(["plain", "plain", "div", "mod", "clamp"]))
    if kind == "div":
        return total // draw(st.integers(1, 3))
    if kind == "mod":
        return total % draw(st.integers(1, 5))
    return dim_max(dim_min(total, 2), 0) if kind == "clamp" else total


@st.composite
def expressions(draw: st.DrawFn, axes: tuple[Axis, ...] = (A, B), depth: int = 3) -> Expr:
    kinds = ["read", "vector", "literal", "index"]
    if depth:
        kinds += ["binary", "select", "compare", "unary", "reduce"] * 2
    kind = draw(st.sampled_from(kinds))
    inner = expressions(axes, depth - 1)
    match kind:
        case "read":
            return Read(X, (draw(indices(axes)), draw(indices(axes))), draw(st.floats(-2, 2)))
        case "vector":
            return Read(V, (draw(indices(axes)),), 0.0)
        case "literal":
            return Literal(draw(st.integers(-3, 3)) / 2, F64)
        case "index":
            return IndexValue(draw(indices(axes)), F64)
        case "binary":
            op = draw(st.sampled_from(["add", "sub", "mul", "max", "min"]))
            return Binary(op, draw(inner), draw(inner))
        case "unary":
            return Unary(draw(st.sampled_from(["abs", "neg"])), draw(inner))
        case "compare":
            compared = Compare(draw(st.sampled_from(["lt", "ge"])), draw(inner), draw(inner))
            return Select(compared, draw(inner), draw(inner))
        case "select":
            condition = IndexCompare("lt", draw(indices(axes)), draw(indices(axes)))
            return Select(condition, draw(inner), draw(inner))
        case _:
            name = f"r{depth}"
            reduced = (Axis(name, 2), Axis(f"{name}x", 3))[: draw(st.integers(1, 2))]
            body = draw(expressions((*axes, *reduced), depth - 1))
            return Reduce(draw(st.sampled_from(["sum", "max"])), reduced, body)


def one_stage(body: Expr, axes: tuple[Axis, ...] = (A, B)) -> TensorExpr:
    target = TensorVar("y", TensorType(body.dtype, tuple(a.extent for a in axes)))
    return TensorExpr((X, V), (Stage(target, axes, body),), ("y",))


@pytest.mark.dear
@given(expressions())
def test_equals_plain_python(body: Expr) -> None:
    expr = one_stage(body)
    found = evaluate(expr, ARRAYS)["y"]
    np.testing.assert_allclose(found, naive(expr, ARRAYS)["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.dear
@given(expressions())
def test_counts_what_the_formula_says(body: Expr) -> None:
    expr, counter = one_stage(body), Counter()
    evaluate(expr, ARRAYS, counter)
    assert counter.operations == flops(expr)


@pytest.mark.dear
@given(expressions(), st.integers(1, 40))
def test_parts_make_the_whole(body: Expr, limit: int) -> None:
    expr, counter = one_stage(body), Counter()
    whole = evaluate(expr, ARRAYS)["y"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "LARGEST_GRID", limit)
        parts = evaluate(expr, ARRAYS, counter)["y"]
    np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-12)
    assert counter.operations == flops(expr)


def test_an_unguarded_read_must_stay_inside() -> None:
    with pytest.raises(IndexError, match="leaves"):
        evaluate(one_stage(X[A.i, B.i + 1]), ARRAYS)
    with pytest.raises(IndexError, match="leaves"):
        evaluate(one_stage(X[A.i, B.i - 1]), ARRAYS)


def test_a_guard_covers_only_its_own_arm() -> None:
    inside = IndexCompare("lt", B.i + 1, 4)
    guarded = Select(inside, X[A.i, B.i + 1], Literal(9.0, F64))
    expected = np.concatenate([ARRAYS["x"][:, 1:], np.full((3, 1), 9.0)], axis=1)
    np.testing.assert_array_equal(evaluate(one_stage(guarded), ARRAYS)["y"], expected)
    flipped = Select(inside, Literal(9.0, F64), X[A.i, B.i + 1])
    with pytest.raises(IndexError, match="leaves"):
        evaluate(one_stage(flipped), ARRAYS)
    by_value = Select(Compare("lt", V[0], V[1]), X[A.i, B.i + 1], Literal(9.0, F64))
    with pytest.raises(IndexError, match="leaves"):
        evaluate(one_stage(by_value), ARRAYS)


def test_arrays_must_be_what_is_declared() -> None:
    expr = elementwise((X,), X.type, lambda x: x)
    with pytest.raises(ValueError, match="declared f64\\[3, 4\\]"):
        evaluate(expr, {"x": np.zeros((3, 5))})
    with pytest.raises(ValueError, match="float32"):
        evaluate(expr, {"x": np.zeros((3, 4), np.float32)})


def test_sizes_must_be_known() -> None:
    n = TensorVar("x", TensorType(F64, (symbol("N"),)))
    expr = elementwise((n,), n.type, lambda x: x)
    with pytest.raises(ValueError, match=r"declared f64\[N\]"):
        evaluate(expr, {"x": np.zeros(3)})


def test_maps_of_large_weights_make_no_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elementwise arithmetic reads views: no index array is ever made."""
    w = TensorVar("w", TensorType(F64, (64, 32, 3, 3)))
    s = TensorVar("s", TensorType(F64, (64, 1, 1, 1)))
    monkeypatch.delattr(oracle._Scope, "_gather")
    rng = np.random.default_rng(0)
    arrays = {"w": rng.random((64, 32, 3, 3)), "s": rng.random((64, 1, 1, 1))}
    found = evaluate(elementwise((w, s), w.type, lambda a, b: a * b), arrays)["y"]
    np.testing.assert_array_equal(found, arrays["w"] * arrays["s"])


def test_results_share_no_memory_with_inputs() -> None:
    found = evaluate(elementwise((X,), X.type, lambda x: x), ARRAYS)["y"]
    assert not np.shares_memory(found, ARRAYS["x"])


UNARY = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sin": np.sin,
    "cos": np.cos,
    "reciprocal": lambda x: 1 / x,
    "sign": np.sign,
    "isnan": np.isnan,
    "neg": np.negative,
    "abs": np.abs,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", UNARY)
def test_unary_operations(op: str, dtype: Any) -> None:
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -2.5]
    x = np.concatenate([np.linspace(-8, 8, 1001), edges]).astype(dtype)
    var = TensorVar("x", TensorType(DType.F32 if dtype is np.float32 else F64, x.shape))
    out = TensorType(BOOL if op == "isnan" else var.type.dtype, x.shape)
    found = evaluate(elementwise((var,), out, lambda e: Unary(op, e)), {"x": x})["y"]
    with np.errstate(all="ignore"):
        expected = UNARY[op](x)
    assert found.dtype == (bool if op == "isnan" else dtype)
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype).eps))


def test_integers_and_masks() -> None:
    a = TensorVar("a", TensorType(I64, (6,)))
    b = TensorVar("b", TensorType(I64, (6,)))
    arrays = {"a": np.array([7, -7, 7, -7, 0, 6]), "b": np.array([2, 2, -2, -2, 5, 3])}

    def run(rule: Any, dtype: DType = I64) -> list[Any]:
        expr = elementwise((a, b), TensorType(dtype, (6,)), rule)
        return evaluate(expr, arrays)["y"].tolist()

    assert run(lambda a, b: a / b) == [3, -4, -4, 3, 0, 2]
    assert run(lambda a, b: Binary("mod", a, b)) == [1, 1, -1, -1, 0, 0]
    assert run(lambda a, b: Compare("lt", a, b), BOOL) == [False, True, False, True, True, False]
    assert run(lambda a, b: Cast(a, BOOL), BOOL) == [True, True, True, True, False, True]
    both = run(lambda a, b: Binary("xor", Cast(a, BOOL), Compare("lt", a, b)), BOOL)
    assert both == [True, False, True, False, True, True]


@pytest.mark.parametrize(("op", "expected"), [("sum", 6), ("prod", 0), ("min", 0), ("max", 3)])
def test_a_reduction_of_what_does_not_vary_counts_each_position(op: str, expected: int) -> None:
    body = Reduce(op, (Axis("r", 4),), IndexValue(Axis("r", 4).i, I64))
    y = evaluate(one_stage(body), ARRAYS)["y"]
    assert set(y.flat) == {expected}
    constant = Reduce("sum", (Axis("r", 4),), Literal(2.0, F64) * Literal(3.0, F64))
    assert set(evaluate(one_stage(constant), ARRAYS)["y"].flat) == {24.0}


def test_sums_of_products_are_exact_in_integers_of_floats() -> None:
    k = Axis("k", 4)
    body = Reduce("sum", (k,), X[A.i, k.i] * X[A.i, k.i])
    y = evaluate(one_stage(body, (A,)), ARRAYS)["y"]
    np.testing.assert_array_equal(y, (ARRAYS["x"] ** 2).sum(1))


def test_axes_are_named_after_what_they_are() -> None:
    assert [a.name for a in axes_over((1, 2, 3, 4))] == ["n", "c", "h", "w"]
    assert [a.name for a in axes_over((1,) * 6)] == [f"i{k}" for k in range(6)]


@pytest.mark.parametrize(
    ("op", "expected"), [("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf)]
)
def test_a_reduction_of_nothing_is_what_it_starts_from(op: str, expected: float) -> None:
    """Sums of products, too, which go through einsum."""
    i, k = Axis("i", 3), Axis("k", 0)
    x = TensorVar("x", TensorType(F64, (3, 0)))

    def reduced(op: str, value: Expr) -> Array:
        y = Stage(TensorVar("y", TensorType(value.dtype, (3,))), (i,), Reduce(op, (k,), value))
        return evaluate(TensorExpr((x,), (y,), ("y",)), {"x": np.ones((3, 0))})["y"]

    for value in (x[i.i, k.i], x[i.i, k.i] * x[i.i, k.i]):
        np.testing.assert_array_equal(reduced(op, value), [expected] * 3)
    mask = Compare("lt", x[i.i, k.i], Literal(0.0, F64))
    assert not reduced("any", mask).any()
    assert reduced("all", mask).all()
