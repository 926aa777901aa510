"""Import: networks of others give what onnxruntime gives, whatever shape arithmetic they hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from random_graphs import random_graph

import convdsl
from convdsl.interop.onnx_import import convert
from convdsl.ir.text import format_graph
from convdsl.passes import run as run_passes
from interop.runtimes import (
    as_model,
    assert_close,
    draw_inputs,
    run_convdsl,
    run_onnxruntime,
)

F = TensorProto.FLOAT


def model_of(nodes, inputs, outputs, weights=(), opset=17, **more) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, F, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def written(tmp_path, proto) -> str:
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    return str(path)


@pytest.mark.dear(share=4)
def test_a_file_brings_its_weights(tmp_path):
    path = tmp_path / "net.onnx"
    convdsl.export("lenet5", "random:3", path)
    model = convdsl.load(path)
    arrays = draw_inputs(model)
    expected = run_convdsl(convdsl.load("lenet5"), arrays, "random:3")
    assert_close(run_convdsl(model, arrays), expected, 0)
    assert model.weights is not None
    assert model.weights.keys() == convdsl.load("lenet5").graph.states.keys()
    assert [str(s) for s in model.symbols] == ["N"]


@pytest.mark.dear
@pytest.mark.parametrize("name", ["lenet5", "resnet18", "resnet50", "efficientnet_lite0"])
def test_the_zoo_comes_back_as_it_left(name):
    model = convdsl.load(name)
    back = convert(onnx.load_model_from_string(convdsl.export(model, "random:1")), name, {})
    assert back.preprocessing == model.preprocessing
    assert back.labels == model.labels
    before, after = (run_passes(m.graph) for m in (model, back))
    assert structure(before) == structure(after)


def structure(graph):
    """Operators, attributes and wiring; names of weights, not of layers without."""
    numbers = {value: i for i, n in enumerate(graph.nodes()) for value in n.outputs}
    numbers |= {s.output: name for name, s in graph.states.items() if s.data is None}
    return [
        (n.op.name, n.attributes, {k: numbers[v] for k, v in n.inputs.items()})
        for n in graph.op_nodes()
        if all(isinstance(numbers[v], int) for v in n.outputs)
    ]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_come_back(seed):
    model = as_model(random_graph(seed, tail=seed % 2 == 0))
    proto = onnx.load_model_from_string(convdsl.export(model, "random:1"))
    back = convert(proto, "net", {})
    assert back.inputs == model.inputs
    assert back.outputs == model.outputs
    again = convert(onnx.load_model_from_string(convdsl.export(back)), "net", {})
    assert format_graph(again.graph) == format_graph(back.graph)


@pytest.mark.dear(share=4)
def test_shape_arithmetic_is_folded(tmp_path):
    """x.view(x.size(0), -1) as PyTorch writes it."""
    proto = model_of(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 minus", "wanted", axis=0),
            node("Reshape", "x wanted", "flat"),
            node("MatMul", "flat w", "z"),
            node("Add", "z b", "y"),
        ],
        {"x": ["batch", 2, 3, 3]},
        {"y": ["batch", 4]},
        {
            "zero": np.int64(0),
            "axes": np.int64([0]),
            "minus": np.int64([-1]),
            "w": np.random.default_rng(0).standard_normal((18, 4)).astype("f"),
            "b": np.float32([1, 2, 3, 4]),
        },
    )
    model = convdsl.load(written(tmp_path, proto))
    assert [n.op.name for n in model.graph.op_nodes()] == ["flatten", "linear"]
    arrays = draw_inputs(model, batch=3)
    assert_close(run_convdsl(model, arrays), run_onnxruntime(proto, arrays))


@pytest.mark.dear(share=4)
def test_sizes_computed_from_free_sizes_stay_free(tmp_path):
    proto = model_of(
        [
            node("Shape", "x", "s", start=2),
            node("Mul", "s two", "wanted"),
            node("Shape", "x", "nc", end=2),
            node("Concat", "nc wanted", "sizes", axis=0),
            node("Resize", "x   sizes", "y", mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric"),
        ],
        {"x": ["N", 2, "H", "W"]},
        {"y": ["N", 2, "H2", "W2"]},
        {"two": np.int64([2, 2])},
    )  # fmt: skip
    proto.graph.node[4].input[:] = ["x", "", "", "sizes"]
    model = convdsl.load(written(tmp_path, proto))
    assert str(model.outputs["y"]) == "f32[N, 2, 2*H, 2*W]"


@pytest.mark.dear(share=4)
def test_unsupported_operators_are_told_all_at_once(tmp_path):
    proto = model_of(
        [
            helper.make_node("Bernoulli", ["x"], ["a"], name="first"),
            helper.make_node("NonZero", ["a"], ["b"], name="second"),
            helper.make_node("Bernoulli", ["x"], ["y"], name="third"),
        ],
        {"x": [2, 3]},
        {"y": [2, 3], "b": [2, 3]},
    )
    with pytest.raises(convdsl.InputError) as caught:
        convdsl.load(written(tmp_path, proto))
    message = str(caught.value)
    assert "Bernoulli: first, third" in message
    assert "NonZero (its size is data; what feeds it is read by --outputs a): second" in message
    assert "Conv" not in message  # nor any other kind that is read


def test_an_error_names_the_node(tmp_path):
    proto = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="stem")],
        {"x": [1, 3, 8, 8]},
        {"y": [1, 4, 6, 6]},
        {"w": np.zeros((4, 2, 3, 3), "f")},
    )
    with pytest.raises(convdsl.InputError, match="node stem"):
        convert(proto, "net.onnx", {})


@pytest.mark.dear(share=4)
def test_free_sizes_are_bound_when_loading(tmp_path):
    path = tmp_path / "net.onnx"
    convdsl.export("lenet5", "random:3", path)
    assert convdsl.load(path, N=4).inputs["image"].shape[0] == 4


@pytest.mark.dear(share=4)
def test_what_is_no_model(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(convdsl.InputError, match=r"net\.onnx"):
        convdsl.load(path)
    path.write_bytes(b"")
    with pytest.raises(convdsl.InputError, match=r"net\.onnx"):
        convdsl.load(path)


def test_a_shape_without_axes_may_be_an_output():
    proto = model_of([node("Shape", "x", "y", start=1, end=1)], {"x": [2, 3]}, {"y": [0]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    found = convdsl.compile(convert(proto, "net.onnx", {}), threads=1)(np.zeros((2, 3), "f4"))
    assert found.shape == (0,)
