"""The non-local block against equations 1 to 6 of arXiv:1711.07971, and against attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import analyse
from convdsl.ir.opdef import Role

Array = np.ndarray[Any, Any]

PAIRS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def drawn(model: convdsl.Model, seed: int = 0) -> dict[str, Array]:
    """Weights of order 1 over the square root of what they sum."""
    random = np.random.default_rng(seed)
    return {
        key: (random.standard_normal(s.type.sizes) / np.sqrt(s.type.sizes[1])).astype("f4")
        for key, s in model.graph.states.items()
        if s.role is Role.PARAMETER
    }


def written_out(x: Array, pair: str, pool: bool, weights: Mapping[str, Array]) -> Array:
    """Position by position, as the paper has it; x: [C, H, W]."""
    channels, height, width = x.shape
    w = {key.removesuffix(".weight"): a[:, :, 0, 0].astype("f8") for key, a in weights.items()}
    at = [x[:, i, j].astype("f8") for i in range(height) for j in range(width)]

    def pooled(rows: list[Array]) -> list[Array]:
        if not pool:
            return rows
        grid = np.stack(rows, 1).reshape(-1, height, width)
        return [
            grid[:, i : i + 2, j : j + 2].max((1, 2))
            for i in range(0, height - 1, 2)
            for j in range(0, width - 1, 2)
        ]

    g = pooled([w["g"] @ p for p in at])
    if pair == "gaussian":
        theta, phi = at, pooled(at)
    else:
        theta, phi = [w["theta"] @ p for p in at], pooled([w["phi"] @ p for p in at])
    z = []
    for own, query in zip(at, theta, strict=True):
        if pair == "concatenation":
            joint = np.concatenate([w["w_theta"], w["w_phi"]], 1)[0]
            f = [max(0.0, joint @ np.concatenate([query, key])) for key in phi]
        else:
            products = np.array([query @ key for key in phi])
            f = list(products if pair == "dot_product" else np.exp(products))
        c = sum(f) if "gaussian" in pair else len(f)
        y = sum(weight * value for weight, value in zip(f, g, strict=True)) / c
        z.append(w["w_z"] @ y + own)
    return np.stack(z, 1).reshape(channels, height, width)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_equations(pair: str, pool: bool) -> None:
    model = convdsl.load("non_local", channels=8, size=7, pair=pair, pool=pool)
    weights = drawn(model)
    assert weights["g.weight"].shape == (4, 8, 1, 1)  # half the channels inside
    x = np.random.default_rng(1).standard_normal((2, 8, 7, 7)).astype("f4")
    found = convdsl.compile(model, weights, cache=False)(x)
    wanted = np.stack([written_out(image, pair, pool, weights) for image in x])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.dear(share=4)
def test_embedded_gaussian_is_softmax_self_attention() -> None:
    """softmax(Q K^T) V, with Q, K, V linear in the positions as rows, without the scale that later
    texts divide by: a factor of theta."""
    model = convdsl.load("non_local", channels=16, size=6)
    weights = drawn(model, 3)
    x = np.random.default_rng(4).standard_normal((3, 16, 6, 6)).astype("f4")
    rows = x.reshape(3, 16, 36).swapaxes(1, 2).astype("f8")
    q, k, v = (rows @ weights[f"{name}.weight"][:, :, 0, 0].T for name in ("theta", "phi", "g"))
    scores = q @ k.swapaxes(1, 2)
    attention = np.exp(scores - scores.max(2, keepdims=True))
    attention /= attention.sum(2, keepdims=True)
    mixed = attention @ v @ weights["w_z.weight"][:, :, 0, 0].T
    wanted = (rows + mixed).swapaxes(1, 2).reshape(x.shape)
    found = convdsl.compile(model, weights, cache=False)(x)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_large_products_do_not_overflow() -> None:
    """Softmax takes the maximum out; exp of 1e4 alone would be infinite."""
    model = convdsl.load("non_local", channels=8, size=4, pair="gaussian")
    weights = drawn(model)
    x = np.random.default_rng(5).standard_normal((1, 8, 4, 4)).astype("f4") * 100
    assert np.isfinite(convdsl.compile(model, weights, cache=False)(x)).all()


@pytest.mark.dear
def test_with_zero_w_z_it_is_the_identity() -> None:
    for pair in PAIRS:
        model = convdsl.load("non_local", channels=8, size=4, pair=pair)
        weights = drawn(model)
        weights["w_z.weight"][:] = 0
        x = np.random.default_rng(5).standard_normal((1, 8, 4, 4)).astype("f4")
        np.testing.assert_array_equal(convdsl.compile(model, weights, cache=False)(x), x)


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("pair", PAIRS)
def test_pooling_quarters_the_pairs(pair: str) -> None:
    """Section 3.3: "reduces the amount of pairwise computation by 1/4", to a quarter."""
    whole, pooled = (
        analyse(convdsl.load("non_local", pair=pair, pool=pool), "all", {"N": 1})
        for pool in (False, True)
    )
    macs = [
        sum(int(row.cost.macs) for row in report.layers if row.op == "einsum")
        for report in (whole, pooled)
    ]
    assert macs[0] == 4 * macs[1]
