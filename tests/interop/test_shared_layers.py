"""Layers that a network calls more than once are one `let` in its text, with their weights once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from safetensors.numpy import load as load_arrays

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

CALLED_TWICE = """model net {
    input x: f32[1, 4, 8, 8]
    let c = conv(4, 3x3) as head
    x -> c -> relu -> c -> output y
}
"""

IN_SCOPES = """model net {
    input x: f32[1, 4, 8, 8]
    let c = conv(4, 3x3) as "heads.cls"
    let e = conv(4, 3x3, bias = false) as "heads.box"
    y = x -> c -> scope tail { conv(4, 1x1) as mix -> bn -> c } -> e -> e
    y -> scope one { conv(4, 3x3) as a -> c -> conv(4, 3x3) as b }
      -> scope two { conv(4, 3x3) as a -> c -> conv(4, 3x3) as b } -> output z
}
"""

OVER_LEVELS = """block tower(w) { conv(w, 3x3) as a -> relu -> bn as b -> conv(w, 3x3) as c }
model net {
    input x: f32[1, 4, 16, 16]
    let head = tower(4)
    p = x -> conv(4, 3x3, stride = 2) as down
    q = p -> conv(4, 3x3) as "head.extra"
    levels = [x -> head -> flatten(2), p -> head -> flatten(2), q -> head -> flatten(2)]
    concat(levels[0], levels[1], levels[2], axis = 2) -> output y
}
"""

OF_PARTS = """model net {
    input x: f32[1, 4, 8, 8]
    a, b = x -> split(parts = [2, 2])
    let l = linear(3) as fc
    (a -> flatten -> l) * (b -> flatten -> l) -> output y
}
"""


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(
    ("text", "lets"), [(CALLED_TWICE, 1), (IN_SCOPES, 2), (OVER_LEVELS, 3), (OF_PARTS, 1)]
)
def test_layers_that_are_called_again_are_bound_once(text, lets):
    """By way of ONNX, whose nodes name the same initialisers."""
    model = convdsl.parse(text)
    proto = onnx.load_model_from_string(convdsl.export(model, "random:3"))
    file = model_of(proto, "net.onnx", {})
    said, stored = exporting.translate(file)
    assert said.count("    let ") == lets
    arrays = load_arrays(stored)
    again = convdsl.parse(said)
    assert convdsl.report(again).totals["params"] == convdsl.report(model).totals["params"]
    assert len(arrays) == len(file.weights)
    x = np.random.default_rng(2).standard_normal(model.inputs["x"].shape).astype("f4")
    (expected,) = run_onnxruntime(proto, {"x": x}).values()
    found = convdsl.compile(again, arrays, threads=1, cache=False)(x)
    scale = float(np.ptp(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    assert exporting.translate(again)[0] == said  # and from text to text


def test_layers_with_one_weight_in_common_have_copies():
    """No call of one layer: a bias is another's."""
    w = np.ones((4, 4, 3, 3), "f4")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w", "b1"], ["a"], pads=[1] * 4),
        onnx.helper.make_node("Conv", ["a", "w", "b2"], ["y"], pads=[1] * 4),
    ]
    arrays = {"w": w, "b1": np.zeros(4, "f4"), "b2": np.ones(4, "f4")}
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4, 5, 5))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    said, stored = exporting.translate(model_of(proto, "net.onnx", {}))
    assert "let" not in said
    assert sum(a.shape == w.shape for a in load_arrays(stored).values()) == 2
