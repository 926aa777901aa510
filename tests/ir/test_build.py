"""Building graphs: operands by position, names given once, the place of what nodes stand for."""

from __future__ import annotations

import numpy as np
import pytest

from convdsl.diagnostics import SourceFile
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph
from convdsl.ir.opdef import OpError, Role
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType


@pytest.fixture
def build() -> Build:
    return Build(Graph(), BY_NAME)


def test_operands_stand_in_the_order_of_the_record(build: Build) -> None:
    x = build.input("x", TensorType(DType.F32, (1, 3, 8, 8)))
    y = build("conv", x, channels=4, kernel=3)
    assert str(y.type) == "f32[1, 4, 8, 8]"
    assert list(y.node.inputs) == ["x", "weight", "bias"]
    joined = build("concat", y, y, x, axis=1)
    assert list(joined.node.inputs) == ["x0", "x1", "x2"]


def test_weights_may_be_handed_in(build: Build) -> None:
    x = build.input("x", TensorType(DType.F32, (2, 5)))
    weight = build.state("shared", TensorType(DType.F32, (3, 5)))
    first = build("linear", x, states={"weight": weight}, channels=3, bias=False)
    second = build("linear", x, states={"weight": weight}, channels=3, bias=False)
    assert {node.name: node.role for node in build.graph.states.values()} == {
        "shared": Role.PARAMETER
    }
    assert [first.name, second.name] == ["linear", "linear_2"]


def test_several_outputs(build: Build) -> None:
    x = build.input("x", TensorType(DType.F32, (1, 2, 4, 4)))
    node = build.node("max_pool_with_positions", x, kernel=2)
    assert [str(v.type) for v in node.outputs] == ["f32[1, 2, 2, 2]", "i64[1, 2, 2, 2]"]


def test_what_serves_a_node_has_its_name_and_place(build: Build) -> None:
    source = SourceFile("a.cnn", "x -> relu")
    x = build.input("x", TensorType(DType.F32, (2, 3)))
    span = source.span(5, 9)
    relu = build.graph.apply(BY_NAME["relu"], {"x": x}, name="act", span=span)
    here = build.at(relu)
    scaled = here("mul", x, here.fill(2.0, (), DType.F32, name="two"), name="scaled")
    assert (scaled.name, scaled.node.span) == ("act.scaled", span)
    two = scaled.node.inputs["b"].node
    assert (two.name, two.span, two.data.shape) == ("act.two", span, ())
    assert here("relu", x, name="scaled").name == "act.scaled_2"


def test_a_reshape_to_the_same_shape_is_none(build: Build) -> None:
    x = build.input("x", TensorType(DType.F32, (2, 3)))
    assert build.reshape(x, (2, 3)) is x
    assert build.reshape(x, (6,)).type.shape == (6,)


def test_constants_take_the_type_that_is_asked_for(build: Build) -> None:
    value = build.constant([1, 2], DType.F64)
    assert str(value.type) == "f64[2]"
    assert value.node.data.dtype == np.float64


def test_rules_object(build: Build) -> None:
    x = build.input("x", TensorType(DType.F32, (2, 3)))
    y = build.input("x", TensorType(DType.F32, (4,)))
    assert y.name == "x_2"
    with pytest.raises(OpError):
        build("add", x, y)


def test_names_are_given_once_and_again_when_free() -> None:
    names = Names(["a"])
    assert [names.unused("a"), names.unused("b"), names.unused("a")] == ["a_2", "b", "a_3"]
    names.free("a_2")
    assert "a_2" not in names
    assert [names.unused("a"), names.unused("a")] == ["a_2", "a_4"]
