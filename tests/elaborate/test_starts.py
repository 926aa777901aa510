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
from convdsl.weights.initialisers import INITIALISERS


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


def test_texts_of_files_say_nothing_of_starts(tmp_path: Path) -> None:
    model = parsed("x -> conv(6, 3x3) as c -> output y")
    convdsl.export(model, "random:0", tmp_path / "m.onnx")
    text, _ = source(convdsl.load(str(tmp_path / "m.onnx")))
    assert not any(f"= {word}" in text for word in STARTS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x -> bn(weight = bilinear)", "`bilinear` takes filters"),
        ('x -> conv(6, 3x3, weight = "bilinaer")', "takes a tensor, numbers, or zeros or ones or"),
        ("x -> conv(6, 3x3, weight = bilinaer)", "bilinaer"),
        ("x -> relu(weight = zeros)", "weight"),
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
