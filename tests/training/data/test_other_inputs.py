"""What a network takes beside its images, and targets of one number for a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl

WIDE = """model m {{
    input image: f32[N, 1, 4, 4]
    input more: {dtype}[N, 16]
    (image -> flatten) * (more -> cast(f32)) -> linear(3) -> output logits
}}
"""

NUMBERS = """model m {
    input image: f32[N, 1, 4, 4]
    image -> flatten -> linear(1) -> squeeze([1]) -> output score
}
train { loss = mse(score, wanted) }
"""


def _model(tmp_path: Path, text: str) -> convdsl.Model:
    path = tmp_path / "net.cnn"
    path.write_text(text)
    return convdsl.load(path)


@pytest.mark.parametrize("dtype", ["bool", "i64", "i32", "f32", "f64"])
@pytest.mark.parametrize("given", ["bool", "uint8", "int32", "int64", "float32", "float64"])
def test_another_input_has_the_networks_type(tmp_path: Path, dtype: str, given: str) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(
        path,
        image=random.random((8, 1, 4, 4), np.float32),
        more=random.integers(0, 2, (8, 16)).astype(given),
        label=random.integers(0, 3, 8),
    )
    trained = convdsl.train(_model(tmp_path, WIDE.format(dtype=dtype)), path, epochs=1, batch=4)
    assert all(np.isfinite(array).all() for array in trained.weights.values())


def test_a_target_of_one_number_for_a_sample(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    image = random.random((32, 1, 4, 4), np.float32)
    np.savez(path, image=image, wanted=image.mean((1, 2, 3)))
    made = convdsl.train(
        _model(tmp_path, NUMBERS), path, epochs=150, batch=8, lr=0.1, optimizer="adam"
    )
    net = convdsl.compile(_model(tmp_path, NUMBERS), weights=made.weights)
    np.testing.assert_allclose(net(image), image.mean((1, 2, 3)), atol=0.1)
