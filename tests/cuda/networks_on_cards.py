"""Networks on a card that is not there, the same on the processor, and arrays for both."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda.fake_driver import Fake
from cuda.fake_driver import ndarray as card_array
from graphs import Builder

import convdsl
from convdsl.ir.model import Model

NET = """
model net {
    input x: f32[N, 3, H, W]
    a = x -> conv(8, 3x3) -> relu
    b = a -> conv(8, 3x3) -> bn
    a + b -> relu -> max_pool(2x2) as pooled -> avg_pool(global) -> flatten
      -> linear(5) -> softmax -> output y
}
"""
TWO = """
model two {
    input a: f32[N, 4]
    input b: f32[N, 4]
    output sum = a + b -> relu -> linear(3) -> tanh -> linear(4) -> tanh
    output product = a * b -> linear(4)
}
"""


def counting() -> Model:
    """total <- total + x; y = 2 (total + x)."""
    b = Builder()
    x, total = b.input("x", 4), b.parameter("total", 4)
    after = b("add", total, x, name="after")
    b.update(total, after)
    return Model("counts", b.output(y=b("mul", after, b.constant("two", 2.0))))


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def put(fake: Fake, values: np.ndarray) -> card_array:
    made = card_array(fake, values.shape, values.dtype)
    made.view[...] = values
    return made


def on_card(what: str | Model, weights: Any = "random:1") -> convdsl.Executable:
    model = convdsl.parse(what) if isinstance(what, str) else what
    return convdsl.compile(model, weights, device="cuda", cache=False)


def on_cpu(text: str) -> convdsl.Executable:
    return convdsl.compile(convdsl.parse(text), "random:1", cache=False)
