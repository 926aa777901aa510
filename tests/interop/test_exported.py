"""Networks as PyTorch exports them (`exported/make.py`), there and back, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from convdsl.passes import PASSES
from interop.runtimes import assert_close, draw_inputs, run_convdsl, run_onnxruntime

pytestmark = pytest.mark.drawn

FILES = sorted((Path(__file__).parent / "exported").glob("*.onnx"))

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_there_are_files() -> None:
    assert [file.stem for file in FILES] == [
        "convnext", "detector", "sampling", "swin", "transformer",
    ]  # fmt: skip


@each_file
@pytest.mark.parametrize("passes", [PASSES, ()], ids=["all passes", "no passes"])
def test_agrees_with_onnxruntime(file: Path, passes: tuple[str, ...]) -> None:
    model = convdsl.load(file)
    arrays = draw_inputs(model, seed=1)
    wanted = run_onnxruntime(file.read_bytes(), arrays)
    assert_close(run_convdsl(model, arrays, passes=passes), wanted, 1e-5)


@pytest.mark.dear
@each_file
def test_as_text_and_exported_again(file: Path, tmp_path: Path) -> None:
    model = convdsl.load(file)
    arrays = draw_inputs(model, seed=2)
    wanted = run_onnxruntime(file.read_bytes(), arrays)
    text, weights = exporting.translate(file)
    (tmp_path / "net.cnn").write_text(text)
    (tmp_path / "net.safetensors").write_bytes(weights)
    again = convdsl.load(tmp_path / "net.cnn")
    assert_close(run_convdsl(again, arrays, tmp_path / "net.safetensors"), wanted, 1e-5)
    exported = exporting.export(again, tmp_path / "net.safetensors")
    assert_close(run_onnxruntime(exported, arrays), wanted, 1e-5)


@pytest.mark.dear
def test_what_was_assigned_is_sliced() -> None:
    """No positions are left of PyTorch's `mask[:, rows] = 1` and `y[..., 0:2] = ...`."""
    for name in ("swin", "detector"):
        (file,) = (file for file in FILES if file.stem == name)
        kinds = {node.op.name for node in convdsl.load(file).graph.op_nodes()}
        assert not {"put_at", "take_at"} & kinds


@pytest.mark.parametrize("seed", range(40))
def test_boxes_that_are_assigned(seed: int) -> None:
    """ScatterND of known positions that are a box, counted from either end, whole axes too."""
    random = np.random.default_rng(seed)
    rank = random.integers(1, 4)
    shape, said = random.integers(1, 6, rank), random.integers(1, rank + 1)
    firsts = [random.integers(0, extent) for extent in shape[:said]]
    lasts = [random.integers(a + 1, extent + 1) for a, extent in zip(firsts, shape, strict=False)]
    ranges = [np.arange(a, b) for a, b in zip(firsts, lasts, strict=True)]
    places = np.stack(np.meshgrid(*ranges, indexing="ij"), -1) - shape[:said] * (seed % 3 == 0)
    if seed % 4 == 1:  # and one that is none, where it has two elements
        places = places[::-1]
    x = random.standard_normal(shape).astype("f4")
    updates = random.standard_normal((*places.shape[:-1], *shape[said:])).astype("f4")
    wanted = x.copy()
    wanted[tuple(np.moveaxis(places, -1, 0))] = updates
    node = helper.make_node("ScatterND", ["x", "places", "updates"], ["y"])
    ports = [
        helper.make_tensor_value_info(name, 1, array.shape)
        for name, array in (("x", x), ("updates", updates), ("y", x))
    ]
    stored = [numpy_helper.from_array(places, "places")]
    graph = helper.make_graph([node], "net", ports[:2], ports[2:], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(proto)
    found = run_convdsl(model_of(proto, "net", {}), {"x": x, "updates": updates}, cache=False)
    np.testing.assert_array_equal(found["y"], wanted)


def test_sizes_that_are_data_are_named_with_what_can_be_read() -> None:
    nodes = [
        helper.make_node("Sigmoid", ["s"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["b", "scores"], ["chosen"], "nms"),
    ]
    ports = [
        helper.make_tensor_value_info(n, 1, s) for n, s in (("b", [1, 5, 4]), ("s", [1, 2, 5]))
    ]
    outputs = [helper.make_tensor_value_info("chosen", 7, None)]
    graph = helper.make_graph(nodes, "net", ports, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(convdsl.InputError, match=r"its size is data.*--outputs b,scores\): nms"):
        model_of(proto, "net", {})
