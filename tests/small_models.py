"""Small models as source text, for tests of what comes after the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

import convdsl
from convdsl import Executable

Array = np.ndarray[Any, Any]

RESIDUAL = """
model residual {
    input image: f32[N, 3, H, W] where H % 4 == 0 and W >= 6
    stem = image -> conv(8, 3x3) -> bn -> relu
    body = stem -> conv(8, 3x3) -> bn
    body + stem -> relu -> avgpool(global) -> flatten -> linear(5) -> output logits
}
"""

CALCULATOR = """
model calculator {
    input a: f32[N, 4, 6]
    input b: f32[N, 4, 6]
    output total = a + b
    output difference = a - b
}
"""


def compiled(text: str, **options: Any) -> Executable:
    """Compiled with random weights; the cache stays out of it."""
    return convdsl.compile(convdsl.parse(text), "random:1", cache=False, **options)


def images(batch: int = 1, size: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size)).astype("f4")
