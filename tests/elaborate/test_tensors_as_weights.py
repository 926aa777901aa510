"""What stands in the place of a weight: tensors that fit, shared and handed on, and answers to
those that do not."""

from __future__ import annotations

import pytest

import convdsl
from convdsl import CompileError, Model

INPUTS = (
    "input x: f32[N, 4, 9, 9]\n input s: f32[8]\n input q: f32[8, 4, 9]\n"
    "input d: f64[8, 4, 3, 3]\n input w: f32[8, 4, 3, 3]\n input v: f32[4, 4, 3, 3]\n"
    "input o: f32[1, 4, 3, 3]\n"
)


def parsed(body: str, before: str = "") -> Model:
    return convdsl.parse(f"convdsl 1\n{before}\nmodel m {{\n{INPUTS}\n{body}\n}}")


def operands(model: Model, layer: str) -> dict[str, str]:
    (node,) = (node for node in model.graph.op_nodes() if node.name == layer)
    return {key: value.node.name for key, value in node.inputs.items()}


def test_only_what_is_left_is_a_weight() -> None:
    model = parsed("x -> conv(8, 3x3, weight = w) as first -> output y")
    assert operands(model, "first") == {"x": "x", "weight": "w", "bias": "first.bias"}
    assert list(model.graph.states) == ["first.bias"]


def test_a_bias_that_is_given_is_there() -> None:
    model = parsed(
        "x -> conv(8, 3x3, bias = s) as first -> output y", before="default conv(bias = false)"
    )
    assert operands(model, "first") == {"x": "x", "weight": "first.weight", "bias": "s"}


def test_a_shared_layer_shares_it() -> None:
    model = parsed("let f = conv(4, 3x3, weight = v)\n x -> f -> f -> output y")
    assert list(model.graph.states) == ["f.bias"]
    assert [n.inputs["weight"].node.name for n in model.graph.op_nodes()] == ["v", "v"]


def test_blocks_hand_it_on() -> None:
    block = "block once(filters) { conv(4, 3x3, weight = filters, bias = false) }"
    model = parsed("x -> once(filters = v) -> once(filters = v) -> output y", before=block)
    assert not model.graph.states
    assert [n.inputs["weight"].node.name for n in model.graph.op_nodes()] == ["v", "v"]


@pytest.mark.parametrize(
    ("stage", "message", "help"),
    [
        ("conv(8, 3x3, weight = s)", "`weight` is f32[8], conv needs f32[8, 4, 3, 3] here", ""),
        ("conv(8, 3x3, weight = q)", "`weight` is f32[8, 4, 9]", "reshape([8, 4, 3, 3])"),
        ("conv(8, 3x3, weight = d)", "`weight` is f64[8, 4, 3, 3]", "cast(f32)"),
        ("conv(8, 3x3, weight = o)", "`weight` is f32[1, 4, 3, 3]", "expand([8, 4, 3, 3])"),
        ("conv(4, 3x3, bias = s)", "`bias` is f32[8], conv needs f32[4] here", ""),
        ("conv(8, 3x3, weight = [w, w])", "takes a tensor or a nested list of numbers", ""),
        ("conv(8, 3x3, bias = [s])", "takes a tensor or a nested list of numbers", ""),
        ("bn(running_mean = s)", "running statistics, which no tensor stands for", ""),
        ("bn(affine = false, weight = s)", "batch_norm has no `weight` here", ""),
        ("conv(8, 3x3, weight = relu)", "not the operator `relu`", ""),
    ],
)
def test_what_does_not_fit(stage: str, message: str, help: str) -> None:
    with pytest.raises(CompileError) as caught:
        parsed(f"x -> {stage} -> output y")
    told = caught.value.diagnostics
    assert len(told) == 1
    assert message in told[0].message
    assert any(help in text for text in told[0].help) or not help


def test_a_parameter_is_no_tensor() -> None:
    with pytest.raises(CompileError, match="a tensor is one without it"):
        parsed("p = parameter([8], weight = s)\n p -> output y")


def test_defaults_set_none() -> None:
    with pytest.raises(CompileError, match="is a weight of conv"):
        parsed("default conv(bias = s)\n x -> conv(8, 3x3) -> output y")


@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_functions_tell_of_operators(name: str) -> None:
    with pytest.raises(CompileError, match=rf"reduce_{name}\(x, axes = "):
        parsed(f"{name}(w, axes = [1, 2]) -> output y")
