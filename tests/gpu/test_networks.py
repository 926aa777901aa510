"""Whole networks on the card: of the zoo, in every precision, and steps of training, against the
processor's machine code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from cuda.test_networks import MODELS, drawn, step_of
from cuda_shim.graphs import OnCard
from cuda_shim.running import ORDERS
from executors import executing, run_session
from gpu.running import Array, run_on_card
from graphs import rewritten
from rounded_products import with_rounded_products

import convdsl
from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.kernel.cuda_target import PRECISION_OF, CudaTarget
from convdsl.runtime.cuda.card import find_card
from convdsl.runtime.cuda.launching import nearest_architecture
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.weights import RandomWeights, bind

F32 = DType.F32
ROUNDED = {"high": DType.TF32, "medium": DType.BF16}
"""What products of f32 are rounded to; sums are f32 in each precision."""

SINGLE = 2e-5
"""The largest error over the range of a result where nothing is rounded but to f32."""

BESIDE = {"highest": SINGLE, "high": 1e-3, "medium": 1e-2}
"""The same of a step beside its reference: sums are taken in another order, and now and then one of
them is rounded the other way before it is a factor, by 2 ** -8 of itself in bf16 (LeNet's scores on
an H100: 3e-3 of their range for one image of three, the others to seven digits)."""

TIMES = {"high": 4.0, "medium": 2.0}
"""By how much more a precision may move a result than what is known to: in TF32 rounding the
weights, since it rounds the other factors too; in bf16 rounding all factors as the card does, since
now and then one is rounded the other way where a sum was taken in another order."""


def rounded(arrays: Mapping[str, Array], keys: Iterable[str], precision: str) -> dict[str, Array]:
    """The arrays, those of some keys as products take them."""
    dtype = ROUNDED[precision]
    made = {k: convert(convert(arrays[k], F32, dtype), dtype, F32) for k in keys}
    return {**arrays, **made}


def check(found: Array, expected: Array, precision: str, near: Array, name: str) -> None:
    """`near`: what is expected of rounded factors."""
    atol = SINGLE * float(np.max(np.abs(expected), initial=0.1))
    atol += TIMES.get(precision, 0.0) * float(np.max(np.abs(near - expected), initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


ZOO = {
    "lenet5": (1, 32, 32),
    "resnet18": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "squeezenet1_1": (3, 224, 224),
    "vgg16": (3, 224, 224),
    "mobilenet_v3_large": (3, 224, 224),
    "se_resnet50": (3, 224, 224),
}
"""The last two make much of little (tests/cuda/test_rounding.py)."""


def precisions() -> list[str]:
    """Those of the card that is here: before sm_80 there is one."""
    try:
        capability = int(find_card().arch.removeprefix("sm_"))
    except InputError:
        return ["highest", *ROUNDED]  # the suite says that there is no card
    return ["highest", *ROUNDED] if capability >= 80 else ["highest"]


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_training(name: str, precision: str) -> None:
    graph, initial = step_of(MODELS[name]())
    graph = rewritten(graph)
    arrays = drawn(graph, initial)
    found = run_on_card(graph, arrays, precision)
    (expected,) = reference(graph, arrays, precision)
    for mine, others in zip(found, expected, strict=True):
        assert mine.keys() == others.keys()
        for key, array in mine.items():
            atol = BESIDE[precision] * float(np.max(np.abs(others[key]), initial=0.1))
            np.testing.assert_allclose(array, others[key], rtol=0, atol=atol, err_msg=key)


def reference(graph: Graph, arrays: Mapping[str, Array], precision: str) -> Any:
    """A step in f32 on the processor; where factors are rounded, the same source on it: which of
    two rounded numbers is the largest decides where gradients go, and f32 says little of that."""
    if precision not in ROUNDED:
        return run_session(graph, arrays, [arrays], executing)
    target = CudaTarget(nearest_architecture(find_card()), PRECISION_OF[precision])
    return [OnCard(graph, target).run_in({"forward": ORDERS["forward"]}, arrays)]


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str, batch: int, precision: str) -> None:
    x = np.random.default_rng(0).standard_normal((batch, *ZOO[name])).astype(np.float32)
    found = convdsl.compile(name, "random:1", device="cuda", precision=precision)(x)
    expected = convdsl.compile(name, "random:1")(x)
    check(found, expected, precision, nearly(name, x, expected, precision), name)


def nearly(name: str, x: Array, whole: Array, precision: str) -> Array:
    """The network on the processor, its products as rounded as they are known to be."""
    if precision == "highest":
        return whole
    graph = convdsl.load(name).graph
    weights = dict(bind(RandomWeights(1), graph.states))
    if precision == "medium":
        target = CudaTarget(nearest_architecture(find_card()), PRECISION_OF[precision])
        sizes = {s.name: len(x) for port in graph.inputs.values() for s in port.type.symbols()}
        model = Model(name, with_rounded_products(rewritten(graph.bind(sizes)), target))
        return convdsl.compile(model, weights, passes=())(x)
    keys = [key for key in weights if graph.states[key].role is Role.PARAMETER]
    return convdsl.compile(name, rounded(weights, keys, precision))(x)


def test_some_steps_in_a_row() -> None:
    """The loss of ten steps, as the processor has it."""
    model = convdsl.load("mnist_cnn")
    settings = complete(model, {"optimizer": "sgd(lr = 0.05, momentum = 0.9)"})
    card = Session(model, settings, "random:0", device="cuda")
    plain = Session(model, settings, "random:0")
    (image,), (target,) = model.inputs, card.targets
    random = np.random.default_rng(0)
    shape = (32, *model.inputs[image].shape[1:])
    for number in range(10):
        x = random.standard_normal(shape).astype(np.float32)
        batch = {image: x, target: random.integers(0, 10, 32)}
        found, expected = card.step(batch, 0.05)["loss"], plain.step(batch, 0.05)["loss"]
        assert abs(float(found) - float(expected)) < 1e-3 * abs(float(expected)), number
