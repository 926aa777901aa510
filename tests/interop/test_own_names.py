"""Inputs and outputs are called as their file calls them, and by words where text has to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import convdsl
from convdsl.cli import main
from convdsl.exporting import export

F = TensorProto.FLOAT


@pytest.fixture
def file(tmp_path):
    """Names as TensorFlow, JAX and PyTorch give them."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Sub", ["a:0", "serving/b"], ["d"]),
        helper.make_node("Sub", ["d", "input.1"], ["y:0"]),
    ]
    inputs = [info(name, F, ["N", 3]) for name in ("a:0", "serving/b", "input.1")]
    graph = helper.make_graph(nodes, "net", inputs, [info("y:0", F, ["N", 3])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


A, B, C = (np.full((2, 3), value, "f4") for value in (7, 2, 1))
GIVEN = {"a:0": A, "serving/b": B, "input.1": C}


@pytest.mark.dear(share=4)
def test_names_of_the_file_and_words_for_them(file):
    net = convdsl.compile(convdsl.load(file), threads=1)
    assert list(net.inputs) == list(GIVEN)
    words = {"a_0": A, "serving_b": B, "input.1": C}
    for named in (GIVEN, words, dict(reversed(GIVEN.items()))):
        np.testing.assert_array_equal(net(**named), A - B - C)
    with pytest.raises(convdsl.InputError, match="`a:0` is given twice"):
        net(**GIVEN, a_0=A)
    with pytest.raises(convdsl.InputError, match="no input `a:1`"):
        net(**{"a:1": A})


@pytest.mark.dear(share=4)
def test_what_is_exported_keeps_them(file):
    proto = onnx.load_model_from_string(export(convdsl.load(file)))
    assert [info.name for info in proto.graph.input] == list(GIVEN)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("names", [list(GIVEN), ["a_0", "serving_b", "input.1"]])
def test_the_command_line_takes_both(file, names):
    data, out = file.with_name("in.npz"), file.with_name("out.npz")
    np.savez(data, **dict(zip(names, GIVEN.values(), strict=True)))
    assert main(["run", str(file), "--data", str(data), "-o", str(out)]) == 0
    with np.load(out) as found:
        np.testing.assert_array_equal(found["y:0"], A - B - C)


@pytest.mark.dear(share=4)
def test_one_array_under_two_names_is_refused(file, capsys):
    data = file.with_name("in.npz")
    np.savez(data, **GIVEN, a_0=A)
    assert main(["run", str(file), "--data", str(data)]) == 2
    assert "no input a_0" in capsys.readouterr().err


@pytest.mark.dear(share=4)
def test_import_says_what_is_called_otherwise(file, capsys):
    text = file.with_suffix(".cnn")
    assert main(["import", str(file), "-o", str(text)]) == 0
    told = capsys.readouterr().err
    for name, word in (("a:0", "a_0"), ("serving/b", "serving_b"), ("input.1", "input_1")):
        assert f"input {name} is called {word}" in told
    assert list(convdsl.load(text).inputs) == ["a_0", "serving_b", "input_1"]
