"""Optimisers that PyTorch lacks against their papers; types, kernels and names of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from optimisers import Array, drawn, trajectory

from convdsl.ir.techniques import OPTIMIZERS
from convdsl.tensor import DType
from convdsl.training.optimisers import OPTIMISERS

pytestmark = pytest.mark.drawn

Recurrence = Callable[[Array, Sequence[Array], Sequence[float], Any], Iterator[Array]]


def test_there_is_one_for_every_name() -> None:
    assert OPTIMISERS.keys() == OPTIMIZERS.keys()


# From the papers, in NumPy


def lion(w: Array, gradients: Sequence[Array], rates: Sequence[float], a: Any) -> Iterator[Array]:
    """Chen et al. 2023, algorithm 2."""
    m = np.zeros_like(w)
    for g, rate in zip(gradients, rates, strict=True):
        c = a["beta1"] * m + (1 - a["beta1"]) * g
        w = w - rate * (np.sign(c) + a["weight_decay"] * w)
        m = a["beta2"] * m + (1 - a["beta2"]) * g
        yield w


def lamb(w: Array, gradients: Sequence[Array], rates: Sequence[float], a: Any) -> Iterator[Array]:
    """You et al. 2020, algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = a["beta1"] * m + (1 - a["beta1"]) * g
        v = a["beta2"] * v + (1 - a["beta2"]) * g**2
        r = m / (1 - a["beta1"] ** t) / (np.sqrt(v / (1 - a["beta2"] ** t)) + a["eps"])
        r = r + a["weight_decay"] * w
        size, length = np.sqrt((w**2).sum()), np.sqrt((r**2).sum())
        w = w - rate * (size / length if size > 0 and length > 0 else 1.0) * r
        yield w


def lars(w: Array, gradients: Sequence[Array], rates: Sequence[float], a: Any) -> Iterator[Array]:
    """You et al. 2017, algorithm 1."""
    v = np.zeros_like(w)
    for g, rate in zip(gradients, rates, strict=True):
        size, slope = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        local = 1.0
        if size > 0 and slope > 0:
            local = a["trust"] * size / (slope + a["weight_decay"] * size)
        v = a["momentum"] * v + rate * local * (g + a["weight_decay"] * w)
        w = w - v
        yield w


def adabound(
    w: Array, gradients: Sequence[Array], rates: Sequence[float], a: Any
) -> Iterator[Array]:
    """Luo et al. 2019, algorithm 2, with the corrections and the bounds of the authors' code."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        g = g + a["weight_decay"] * w
        m = a["beta1"] * m + (1 - a["beta1"]) * g
        v = a["beta2"] * v + (1 - a["beta2"]) * g * g
        alpha = rate * np.sqrt(1 - a["beta2"] ** t) / (1 - a["beta1"] ** t)
        last = a["final_lr"] * rate / a["lr"]
        low = last * (1 - 1 / (a["gamma"] * t + 1))
        high = last * (1 + 1 / (a["gamma"] * t))
        w = w - np.clip(alpha / (np.sqrt(v) + a["eps"]), low, high) * m
        yield w


PAPERS: list[tuple[Recurrence, dict[str, Any]]] = [
    (lion, {}),
    (lion, {"weight_decay": 0.3, "beta1": 0.5, "beta2": 0.7}),
    (lamb, {}),
    (lamb, {"weight_decay": 0.1, "beta1": 0.5, "eps": 1e-3}),
    (lars, {}),
    (lars, {"weight_decay": 0.1, "momentum": 0.5, "trust": 0.1}),
    (adabound, {}),
    (adabound, {"weight_decay": 0.1, "final_lr": 0.01, "gamma": 0.1, "lr": 0.05}),
    (adabound, {"beta2": 0.9, "gamma": 2.0, "final_lr": 1.0}),
]


@pytest.mark.parametrize(("paper", "arguments"), PAPERS)
def test_a_hundred_steps(paper: Recurrence, arguments: dict[str, Any]) -> None:
    name = paper.__name__
    w, gradients, rates = drawn(len(name) + len(arguments))
    found = trajectory(name, arguments, w, gradients, rates)
    wanted = paper(w, gradients, rates, OPTIMIZERS[name].complete(arguments))
    for step, (ours, other) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(ours, other, rtol=1e-10, atol=1e-12, err_msg=f"step {step}")
    assert not np.allclose(found[-1], w)


@pytest.mark.parametrize(("paper", "name"), [(lamb, "lamb"), (lars, "lars")])
def test_a_parameter_of_zeros_is_not_scaled(paper: Recurrence, name: str) -> None:
    w, gradients, rates = drawn(5)
    w = np.zeros_like(w)
    found = trajectory(name, {}, w, gradients[:5], rates[:5])
    wanted = list(paper(w, gradients[:5], rates[:5], OPTIMIZERS[name].complete({})))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
    assert found[0].any()


# All of them


@pytest.mark.dear
@pytest.mark.parametrize("shape", [(), (1,), (10,), (33,), (3, 5, 3, 3), (16, 16, 3, 3)], ids=str)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_in_single_precision(name: str, shape: tuple[int, ...]) -> None:
    """Close to the same in double precision, whatever the shape."""
    random = np.random.default_rng(1)
    p = random.normal(size=shape).astype("f4")
    gradients = [random.normal(size=shape).astype("f4") for _ in range(5)]
    rates = [0.01] * 5
    ours = trajectory(name, {"weight_decay": 0.1}, p, gradients, rates, DType.F32)[-1]
    wide = [g.astype("f8") for g in gradients]
    wanted = trajectory(name, {"weight_decay": 0.1}, p.astype("f8"), wide, rates)[-1]
    assert ours.dtype == np.float32
    assert ours.shape == shape
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_numbers_that_are_none_stay_with_their_element(name: str) -> None:
    """One NaN in a gradient spoils that element alone, where norms are taken too."""
    p, gradients, rates = drawn(2)
    gradients[0][1, 2] = np.nan
    spoiled = np.isnan(trajectory(name, {}, p, gradients[:3], rates[:3])[-1])
    assert spoiled[1, 2]
    assert spoiled.sum() == 1
