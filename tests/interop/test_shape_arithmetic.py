"""Shapes that decide: sizes left free, sizes bound, and onnxruntime give the same, or a refusal."""

from __future__ import annotations

import os

import numpy as np
import pytest

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.drawn_sizes import Drawn
from interop.runtimes import run_onnxruntime

pytestmark = pytest.mark.drawn

GRAPHS = int(os.environ.get("CONVDSL_DRAWN_SIZES", "60"))
SHAPES = ((1, 2, 5, 8), (3, 2, 4, 1))


def answer(proto, x: np.ndarray, sizes: dict[str, int]) -> np.ndarray | str:
    """What the network says, or why it does not."""
    try:
        model = model_of(proto, "net.onnx", sizes)
        found = convdsl.compile(model, threads=1, passes=(), cache=False)(x)
    except convdsl.Error as error:
        return str(error)
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_free_is_bound_is_onnxruntime(seed):
    """What is refused bound is refused free, and onnxruntime has no answer, or an empty one."""
    proto = Drawn(seed).proto()
    for shape in SHAPES:
        x = np.random.default_rng(seed).standard_normal(shape, "f4")
        free = answer(proto, x, {})
        bound = answer(proto, x, {"N": shape[0], "H": shape[2], "W": shape[3]})
        try:
            expected = run_onnxruntime(proto, {"x": x})["y"]
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base
            expected = str(error)
        if isinstance(bound, str):
            assert isinstance(free, str), f"bound: {bound}"
            assert isinstance(expected, str) or not expected.size, bound
            continue
        if isinstance(free, str):
            # Known to be empty, a part goes on as a tensor without elements; sizes that are open
            # have at least one.
            assert "nothing" in free
            assert not bound.size, free
            assert not isinstance(expected, str)
            assert expected.shape == bound.shape
            continue
        np.testing.assert_array_equal(free, bound)
        if not isinstance(expected, str):
            # Range is start + i * delta here, as ONNX defines it; onnxruntime adds up, and strays.
            np.testing.assert_allclose(bound, expected, rtol=1e-6 + 2e-8 * bound.size, atol=0)


def test_sizes_too_small_are_told():
    """A network of free sizes, called with an image that leaves nothing."""
    text = "model m {\n    input x: f32[N, 1, H, W]\n    x -> slice(3, 2) -> output y\n}\n"
    executable = convdsl.compile(convdsl.parse(text), threads=1)
    assert executable(np.zeros((1, 1, 2, 5), "f4")).shape == (1, 1, 2, 3)
    with pytest.raises(convdsl.InputError, match="W = 2: nothing of axis 3"):
        executable(np.zeros((1, 1, 2, 2), "f4"))
