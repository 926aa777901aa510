"""Files that onnxruntime runs and ONNX's checker refuses; and what a refusal says of kinds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper

import convdsl
from interop.runtimes import run_onnxruntime

F = TensorProto.FLOAT
info = helper.make_tensor_value_info


def saved(path, nodes, outputs, opset=17, inputs=None, functions=(), domains=()):
    graph = helper.make_graph(nodes, "net", inputs or [info("x", F, ["N", 4, 5])], outputs)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    onnx.save(proto, path)
    return proto


def check(path, proto, **given):
    found = convdsl.compile(convdsl.load(path), threads=1)(**given)
    expected = run_onnxruntime(proto, given)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("says", ["elements", "nothing"])
def test_outputs_without_a_shape(tmp_path, says):
    output = info("y", F, None) if says == "elements" else onnx.ValueInfoProto(name="y")
    proto = saved(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], [output])
    x = np.random.default_rng(1).standard_normal((2, 4, 5)).astype("f4")
    if says == "elements":
        check(tmp_path / "net.onnx", proto, x=x)
    else:
        y = convdsl.compile(convdsl.load(tmp_path / "net.onnx"), threads=1)(x)
        np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.dear(share=4)
def test_inputs_without_a_shape_are_refused_by_name(tmp_path):
    nodes = [helper.make_node("Relu", ["picture"], ["y"])]
    saved(tmp_path / "net.onnx", nodes, [info("y", F, [2])], inputs=[info("picture", F, None)])
    with pytest.raises(convdsl.InputError, match="input picture has no shape"):
        convdsl.load(tmp_path / "net.onnx")


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("opset", [18, 20, 21])
def test_group_normalisation_of_all_opsets(tmp_path, opset):
    """Of opset 18 weights are of groups, of 21 of channels."""
    size = 2 if opset < 21 else 4
    inputs = [info("x", F, ["N", 4, 5]), info("s", F, [size]), info("b", F, [size])]
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    proto = saved(tmp_path / "net.onnx", [node], [info("y", F, ["N", 4, 5])], opset, inputs)
    draw = np.random.default_rng(2).standard_normal
    arrays = {"x": draw((3, 4, 5)), "s": draw(size), "b": draw(size)}
    check(tmp_path / "net.onnx", proto, **{k: a.astype("f4") for k, a in arrays.items()})


@pytest.mark.dear(share=4)
def test_kinds_that_are_not_read_are_named_with_their_nodes(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("SequenceConstruct", ["h"], ["l"], name="pack"),
        helper.make_node("ConcatFromSequence", ["l"], ["y"], axis=0),
    ]
    saved(tmp_path / "net.onnx", nodes, [info("y", F, ["N", 4, 5])])
    with pytest.raises(convdsl.InputError) as refused:
        convdsl.load(tmp_path / "net.onnx")
    told = str(refused.value)
    assert "SequenceConstruct: pack\n  ConcatFromSequence: number 2\n" in told
    assert len(told.splitlines()) == 4  # no list of all kinds
    assert "docs/onnx-conformance.md" in told


@pytest.mark.dear(share=4)
def test_functions_of_a_file_are_told_as_such(tmp_path):
    square = helper.make_function(
        "my", "Sq", ["a"], ["b"], [helper.make_node("Mul", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = helper.make_node("Sq", ["x"], ["y"], domain="my")
    outputs = [info("y", F, ["N", 4, 5])]
    path = tmp_path / "net.onnx"
    proto = saved(path, [node], outputs, functions=[square], domains=["my"])
    with pytest.raises(
        convdsl.InputError, match=r"my\.Sq \(a function of the file's own\)"
    ) as told:
        convdsl.load(path)
    assert "onnx.inliner.inline_local_functions" in str(told.value)
    inlined = onnx.inliner.inline_local_functions(proto)
    onnx.save(inlined, path)
    check(path, inlined, x=np.float32([[[1, -2, 3, 4, 5]] * 4]))
