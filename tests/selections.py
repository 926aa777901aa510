"""What selecting means, in NumPy: a stable sort, of which a NaN is the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
from graphs import Builder

from convdsl.ir.graph import Graph
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]


def selecting(shape: Any, axis: int, k: int, largest: bool, dtype: DType = DType.F32) -> Graph:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    values, positions = b("top_k", x, axis=axis, k=k, largest=largest).node.outputs
    return b.output(values=values, positions=positions)


def first_few(x: Array, axis: int, k: int, largest: bool) -> dict[str, Array]:
    """The values and positions of the first k."""
    rows = np.moveaxis(x, axis, -1)
    if x.dtype.kind == "f":
        nan, size = np.isnan(rows), np.where(np.isnan(rows), 0, rows).astype(np.float64)
        keys = (-size, ~nan) if largest else (size, nan)
        order = np.lexsort(keys, axis=-1)
    else:
        order = np.argsort(~rows if largest else rows, axis=-1, kind="stable")
    positions = order[..., :k]
    values = np.take_along_axis(rows, positions, -1)
    return {
        "values": np.moveaxis(values, -1, axis),
        "positions": np.moveaxis(positions, -1, axis),
    }


def drawn(shape: Any, dtype: DType, seed: int) -> Array:
    """Many equals, both zeros, infinities and NaN; integers of the whole range."""
    random = np.random.default_rng(seed)
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        x = random.integers(info.min, info.max, shape, dtype=dtype.numpy, endpoint=True)
        x.reshape(-1)[::3] = info.max // 2
        return x
    x = random.integers(-20, 20, shape).astype(dtype.numpy)
    x[random.random(shape) < 0.3] *= x.dtype.type(random.choice([-1, 1e-3, 1e3]))
    special = random.choice([np.nan, np.inf, -np.inf, -0.0, 0.0], shape)
    return np.where(random.random(shape) < 0.1, special, x).astype(dtype.numpy)


def same(found: dict[str, Array], x: Array, axis: int, k: int, largest: bool) -> None:
    """To the last bit, signs of zeros included."""
    wanted = first_few(x, axis, k, largest)
    np.testing.assert_array_equal(found["positions"], wanted["positions"])
    np.testing.assert_array_equal(found["values"], wanted["values"])
    if x.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found["values"]), np.signbit(wanted["values"]))
