"""A stage of the Swin transformer, window by window: arXiv:2103.14030, section 3."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from math import erf, sqrt
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import analyse
from convdsl.ir.opdef import Role

Array = np.ndarray[Any, Any]

SMALL = {"channels": 12, "heads": 3, "height": 8, "width": 12, "window": 4}


def drawn(model: convdsl.Model) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        key: (random.standard_normal(s.type.sizes) / sqrt(s.type.sizes[-1])).astype("f4")
        for key, s in model.graph.states.items()
        if s.role is Role.PARAMETER
    }


class WrittenOut:
    """Positions one by one: who is in a window, and on one side of the seams, heeds each other."""

    def __init__(self, weights: Mapping[str, Array], heads: int, window: int) -> None:
        self.weights = {key: array.astype("f8") for key, array in weights.items()}
        self.heads, self.window = heads, window

    def norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, x: Array, name: str) -> Array:
        bias = self.weights.get(f"{name}.bias", 0.0)
        return x @ self.weights[f"{name}.weight"].T + bias

    def attention(self, x: Array, name: str, shift: int) -> Array:
        height, width, channels = x.shape
        M, size = self.window, channels // self.heads
        together = defaultdict(list)
        for i, j in product(range(height), range(width)):
            row, column = (i - shift) % height, (j - shift) % width
            side = (row >= height - shift, column >= width - shift)
            together[row // M, column // M, side].append((i, j, row % M, column % M))
        table = self.weights[f"{name}.relative_position_bias_table"]
        qkv = self.linear(x, f"{name}.qkv").reshape(height, width, 3, self.heads, size)
        mixed = np.zeros((height, width, self.heads, size))
        for members in together.values():
            for i, j, row, column in members:
                scores = np.array([
                    (qkv[i, j, 0] * qkv[a, b, 1]).sum(1) / sqrt(size)
                    + table[(row - r + M - 1) * (2 * M - 1) + column - c + M - 1]
                    for a, b, r, c in members
                ])  # fmt: skip
                shares = np.exp(scores - scores.max(0))
                shares /= shares.sum(0)
                values = np.array([qkv[a, b, 2] for a, b, _, _ in members])
                mixed[i, j] = (shares[:, :, None] * values).sum(0)
        return self.linear(mixed.reshape(x.shape), f"{name}.proj")

    def layer(self, x: Array, name: str, shift: int) -> Array:
        x = x + self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attn", shift)
        hidden = self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.0")
        active = hidden * (1 + np.vectorize(erf)(hidden / sqrt(2))) / 2
        return x + self.linear(active, f"{name}.mlp.3")

    def stage(self, x: Array) -> Array:
        """x: [C, H, W]"""
        y = self.layer(x.transpose(1, 2, 0), "0", 0)
        y = self.layer(y, "1", self.window // 2)
        four = [y[i::2, j::2] for j in (0, 1) for i in (0, 1)]
        merged = self.norm(np.concatenate(four, 2), "merge.norm")
        return self.linear(merged, "merge.reduction").transpose(2, 0, 1)


@pytest.mark.dear
def test_windows_and_seams() -> None:
    model = convdsl.load("swin_stage", **SMALL)
    weights = drawn(model)
    x = np.random.default_rng(1).standard_normal((2, 12, 8, 12)).astype("f4")
    found = convdsl.compile(model, weights, cache=False)(x)
    exact = WrittenOut(weights, SMALL["heads"], SMALL["window"])
    wanted = np.stack([exact.stage(image.astype("f8")) for image in x])
    assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.dear
@pytest.mark.parametrize(("height", "width", "channels"), [(56, 56, 96), (14, 28, 48)])
def test_cost_is_linear_in_the_positions(height: int, width: int, channels: int) -> None:
    """Equation 2: 4 h w C^2 + 2 M^2 h w C multiply-accumulates of attention in windows, where that
    of the whole map has 4 h w C^2 + 2 (h w)^2 C (equation 1)."""
    model = convdsl.load("swin_stage", channels=channels, height=height, width=width)
    rows = analyse(model, "torchvision", {"N": 1}).layers
    for number in ("0", "1"):
        own = sum(int(row.cost.macs) for row in rows if row.name.startswith(f"{number}.attn"))
        positions, M = height * width, 7
        assert own == 4 * positions * channels**2 + 2 * M**2 * positions * channels
    whole = convdsl.load(
        "swin_stage", channels=channels, height=14, width=14, window=14, depth=1
    )  # one window: all positions
    rows = analyse(whole, "torchvision", {"N": 1}).layers
    own = sum(int(row.cost.macs) for row in rows if row.name.startswith("0.attn"))
    assert own == 4 * 196 * channels**2 + 2 * 196**2 * channels


@pytest.mark.dear
@pytest.mark.parametrize(("depth", "reached"), [(1, 16), (2, 64)])
def test_a_shift_lets_windows_talk(depth: int, reached: int) -> None:
    """What a change of one position reaches: its window, and after the shift four of those."""
    model = convdsl.load(
        "swin_stage", channels=6, heads=1, height=12, width=12, window=4, depth=depth
    )
    network = convdsl.compile(model, drawn(model), cache=False)
    x = np.random.default_rng(2).standard_normal((1, 6, 12, 12)).astype("f4")
    changed = x.copy()
    changed[0, 0, 5, 5] += 4
    moved = np.abs(network(changed) - network(x)).max(axis=(0, 1)) > 0
    assert 4 * moved.sum() == reached  # each position of the result is four
