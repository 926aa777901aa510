"""What import says of what it wrote: names that it changed, and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl import exporting, translation
from convdsl.cli import main
from convdsl.diagnostics import InputError
from convdsl.interop.onnx_load import model_of

F = TensorProto.FLOAT


def network(source: str, result: str, name: str = "net") -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f4")
    nodes = [
        helper.make_node("Conv", [source, "w"], ["t"], pads=[1, 1, 1, 1], name="layer.0"),
        helper.make_node("Relu", ["t"], [result]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(source, F, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(result, F, ["N", 4, "H", "W"])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("source", "result", "notes"),
    [
        ("x", "y", ()),
        ("for", "relu", ("input for is called for_2",)),
        ("0", "a/b:0", ("input 0 is called t0", "output a/b:0 is called a_b_0")),
    ],
)
def test_names_that_are_changed_are_told(source: str, result: str, notes: tuple[str, ...]) -> None:
    said = translation.renamed(model_of(network(source, result), "net.onnx", {}))
    assert said == notes


def test_numbers_that_differ_are_refused() -> None:
    """The text is right, its weights are not."""
    model = model_of(network("x", "y"), "net.onnx", {})
    _, weights, again = exporting.translation(model)
    said = translation.compare_numbers(model, again, weights)
    assert said is not None
    assert "differ by 0" in said
    from safetensors.numpy import load, save

    arrays = load(weights)
    key = next(iter(arrays))
    arrays[key] = arrays[key] * np.float32(1.01)
    with pytest.raises(InputError, match="its output y would be another one"):
        translation.compare_numbers(model, again, save(arrays))


@pytest.mark.dear
def test_import_says_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(network("in", "y", "conv"), "a.onnx")
    assert main(["import", "a.onnx"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "input in is called in_2" in said
    assert "the text computes what the file does" in said
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 5)).astype("f4")
    found = convdsl.compile("a.cnn", "a.safetensors")(x)
    np.testing.assert_allclose(found, convdsl.compile("a.onnx")(x), rtol=1e-5, atol=1e-6)
