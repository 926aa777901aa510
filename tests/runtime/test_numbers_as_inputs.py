"""Python numbers and NumPy scalars as inputs of rank 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import InputError

TEXT = """model m {{
    input x: f32[N, 4]
    input k: {dtype}[]
    x * cast(k, f32) -> output y
}}
"""


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("dtype", "given", "factor"),
    [
        ("f32", 2, 2.0),
        ("f32", -0.5, -0.5),
        ("f32", np.float32(3), 3.0),
        ("f32", np.float64(0.25), 0.25),
        ("f32", np.int64(7), 7.0),
        ("f32", float("inf"), np.inf),
        ("f64", 2.5, 2.5),
        ("i64", 5, 5.0),
        ("i64", np.int32(-3), -3.0),
        ("u8", 255, 255.0),
        ("bool", True, 1.0),
        ("bool", np.bool_(False), 0.0),
    ],
)
def test_numbers(dtype: str, given: Any, factor: float) -> None:
    net = convdsl.compile(convdsl.parse(TEXT.format(dtype=dtype)), {}, cache=False)
    x = np.array([[1, 2, 3, 4]], np.float32)
    assert np.array_equal(net(x, given), x * np.float32(factor))
    assert np.array_equal(net(x=x, k=given), x * np.float32(factor))


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("f32", True),
        ("f32", 1e300),
        ("f32", 1j),
        ("f32", "2"),
        ("i64", 2.5),
        ("i64", 1 << 64),
        ("u8", 256),
        ("u8", -1),
        ("bool", 1),
    ],
)
def test_what_is_no_such_number(dtype: str, given: Any) -> None:
    net = convdsl.compile(convdsl.parse(TEXT.format(dtype=dtype)), {}, cache=False)
    with pytest.raises(InputError, match="input `k`"):
        net(np.ones((1, 4), np.float32), given)
    with pytest.raises(InputError, match="one number"):
        net(2.0, 2)
