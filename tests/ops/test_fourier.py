"""Fourier transforms against NumPy's, in double precision: any length, axis, half or whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import analyse
from convdsl.bound import bind_weights_of
from convdsl.ops.fourier import FACTOR, divisor, leaf
from convdsl.passes import PASSES

Array = np.ndarray[Any, Any]

LENGTHS = [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 31, 32, 49, 60, 64, 97, 100, 127, 128, 200, 243,
           256, 360, 512, 1009, 1024, 1331, 2048, 4096]  # fmt: skip


def text(shape: tuple[int, ...], how: dict[str, Any], dtype: str = "f32") -> str:
    words = ", ".join(f"{k} = {str(v).lower()}" for k, v in how.items())
    sizes = ", ".join(map(str, shape))
    return f"model m {{ input x: {dtype}[{sizes}]\n x -> dft({words}) -> output y }}"


def said(x: Array, axis: int = -2, length: int = 0, inverse: bool = False, onesided: bool = False):
    """NumPy's, parts along the last axis."""
    x = x.astype("f8")
    z = x[..., 0] + 1j * x[..., 1] if x.shape[-1] == 2 else x[..., 0]
    axis = axis % x.ndim
    n = length or None
    if inverse and onesided:
        return np.fft.irfft(z, n, axis)[..., None]
    made = {
        (False, False): np.fft.fft,
        (False, True): np.fft.rfft,
        (True, False): np.fft.ifft,
    }[inverse, onesided](z, n, axis)
    return np.stack([made.real, made.imag], -1)


def found(x: Array, passes: Any = PASSES, **how: Any) -> Array:
    dtype = "f32" if x.dtype == np.float32 else "f64"
    model = convdsl.parse(text(x.shape, how, dtype))
    return convdsl.compile(model, {}, cache=False, passes=passes)(x)


def assert_near(y: Array, wanted: Array, at_most: float) -> None:
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=0, atol=at_most * max(np.abs(wanted).max(), 1e-30))


KINDS = [
    pytest.param(1, {}, id="real"),
    pytest.param(2, {}, id="complex"),
    pytest.param(1, {"onesided": True}, id="half"),
    pytest.param(2, {"inverse": True}, id="back"),
    pytest.param(1, {"inverse": True}, id="real-back"),
    pytest.param(2, {"inverse": True, "onesided": True}, id="half-back"),
]


@pytest.mark.dear
@pytest.mark.drawn(share=12)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("parts", "how"), KINDS)
def test_every_length(length: int, parts: int, how: dict[str, Any]) -> None:
    half = how.get("inverse") and how.get("onesided")
    x = np.random.default_rng(length).standard_normal(
        (3, length // 2 + 1 if half else length, parts)
    )
    given = how | {"length": length} if half else how
    wanted = said(x, **given)
    long = leaf(length) / FACTOR  # sums of so many terms
    assert_near(found(x.astype("f4"), **given), wanted, 1e-6 * max(1, long**0.5))


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("length", [1, 6, 49, 128, 360])
@pytest.mark.parametrize(("parts", "how"), KINDS)
def test_double_precision(length: int, parts: int, how: dict[str, Any]) -> None:
    x = np.random.default_rng(length).standard_normal((2, length + 3, parts))
    assert_near(found(x, length=length, **how), said(x, length=length, **how), 2e-14)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(40))
def test_drawn(seed: int) -> None:
    """Any axis, cut or filled, with passes and without."""
    random = np.random.default_rng(seed)
    parts, how = KINDS[seed % len(KINDS)].values
    shape = [int(random.integers(1, 5)) for _ in range(random.integers(1, 4))]
    axis = int(random.integers(len(shape)))
    shape[axis] = int(random.choice([1, 2, 3, 9, 16, 30, 65, 66, 130]))
    x = random.standard_normal((*shape, parts)).astype("f4")
    given: dict[str, Any] = {"axis": int(random.choice([axis, axis - len(shape) - 1])), **how}
    short = how.get("inverse") and how.get("onesided") and shape[axis] == 1
    if short or random.random() < 0.6:
        given["length"] = int(random.choice([1, 2, 5, 8, 33, 66, 81, 128]))
    wanted = said(x, **given)
    assert_near(found(x, **given), wanted, 2e-6)
    assert_near(found(x, passes=(), **given), wanted, 1e-5)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("length", [12, 66, 128, 97])
def test_there_and_back(length: int) -> None:
    body = (
        "x -> dft(onesided = true) -> dft(inverse = true, onesided = true, length = L) -> output y"
    )
    model = convdsl.parse(
        f"model m {{ input x: f32[N, {length}, 1]\n {body.replace('L', str(length))} }}"
    )
    x = np.random.default_rng(0).standard_normal((4, length, 1)).astype("f4")
    assert_near(convdsl.compile(model, {}, cache=False)(x), x, 1e-6)


