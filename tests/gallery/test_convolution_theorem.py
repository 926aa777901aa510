"""The convolution theorem against NumPy's FFT and SciPy's convolutions, and what the compiler makes
of it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve
from scipy.signal import convolve2d

import convdsl
from convdsl.backends.llvm.objects import find_target
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

Array = np.ndarray[Any, Any]

BUMP = np.array([[0, 1, 2], [1, 5, 3], [-1, 2, 4]], float)


def drawn(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def camera(size: int) -> Array:
    """A photograph, grey, from 0 to 1."""
    picture = Image.open(str(files("skimage") / "data" / "camera.png"))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), "f4") / 255


@pytest.mark.dear
@pytest.mark.parametrize("size", [4, 16, 31])
def test_products_of_spectra_are_convolutions(size: int) -> None:
    """Circular without room, with zeros around with it: each to float32's rounding."""
    x = drawn(3, 2, size, size)
    y = convdsl.compile(convdsl.load("convolution_theorem", size=size), {})(x)
    wide = convolve(x.astype("f8"), BUMP[None, None], mode="wrap", origin=(0, 0, -1, -1))
    full = np.stack([[convolve2d(c, BUMP) for c in sample] for sample in x.astype("f8")])
    scale = np.abs(full).max()
    for name, expected in (("circular", wide), ("full", full)):
        assert np.abs(y[name] - expected).max() <= 1e-6 * scale
        assert np.abs(y[f"{name}_by_spectra"] - expected).max() <= 2e-6 * scale


def test_what_wraps_round_is_the_difference() -> None:
    """The first rows and columns of the circular one are the full one's and what hung over."""
    x = drawn(1, 2, 16, 16)
    y = convdsl.compile(convdsl.load("convolution_theorem"), {})(x)
    full, circular = y["full"], y["circular"]
    assert np.abs(circular - full[..., :16, :16]).max() > 1
    np.testing.assert_allclose(circular[..., 2:, 2:], full[..., 2:16, 2:16], atol=1e-5)
    folded = full[..., :16, :16].copy()
    folded[..., :2, :] += full[..., 16:, :16]
    folded[..., :, :2] += full[..., :16, 16:]
    folded[..., :2, :2] += full[..., 16:, 16:]
    np.testing.assert_allclose(circular, folded, atol=1e-5)


@pytest.mark.dear
@pytest.mark.parametrize("cutoff", [0.05, 0.1, 0.3])
def test_low_pass(cutoff: float) -> None:
    """Of a photograph: as by NumPy's FFT, nothing above the cutoff, and the mean as before."""
    image = camera(128)[None, None]
    smooth = convdsl.compile(convdsl.load("low_pass", cutoff=cutoff), {})(image)
    f = np.fft.fftfreq(128)
    kept = f[:, None] ** 2 + f**2 <= cutoff**2
    expected = np.fft.ifft2(np.fft.fft2(image.astype("f8")) * kept).real
    assert np.abs(smooth - expected).max() <= 5e-6
    left = np.abs(np.fft.fft2(smooth.astype("f8")))[0, 0]
    assert left[~kept].max() <= 1e-6 * left.max()
    assert smooth.mean() == pytest.approx(image.mean(), abs=1e-6)


def test_few_frequencies_are_most_of_a_photograph() -> None:
    """Of its variance, 0.92 lies below a tenth of a cycle a pixel: 3 % of all frequencies."""
    image = camera(128)[None, None]
    smooth = convdsl.compile(convdsl.load("low_pass"), {})(image)
    told = 1 - np.square(image - smooth).sum() / np.square(image - image.mean()).sum()
    assert told == pytest.approx(0.921, abs=0.002)


def schedules(**given: Any) -> set[str]:
    graph = convdsl.load("large_filter", N=1, **given).graph
    machine = cpu_machine(find_target("x86-64-v4", "x86_64-unknown-linux-gnu"))
    return {choice.schedule for choice in lower(graph, machine, "t").choices}


@pytest.mark.dear(share=4)
def test_the_compiler_chooses_by_cost() -> None:
    assert "spectral" in schedules()
    assert "spectral" in schedules(kernel=31, groups=64)
    assert "spectral" not in schedules(kernel=3)
    assert "spectral" not in schedules(kernel=13, groups=64)


@pytest.mark.dear
@pytest.mark.parametrize("groups", [1, 32])
def test_in_the_frequency_domain_and_in_space(groups: int) -> None:
    model = convdsl.load("large_filter", channels=32, size=40, kernel=21, groups=groups)
    x = drawn(1, 32, 40, 40)
    spectral, direct = (
        convdsl.compile(model, "random:1", winograd=allowed)(x) for allowed in (True, False)
    )
    assert np.abs(spectral - direct).max() <= 5e-6 * np.ptp(direct)
    assert not np.array_equal(spectral, direct)
