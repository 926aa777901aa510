"""Forms of minimal filtering: exact identities, few operations, errors as large as they say."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from convdsl.schedules import forms
from convdsl.schedules.forms import form
from convdsl.schedules.steps import Matrix, Steps, steps_of
from convdsl.schedules.winograd import PointForm
from convdsl.tensor.conversion import nearest_tf32

pytestmark = pytest.mark.drawn

FORMS = [
    PointForm(*f) for f in ((2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (3, 2), (3, 4), (3, 6))
]


@pytest.mark.parametrize("f", FORMS, ids=str)
def test_filters_exactly(f: PointForm) -> None:
    for i in range(f.m):
        for s in range(f.r):
            for k in range(f.t):
                products = (f.a[i][j] * f.g[j][s] * f.b[j][k] for j in range(f.t))
                assert sum(products, Fraction(0)) == (k == i + s)


@pytest.mark.parametrize("f", FORMS, ids=str)
def test_entries_are_exact_in_floats(f: PointForm) -> None:
    for entry in (e for matrix in (f.a, f.b) for row in matrix for e in row):
        assert Fraction(float(np.float32(float(entry)))) == entry


def test_a_single_tap_does_nothing() -> None:
    one = PointForm(1, 1)
    assert (one.a, one.g, one.b) == (((1,),),) * 3
    assert one.amplification == 1


@pytest.mark.parametrize("wrong", [(0, 3), (2, 0), (8, 8), (3, 3), (1, 3)])
def test_other_forms_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no form"):
        form(*wrong)


def run(steps: Steps, values: list[Fraction]) -> list[Fraction]:
    known = list(values)
    for terms in steps.sums:
        known.append(sum((number * known[at] for number, at in terms), Fraction(0)))
    return [known[at] for at in steps.results]


@pytest.mark.parametrize("f", FORMS, ids=str)
@pytest.mark.parametrize("which", ["a", "b", "g"])
def test_steps_are_the_matrix(f: PointForm, which: str) -> None:
    matrix: Matrix = getattr(f, which)
    drawn = np.random.default_rng(f.t).integers(-99, 99, len(matrix[0]))
    values = [Fraction(int(v), 7) for v in drawn]
    expected = [
        sum((e * v for e, v in zip(row, values, strict=True)), Fraction(0)) for row in matrix
    ]
    steps = steps_of(matrix)
    assert run(steps, values) == expected
    plain = sum(max(sum(e != 0 for e in row) - 1, 1) for row in matrix)
    assert steps.operations <= plain


def test_pairs_share_their_arithmetic() -> None:
    assert [steps_of(PointForm(m, 3).b).operations for m in (2, 4, 6)] == [4, 12, 24]
    assert [steps_of(PointForm(m, 3).a).operations for m in (2, 4, 6)] == [4, 10, 20]


@pytest.mark.parametrize("f", FORMS[:6], ids=str)
def test_errors_are_amplified_as_said(f: PointForm) -> None:
    """One axis, sums over 256 channels in f32 beside direct ones, both one after the other."""
    rng, channels, times = np.random.default_rng(1), 256, 400
    d = rng.standard_normal((times, channels, f.t))
    g = rng.standard_normal((times, channels, f.r))
    a, gs, b = (np.array(matrix, float) for matrix in (f.a, f.g, f.b))
    exact = np.einsum("ncis,ncs->ni", np.stack([d[..., i : i + f.r] for i in range(f.m)], 2), g)
    v, u = (d @ b.T).astype(np.float32), (g @ gs.T).astype(np.float32)
    products, direct = np.zeros((times, f.t), np.float32), np.zeros((times, f.m), np.float32)
    d, g = d.astype(np.float32), g.astype(np.float32)
    for c in range(channels):
        products += v[:, c] * u[:, c]
        for s in range(f.r):
            direct += d[:, c, s : s + f.m] * g[:, c, s, None]
    error = (products @ a.T.astype(np.float32) - exact).std(axis=0)
    plain = (direct - exact).std()
    assert error.max() / plain == pytest.approx(f.amplification, rel=0.4)


@pytest.mark.parametrize("f", FORMS[:6], ids=str)
def test_errors_of_rounded_factors_grow_as_said(f: PointForm) -> None:
    """One axis, factors in TF32, exact sums, beside direct ones."""
    rng = np.random.default_rng(2)
    d, g = (rng.standard_normal((400, 64, n)).astype(np.float32) for n in (f.t, f.r))
    a, gs, b = (np.array(matrix, float) for matrix in (f.a, f.g, f.b))

    def direct(d: Any, g: Any) -> Any:
        windows = np.stack([d[..., i : i + f.r] for i in range(f.m)], 2).astype(float)
        return np.einsum("ncis,ncs->ni", windows, g.astype(float))

    exact = direct(d, g)
    v, u = (nearest_tf32(x.astype(np.float32)).astype(float) for x in (d @ b.T, g @ gs.T))
    error = ((v * u).sum(axis=1) @ a.T - exact).std(axis=0)
    plain = (direct(nearest_tf32(d), nearest_tf32(g)) - exact).std()
    assert error.max() / plain == pytest.approx(f.rounding, rel=0.2)


def test_packing_works_a_matrix_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many filters a layer has: they are transformed a few channels at a time."""
    asked: list[Steps] = []
    matrix = Steps.matrix.fget
    assert matrix is not None

    def counted(steps: Steps) -> Any:
        asked.append(steps)
        return matrix(steps)

    forms._matrix.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(Steps, "matrix", property(counted))
    own = [form(4, 3), form(2, 3)]
    filters = np.ones((3, 3, 8))
    first = forms.of_filters(own, (False, False), filters)
    for _ in range(5):
        np.testing.assert_array_equal(forms.of_filters(own, (False, False), filters), first)
    assert len(asked) == 2
