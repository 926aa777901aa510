"""Gradients through deep chains, with and without shortcuts: arXiv:1603.05027, equation 5."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl


def norms(depth: int, shortcut: bool, activation: str = "sigmoid") -> list[float]:
    """Of the gradients of the filters, from the first layer to the last."""
    model = convdsl.load("shortcuts", depth=depth, shortcut=shortcut, activation=activation)
    x = np.random.default_rng(0).standard_normal((8, 1, 8, 8)).astype("f4")
    made = convdsl.gradient(model, wrt="conv*.weight")
    found = convdsl.compile(made, "random:0", cache=False).by_name(image=x)
    return [float(np.linalg.norm(found[name])) for name in found if name != "logits"]


@pytest.mark.dear
def test_without_shortcuts_gradients_vanish_with_the_depth() -> None:
    """By about the same factor at each layer."""
    short, deep = norms(8, False), norms(20, False)
    factors = [(found[0] / found[-1]) ** (1 / (len(found) - 1)) for found in (short, deep)]
    assert deep[0] < 1e-7 * deep[-1]
    assert factors[0] == pytest.approx(factors[1], rel=0.3)
    assert factors[1] < 0.5


@pytest.mark.dear
def test_with_them_they_stay() -> None:
    deep = norms(20, True)
    assert min(deep) > 0.4 * max(deep)
