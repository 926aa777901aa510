"""What published networks hold as exporters write them: inputs left out, positions of every pair of
pixels, statistics of the batch itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import convdsl
from convdsl.interop.onnx_load import model_of
from convdsl.passes import run as run_passes


def network(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    outputs: Sequence[str],
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """From x of f32; what is constant is an initialiser."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compared(proto: onnx.ModelProto, x: np.ndarray) -> None:
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)(x)
    arrays = list(found.values()) if isinstance(found, dict) else [found]
    for array, wanted in zip(arrays, expected, strict=True):
        assert array.shape == np.asarray(wanted).shape
        np.testing.assert_allclose(array, wanted, rtol=2e-5, atol=2e-6)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.dear
@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 7), (3, 4, 5, 6), (2, 3, 2, 3, 2), (1, 6, 1, 9)])
@pytest.mark.parametrize("outputs", [("y",), ("y", "m", "v"), ("y", "", "v")])
def test_normalisation_by_the_batch_itself(
    shape: tuple[int, ...], outputs: tuple[str, ...]
) -> None:
    channels = shape[1]
    given = {"s": drawn(channels, seed=1), "b": drawn(channels, seed=2)}
    before = {"m0": drawn(channels, seed=3), "v0": np.abs(drawn(channels, seed=4))}
    node = helper.make_node(
        "BatchNormalization",
        ["x", *given, *before],
        list(outputs),
        training_mode=1,
        epsilon=1e-3,
        momentum=0.75,
    )
    proto = network([node], shape, [name for name in outputs if name], **given, **before)
    x = 3 * drawn(*shape) + 5
    flat = np.moveaxis(x.astype(np.float64), 1, 0).reshape(channels, -1)
    mean, var = flat.mean(1), flat.var(1)
    along = (channels, *[1] * (len(shape) - 2))
    y = (x - mean.reshape(along)) / np.sqrt(var.reshape(along) + 1e-3)
    wanted = {
        "y": y * given["s"].reshape(along) + given["b"].reshape(along),
        "m": 0.75 * before["m0"] + 0.25 * mean,
        "v": 0.75 * before["v0"] + 0.25 * var,
    }
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)(x)
    arrays = list(found.values()) if isinstance(found, dict) else [found]
    for name, array in zip((name for name in outputs if name), arrays, strict=True):
        np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-5)


def test_standardised_weights_of_a_convolution() -> None:
    """As a normaliser-free network goes out: its filters are normalised by themselves, as a batch
    of one."""
    w = 2 * drawn(6, 3, 3, 3) + 1
    zeros, ones = np.zeros(6, np.float32), np.ones(6, np.float32)
    nodes = [
        helper.make_node("Reshape", ["w", "flat"], ["rows"]),
        helper.make_node(
            "BatchNormalization", ["rows", "gain", "zeros", "zeros", "ones"], ["even", "", ""],
            training_mode=1, epsilon=1e-5,
        ),
        helper.make_node("Reshape", ["even", "whole"], ["filters"]),
        helper.make_node("Conv", ["x", "filters"], ["y"], pads=[1, 1, 1, 1]),
    ]  # fmt: skip
    proto = network(
        nodes,
        (2, 3, 7, 8),
        ["y"],
        w=w,
        flat=np.array([1, 6, 27]),
        whole=np.array([6, 3, 3, 3]),
        gain=drawn(6, seed=5),
        zeros=zeros,
        ones=ones,
    )
    compared(proto, drawn(2, 3, 7, 8, seed=6))


