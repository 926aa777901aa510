"""Sums over millions of elements in single precision: errors that hardly grow with their length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convdsl

Array = np.ndarray[Any, Any]
ULP = 2.0**-24


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def normalised(x: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)


LAYERS: dict[str, tuple[str, Callable[[Array], Array], float]] = {
    "sum": ("reduce_sum(1)", lambda x: x.sum(axis=1, keepdims=True), 8),
    "mean": ("reduce_mean(1)", lambda x: x.mean(axis=1, keepdims=True), 8),
    "softmax": ("softmax(axis=1)", softmax, 32),
    "log_softmax": ("log_softmax(axis=1)", lambda x: np.log(softmax(x)), 16),
    "layer_norm": ("layer_norm(axis=1, affine=false)", normalised, 16),
    "l2": ("reduce_l2(1)", lambda x: np.sqrt((x**2).sum(axis=1, keepdims=True)), 8),
}


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    "size", [1000, 1 << 20, pytest.param(1 << 26, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("layer", LAYERS)
def test_error_in_units_of_the_largest_result(layer: str, size: int) -> None:
    """The inputs have a mean of 3, so that plain sums in one accumulator would lose four digits."""
    text, truth, units = LAYERS[layer]
    x = np.random.default_rng(0).standard_normal((1, size), np.float32) + np.float32(3)
    source = f"model m {{\n input x: f32[1, {size}]\n x -> {text} -> output y\n}}\n"
    y = convdsl.compile(convdsl.parse(source), {}, cache=False)(x).reshape(1, -1)
    expected = truth(x.astype(np.float64))
    assert np.abs(y - expected).max() <= units * ULP * np.abs(expected).max()
