"""What a file holds and its outputs do not need, outputs that are chosen, and branches."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from op_cases.draw import Draw

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_convdsl, run_onnxruntime

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def file_of(nodes, inputs, outputs, weights=(), opset=17) -> onnx.ModelProto:
    graph = graph_of(nodes, outputs, weights)
    graph.input.extend(helper.make_tensor_value_info(n, F, s) for n, s in inputs.items())
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("strange", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def graph_of(nodes, outputs, weights=()) -> onnx.GraphProto:
    made = [helper.make_tensor_value_info(name, F, None) for name in outputs]
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(weights).items()]
    return helper.make_graph(nodes, "net", [], made, stored)


def chosen(nodes_then, nodes_else, condition="c", outputs=("y",), **weights) -> onnx.NodeProto:
    """If(condition) of two branches whose outputs have the names of the node's, with a prefix."""
    return helper.make_node(
        "If",
        [condition],
        list(outputs),
        then_branch=graph_of(nodes_then, [f"t_{name}" for name in outputs], weights),
        else_branch=graph_of(nodes_else, [f"e_{name}" for name in outputs], weights),
    )


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_known_condition_chooses(condition, shape):
    """Branches see tensors outside, have weights of their own, and the same names inside."""
    w = Draw(0).array((3, 3)).astype("f4")
    node = helper.make_node
    proto = file_of(
        [
            node("Relu", ["x"], ["h"]),
            chosen(
                [node("MatMul", ["h", "w"], ["inner"]), node("Neg", ["inner"], ["t_z"])],
                [node("Add", ["h", "w"], ["inner"]), node("Abs", ["inner"], ["e_z"])],
                outputs=("z",),
                w=w,
            ),
            chosen(
                [node("Mul", ["z", "h"], ["inner"]), node("Add", ["inner", "x"], ["t_y"])],
                [node("Sub", ["z", "h"], ["inner"]), node("Mul", ["inner", "x"], ["e_y"])],
            ),
        ],
        {"x": [3, 3]},
        ["y"],
        {"c": np.full(shape, condition)},
    )
    x = Draw(1).array((3, 3)).astype("f4")
    found = run_convdsl(model_of(proto, "net.onnx", {}), {"x": x}, cache=False)
    expected = run_onnxruntime(proto, {"x": x})
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5)


def test_the_branch_not_taken_may_hold_anything():
    strange = helper.make_node("Strange", ["x"], ["e_y"], domain="strange")
    proto = file_of(
        [chosen([helper.make_node("Neg", ["x"], ["t_y"])], [strange])],
        {"x": [2]},
        ["y"],
        {"c": np.array(True)},
    )
    x = np.float32([1, -2])
    found = run_convdsl(model_of(proto, "net.onnx", {}), {"x": x}, cache=False)["y"]
    np.testing.assert_array_equal(found, -x)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(False), "c"))
    with pytest.raises(convdsl.InputError, match=r"strange\.Strange"):
        model_of(proto, "net.onnx", {})


def test_a_condition_on_sizes_waits_for_them():
    """Squeeze if there is one channel, as PyTorch exports it."""
    node = helper.make_node
    proto = file_of(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "one"], ["channels"]),
            node("Equal", ["channels", "one"], ["c"]),
            chosen(
                [node("Squeeze", ["x", "axis"], ["t_y"])], [node("Neg", ["x"], ["e_y"])]
            ),
        ],
        {"x": ["N", "C", 4]},
        ["y"],
        {"one": np.int64(1), "axis": np.int64([1])},
    )  # fmt: skip
    network = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    for channels in (1, 2, 1):
        x = Draw(channels).array((2, channels, 4)).astype("f4")
        expected = run_onnxruntime(proto, {"x": x})["y"]
        np.testing.assert_array_equal(network(x), expected)


def by_data(nodes_then, nodes_else, keepdims=0, outputs=("y",)) -> onnx.ModelProto:
    """A branch is chosen by whether there is a positive element."""
    node = helper.make_node
    return file_of(
        [
            node("ReduceMax", ["x"], ["most"], axes=[0, 1], keepdims=keepdims),
            *([node("Squeeze", ["most", "axis"], ["one"])] if keepdims else []),
            node("Greater", ["one" if keepdims else "most", "zero"], ["c"]),
            chosen(nodes_then, nodes_else, outputs=outputs),
        ],
        {"x": [2, 3]},
        outputs,
        {"zero": np.float32(0), "axis": np.int64([0])},
    )


@pytest.mark.parametrize("keepdims", [0, 1])
def test_data_choose(keepdims):
    """Both branches are computed; NaN of the one that is not taken stays there."""
    node = helper.make_node
    proto = by_data(
        [node("Log", ["x"], ["t_y"]), node("Neg", ["x"], ["t_z"])],
        [node("Identity", ["x"], ["e_y"]), node("Abs", ["x"], ["e_z"])],
        keepdims,
        ("y", "z"),
    )
    network = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    for sign in (1, -1):
        x = sign * Draw(1).array((2, 3), 0.5, 2).astype("f4")
        expected, found = run_onnxruntime(proto, {"x": x}), network(x)
        for name in ("y", "z"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_data_that_choose_between_shapes_are_refused():
    node = helper.make_node
    proto = by_data([node("Neg", ["x"], ["t_y"])], [node("ReduceMax", ["x"], ["e_y"], keepdims=0)])
    with pytest.raises(convdsl.InputError, match=r"If.*y of shape \[2, 3\] and of shape \[\]"):
        model_of(proto, "net.onnx", {})


def two_outputs() -> onnx.ModelProto:
    """A known kind on the way to y, a strange one on the way to z."""
    node = helper.make_node
    return file_of(
        [
            node("Conv", ["x", "w"], ["h"]),
            node("Strange", ["h"], ["s"], domain="strange"),
            node("Neg", ["s"], ["z"]),
            node("Relu", ["h"], ["y"]),
            node("Other", ["h"], ["unused"], domain="strange"),
        ],
        {"x": ["N", 2, 5, 5], "left": ["K", 2]},
        ["y", "z"],
        {"w": Draw(0).array((3, 2, 3, 3)).astype("f4"), "v": np.array(["text"], object)},
    )


@pytest.mark.dear
def test_outputs_are_chosen(tmp_path):
    path = tmp_path / "net.onnx"
    proto = two_outputs()
    for output in proto.graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, F, ["N", 3, 3, 3]))
    onnx.save(proto, path)
    with pytest.raises(convdsl.InputError, match=r"(?m)strange\.Strange: number 1$"):
        convdsl.load(path)
    x = Draw(1).array((1, 2, 5, 5)).astype("f4")
    for names in (["y"], ["y", "h"], ["h"]):
        model = convdsl.load(path, outputs=names)
        assert list(model.outputs) == names
        assert list(model.inputs) == ["x"]
        arrays = {"x": x}
        found = run_convdsl(model, arrays, cache=False)
        conv = run_convdsl(convdsl.load(path, outputs="h"), arrays, cache=False)["h"]
        wanted = {"h": conv, "y": np.maximum(conv, 0)}
        for name in names:
            np.testing.assert_allclose(found[name], wanted[name], 1e-5, 1e-5)
    with pytest.raises(convdsl.InputError, match=r"computes no why"):
        convdsl.load(path, outputs=["why"])
