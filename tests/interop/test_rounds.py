"""Loop and Scan, whose rounds are written out, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from op_cases.draw import Draw

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_convdsl, run_onnxruntime

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name, element=F, shape=None):
    return helper.make_tensor_value_info(name, element, shape)


def graph(nodes, inputs, outputs, **weights) -> onnx.GraphProto:
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()]
    return helper.make_graph(nodes, "g", inputs, outputs, stored)


def file_of(nodes, inputs, outputs, **weights) -> onnx.ModelProto:
    typed = [value(name, F, shape) for name, shape in inputs.items()]
    outs = [value(name) for name in outputs]
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(
        graph(nodes, typed, outs, **weights), opset_imports=opsets, ir_version=8
    )


def assert_alike(proto, **arrays) -> None:
    expected = run_onnxruntime(proto, arrays)
    found = run_convdsl(model_of(proto, "net.onnx", {}), arrays, cache=False)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, 1e-5, 1e-5, err_msg=name)


def cell(*more) -> list[onnx.NodeProto]:
    """h' = tanh(h W + x), with weights of the loop's own and of the file."""
    return [
        node("MatMul", ["h", "w"], ["hw"]),
        node("Add", ["hw", "part"], ["sum"]),
        node("Add", ["sum", "bias"], ["biased"]),
        node("Tanh", ["biased"], ["next"]),
        *more,
    ]


def recurrent(rounds, condition="true") -> onnx.ModelProto:
    """A loop over the rows of x; each round leaves its state."""
    body = graph(
        [
            node("Gather", ["x", "number"], ["part"], axis=1),
            *cell(node("Neg", ["next"], ["left"])),
            node("Identity", ["goes"] if condition == "true" else [condition], ["on"]),
        ],
        [value("number", I64, []), value("goes", BOOL, []), value("h")],
        [value("on", BOOL, []), value("next"), value("left")],
        bias=np.float32([0.5, -0.5, 0.25]),
        fewer=np.array(False),
    )
    draw = Draw(3)
    return file_of(
        [node("Loop", ["rounds", "first", "start"], ["last", "all"], body=body)],
        {"x": [2, 4, 3], "start": [2, 3]},
        ["last", "all"],
        w=draw.array((3, 3), -1, 1).astype("f4"),
        rounds=np.int64(rounds),
        first=np.array(True),
    )


@pytest.mark.parametrize(("rounds", "condition"), [(4, "true"), (1, "true"), (4, "fewer")])
def test_rounds_of_a_loop_are_written_out(rounds, condition):
    """All of them, or until the condition, which is known, is false."""
    draw = Draw(rounds)
    x, start = draw.array((2, 4, 3)).astype("f4"), draw.array((2, 3)).astype("f4")
    assert_alike(recurrent(rounds, condition), x=x, start=start)


def test_a_loop_without_a_round_hands_on_what_is_carried():
    proto = recurrent(0)
    del proto.graph.output[1]
    proto.graph.node[0].output[1] = ""
    x, start = np.zeros((2, 4, 3), "f4"), Draw(1).array((2, 3)).astype("f4")
    with pytest.raises(convdsl.InputError, match="no round"):
        model_of(recurrent(0), "net.onnx", {})
    del proto.graph.node[0].output[1]
    del proto.graph.node[0].attribute[0].g.output[2]
    assert_alike(proto, x=x, start=start)


def test_a_number_that_is_counted_down_ends_a_loop():
    """While left > 0: the numbers that decide are known in every round."""
    body = graph(
        [
            node("Sub", ["left", "one"], ["fewer"]),
            node("Greater", ["fewer", "none"], ["on"]),
            node("Relu", ["h"], ["positive"]),
            node("Add", ["positive", "positive"], ["next"]),
        ],
        [value("number", I64, []), value("goes", BOOL, []), value("left", I64, []), value("h")],
        [value("on", BOOL, []), value("fewer", I64, []), value("next")],
        one=np.int64(1),
        none=np.int64(0),
    )
    proto = file_of(
        [node("Loop", ["", "first", "count", "x"], ["zero", "y"], body=body)],
        {"x": [2, 3]},
        ["y"],
        first=np.array(True),
        count=np.int64(3),
    )
    assert_alike(proto, x=Draw(1).array((2, 3)).astype("f4"))


def endless(condition) -> onnx.ModelProto:
    body = graph(
        [
            node("Exp", ["h"], ["next"]),
            node("ReduceMax", ["next"], ["most"], keepdims=0),
            node("Less", ["most", "limit"], ["less"]),
            node("Identity", [condition], ["on"]),
        ],
        [value("number", I64, []), value("goes", BOOL, []), value("h")],
        [value("on", BOOL, []), value("next")],
        limit=np.float32(9),
    )
    return file_of(
        [node("Loop", ["", "first", "x"], ["y"], body=body)],
        {"x": [2, 3]},
        ["y"],
        first=np.array(True),
    )


@pytest.mark.parametrize(
    ("condition", "said"), [("less", "depends on data"), ("goes", "rounds are not written out")]
)
def test_loops_without_a_known_end_are_refused(condition, said):
    with pytest.raises(convdsl.InputError, match=f"Loop.*{said}"):
        model_of(endless(condition), "net.onnx", {})


@pytest.mark.parametrize("seed", range(6))
def test_scan(seed):
    """Two inputs along axes of their own, forwards and backwards, one of them stored; outputs
    stacked along an axis of their own."""
    draw = Draw(seed)
    body = graph(
        cell(node("Mul", ["next", "other"], ["left"]), node("Neg", ["left"], ["more"])),
        [value("h"), value("part"), value("other")],
        [value("next"), value("left"), value("more")],
        bias=np.float32([0.5, -0.5, 0.25]),
    )
    axes, ways = [draw.integer(0, 1), draw.integer(-1, 0)], [draw.integer(0, 1) for _ in range(2)]
    how = {
        "scan_input_axes": axes,
        "scan_input_directions": ways,
        "scan_output_axes": [draw.pick(0, 1, -1), 0],
        "scan_output_directions": [draw.integer(0, 1), 0],
    }
    given = how if seed else {}
    axes = axes if seed else [0, 0]
    x = (2, 5, 3) if axes[0] else (5, 2, 3)
    other = draw.array((3, 5) if axes[1] else (5, 3)).astype("f4")
    proto = file_of(
        [node("Scan", ["start", "x", "o"], ["last", "all", "more"], body=body,
              num_scan_inputs=2, **given)],
        {"x": list(x), "start": [2, 3]},
        ["last", "all", "more"],
        w=draw.array((3, 3), -1, 1).astype("f4"),
        o=other,
    )  # fmt: skip
    assert_alike(proto, x=draw.array(x).astype("f4"), start=draw.array((2, 3)).astype("f4"))


def test_a_scan_waits_for_its_length():
    """Of free length it is read where the length is known."""
    body = graph(
        [node("Add", ["h", "part"], ["next"]), node("Identity", ["next"], ["left"])],
        [value("h"), value("part")],
        [value("next"), value("left")],
    )
    proto = file_of(
        [node("Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1)],
        {"x": ["T", 3], "start": [3]},
        ["last", "all"],
    )
    network = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    for length in (1, 4):
        arrays = {"x": Draw(length).array((length, 3)).astype("f4"), "start": np.ones(3, "f4")}
        expected, found = run_onnxruntime(proto, arrays), network(**arrays)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, 1e-6, 1e-6)
