"""SE, CBAM and ECA against their equations, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate
from scipy.special import expit

import convdsl
from convdsl.analysis.report import analyse

Array = np.ndarray[Any, Any]


def computed(name: str, x: Array, **parameters: Any) -> tuple[Array, dict[str, Array]]:
    """What convdsl makes of x, and the weights in double precision."""
    model = convdsl.load(name, channels=x.shape[1], size=x.shape[2], **parameters)
    random = np.random.default_rng(x.shape[1])
    states = model.graph.states.items()
    weights = {key: random.standard_normal(s.type.sizes).astype("f4") for key, s in states}
    found = convdsl.compile(model, weights, cache=False)(x)
    return found, {key: array.astype("f8") for key, array in weights.items()}


def drawn(channels: int, size: int) -> Array:
    return np.random.default_rng(size).standard_normal((2, channels, size, size)).astype("f4")


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(("channels", "size"), [(16, 5), (64, 1), (48, 7)])
def test_squeeze_excite(channels: int, size: int) -> None:
    x = drawn(channels, size)
    found, w = computed("squeeze_excite", x)
    hidden = np.maximum(x.mean((2, 3), dtype="f8") @ w["se.fc1.weight"][:, :, 0, 0].T, 0)
    gate = expit(hidden @ w["se.fc2.weight"][:, :, 0, 0].T)
    close(found, x * gate[:, :, None, None])


@pytest.mark.dear
@pytest.mark.parametrize(("channels", "size"), [(16, 5), (32, 1), (48, 9)])
def test_cbam(channels: int, size: int) -> None:
    x = drawn(channels, size).astype("f8")
    found, w = computed("cbam", x.astype("f4"))
    first, second = (w[f"cbam.mlp.{part}.weight"][:, :, 0, 0] for part in ("conv", "conv_2"))
    through = [np.maximum(z @ first.T, 0) @ second.T for z in (x.mean((2, 3)), x.max((2, 3)))]
    x = x * expit(sum(through))[:, :, None, None]
    seen = np.pad(np.stack([x.mean(1), x.max(1)], 1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    filters = w["cbam.spatial.weight"][0]
    gate = expit(np.stack([correlate(image, filters, mode="valid") for image in seen]))
    close(found, x * gate)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("channels", "kernel"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_eca(channels: int, kernel: int) -> None:
    """The size as the authors' code has it: |(log2 C + 1) / 2|, cut off, and one more if even."""
    x = drawn(channels, 3)
    found, w = computed("eca", x)
    filters = w["eca.conv.weight"][0, 0]
    assert filters.shape == (kernel,)
    border = kernel // 2
    means = np.pad(x.mean((2, 3), dtype="f8"), ((0, 0), (border, border)))
    gate = expit(np.stack([np.correlate(row, filters, "valid") for row in means]))
    close(found, x * gate[:, :, None, None])


@pytest.mark.parametrize("channels", [64, 256, 1024])
def test_parameters(channels: int) -> None:
    """2 C^2 / r; the same and 2 x 7 x 7; 3 to 9 in all."""
    squeezed = 2 * channels**2 // 16
    counts = [
        analyse(convdsl.load(name, channels=channels), "all", {"N": 1}).totals["params"]
        for name in ("squeeze_excite", "cbam", "eca")
    ]
    assert counts[:2] == [squeezed, squeezed + 98]
    assert 3 <= counts[2] <= 9
