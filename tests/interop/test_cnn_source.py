"""ONNX to text: what comes back is the same network, in words that people would use."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from random_graphs import random_graph

import convdsl
from convdsl import exporting, zoo
from convdsl.cli import main
from convdsl.interop.cnn_source import source
from convdsl.interop.onnx_import import convert
from convdsl.passes import run as run_passes
from convdsl.weights import load as load_weights
from interop.runtimes import as_model, assert_close, draw_inputs, run_convdsl
from interop.test_import import structure

pytestmark = pytest.mark.drawn


def around(model, weights="random:1", **sizes):
    """To ONNX and to text, at some sizes."""
    proto = onnx.load_model_from_string(convdsl.export(model, weights))
    back = convert(proto, "net", sizes)
    return source(back)


def test_a_long_chain_to_several_names_goes_on_below():
    stages = "".join(f" -> conv({8 * (i + 1)}, 3x3, stride = 2) -> silu" for i in range(4))
    text = f"model net {{\n input x: f32[1, 3, 64, 64]\n a, b = x{stages} -> split\n"
    model = convdsl.parse(f"{text} a * b -> output y\n}}\n")
    said, _ = source(model)
    assert max(map(len, said.splitlines())) <= 100
    assert structure(convdsl.parse(said).graph) == structure(model.graph)


@pytest.mark.dear
@pytest.mark.parametrize(
    "name", ["lenet5", "resnet18", "resnet50", "resnet152", "efficientnet_lite0"]
)
def test_the_zoo_as_text(name):
    check_text(name)


OPEN_POSITIONS = ("segnet",)
"""Networks with positions of maxima, which ONNX counts through all samples: their batch is bound,
and what is read adds where planes start and takes it away again, each time."""


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_the_whole_zoo_as_text(name):
    """Where ONNX has no operator of ours, another structure comes back: of the same numbers."""
    sizes = {"N": 1} if name in OPEN_POSITIONS else {}
    check_text(name, is_arithmetic_enough=True, **sizes)


def check_text(name, is_arithmetic_enough=False, **sizes):
    model = convdsl.load(name)
    text, arrays = around(model, **sizes)
    again = convdsl.parse(text)
    same = structure(run_passes(again.graph)) == structure(run_passes(model.graph))
    assert same or is_arithmetic_enough
    if not same:
        given = draw_inputs(model, N=sizes.get("N", 2))
        with np.errstate(all="ignore"):
            expected = run_convdsl(model, given, "random:1")
            assert_close(run_convdsl(again, given, arrays), expected)
    assert again.preprocessing == model.preprocessing
    second, arrays = around(again, arrays, **sizes)
    if second != text:  # what is said another way is said so from then on
        assert is_arithmetic_enough
    if second != text and not sizes:
        assert around(convdsl.parse(second), arrays, **sizes)[0] == second


def test_repeated_structure_is_said_once():
    text, _ = around(convdsl.load("resnet152"))
    assert "for i in range(1, 36)" in text
    assert "default conv(bias = false)" in text
    assert text.count("conv(") < 30
    assert len(text.splitlines()) < 70


def test_numbers_stay(tmp_path):
    path, text, weights = (tmp_path / f"net.{end}" for end in ("onnx", "cnn", "safetensors"))
    convdsl.export("lenet5", "random:3", path)
    assert main(["import", str(path), "-o", str(text), "--weights", str(weights)]) == 0
    model = convdsl.load(text)
    arrays = draw_inputs(model)
    expected = run_convdsl(convdsl.load("lenet5"), arrays, "random:3")
    assert_close(run_convdsl(model, arrays, weights), expected, 0)
    assert load_weights(weights).entries.keys() == model.graph.states.keys()


@pytest.mark.dear
def test_class_names_and_preprocessing_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = convdsl.load("resnet18")
    convdsl.export(original, "random:3", "net.onnx")
    assert main(["import", "net.onnx"]) == 0
    model = convdsl.load("net.cnn")
    assert model.labels == original.labels
    assert model.preprocessing == original.preprocessing


def kinds(model):
    return sorted(n.op.name for n in model.graph.op_nodes())


def convert_back(model):
    return convert(onnx.load_model_from_string(convdsl.export(model, "random:1")), "net", {})


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_as_text(seed):
    model = as_model(random_graph(seed))
    text, arrays = around(model)
    again = convdsl.parse(text)
    assert kinds(again) == kinds(convert_back(model))
    assert {k: v.type for k, v in again.graph.outputs.items()} == {
        k: v.type for k, v in model.graph.outputs.items()
    }
    assert around(again, arrays)[0] == text


def test_the_driver(tmp_path):
    path = tmp_path / "net.onnx"
    convdsl.export("lenet5", "random:3", path)
    text, weights = exporting.translate(path)
    assert text.startswith("convdsl 1\n")
    assert len(weights) > 100_000
