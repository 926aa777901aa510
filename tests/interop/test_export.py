"""Export: checked by onnx, run by onnxruntime, equal to what convdsl computes."""

from __future__ import annotations

import json

import onnx
import pytest
from random_graphs import random_graph

import convdsl
from convdsl import zoo
from convdsl.cli import main
from convdsl.interop.onnx_load import model_of
from interop.runtimes import as_model, assert_close, draw_inputs, run_convdsl, run_onnxruntime

WEIGHTS = "random:7"


def both(model, batch: int = 2, **symbols):
    arrays = draw_inputs(model, N=batch, **symbols)
    found = run_onnxruntime(convdsl.export(model, WEIGHTS), arrays)
    assert_close(found, run_convdsl(model, arrays, WEIGHTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_the_zoo_is_exported_whole(name):
    model = convdsl.load(name)
    proto = onnx.load_model_from_string(convdsl.export(model, WEIGHTS))
    onnx.checker.check_model(proto, full_check=True)
    assert {tensor.name for tensor in proto.graph.initializer} >= model.graph.states.keys()
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "N"


@pytest.mark.dear
@pytest.mark.parametrize("name", ["lenet5", "efficientnet_lite0"])
def test_the_zoo_runs_in_onnxruntime(name):
    both(convdsl.load(name))


@pytest.mark.parametrize("seed", range(5))
def test_random_graphs_run_in_onnxruntime(seed):
    both(as_model(random_graph(seed)))


SYMBOLIC = {
    "flatten": "input x: f32[N, 2, H, 6]\nx -> flatten -> output y",
    "reshape": "input x: f32[N, 2, H, 6]\nx -> reshape([H, N, 12]) -> output y",
    "halves": "input x: f32[N, 2, H, 6] where H % 2 == 0\nx -> maxpool(2) "
    "-> reshape([3 * N, 2, H / 2]) -> output y",
    "resize": "input x: f32[N, 2, H, 6]\nx -> resize(size = [H + 1, 12]) -> output y",
    "pad": "input x: f32[N, 2, H, 6]\nx -> conv(3, 3x3, 2, pad = same) -> output y",
    "shuffle": "input x: f32[N, 4, H, 6]\nx -> channel_shuffle(2) -> output y",
    "pixels": "input x: f32[N, 8, H, 6]\nx -> pixel_shuffle(2) -> output y",
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_free_sizes_stay_free(name):
    model = convdsl.parse(f"convdsl 1\nmodel net {{\n{SYMBOLIC[name]}\n}}\n")
    for sizes in ({"N": 1, "H": 4}, {"N": 3, "H": 8}):
        arrays = draw_inputs(model, **sizes)
        found = run_onnxruntime(convdsl.export(model, {} if name != "pad" else WEIGHTS), arrays)
        weights = WEIGHTS if name == "pad" else {}
        assert_close(found, run_convdsl(model, arrays, weights))


@pytest.mark.dear(share=4)
def test_preprocessing_and_class_names_go_along():
    proto = onnx.load_model_from_string(convdsl.export("resnet18", WEIGHTS))
    facts = {item.key: json.loads(item.value) for item in proto.metadata_props}
    model = convdsl.load("resnet18")
    assert model.preprocessing is not None
    assert facts["convdsl.preprocessing"] == model.preprocessing.to_json()
    assert tuple(facts["convdsl.labels"]) == model.labels


def test_shares_that_are_dropped_go_along_and_come_back():
    """Nothing is dropped at inference; who trains on with the file needs them as written."""
    model = convdsl.parse(
        "convdsl 1\nmodel net {\ninput x: f32[N, 2]\nx -> dropout(0.1) -> dropout -> output y\n}\n"
    )
    proto = onnx.load_model_from_string(convdsl.export(model, {}))
    shares = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    assert [float(str(a)) for a in shares.values()] == [0.1]
    again = model_of(proto, "net.onnx", {})
    assert [node.attributes["p"] for node in again.graph.op_nodes()] == [0.1, 0.5]
    both(model)


def test_what_goes_in_and_comes_out_needs_two_names():
    model = convdsl.parse("convdsl 1\nmodel net {\ninput x: f32[N, 2]\nx -> relu -> output x\n}\n")
    with pytest.raises(convdsl.InputError, match="different names"):
        convdsl.export(model, {})


def test_one_value_under_two_names():
    model = convdsl.parse(
        "convdsl 1\nmodel net {\ninput x: f32[N, 2]\ny = x -> relu\n"
        "y -> output a\ny -> output b\nx -> output c\n}\n"
    )
    both(model)


def test_weights_are_needed():
    with pytest.raises(convdsl.WeightError, match="none are given"):
        convdsl.export("lenet5")


def test_the_command(tmp_path, capsys):
    path = tmp_path / "net.onnx"
    assert main(["export", "lenet5", "--weights", "random:1", "-o", str(path)]) == 0
    onnx.checker.check_model(str(path), full_check=True)
    assert "net.onnx" in capsys.readouterr().err
    assert main(["export", "lenet5", "-o", str(path)]) == 2


def test_the_end_of_the_path_says_what_is_written(tmp_path):
    source = tmp_path / "net.py"
    assert main(["export", "lenet5", "-o", str(source)]) == 0
    assert "import torch" in source.read_text()
    onto = tmp_path / "other.py"
    how = ["--weights", "random:1", "--to", "onnx"]
    assert main(["export", "lenet5", *how, "-o", str(onto)]) == 0
    assert onnx.load_model_from_string(onto.read_bytes()).graph.node