def test_special_numbers_reach_all_frequencies() -> None:
    x = np.ones((1, 6, 2), "f4")
    x[0, 2, 0] = np.nan
    assert np.isnan(found(x)).all()
    assert found(np.full((2, 8, 1), 1e37, "f4")).max() == pytest.approx(8e37, rel=1e-6)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("passes", [PASSES, ()], ids=["passes", "no-passes"])
@pytest.mark.parametrize("length", [2, 4, 10, 12, 64])
def test_what_is_zero_is_zero(length: int, passes: Any) -> None:
    """Of real numbers frequencies 0 and length/2 are real, but for rounding in double precision."""
    x = 1e4 * np.random.default_rng(0).standard_normal((3, length, 1)).astype("f4")
    y = found(x, passes)
    assert np.abs(y[:, [0, length // 2], 1]).max() <= 1e-15 * np.abs(x).sum()


@pytest.mark.dear(share=4)
def test_several_axes_are_transformed_one_after_the_other() -> None:
    body = "x -> unsqueeze([-1]) -> dft(axis = 2) -> dft(axis = 3) -> output y"
    model = convdsl.parse(f"model m {{ input x: f32[N, 2, 12, 70]\n {body} }}")
    x = np.random.default_rng(0).standard_normal((2, 2, 12, 70)).astype("f4")
    wanted = np.fft.fft2(x.astype("f8"))
    y = convdsl.compile(model, {}, cache=False)(x)
    assert_near(y, np.stack([wanted.real, wanted.imag], -1), 1e-6)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(("parts", "how"), KINDS)
@pytest.mark.parametrize(("extent", "length"), [(5, 8), (70, 66), (9, 9), (3, 128)])
def test_gradient(parts: int, how: dict[str, Any], extent: int, length: int) -> None:
    """Transforms are linear: the gradient of <w, F x> is F^T w, which NumPy's matrix says."""
    shape = (2, extent, parts)
    y = said(np.zeros(shape), length=length, **how).shape
    words = ", ".join(f"{k} = {str(v).lower()}" for k, v in (how | {"length": length}).items())
    inputs = f"input x: f64[{', '.join(map(str, shape))}]\ninput w: f64[{', '.join(map(str, y))}]"
    model = convdsl.parse(f"model m {{\n{inputs}\noutput y = (x -> dft({words})) * w\n}}")
    made = convdsl.compile(convdsl.gradient(model, "y", "x"), {}, cache=False)
    w, x = (np.random.default_rng(1).standard_normal(size) for size in (y, shape))
    dx = made(x=x, w=w)["dx"]
    units = np.eye(extent * parts).reshape(-1, extent, parts)
    columns = said(units, length=length, **how).reshape(extent * parts, -1)
    wanted = (columns @ w.reshape(2, -1).T).T.reshape(shape)
    assert_near(dx, wanted, 1e-12)


def test_costs_are_those_of_the_definition() -> None:
    totals = analyse(convdsl.parse(text((3, 40, 2), {}))).totals
    assert (totals["params"], totals["macs"]) == (0, 3 * 40 * 2 * 40 * 2)
    half = analyse(convdsl.parse(text((3, 40, 1), {"onesided": True}))).totals
    assert half["macs"] == 3 * 40 * 21 * 2


def test_long_ones_are_split() -> None:
    assert divisor(FACTOR) is None
    assert divisor(997) is None
    for length in range(2, 5000):
        if (r := divisor(length)) is not None:
            assert length % r == 0
            assert 1 < r <= FACTOR
    assert (leaf(4096), leaf(2 * 997), leaf(10_000), leaf(2**20)) == (64, 997, 50, 64)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("input x: f32[N, 8, 3]\n x -> dft -> output y", "no last axis of a real part"),
        ("input x: f32[N, 8, 2]\n x -> dft(axis = -1) -> output y", "holds the parts"),
        ("input x: f32[N, 8, 2]\n x -> dft(onesided = true) -> output y", "of real numbers"),
        (
            "input x: f32[N, 8, 1]\n x -> dft(onesided = true, inverse = true) -> output y",
            "complex",
        ),
        ("input x: f32[N, S, 1]\n x -> dft -> output y", "needs a known size along axis 1"),
        ("input x: f32[N, 10007, 1]\n x -> dft -> output y", "has a factor of 10,007: too long"),
        (
            "input x: f32[N, 1, 2]\n x -> dft(onesided = true, inverse = true) -> output y",
            "one pos",
        ),
        ("input x: i64[N, 8, 1]\n x -> dft -> output y", "floating-point"),
        ("input x: f32[N, 8, 1]\n x -> dft(axis = 5) -> output y", "does not exist"),
    ],
)
def test_objections(body: str, message: str) -> None:
    with pytest.raises(convdsl.CompileError, match=message):
        convdsl.parse(f"model m {{ {body} }}")


def test_weights_of_a_transform_are_none() -> None:
    assert bind_weights_of(convdsl.parse(text((1, 8, 1), {})), "random:0") == {}
