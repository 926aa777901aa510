"""The graph of a step: what it is made of, and that it descends as worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.diagnostics import InputError
from convdsl.ir.verify import verify
from convdsl.tensor import DType
from convdsl.training.judging import LOSS, loss_model
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.training.step import RATE, training_step
from convdsl.training.updates import COUNTER

Array = np.ndarray[Any, Any]

LINEAR = """
model regression {
    input x: f32[N, 5]
    x -> linear(3) as fc -> output logits
}
"""

DEEP = """
model deep {
    input image: f32[N, 2, 6, 6]
    image -> conv(4, 3x3) as stem -> bn as norm -> relu -> dropout(0.25)
          -> conv(4, 3x3) as body -> relu -> flatten -> linear(3) as head -> output logits
}
"""

PLAIN = {"optimizer": "sgd(lr = 0.1, momentum = 0, weight_decay = 0)", "schedule": "constant"}


def session(text: str, threads: int = 1, weights: str = "random:1", **said: Any) -> Session:
    model = convdsl.parse(text)
    return Session(model, complete(model, {**PLAIN, **said}), weights, threads=threads, cache=False)


def images(seed: int, batch: int = 4) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((batch, 2, 6, 6)).astype("f4")
    return {"image": x, "label": random.integers(0, 3, batch)}


def test_a_step_is_a_sound_graph() -> None:
    model = convdsl.parse(DEEP)
    step = training_step(model, complete(model, PLAIN), ["logits"])
    verify(step.model.graph)
    assert list(step.model.inputs) == ["image", "label", RATE]
    assert list(step.model.outputs) == [LOSS, "logits"]
    assert step.targets["label"].dtype is DType.I64
    changed = set(step.model.graph.updates)
    assert {"stem.weight", "norm.running_mean", "norm.running_var", "head.bias", COUNTER} < changed
    assert step.trained == tuple(
        key for key, state in model.graph.states.items() if state.role.value == "parameter"
    )
    assert model.graph.updates == {}, "the model itself is as it was"


def test_logistic_regression_by_hand() -> None:
    """Softmax regression, whose gradient is (softmax - one hot) x / N, in float64."""
    made = session(LINEAR)
    random = np.random.default_rng(0)
    x, label = random.standard_normal((7, 5)).astype("f4"), random.integers(0, 3, 7)
    w, b = (made.weights()[f"fc.{name}"].astype("f8") for name in ("weight", "bias"))
    for _ in range(3):
        loss = float(made.step({"x": x, "label": label}, 0.1)[LOSS])
        logits = x @ w.T + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert loss == pytest.approx(-np.log(p[np.arange(7), label]).mean(), rel=1e-5)
        p[np.arange(7), label] -= 1
        w, b = w - 0.1 * p.T @ x / 7, b - 0.1 * p.sum(0) / 7
        np.testing.assert_allclose(made.weights()["fc.weight"], w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(made.weights()["fc.bias"], b, rtol=1e-4, atol=1e-5)
    assert made.steps == 3


@pytest.mark.dear
@pytest.mark.parametrize("seed", [0, 1])
def test_the_number_of_threads_changes_nothing(seed: int) -> None:
    alone, team = session(DEEP, threads=1, seed=seed), session(DEEP, threads=2, seed=seed)
    for number in range(3):
        batch = images(number, 9)
        assert alone.step(batch, 0.1)[LOSS] == team.step(batch, 0.1)[LOSS]
    for (key, one), other in zip(alone.states().items(), team.states().values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=key)


@pytest.mark.dear
def test_states_of_before_bring_the_same_steps() -> None:
    made = session(DEEP, optimizer="adamw(lr = 0.01)")
    made.step(images(0), 0.1)
    kept = made.states()
    losses = [float(made.step(images(n), 0.1)[LOSS]) for n in (1, 2, 3)]
    made.restore(kept)
    assert [float(made.step(images(n), 0.1)[LOSS]) for n in (1, 2, 3)] == losses
    with pytest.raises(InputError, match="another run"):
        made.restore({"stem.weight": kept["stem.weight"]})


@pytest.mark.dear(share=4)
def test_what_is_frozen_stays_and_costs_nothing() -> None:
    model = convdsl.parse(DEEP)
    plain = training_step(model, complete(model, PLAIN))
    frozen = {**PLAIN, "freeze": '["stem.*", "norm.*", "body.*"]'}
    head = training_step(model, complete(model, frozen))
    assert head.trained == ("head.weight", "head.bias")
    assert not [n for n in head.model.graph.op_nodes() if "conv.grad" in n.op.name]
    assert [n for n in plain.model.graph.op_nodes() if "conv.grad" in n.op.name]
    assert not [key for key in head.model.graph.updates if key.startswith("norm")]
    made = session(DEEP, freeze='["stem.*", "norm.*"]')
    before = made.weights()
    made.step(images(0), 0.1)
    after = made.weights()
    for key in before:
        same = np.array_equal(before[key], after[key])
        assert same == key.startswith(("stem", "norm")), key


@pytest.mark.dear
def test_inference_of_what_was_trained() -> None:
    """Outputs are those of inference, the loss is that of these outputs."""
    made = session(DEEP)
    batch = images(0)
    for _ in range(3):
        made.step(batch, 0.1)
    logits = made.network()(batch["image"])
    expected = convdsl.compile(convdsl.parse(DEEP), made.weights(), cache=False)(batch["image"])
    np.testing.assert_array_equal(logits, expected)
    p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -p[np.arange(4), batch["label"]].mean()
    assert made.loss({"logits": logits}, batch) == pytest.approx(loss, rel=1e-5)


def test_an_autoencoder_compares_with_its_input() -> None:
    text = "model auto {\n input x: f32[N, 6]\n x -> linear(2) -> linear(6) -> output y\n}\n"
    made = session(text, loss="mse(y, x)")
    assert made.targets == ()
    x = np.random.default_rng(0).standard_normal((8, 6)).astype("f4")
    losses = [float(made.step({"x": x}, 0.1)[LOSS]) for _ in range(50)]
    assert losses[-1] < 0.8 * losses[0]
    measure, targets = loss_model(made.model, made.training)
    assert sorted(measure.inputs) == ["x", "y"]
    assert dict(targets) == {}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"loss": "mse(other, label)"}, "the loss compares output other; there are: logits"),
        ({"freeze": '["stm.*"]'}, "no weight is called stm"),
        ({"freeze": '["*"]'}, r"nothing is left to train: freeze \(\*\) .*\nhelp: leave out"),
        ({"loss": "cross_entropy(logits, image)"}, "`image` is f32"),
    ],
)
def test_settings_that_do_not_go_with_the_network(said: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        session(DEEP, **said)


def test_data_without_the_target() -> None:
    made = session(DEEP)
    with pytest.raises(InputError, match="the loss compares with `label`, which the data do not"):
        made.step({"image": images(0)["image"]}, 0.1)


def test_a_name_that_training_needs() -> None:
    """A layer called as the target is renamed; its weights keep their keys."""
    model = convdsl.parse(DEEP.replace("as head", "as label"))
    step = training_step(model, complete(model, PLAIN))
    verify(step.model.graph)
    assert "label.weight" in step.trained


@pytest.mark.dear(share=4)
def test_an_imported_network_with_numbers_of_its_own_is_trained(tmp_path: Path) -> None:
    """Exporters write what an operator has no attribute for as tensors of rank 0."""
    weight = np.random.default_rng(0).standard_normal((3, 5)).astype("f4")
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "half"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "w"], ["product"], transB=1),
            helper.make_node("Add", ["product", "shift"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.float32(0.5), "half"),
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array(0.25, "f4"), "shift"),
        ],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    model = convdsl.load(path)
    made = Session(model, complete(model, {**PLAIN, "loss": "mse(logits, y)"}), None, cache=False)
    x = np.random.default_rng(1).standard_normal((4, 5)).astype("f4")
    made.step({"x": x, "y": np.zeros((4, 3), "f4")}, rate=1)
    logits = 0.5 * x.astype("f8") @ weight.T + 0.25
    gradient = 2 / 12 * logits.T @ (0.5 * x)
    np.testing.assert_allclose(
        made.weights()["linear.weight"], weight - gradient, rtol=1e-5, atol=1e-6
    )