@pytest.mark.parametrize("low", [None, -1.0, 3.0])
@pytest.mark.parametrize("high", [None, 2.0])
@pytest.mark.parametrize("trailing", [False, True])
def test_limits_of_sizes_may_be_left_out(
    low: float | None, high: float | None, trailing: bool
) -> None:
    """Padding that follows from sizes, as layers that pad like TensorFlow's compute it."""
    limits = {
        name: np.array(value, np.float32)
        for name, value in (("low", low), ("high", high))
        if value is not None
    }
    names = ["low" if low is not None else "", "high" if high is not None else ""]
    while names and not names[-1] and not trailing:
        names.pop()
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "three"], ["width"]),
        helper.make_node("Cast", ["width"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["size", "four"], ["over"]),
        helper.make_node("Clip", ["over", *names], ["held"]),
        helper.make_node("Max", ["held", "none"], ["count"]),
        helper.make_node("Cast", ["count"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Concat", ["zeros", "whole"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
    ]
    proto = network(
        nodes,
        (1, 2, 3, 5),
        ["y"],
        three=np.array([3]),
        four=np.array([4], np.float32),
        none=np.zeros(1, np.float32),
        zeros=np.zeros(7, np.int64),
        **limits,
    )
    compared(proto, drawn(1, 2, 3, 5))


@pytest.mark.parametrize("batch", [2, "N"])
def test_sizes_are_split(batch: int | str) -> None:
    """Pads in the order of other axes, as tf2onnx writes what it found in NHWC."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Sub", ["shape", "wanted"], ["over"]),
        helper.make_node("Neg", ["over"], ["lacking"]),
        helper.make_node("Slice", ["lacking", "one", "four"], ["held"]),
        helper.make_node("Max", ["held", "zero"], ["ends"]),
        helper.make_node(
            "Concat", ["zero", "zero", "zero", "zero", "zero", "ends"], ["all"], axis=0
        ),
        helper.make_node("Split", ["all"], [f"part{i}" for i in range(8)], axis=0),
        helper.make_node(
            "Concat", [f"part{i}" for i in (0, 3, 1, 2, 4, 7, 5, 6)], ["pads"], axis=0
        ),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
        helper.make_node("Split", ["shape", "two"], ["first", "last"], axis=0),
        helper.make_node("ReduceProd", ["last"], ["area"], keepdims=1),
        helper.make_node("Concat", ["first", "area"], ["flat"], axis=0),
        helper.make_node("Reshape", ["x", "flat"], ["z"]),
    ]
    proto = network(
        nodes,
        (batch, 3, 5, 4),
        ["y", "z"],
        wanted=np.array([0, 6, 2, 7]),
        one=np.array([1]),
        four=np.array([4]),
        zero=np.array([0]),
        two=np.array([2, 2]),
    )
    compared(proto, drawn(2, 3, 5, 4))


def test_parts_of_sizes_are_all_of_them() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Split", ["shape", "two"], ["first", "last"], axis=0),
        helper.make_node("Reshape", ["x", "last"], ["y"]),
    ]
    proto = network(nodes, (2, 3), ["y"], two=np.array([2, 1]))
    with pytest.raises(convdsl.InputError, match=r"parts of \[2, 1\] are not 2 in all"):
        model_of(proto, "net.onnx", {})


@pytest.mark.parametrize("steps", [(1, 1), (2, -1)])
def test_axes_of_a_slice_of_what_is_known_may_be_left_out(steps: tuple[int, int]) -> None:
    bounds = {"starts": np.array([0, 3]), "stops": np.array([4, -10 if steps[1] < 0 else 4])}
    nodes = [
        helper.make_node("Slice", ["table", "starts", "stops", "", "steps"], ["part"]),
        helper.make_node("ReduceSum", ["part", "first"], ["sizes"], keepdims=0),
        helper.make_node("Expand", ["x", "sizes"], ["y"]),
    ]
    table = np.array([[1, 1, 2, 3], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    proto = network(
        nodes,
        (1, 1),
        ["y"],
        table=table,
        steps=np.array(steps),
        first=np.array([0]),
        **bounds,
    )
    compared(proto, drawn(1, 1))


@pytest.mark.dear
@pytest.mark.parametrize("kind", ["Expand", "Tile", "ConstantOfShape"])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_what_is_too_large_to_be_made_while_reading_is_made_by_the_network(
    kind: str, dtype: type
) -> None:
    """Positions of every pair of pixels, and more than are worth keeping in a file."""
    rows = np.arange(3, dtype=dtype).reshape(1, 3, 1)
    for side in (700, 2100):  # 1.5 and 13 million elements
        constants: dict[str, np.ndarray] = {"rows": rows}
        if kind == "Expand":
            constants["sizes"] = np.array([1, 3, side * side])
            made = helper.make_node("Expand", ["rows", "sizes"], ["much"])
        elif kind == "Tile":
            constants["sizes"] = np.array([1, 1, side * side])
            made = helper.make_node("Tile", ["rows", "sizes"], ["much"])
        else:
            constants["sizes"] = np.array([1, 3, side * side])
            fill = numpy_helper.from_array(np.array([2], dtype))
            made = helper.make_node("ConstantOfShape", ["sizes"], ["much"], value=fill)
        nodes = [
            made,
            helper.make_node("Cast", ["much"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["means"], axes=[2], keepdims=1),
            helper.make_node("Mul", ["x", "means"], ["y"]),
        ]
        compared(network(nodes, (1, 3, 1), ["y"], **constants), drawn(1, 3, 1))


EMPTY = {
    "Slice": (
        [helper.make_node("Slice", ["x", "two", "two", "axis"], ["none"])],
        {"two": np.array([2]), "axis": np.array([2])},
    ),
    "Slice backwards": (
        [helper.make_node("Slice", ["x", "two", "four", "axis", "back"], ["none"])],
        {
            "two": np.array([2]), "four": np.array([4]),
            "axis": np.array([-2]), "back": np.array([-1]),
        },
    ),
    "Split": (
        [helper.make_node("Split", ["x", "parts"], ["none", "most", "last"], axis=2)],
        {"parts": np.array([0, 4, 1])},
    ),
    "Gather": (
        [helper.make_node("Gather", ["x", "indices"], ["none"], axis=2)],
        {"indices": np.zeros(0, np.int64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("moved", [False, True])
def test_what_nothing_is_left_of_joins_others(kind: str, moved: bool) -> None:
    """A shift by nothing, as windows that are as large as the map are rolled."""
    nodes, constants = EMPTY[kind]
    before = [helper.make_node("Identity", ["x"], ["same"])]
    if moved:
        before = [helper.make_node("Transpose", ["x"], ["same"], perm=[0, 1, 3, 2])]
        nodes = [*nodes, helper.make_node("Transpose", ["none"], ["over"], perm=[0, 1, 3, 2])]
    parts = ["same", "over" if moved else "none"]
    joined = helper.make_node("Concat", parts, ["y"], axis=3 if moved else 2)
    compared(
        network([*before, *nodes, joined], (1, 2, 5, 3), ["y"], **constants), drawn(1, 2, 5, 3)
    )


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("op", ["Relu", "Identity", "Add", "Softmax"])
def test_what_nothing_is_left_of_goes_on(kind: str, op: str) -> None:
    nodes, constants = EMPTY[kind]
    inputs = ["none", "none"] if op == "Add" else ["none"]
    last = helper.make_node(op, inputs, ["y"])
    compared(network([*nodes, last], (1, 2, 5, 5), ["y"], **constants), drawn(1, 2, 5, 5))


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("opset", [11, 17, 18])
@pytest.mark.parametrize("squared", ["Pow", "Mul"])
def test_layer_normalisation_in_its_parts(opset: int, squared: str) -> None:
    """As PyTorch's exporter wrote it before opset 17; axes are an operand since 18."""
    given = {"two": np.float32(2), "eps": np.float32(1e-5)}
    given |= {"w": drawn(24, seed=1), "b": drawn(24, seed=2)}
    over, how = (["axes"], {}) if opset >= 18 else ([], {"axes": [-1]})
    given |= {"axes": np.array([-1])} if over else {}
    nodes = [
        helper.make_node("ReduceMean", ["x", *over], ["m"], **how),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node(squared, ["d", "two" if squared == "Pow" else "d"], ["s"]),
        helper.make_node("ReduceMean", ["s", *over], ["v"], **how),
        helper.make_node("Add", ["v", "eps"], ["ve"]),
        helper.make_node("Sqrt", ["ve"], ["r"]),
        helper.make_node("Div", ["d", "r"], ["n"]),
        helper.make_node("Mul", ["n", "w"], ["nw"]),
        helper.make_node("Add", ["nw", "b"], ["y"]),
    ]
    proto = network(nodes, (2, 7, 24), ["y"], **{k: np.asarray(v) for k, v in given.items()})
    proto.opset_import[0].version = opset
    compared(proto, 3 * drawn(2, 7, 24) + 5)
    graph = run_passes(model_of(proto, "net.onnx", {}).graph)
    assert [node.op.name for node in graph.op_nodes()] == ["layer_norm"]


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 3, 3), (1, 5, 3), (1, 1, 1)])
def test_sequences_are_turned_round(axes: tuple[int, int], lengths: tuple[int, ...]) -> None:
    time, batch = axes
    node = helper.make_node(
        "ReverseSequence", ["x", "lengths"], ["y"], time_axis=time, batch_axis=batch
    )
    shape = (5, 3, 2) if time == 0 else (3, 5, 2)
    compared(network([node], shape, ["y"], lengths=np.array(lengths)), drawn(*shape))


def test_sequences_of_a_free_batch_are_turned_round() -> None:
    """As tf2onnx writes the direction of a recurrent layer: lengths are the size."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["steps"]),
        helper.make_node("Gather", ["shape", "zero"], ["samples"]),
        helper.make_node("Expand", ["steps", "samples"], ["lengths"]),
        helper.make_node("ReverseSequence", ["x", "lengths"], ["y"], time_axis=1, batch_axis=0),
    ]
    zero, one = np.array([0]), np.array([1])
    compared(network(nodes, ("N", 4, 2), ["y"], zero=zero, one=one), drawn(3, 4, 2))


def test_more_lengths_than_sequences_are_refused() -> None:
    node = helper.make_node("ReverseSequence", ["x", "n"], ["y"], time_axis=1, batch_axis=0)
    with pytest.raises(convdsl.InputError, match="2 lengths for 3 sequences"):
        model_of(network([node], (3, 4), ["y"], n=np.array([2, 3])), "net.onnx", {})
    with pytest.raises(convdsl.InputError, match="no 9 to turn round"):
        model_of(network([node], (2, 4), ["y"], n=np.array([9, 9])), "net.onnx", {})
