"""Comparisons, `and`, `or` and `not` of tensors: masks, as NumPy computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl
from elaborate.sources import error, layers, model

X = np.array([[-2.0, -0.0, 0.0, 0.5, 1.0, 3.0, np.nan, np.inf]], np.float32)
K = np.array([[0, 1, 2, 3, -1, -2, 7, 1 << 40]], np.int64)

MASKS = {
    "x > 0": X > 0,
    "x >= 0": X >= 0,
    "0 < x": X > 0,
    "x <= 1": X <= 1,
    "x == 1": X == 1,
    "x != 1": X != 1,
    "x < x * x": X * X > X,
    "0 < x < 1": (X > 0) & (X < 1),
    "0 < x <= 1 < 2": (X > 0) & (X <= 1),
    "x > 0 and x < 1": (X > 0) & (X < 1),
    "x < 0 or x > 1 or x == 0.5": (X < 0) | (X > 1) | (X == 0.5),
    "not x > 0": ~(X > 0),
    "not not x > 0": X > 0,
    "x > 0 and not x > 1 or x < 0": ((X > 0) & ~(X > 1)) | (X < 0),
    "on and x > 0": X > 0,
    "off or x > 0": X > 0,
    "k >= 2": K >= 2,
    "k == 3 or k != k": K == 3,
    "cast(k, f32) == x": K.astype(np.float32) == X,
    "1 < 2 < k": K > 2,
}


@pytest.mark.parametrize("text", MASKS)
def test_a_mask_is_what_numpy_computes(text: str, tmp_path: Path) -> None:
    source = f"""
        model m(on = true, off = false) {{
            input x: f32[1, 8]
            input k: i64[1, 8]
            let _used = [on, off]
            mask = {text}
            output mask
            x -> output same
            k -> output whole
        }}
    """
    path = tmp_path / "m.cnn"
    path.write_text(source)
    mask = convdsl.compile(convdsl.load(path))(x=X, k=K)["mask"]
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, MASKS[text])


@pytest.mark.parametrize(
    ("text", "value"),
    [("on or x > 0", True), ("off and x > 0", False), ("2 < 1 < x", False)],
)
def test_what_is_decided_without_the_tensor_is_a_value(text: str, value: bool) -> None:
    made = model(
        f"let on = true\nlet off = false\nassert on or off\n"
        f"assert ({text}) == {str(value).lower()}\nx -> relu -> output y"
    )
    assert "relu" in layers(made)
    assert list(made.outputs) == ["y"]


def test_a_tensor_decides_nothing() -> None:
    found = error("x -> if x > 0 { relu }")
    assert found.code == "E0403"
    assert "where(mask, a, b)" in found.help[0]
