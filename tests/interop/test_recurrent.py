"""Recurrent layers of files, written out step by step. What is drawn of them: drawn_recurrent."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from op_cases.draw import Draw
from safetensors.numpy import load as load_weights

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from interop.drawn_recurrent import GATES
from interop.runtimes import run_onnxruntime

Arrays = dict[str, np.ndarray]


def layer(
    kind: str, names: list[str], outputs: list[str], inputs: Arrays, weights: Arrays, **how: Any
) -> onnx.ModelProto:
    """One node; the batch of its inputs is free."""
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **how)],
        "net",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, (a.shape[0], "N", a.shape[2]))
            for n, a in inputs.items()
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs if n],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("kind", GATES)
def test_batches_are_free(kind):
    draw = Draw(7, *kind.encode())
    weights = {
        "w": draw.array((2, 4 * GATES[kind], 3)).astype("f4"),
        "r": draw.array((2, 4 * GATES[kind], 4)).astype("f4"),
    }
    x = draw.array((5, 2, 3)).astype("f4")
    how = {"hidden_size": 4, "direction": "bidirectional"}
    proto = layer(kind, ["x", "w", "r"], ["y", "h"], {"x": x}, weights, **how)
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    for batch in (1, 2):
        found = executable(x[:, :batch])
        for name, expected in run_onnxruntime(proto, {"x": x[:, :batch]}).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.dear(share=4)
def test_text_stores_each_weight_once(tmp_path):
    """Five steps each way share what they multiply the state with."""
    draw = Draw(5)
    x = draw.array((5, 2, 3)).astype("f4")
    weights = {n: draw.array(s).astype("f4") for n, s in (("w", (2, 16, 3)), ("r", (2, 16, 4)))}
    how = {"hidden_size": 4, "direction": "bidirectional"}
    proto = layer("LSTM", ["x", "w", "r"], ["y"], {"x": x}, weights, **how)
    model = model_of(proto, "net.onnx", {})
    text, stored = exporting.translate(model)
    again = convdsl.parse(text)
    arrays = load_weights(stored)
    assert sum(a.size for a in arrays.values()) == sum(a.size for a in weights.values())
    found = convdsl.compile(again, arrays, threads=1, cache=False)(x)
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x})["y"], rtol=1e-5, atol=1e-5)


REFUSED = [
    ({"clip": 1.0}, (3, 1, 2), None, "clip is not supported"),
    ({"activations": ["Elu"]}, (3, 1, 2), None, "activations Elu are not supported"),
    ({"direction": "sideways"}, (3, 1, 2), None, "there is no direction sideways"),
    ({}, (3, 2, 2), [3, 2], "sequences shorter than the input's 3 steps"),
    ({}, (2000, 1, 2), None, "2000 steps are not written out; at most 1024 are"),
]


@pytest.mark.parametrize(("how", "shape", "lengths", "told"), REFUSED)
def test_what_is_not_written_out_is_refused(how, shape, lengths, told):
    weights = {"w": np.ones((1, 3, 2), "f4"), "r": np.ones((1, 3, 3), "f4")}
    names = ["x", "w", "r"]
    if lengths is not None:
        weights["lengths"] = np.array(lengths, "i4")
        names += ["", "lengths"]
    proto = layer("RNN", names, ["y"], {"x": np.ones(shape, "f4")}, weights, hidden_size=3, **how)
    with pytest.raises(convdsl.InputError, match=told):
        model_of(proto, "net.onnx", {})
