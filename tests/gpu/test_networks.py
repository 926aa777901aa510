"""Whole networks on the card: of the zoo, in every precision, and steps of training, against the
processor's machine code."""

from __future__ import annotations

import numpy as np
import pytest
from cuda.test_networks import MODELS, drawn, step_of
from executors import executing, run_session
from gpu.running import run_on_card
from graphs import rewritten

import convdsl
from convdsl.diagnostics import InputError
from convdsl.runtime.cuda.card import find_card
from convdsl.training.session import Session
from convdsl.training.settings import complete

TOLERANCE = {"highest": 2e-5, "high": 2e-3, "medium": 2e-2}
"""Of an output's range: sums are f32 in each, products are f32, TF32, bf16."""

ZOO = {
    "lenet5": (1, 32, 32),
    "resnet18": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "squeezenet1_1": (3, 224, 224),
    "vgg16": (3, 224, 224),
}


def precisions() -> list[str]:
    """Those of the card that is here: before sm_80 there is one."""
    try:
        capability = int(find_card().arch.removeprefix("sm_"))
    except InputError:
        return list(TOLERANCE)  # the suite says that there is no card
    return list(TOLERANCE) if capability >= 80 else ["highest"]


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_training(name: str, precision: str) -> None:
    graph, initial = step_of(MODELS[name]())
    graph = rewritten(graph)
    arrays = drawn(graph, initial)
    found = run_on_card(graph, arrays, precision)
    (expected,) = run_session(graph, arrays, [arrays], executing)
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        for key, array in mine.items():
            span = float(np.max(np.abs(other[key]), initial=0.1))
            atol = TOLERANCE[precision] * span
            np.testing.assert_allclose(array, other[key], rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str, batch: int, precision: str) -> None:
    x = np.random.default_rng(0).standard_normal((batch, *ZOO[name])).astype(np.float32)
    found = convdsl.compile(name, "random:1", device="cuda", precision=precision)(x)
    expected = convdsl.compile(name, "random:1")(x)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision] * scale)


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
