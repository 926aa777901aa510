"""Layers of an imported network are called as its own modules, where a file tells of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

W = np.random.default_rng(0).standard_normal((4, 4)).astype("f4")


def node(kind: str, inputs: str, output: str, *scopes: str) -> onnx.NodeProto:
    """As PyTorch's exporter of graphs writes it: an operator, and the modules that it is in."""
    made = helper.make_node(kind, inputs.split(","), [output], name=f"node_{output}")
    if scopes:
        made.metadata_props.add(
            key="pkg.torch.onnx.name_scopes", value=str(["", *scopes, f"{output}_1"])
        )
    return made


def network(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def block(number: int, x: str, y: str) -> list[onnx.NodeProto]:
    """A linear layer whose weight the exporter turned over and called `val_N`, and a sum. Norms of
    all blocks share what was equal at first."""
    here = ("blocks", f"blocks.{number}")
    a, b, c = (f"{letter}{number}" for letter in "abc")
    norm = helper.make_node(
        "LayerNormalization", [x, "blocks.0.norm.weight", "blocks.0.norm.bias"], [a], name=f"n{a}"
    )
    norm.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value=str(["", *here, f"blocks.{number}.norm", a])
    )
    return [
        norm,
        node("MatMul", f"{a},val_{number}", b, *here, f"blocks.{number}.fc"),
        node("Gelu", b, c, *here, f"blocks.{number}.act"),
        node("Add", f"{c},{x}", y, *here),
    ]


def made() -> onnx.ModelProto:
    nodes = [*block(0, "x", "s"), *block(1, "s", "t"), node("Neg", "t", "u", "head")]
    nodes += [node("Gemm", "u,head.weight", "v", "head"), node("Tanh", "v", "y")]
    nodes[-1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'tanh']")
    shared = {"blocks.0.norm.weight": np.ones(4, "f4"), "blocks.0.norm.bias": np.zeros(4, "f4")}
    return network(nodes, {"val_0": W, "val_1": W.T.copy(), "head.weight": W + 1, **shared})


def test_modules_are_layers_and_what_is_beside_them_is_called_by_the_operator() -> None:
    model = model_of(made(), "net.onnx", {})
    assert [op.name for op in model.graph.op_nodes()] == [
        *("blocks.0.norm", "blocks.0.fc", "blocks.0.act", "blocks.0.add"),
        *("blocks.1.norm", "blocks.1.fc", "blocks.1.act", "blocks.1.add"),
        *("neg", "head", "tanh"),
    ]
    assert {"blocks.0.fc.weight", "blocks.1.fc.weight", "head.weight"} <= set(model.weights or ())


def test_the_network_is_what_it_was() -> None:
    x = np.random.default_rng(1).standard_normal((3, 4)).astype("f4")
    run = convdsl.compile(model_of(made(), "net.onnx", {}), cache=False)
    wanted = run_onnxruntime(made(), {"x": x})["y"]
    np.testing.assert_allclose(run(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "value", ["", "[]", "['']", "['', '']", "['', '../..', 'x']", "[" * 10_000, "['a\x00', 'b']"]
)
def test_whatever_stands_there_names_are_names(value: str) -> None:
    proto = network([node("Neg", "x", "y")], {})
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=value)
    (op,) = model_of(proto, "net.onnx", {}).graph.op_nodes()
    assert op.name
    assert set(op.name) <= set("abcdefghijklmnopqrstuvwxyz._0123456789")
