"""Slices whose ends are sizes that stay open, against NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl

TEXT = """convdsl 1

model m {
    input x: f32[N, 3, H, W] where H % 2 == 0
    input y: f32[N, 3, K, L] where K >= 6
    x -> pad(2) -> slice([2, 3], stop = x.space) -> output front
    x -> slice([2], start = x.height // 2) -> output half
    x -> slice([2, 3], [0 - x.height // 2, 1], [end, x.width + 5]) -> output back
    y -> slice([2], y.height - 4, y.height - 1) -> output late
    x -> slice([2, 3], x.space, 0, -1) -> output turned
}
"""


@pytest.mark.parametrize(
    "sizes", [(6, 5, 6, 2), (2, 2, 9, 3), (8, 3, 7, 1)], ids=lambda s: "x".join(map(str, s))
)
def test_slices_end_where_a_size_says(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "m.cnn"
    path.write_text(TEXT)
    h, w, k, width = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, h, w)).astype(np.float32)
    y = rng.standard_normal((2, 3, k, width)).astype(np.float32)
    found = convdsl.compile(convdsl.load(path))(x=x, y=y)
    wide = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)])
    expected = {
        "front": wide[:, :, :h, :w],
        "half": x[:, :, h // 2 :],
        "back": x[:, :, -(h // 2) :, 1 : w + 5],
        "late": y[:, :, k - 4 : k - 1],
        "turned": x[:, :, h:0:-1, w:0:-1],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
