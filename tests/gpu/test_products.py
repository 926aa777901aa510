"""Products large enough for every kind of tile on the card, against float64: of images with ragged
ends, strides and filters in groups of columns, in parts of the depth, and of halves in training."""

from __future__ import annotations

from typing import Any

import pytest
from contractions_on_cards import TOLERANCES, as_double, close
from gpu.running import run_on_card
from gpu.test_networks import SINGLE, precisions
from graphs import Builder, evaluate_results, random_arrays
from layer_steps import step_graph

from convdsl.ir.graph import Graph
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

LAYERS = {
    "many rows": ((5, 64, 61, 47), 128, {"kernel": 3}),
    "few filters": ((6, 96, 50, 50), 40, {"kernel": 3}),
    "many filters": ((9, 160, 29, 31), 520, {"kernel": 3, "stride": 2}),
    "pixels": ((7, 264, 37, 33), 256, {"kernel": 1}),
    "flat": ((5, 64, 112, 112), 64, {"kernel": 3}),
    "wide": ((4, 128, 112, 111), 128, {"kernel": 3}),
    "deep": ((2, 512, 9, 9), 512, {"kernel": 3}),
}


def between_maps(shape: tuple[int, ...], channels: int, attributes: dict[str, Any]) -> Graph:
    """What a kernel makes, and so rounds, is multiplied, and goes on to a map."""
    b = Builder()
    x = b("relu", b("conv", b.input("x", shape[0], 4, *shape[2:]), channels=shape[1], kernel=1))
    return b.output(y=b("relu", b("conv", x, channels=channels, pad="same", **attributes)))


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions(layer: str, precision: str) -> None:
    graph = between_maps(*LAYERS[layer])
    arrays = {name: array.astype("f4") for name, array in random_arrays(graph, 7).items()}
    found, _ = run_on_card(graph, arrays, precision)
    truth, _ = evaluate_results(graph, {n: a.astype("f8") for n, a in arrays.items()})
    most = SINGLE if precision == "highest" else TOLERANCES[precision]  # Winograd may run there
    close(found["y"], truth["y"], most, layer)


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16], ids=str)
def test_a_step_of_halves(dtype: DType) -> None:
    """Weights change, so that they are packed in every call."""
    half, exact = (
        step_graph("conv", (6, 64, 30, 28), {"channels": 128, "kernel": 3}, of)
        for of in (dtype, DType.F64)
    )
    arrays = {n: convert(a, DType.F64, dtype) for n, a in random_arrays(half, 5, 0.1).items()}
    found, states = run_on_card(half, arrays)
    truth = evaluate_results(exact, {n: as_double(a, dtype) for n, a in arrays.items()})
    most = 2e-3 if dtype is DType.F16 else 1.5e-2
    for mine, expected in zip((found, states), truth, strict=True):
        for name, array in mine.items():
            close(as_double(array, dtype), expected[name], most, name)
