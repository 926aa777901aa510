"""Augmentation of colours. Formulas and draws are torchvision's (ColorJitter)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from convdsl.training.data.arrays import X
from convdsl.training.data.augmentation.geometry import Arguments, Change, Known
from convdsl.training.data.draws import Draws
from convdsl.training.data.sample import Array, Sample

_GREY = np.array([0.2989, 0.587, 0.114], np.float32)  # ITU-R BT.601
_RGB = 3


def color_jitter(arguments: Arguments, known: Known) -> Change:
    """Other light: brightness, contrast, saturation and hue by drawn amounts, in a drawn order.

    Values are 0 to 1 (0 to 255 for uint8, rounded once at the end), and cut off there after each
    step. Grey images have neither saturation nor hue.
    """
    names = tuple(_STEPS)
    amounts = {name: float(arguments[name]) for name in _STEPS}

    def change(sample: Sample, draws: Draws) -> Sample:
        order = draws.order(len(_STEPS))
        factors = {name: draws.uniform(*_range(name, amount)) for name, amount in amounts.items()}
        x = sample[X]
        whole = x.dtype == np.uint8
        pixels = x.astype(np.float32) / np.float32(255) if whole else x
        for name in (names[int(position)] for position in order):
            if amounts[name]:
                pixels = _STEPS[name](pixels, factors[name]).astype(np.float32)
        made = np.rint(pixels * 255).astype(np.uint8) if whole else pixels
        return {**sample, X: made}

    return change


def _range(name: str, amount: float) -> tuple[float, float]:
    return (-amount, amount) if name == "hue" else (max(0.0, 1 - amount), 1 + amount)


def brightness(x: Array, factor: float) -> Array:
    """x * factor"""
    return (x * np.float32(factor)).clip(0, 1)


def contrast(x: Array, factor: float) -> Array:
    """Blended with the mean of grey."""
    return _blended(x, _grey(x).mean(dtype=np.float64).item(), factor)


def saturation(x: Array, factor: float) -> Array:
    """Blended with grey."""
    return _blended(x, _grey(x), factor) if x.shape[2] == _RGB else x


def hue(x: Array, amount: float) -> Array:
    """The angle of colour turned, by shares of the circle; value and saturation stay.

    The hexagonal cone of Smith 1978, "Color gamut transform pairs".
    """
    if x.shape[2] != _RGB:
        return x
    value, least = x.max(2), x.min(2)
    spread = value - least
    divisor = np.where(spread > 0, spread, 1)
    r, g, b = (x[..., c] for c in range(_RGB))
    sixths = np.select(
        [value == r, value == g], [(g - b) / divisor, 2 + (b - r) / divisor], 4 + (r - g) / divisor
    )
    turned = sixths + np.float32(6 * amount)
    offsets = ((5 + turned) % 6, (3 + turned) % 6, (1 + turned) % 6)
    parts = [value - spread * np.minimum(k, 4 - k).clip(0, 1) for k in offsets]
    return np.stack(parts, -1)


_STEPS: Mapping[str, Callable[[Array, float], Array]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


def _grey(x: Array) -> Array:
    """[H, W, 1]."""
    return (x @ _GREY)[..., None] if x.shape[2] == _RGB else x.mean(2, keepdims=True)


def _blended(x: Array, other: Array | float, factor: float) -> Array:
    return (np.float32(factor) * x + np.float32(1 - factor) * np.asarray(other, np.float32)).clip(
        0, 1
    )
