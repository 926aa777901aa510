"""Symbolic integers against plain ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.tensor import (
    Dim,
    Symbol,
    SymDim,
    bounds,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    exact_div,
    floor_div,
    provably,
    substitute,
    symbol,
    symbols_of,
)

SYMBOLS = (
    Symbol("N"),
    Symbol("H", minimum=32, divisor=32),
    Symbol("W", minimum=3, divisor=4, remainder=3),
    Symbol("i", minimum=0, maximum=6),
    Symbol("k", minimum=-5, maximum=5),
)


def dim_of(s: Symbol) -> SymDim:
    return symbol(s.name, s.minimum, s.divisor, s.remainder, s.maximum)


@st.composite
def bindings(draw: st.DrawFn) -> dict[str, int]:
    """A value for every symbol, within what is known of it."""
    values: dict[str, int] = {}
    for s in SYMBOLS:
        high = 40 if s.maximum is None else (s.maximum - s.minimum) // s.divisor
        first = s.minimum + (s.remainder - s.minimum) % s.divisor
        values[s.name] = first + s.divisor * draw(st.integers(0, high))
    return values


@dataclass(frozen=True)
class Pair:
    """A dim, and the same arithmetic on plain integers."""

    dim: Dim
    plain: Callable[[dict[str, int]], int]


def _leaf(s: Symbol) -> Pair:
    return Pair(dim_of(s), lambda values: values[s.name])


def _constant(value: int) -> Pair:
    return Pair(value, lambda values: value)


def _combine(op: str, a: Pair, b: Pair) -> Pair:
    f, g = a.plain, b.plain
    match op:
        case "+":
            return Pair(a.dim + b.dim, lambda v: f(v) + g(v))
        case "-":
            return Pair(a.dim - b.dim, lambda v: f(v) - g(v))
        case "*":
            return Pair(a.dim * b.dim, lambda v: f(v) * g(v))
        case "min":
            return Pair(dim_min(a.dim, b.dim), lambda v: min(f(v), g(v)))
        case _:
            return Pair(dim_max(a.dim, b.dim), lambda v: max(f(v), g(v)))


def _divide(op: str, a: Pair, divisor: Pair) -> Pair:
    f, g = a.plain, divisor.plain
    match op:
        case "//":
            return Pair(a.dim // divisor.dim, lambda v: f(v) // g(v))
        case "%":
            return Pair(a.dim % divisor.dim, lambda v: f(v) % g(v))
        case _:
            return Pair(ceil_div(a.dim, divisor.dim), lambda v: -(-f(v) // g(v)))


leaves = st.sampled_from(SYMBOLS).map(_leaf) | st.integers(-9, 9).map(_constant)
divisors = (
    st.sampled_from([1, 2, 3, 4, 5, 8, 12, 32]).map(_constant)
    | st.sampled_from(SYMBOLS[:3]).map(_leaf)
    | st.tuples(st.sampled_from(SYMBOLS[:3]), st.sampled_from(SYMBOLS[:3])).map(
        lambda two: _combine("*", _leaf(two[0]), _leaf(two[1]))
    )
    | st.sampled_from(SYMBOLS[:3]).map(lambda s: _combine("+", _leaf(s), _constant(1)))
)


def _grow(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.builds(_combine, st.sampled_from(["+", "-", "*", "min", "max"]), inner, inner) | (
        st.builds(_divide, st.sampled_from(["//", "%", "ceil"]), inner, divisors)
    )


pairs = st.recursive(leaves, _grow, max_leaves=6)


@pytest.mark.dear(share=4)
@given(pairs, bindings())
def test_value_is_that_of_plain_integers(pair: Pair, values: dict[str, int]) -> None:
    assert evaluate(pair.dim, values) == pair.plain(values)


@pytest.mark.dear(share=4)
@given(pairs, bindings())
def test_substitution_gives_the_value(pair: Pair, values: dict[str, int]) -> None:
    assert substitute(pair.dim, dict(values)) == pair.plain(values)


@pytest.mark.dear(share=4)
@given(pairs, bindings(), st.sets(st.sampled_from([s.name for s in SYMBOLS])))
def test_substitution_in_two_steps(pair: Pair, values: dict[str, int], first: set[str]) -> None:
    part = substitute(pair.dim, {name: values[name] for name in first})
    assert not {s.name for s in symbols_of(part)} & first
    assert evaluate(part, values) == pair.plain(values)


@pytest.mark.dear(share=4)
@given(pairs, bindings())
def test_bounds_hold(pair: Pair, values: dict[str, int]) -> None:
    low, high = bounds(pair.dim)
    value = pair.plain(values)
    assert low is None or low <= value
    assert high is None or value <= high


@pytest.mark.dear(share=4)
@given(pairs, st.lists(bindings(), min_size=1, max_size=5))
def test_arrays_evaluate_element_by_element(pair: Pair, many: list[dict[str, int]]) -> None:
    arrays = {s.name: np.array([values[s.name] for values in many]) for s in SYMBOLS}
    found = np.broadcast_to(evaluate(pair.dim, arrays), len(many))
    assert found.tolist() == [pair.plain(values) for values in many]


@pytest.mark.dear(share=4)
@given(pairs, pairs, bindings(), st.sampled_from([">=", ">", "=="]))
def test_what_is_proven_holds(a: Pair, b: Pair, values: dict[str, int], condition: str) -> None:
    if provably(condition, a.dim, b.dim):
        left, right = a.plain(values), b.plain(values)
        assert {">=": left >= right, ">": left > right, "==": left == right}[condition]


def test_extremes_that_hold_an_argument_are_beyond_it() -> None:
    n, h, w = (dim_of(s) for s in (Symbol("N"), Symbol("H"), Symbol("W")))
    assert provably(">=", dim_max(h, w), h)
    assert provably(">", dim_max(h, w, n) * 2 + 1, w * 2)
    assert provably(">=", h, dim_min(h, n) + dim_min(w, n) - w)
    assert provably(">=", dim_max(dim_max(h, w) + 1, n), w + 1)
    assert not provably(">", dim_max(h, w), h)
    assert not provably(">=", dim_max(h, w), h + w)
    assert not provably(">=", dim_min(h, w), h)


@pytest.mark.dear(share=4)
@given(pairs, divisors, bindings())
def test_exact_division_is_exact(value: Pair, divisor: Pair, values: dict[str, int]) -> None:
    product = value.dim * divisor.dim
    quotient = exact_div(product, divisor.dim)
    if quotient is not None:
        assert evaluate(quotient, values) * divisor.plain(values) == evaluate(product, values)
    claimed = exact_div(value.dim, divisor.dim)
    if claimed is not None:
        assert evaluate(claimed, values) * divisor.plain(values) == value.plain(values)


@pytest.mark.dear(share=4)
@given(pairs, divisors, bindings())
def test_what_a_product_is_divided_by_leaves_the_other_factor(
    value: Pair, divisor: Pair, values: dict[str, int]
) -> None:
    quotient = exact_div(value.dim * divisor.dim, divisor.dim)
    assert quotient is not None
    assert evaluate(quotient, values) == value.plain(values)


@pytest.mark.dear(share=4)
@given(pairs, pairs, pairs)
def test_ring_laws_make_equal_forms(a: Pair, b: Pair, c: Pair) -> None:
    assert a.dim + b.dim == b.dim + a.dim
    assert (a.dim + b.dim) - b.dim == a.dim
    assert a.dim * (b.dim + c.dim) == a.dim * b.dim + a.dim * c.dim
    assert hash(a.dim + b.dim) == hash(b.dim + a.dim)
    assert str(a.dim + b.dim) == str(b.dim + a.dim)


@pytest.mark.dear(share=4)
@given(pairs, pairs)
def test_dims_that_are_constant_are_ints(a: Pair, b: Pair) -> None:
    assert isinstance(a.dim - a.dim, int)
    for value in (a.dim, a.dim * b.dim):
        assert isinstance(value, int) or symbols_of(value)


N, H, W = symbol("N"), symbol("H"), symbol("W")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (N * 64 * H * W, "64*N*H*W"),
        (floor_div(H - 1, 2) + 1, "floor((H + 1)/2)"),
        (ceil_div(W, 4) * 4, "4*floor((W + 3)/4)"),
        (floor_div(floor_div(H, 2), 2), "floor(H/4)"),
        (floor_div(H * 6 + 3, 4), "floor((3*H + 1)/2)"),
        (floor_div(H * 4 + 6, 4), "H + 1"),
        (floor_div(N * H * W + W, H * W), "N + floor(W/(H*W))"),
        (H - H * 2, "-H"),
        (dim_min(H, 7), "min(7, H)"),
        (dim_min(H, H + 1), "H"),
        (dim_max(floor_div(H + 1, 2), floor_div(H, 2)), "floor((H + 1)/2)"),
    ],
)
def test_forms(value: Dim, text: str) -> None:
    assert str(value) == text


def test_declared_multiples_leave_the_floor() -> None:
    size = symbol("H", minimum=16, divisor=16)
    assert floor_div(floor_div(size, 2), 8) * 16 == size
    odd = symbol("H", minimum=1, divisor=2, remainder=1)
    assert floor_div(odd - 1, 2) * 2 + 1 == odd


def test_division_needs_a_positive_divisor() -> None:
    for divisor in (0, -2, H - 1, H - W):
        with pytest.raises(ValueError, match="division by"):
            floor_div(H, divisor)


def test_a_floor_is_split_at_known_ranges() -> None:
    row, column = symbol("h", 0, maximum=4), symbol("w", 0, maximum=6)
    assert (row * 7 + column) // 7 == row
    assert (row * 7 + column) % 7 == column
    assert (column + 2) // 9 == 0


@pytest.mark.parametrize("divisor", [1, 2, 5])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (-1, 0), (-2, 3), (3, -7)])
def test_bounds_of_floors_are_tight(scale: int, shift: int, divisor: int) -> None:
    i = symbol("i", minimum=0, maximum=9)
    value = floor_div(i * scale + shift, divisor)
    reached = [(k * scale + shift) // divisor for k in range(10)]
    assert bounds(value) == (min(reached), max(reached))
