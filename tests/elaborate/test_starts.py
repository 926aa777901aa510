"""What weights start from, said in the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import CompileError
from convdsl.interop.cnn_source import source
from convdsl.ir.graph import StateNode
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ir.starts import STARTS
from convdsl.training.settings import complete
from convdsl.weights.binding import bind
from convdsl.weights.initialisers import INITIALISERS, RandomWeights


def parsed(body: str) -> Model:
    return convdsl.parse(f"model m {{\ninput x: f32[N, 6, 8, 8]\n{body}\n}}\n")


def state(model: Model, key: str) -> StateNode:
    return model.graph.states[key]


def test_every_word_has_an_initialiser() -> None:
    assert set(STARTS) <= set(INITIALISERS)


@pytest.mark.parametrize("word", STARTS)
def test_a_word_is_a_trained_weight(word: str) -> None:
    model = parsed(f"x -> conv(6, 3x3, weight = {word}) as c -> output y")
    assert (state(model, "c.weight").role, state(model, "c.weight").init) == (Role.PARAMETER, word)
    assert state(model, "c.bias").init == "fan_in_uniform"


@pytest.mark.parametrize("layer", ["conv(6, 3x3,", "conv_transpose(6, 2x2,", "linear(4,"])
@pytest.mark.parametrize("word", [w for w in STARTS if w != "bilinear"])
def test_a_word_is_what_a_bias_starts_from(layer: str, word: str) -> None:
    model = parsed(f"x -> {layer} bias = {word}) as c -> output y")
    assert (state(model, "c.bias").role, state(model, "c.bias").init) == (Role.PARAMETER, word)
    assert state(model, "c.weight").init == "kaiming_uniform"
    made = dict(bind(RandomWeights(0), model.graph.states))["c.bias"]
    constant = {"zeros": 0, "ones": 1}
    assert np.all(made == constant[word]) if word in constant else len(np.unique(made)) > 1
    assert state(convdsl.parse(source(model)[0]), "c.bias").init == word


def test_names_of_the_text_come_first_for_a_bias() -> None:
    model = parsed("let zeros = false\nx -> conv(6, 1x1, bias = zeros) as c -> output y")
    assert "c.bias" not in model.graph.states


def test_names_of_the_text_come_first() -> None:
    model = parsed("let ones = [[2.0]]\nx -> conv(6, 1x1, weight = ones) as c -> output y")
    assert state(model, "c.weight").role is Role.CONSTANT


def test_a_residual_branch_that_starts_with_zeros_is_the_identity() -> None:
    model = parsed("x + (x -> conv(6, 3x3) -> bn(weight = zeros)) -> output y")
    x = np.random.default_rng(0).standard_normal((2, 6, 8, 8), np.float32)
    np.testing.assert_array_equal(convdsl.compile(model, "random:3")(x), x)


def test_shared_layers_start_once() -> None:
    model = parsed("let f = conv(6, 3x3, weight = bilinear)\nx -> f -> f -> output y")
    assert state(model, "f.weight").init == "bilinear"


def test_written_as_text_and_read_again() -> None:
    body = "x -> conv(6, 3x3, weight = bilinear) as c -> bn(weight = zeros, bias = ones) as b"
    text, _ = source(parsed(f"{body} -> output y"))
    back = convdsl.parse(text)
    starts = {"c.weight": "bilinear", "b.weight": "zeros", "b.bias": "ones"}
    assert {key: state(back, key).init for key in starts} == starts


def test_defaults_say_what_weights_start_from() -> None:
    """Of layers that have the weight; what a call says itself wins, and so does a later default."""
    model = parsed(
        "default conv(weight = fan_in_uniform, bias = initial(-4.5)), bn(weight = zeros)\n"
        "x -> conv(6, 3x3) as a -> conv(6, 3x3, bias = false) as b -> bn(affine = false) as c"
        " -> conv(6, 3x3, weight = zeros, bias = [0.5]) as d -> bn as e\n"
        "  -> scope s { default conv(bias = false)\nconv(6, 1x1) as f -> conv(6, 1x1, bias = true)"
        " as g } -> conv(6, 1x1, bias = true) as h -> output y"
    )
    assert {key: s.init for key, s in model.graph.states.items() if s.role is Role.PARAMETER} == {
        "a.weight": "fan_in_uniform",
        "a.bias": "-4.5",
        "b.weight": "fan_in_uniform",
        "d.weight": "zeros",
        "e.weight": "zeros",
        "e.bias": "zeros",
        "s.f.weight": "fan_in_uniform",
        "s.g.weight": "fan_in_uniform",
        "s.g.bias": "fan_in_uniform",
        "h.weight": "fan_in_uniform",
        "h.bias": "-4.5",
    }
    assert model.graph.states["d.bias"].role is Role.CONSTANT


@pytest.mark.dear(share=4)
def test_texts_of_files_say_nothing_of_starts(tmp_path: Path) -> None:
    model = parsed("x -> conv(6, 3x3) as c -> output y")
    convdsl.export(model, "random:0", tmp_path / "m.onnx")
    text, _ = source(convdsl.load(str(tmp_path / "m.onnx")))
    assert not any(f"= {word}" in text for word in STARTS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x -> bn(weight = bilinear)", "`bilinear` takes filters"),
        (
            'x -> conv(6, 3x3, weight = "bilinaer")',
            "takes a tensor, numbers, or a word for its start",
        ),
        ("x -> conv(6, 3x3, weight = bilinaer)", "bilinaer"),
        ("x -> relu(weight = zeros)", "weight"),
        ("x -> conv(6, 3x3, bias = bilinear)", "`bilinear` takes filters"),
        ("x -> conv(6, 3x3, bias = normal)", "takes a tensor, numbers, or a word for its start"),
        ("x -> conv(6, 3x3, bias = zeroes)", "did you mean `zeros`?"),
        ("default conv(weight = [[1]])\nx -> conv(6, 1x1)", "conv(..., weight = ...)"),
    ],
)
def test_refusals(body: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        parsed(f"{body} -> output y")
    assert message in str(caught.value)


def bilinear(factor: int, taps: int, pad: int, x: Any) -> Any:
    how = f"stride = {factor}, pad = {pad}, bias = false, weight = bilinear"
    text = f"x -> conv_transpose(6, {taps}x{taps}, {how}) -> output y"
    return convdsl.compile(parsed(text), "random:0")(x)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_bilinear_filters_interpolate(factor: int) -> None:
    """As resize where no border is near; 2 f taps, one less where f is odd."""
    x = np.random.default_rng(factor).standard_normal((1, 6, 8, 8), np.float32)
    taps = 2 * factor - factor % 2
    y = bilinear(factor, taps, (taps - factor) // 2, x)
    resized = parsed(f"x -> resize(scale = {factor}, mode = bilinear) -> output y")
    wanted = convdsl.compile(resized)(x)
    assert y.shape == wanted.shape
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    np.testing.assert_allclose(y[inside], wanted[inside], atol=1e-5)


def test_bilinear_filters_of_groups() -> None:
    how = "stride = 2, pad = 1, groups = 6, bias = false, weight = bilinear"
    text = f"x -> conv_transpose(6, 4x4, {how})"
    x = np.random.default_rng(1).standard_normal((1, 6, 8, 8), np.float32)
    y = convdsl.compile(parsed(f"{text} -> output y"), "random:0")(x)
    np.testing.assert_allclose(y, bilinear(2, 4, 1, x), atol=1e-6)


@pytest.mark.parametrize("number", [-4.6, 1e-6, 0.0, 2, 1e30])
def test_a_number_is_where_training_starts(number: float) -> None:
    model = parsed(
        f"x -> conv(6, 3x3, bias = initial({number})) as c -> bn(weight = initial({number})) as b\n"
        f" -> prelu(weight = initial({number})) as p -> output y\n"
        f"x * (parameter([6, 1, 1], weight = initial({number})) as g) -> output z"
    )
    for key in ("c.bias", "b.weight", "p.weight", "g.weight"):
        assert state(model, key).role is Role.PARAMETER
    made = dict(bind(RandomWeights(0), model.graph.states))
    for key in ("c.bias", "b.weight", "p.weight", "g.weight"):
        np.testing.assert_array_equal(made[key], np.full_like(made[key], number))
    back = convdsl.parse(source(model)[0])
    for key in ("c.bias", "b.weight", "p.weight", "g.weight"):
        assert state(back, key).init == repr(float(number)), key


def test_training_moves_it() -> None:
    model = convdsl.parse(
        "model m {\ninput x: f32[N, 3]\n"
        "x -> linear(2, weight = zeros, bias = initial(0.25)) as f -> output y\n}\n"
        "train { loss = mse(y, target)\noptimizer = sgd(lr = 1.0) }"
    )
    session = convdsl.Session(model, complete(model), "random:0")
    data = {"x": np.ones((4, 3), np.float32), "target": np.ones((4, 2), np.float32)}
    assert float(session.step(data, rate=0.1)["loss"]) == pytest.approx(0.75**2)
    assert float(session.step(data, rate=0.1)["loss"]) < 0.75**2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x -> conv(6, 3x3, bias = initial([1, 2]))", "initial takes one number"),
        ("x -> conv(6, 3x3, bias = initial(inf))", "initial takes one number"),
        ("x -> bn(running_mean = initial(1))", "is not trained"),
        ("x -> conv(initial(6), 3x3)", "`channels` takes an integer, not what a weight starts"),
        ("x * initial(6)", "what a weight starts from"),
    ],
)
def test_numbers_where_nothing_starts(body: str, message: str) -> None:
    with pytest.raises(CompileError, match=message.replace("(", r"\(")):
        parsed(f"{body} -> output y")
