"""Whole networks from their CUDA source: forward passes and steps of training, as LLVM has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from cuda_shim.graphs import OnCard
from cuda_shim.running import ORDERS
from executors import executing, run_session
from graphs import Builder, evaluate_results, random_arrays, rewritten

import convdsl
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.tensor import DType
from convdsl.training.settings import complete
from convdsl.training.step import training_step

Array = np.ndarray[Any, Any]

RESNET = """
model resnet {
    input image: f32[N, 3, 11, 9]
    stem = image -> conv(8, 3x3, stride = 2, bias = false) -> bn -> relu
    same = stem -> conv(8, 3x3, bias = false) -> bn -> relu -> conv(8, 3x3, bias = false) -> bn
    first = same + stem -> relu
    down = first -> conv(12, 3x3, stride = 2, bias = false) -> bn -> relu -> conv(12, 3x3) -> bn
    short = first -> conv(12, 1x1, stride = 2, bias = false) -> bn
    down + short -> relu -> avgpool(global) -> flatten -> linear(5) -> output logits
}
"""

MOBILENET = """
model mobilenet {
    input image: f32[N, 3, 10, 10]
    stem = image -> conv(6, 3x3, stride = 2, bias = false) -> bn -> relu6
    wide = stem -> conv(18, 1x1, bias = false) -> bn -> relu6
    projected = wide -> conv(18, 3x3, groups = 18, bias = false) -> bn -> relu6
                     -> conv(6, 1x1, bias = false) -> bn
    projected + stem -> conv(24, 1x1) -> hardswish -> dropout(0.2)
         -> avgpool(global) -> flatten -> linear(4) -> output logits
}
"""


def attention() -> Model:
    """Two heads over five positions, then classes."""
    b = Builder()
    x = b.input("x", 2, 5, 8)
    h = b("layer_norm", x)
    heads = []
    for _ in range(3):
        projected = b("reshape", b("linear", h, channels=8), shape=(2, 5, 2, 4))
        heads.append(b("transpose", projected, axes=(0, 2, 1, 3)))
    q, k, v = heads
    scores = b("softmax", b("matmul", q, b("transpose", k, axes=(0, 1, 3, 2))), axis=3)
    mixed = b("transpose", b("matmul", scores, v), axes=(0, 2, 1, 3))
    y = b("add", b("linear", b("reshape", mixed, shape=(2, 5, 8)), channels=8), x)
    logits = b("linear", b("flatten", b("gelu", y)), channels=3)
    return Model("attention", b.output(logits=logits))


MODELS: Mapping[str, Callable[[], Model]] = {
    "lenet": lambda: convdsl.load("lenet5", N=3),
    "resnet": lambda: convdsl.parse(RESNET, N=2),
    "mobilenet": lambda: convdsl.parse(MOBILENET, N=2),
    "unet": lambda: convdsl.load("unet_small", N=1, size=16, width=3, depth=2),
    "attention": attention,
}

pytestmark = pytest.mark.ladder

LOSSES = {"unet": "cross_entropy(map, mask) + dice(map, mask)"}


def step_of(model: Model) -> tuple[Graph, dict[str, float | str]]:
    said = {
        "loss": LOSSES.get(model.name.removesuffix("_small"), "cross_entropy(logits, label)"),
        "optimizer": "sgd(lr = 0.1, momentum = 0.9)",
        "augment": "[]",
    }
    step = training_step(model, complete(model, said), list(model.graph.outputs))
    return step.model.graph, dict(step.initial)


def drawn(graph: Graph, initial: Mapping[str, float | str]) -> dict[str, Array]:
    """Inputs, weights, and what training adds to them."""
    arrays = {
        name: array.astype(type.dtype.numpy)
        for name, array in random_arrays(graph, 3, 0.7).items()
        if (type := (graph.inputs.get(name) or graph.states[name].output).type)
    }
    for name, value in graph.inputs.items():
        if value.type.dtype is DType.I64:
            arrays[name] = np.random.default_rng(1).integers(0, 2, value.type.sizes)
    if "optimizer.rate" in arrays:
        arrays["optimizer.rate"] = np.array(0.01)
    for key, start in initial.items():
        whole = arrays[start] if isinstance(start, str) else start
        arrays[key] = np.full(
            graph.states[key].type.sizes, whole, graph.states[key].type.dtype.numpy
        )
    return arrays


def compare(graph: Graph, arrays: Mapping[str, Array]) -> None:
    """The source on the processor against machine code for it, and float64."""
    found = OnCard(graph, CudaTarget()).run_in(ORDERS, arrays)
    (llvm,) = run_session(graph, arrays, [arrays], executing)
    doubles = {k: a.astype("f8") if a.dtype.kind == "f" else a for k, a in arrays.items()}
    for mine, other, exact in zip(found, llvm, evaluate_results(graph, doubles), strict=True):
        assert mine.keys() == other.keys() == exact.keys()
        for name, array in mine.items():
            span = float(np.max(np.abs(exact[name]), initial=0.1))
            for truth in (other[name], exact[name]):
                np.testing.assert_allclose(array, truth, rtol=0, atol=2e-5 * span, err_msg=name)


@pytest.mark.dear
@pytest.mark.parametrize("name", MODELS)
def test_forward(name: str) -> None:
    graph = rewritten(MODELS[name]().graph)
    compare(graph, drawn(graph, {}))


@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_training(name: str) -> None:
    graph, initial = step_of(MODELS[name]())
    graph = rewritten(graph)
    compare(graph, drawn(graph, initial))
