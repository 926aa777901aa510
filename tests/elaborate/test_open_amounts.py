"""Slices and borders whose amounts are sizes that stay open, against NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import CompileError

SLICES = """convdsl 1

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
    path.write_text(SLICES)
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


BORDERS = """convdsl 1

model m {
    input x: f32[N, 3, H, W] where H <= 40 and W <= 40
    input y: f32[N, 3, K, L] where K >= 4
    input z: f32[N, 2, K, L]
    x -> pad([[0, -x.height % 8], [0, -x.width % 8]]) -> output multiple
    x -> pad([[40 - x.height, 0], [0, 40 - x.width]], value = 0.5) -> output canvas
    y -> pad([[0, max(K, L) - K], [0, max(K, L) - L]]) -> output square
    y -> pad(max(K, L) - min(K, L), axes = 1) -> output deep
    z -> pad(K // 4, reflect, axes = 2) -> output mirrored
    x -> pad([x.height // 2, 0], circular) -> output circle
    x -> pad([H // 4, 1]) -> avgpool(1x3, stride = 1) -> output averaged
    corners = parameter([1, 1, 2, 2], weight = [[[[1, 2], [3, 4]]]])
    corners -> pad([[H % 2, 1 - H % 2], 0]) -> output moved
    corners -> pad([[H, 1], 0]) -> output far
    parameter([4], weight = [1, 2, 3, 4]) -> slice(0, H % 2, H % 2 + 2) -> output part
}
"""

SIZES = [(5, 7, 4, 9), (40, 33, 8, 4), (8, 16, 5, 5), (1, 1, 4, 1)]


def _borders(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """What NumPy makes of the same amounts, which are numbers here."""
    (h, w), (k, width) = x.shape[2:], y.shape[2:]
    side, odd = max(k, width), h % 2
    corners = np.array([[[[1, 2], [3, 4]]]], np.float32)
    none = (0, 0)
    wide = np.pad(x, [none, none, (h // 4, h // 4), (1, 1)])
    return {
        "multiple": np.pad(x, [none, none, (0, -h % 8), (0, -w % 8)]),
        "canvas": np.pad(x, [none, none, (40 - h, 0), (0, 40 - w)], constant_values=0.5),
        "square": np.pad(y, [none, none, (0, side - k), (0, side - width)]),
        "deep": np.pad(y, [none, (abs(k - width),) * 2, none, none]),
        "mirrored": np.pad(z, [none, none, (k // 4, k // 4), none], "reflect"),
        "circle": np.pad(x, [none, none, (h // 2, h // 2), none], "wrap"),
        "averaged": (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / np.float32(3),
        "moved": np.pad(corners, [none, none, (odd, 1 - odd), none]),
        "far": np.pad(corners, [none, none, (h, 1), none]),
        "part": np.arange(1 + odd, 3 + odd, dtype=np.float32),
    }


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "x".join(map(str, s)))
def test_borders_are_as_wide_as_a_size_says(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "m.cnn"
    path.write_text(BORDERS)
    h, w, k, width = sizes
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, h, w)).astype(np.float32)
    y = rng.standard_normal((2, 3, k, width)).astype(np.float32)
    z = rng.standard_normal((2, 2, k, width)).astype(np.float32)
    found = convdsl.compile(convdsl.load(path))(x=x, y=y, z=z)
    for name, value in _borders(x, y, z).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("amount", "help"),
    [
        ("H - 4", "`where H >= 4`"),
        ("12 - H", "`where H <= 12`"),
        ("2 * H - 5", "`where H >= 3`"),
        ("7 - 3 * H", "`where H <= 2`"),
        ("H - W", "max(..., 0)"),
        ("(H - 20) // 3", "max(..., 0)"),
        ("-H", ""),
    ],
)
def test_amounts_that_may_be_negative_are_refused(amount: str, help: str) -> None:
    text = f"""convdsl 1
model m {{
    input x: f32[N, 3, H, W]
    x -> pad([[0, {amount}], 0]) -> output y
}}
"""
    with pytest.raises(CompileError) as caught:
        convdsl.parse(text)
    (found,) = caught.value.diagnostics
    assert found.code == "E0305"
    assert help in "\n".join(found.help)
    bounded = {"`where H >= ": ">=", "`where H <= ": "<="}
    for start, sign in bounded.items():
        if help.startswith(start):  # what is said is enough, and one less is not
            bound = int(help.removeprefix(start).removesuffix("`"))
            convdsl.parse(text.replace("W]", f"W] where H {sign} {bound}"))
            less = bound - 1 if sign == ">=" else bound + 1
            with pytest.raises(CompileError):
                convdsl.parse(text.replace("W]", f"W] where H {sign} {less}"))


def test_an_amount_too_large_to_fold_is_told_where_sizes_are_bound() -> None:
    text = """convdsl 1
model m {
    input x: f32[N, 1, H, W]
    x -> pad([[0, W], 0], reflect) -> output y
}
"""
    run = convdsl.compile(convdsl.parse(text))
    assert run(np.zeros((1, 1, 4, 3), np.float32)).shape == (1, 1, 7, 3)
    with pytest.raises(convdsl.Error, match="reflect padding of 4 does not fit an input of 4"):
        run(np.zeros((1, 1, 4, 4), np.float32))
