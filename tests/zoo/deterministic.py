"""Weights and images for golden tests, from names and shapes alone.

Philox counts through the elements of each array, keyed by a hash of its name; only its raw words
are used, which NumPy promises never to change. So PyTorch and the tests make the same weights
without a file between them.

    conv and linear weights   uniform, variance 2 / fan-in: keeps the second moment across ReLU
    normalisation             weight 0.7..1.2, mean -0.1..0.1, variance 0.5..1.5; weight less
                              at the end of a residual block, or its sums would grow with depth
    biases                    -0.1..0.1
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

ENDS = {"bn3.weight": (0.2, 0.4), ".block.2.1.weight": (0.6, 1.0), ".block.3.1.weight": (0.6, 1.0)}
"""The last normalisation of ResNet's bottlenecks, and of what MobileNetV3 and EfficientNet repeat,
which their gates make smaller too."""


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Numbers from low to high: 24 bits each, made from the words of a stream named `name`."""
    count = prod(shape)
    words = np.random.Philox(key=zlib.crc32(name.encode())).random_raw((count + 1) // 2)
    bits = words.view("<u4")[:count] >> np.uint32(8)
    values = bits.astype(np.float32)
    values *= np.float32((high - low) / 2**24)
    values += np.float32(low)
    return values.reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> Array:
    """The array of a state-dict's key."""
    part = name.rpartition(".")[2]
    if part == "running_var":
        return uniform(name, shape, 0.5, 1.5)
    if part == "weight" and len(shape) == 1:
        low, high = next((ENDS[end] for end in ENDS if name.endswith(end)), (0.7, 1.2))
        return uniform(name, shape, low, high)
    if part == "weight":
        reach = sqrt(3 * 2 / prod(shape[1:]))
        return uniform(name, shape, -reach, reach)
    return uniform(name, shape, -0.1, 0.1)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    return {name: weight(name, shape) for name, shape in shapes.items()}


def image(*shape: int) -> Array:
    """Variance 1, as normalised pixels have: squares of 16 pixels, and noise."""
    coarse = (*shape[:2], *(-(-extent // 16) for extent in shape[2:]))
    squares = uniform(f"squares {shape}", coarse, -sqrt(3), sqrt(3))
    squares = squares.repeat(16, axis=2).repeat(16, axis=3)[..., : shape[2], : shape[3]]
    noise = uniform(f"noise {shape}", shape, -sqrt(3), sqrt(3))
    return np.float32(0.8) * squares + np.float32(0.6) * noise


def sampled(scores: NDArray[Any]) -> NDArray[Any]:
    """What is recorded of an output: logits whole, of a map every fourth row and column."""
    return scores if scores.ndim == 2 else scores[..., ::4, ::4]
