"""Forms of filtering at roots of unity: the identity, few operations, errors as they say."""

from __future__ import annotations

import numpy as np
import pytest

from convdsl.schedules.forms import form, of_filters
from convdsl.schedules.fourier import LENGTHS, FourierForm

FORMS = [
    FourierForm(t - r + 1, r) for t in LENGTHS for r in sorted({2, 3, 7, t // 2, t - 1}) if r < t
]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("f", FORMS, ids=str)
def test_filters(f: FourierForm) -> None:
    """A ((G g) * (B d)) is the sum over s of d[i + s] g[s], for all d and g."""
    a, g, b = (steps.matrix for steps in (f.outputs, f.filters, f.inputs))
    made = np.einsum("ij,js,jk->isk", a, g, b)
    expected = np.zeros((f.m, f.r, f.t))
    for i in range(f.m):
        expected[i, np.arange(f.r), i + np.arange(f.r)] = 1
    np.testing.assert_allclose(made, expected, atol=2e-15)


@pytest.mark.parametrize("t", LENGTHS)
def test_inputs_are_the_transform(t: int) -> None:
    """Of each frequency the sum of both parts, the real and the imaginary one, with some signs."""
    f, d = FourierForm(t - 2, 3), np.random.default_rng(t).standard_normal(t)
    made, spectrum = np.abs(f.inputs.matrix @ d), np.fft.rfft(d)
    inner = spectrum[1:-1]
    parts = np.stack([inner.real + inner.imag, inner.real, inner.imag], axis=1)
    expected = np.concatenate([[spectrum[0].real], parts.reshape(-1), [spectrum[-1].real]])
    np.testing.assert_allclose(made, np.abs(expected), atol=1e-13)
    assert len(made) == f.products == 3 * t // 2 - 1


def test_transforms_are_fast() -> None:
    """Operations of the transform of t inputs: about 1.2 t log2(t), instead of t^2."""
    operations = [form(t - 6, 7).inputs.operations for t in (16, 32, 64)]
    assert operations == [67, 179, 451]
    assert all(form(t - 6, 7).inputs.operations < 1.4 * t * np.log2(t) for t in LENGTHS)


def test_zeros_are_left_out() -> None:
    """Filters are short, and of the way back some results are never asked for."""
    short, long = form(28, 5), form(5, 28)
    assert short.filters.operations < long.filters.operations
    assert long.outputs.operations < short.outputs.operations


@pytest.mark.parametrize(
    "f", [FourierForm(10, 7), FourierForm(12, 5), FourierForm(20, 13)], ids=str
)
def test_errors_are_amplified_as_said(f: FourierForm) -> None:
    """One axis, sums over 64 channels in f32 beside direct ones, both one after the other."""
    rng, channels, times = np.random.default_rng(1), 64, 200
    d = rng.standard_normal((times, channels, f.t))
    g = rng.standard_normal((times, channels, f.r))
    a, gs, b = (steps.matrix for steps in (f.outputs, f.filters, f.inputs))
    exact = np.einsum("ncis,ncs->ni", np.stack([d[..., i : i + f.r] for i in range(f.m)], 2), g)
    v, u = (d @ b.T).astype(np.float32), (g @ gs.T).astype(np.float32)
    products = np.zeros((times, f.products), np.float32)
    direct = np.zeros((times, f.m), np.float32)
    d, g = d.astype(np.float32), g.astype(np.float32)
    for c in range(channels):
        products += v[:, c] * u[:, c]
        for s in range(f.r):
            direct += d[:, c, s : s + f.m] * g[:, c, s, None]
    error = (products @ a.T.astype(np.float32) - exact).std(axis=0)
    plain = (direct - exact).std()
    assert f.amplification < 1
    assert error.max() / plain == pytest.approx(f.amplification, rel=0.5)


def test_the_form_follows_from_the_inputs_of_a_tile() -> None:
    assert [form(*f).said for f in ((4, 3), (4, 5), (6, 7), (34, 31))] == [
        "F(4, 3)",
        "F(4, 5)",
        "DFT(12)",
        "DFT(64)",
    ]
    for wrong in ((12, 1), (0, 16), (9, 7)):
        with pytest.raises(ValueError, match="no form"):
            form(*wrong)


def test_filters_of_two_axes_one_turned_round() -> None:
    forms, w = [form(10, 7), form(4, 3)], np.random.default_rng(0).standard_normal((7, 3, 2))
    made = of_filters(forms, [True, False], w)
    g, h = (f.filters.matrix for f in forms)
    np.testing.assert_allclose(made, np.einsum("pr,rsn,qs->pqn", g, w[::-1], h), atol=1e-15)
