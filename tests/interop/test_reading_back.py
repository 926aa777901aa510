"""What import writes is what the file computes: permutations, shared weights, names, numbers."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_convdsl, run_onnxruntime

pytestmark = pytest.mark.drawn

F = TensorProto.FLOAT


def network(nodes, x, outputs, weights=(), name: str = "net", source: str = "x") -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node(kind, ins.split(), outs.split(), **how)
            for kind, ins, outs, how in nodes
        ],
        name,
        [helper.make_tensor_value_info(source, F, x)],
        [helper.make_tensor_value_info(output, F, None) for output in outputs],
        [numpy_helper.from_array(np.asarray(a), key) for key, a in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def assert_text_says(proto: onnx.ModelProto, x: np.ndarray, source: str = "x") -> convdsl.Model:
    """The model and its text against onnxruntime; the text's model."""
    model = model_of(proto, "net.onnx", {})
    expected = run_onnxruntime(proto, {source: x})
    text, _ = exporting.translate(model)
    again = convdsl.parse(text)
    again.weights = said_weights(model)
    (name,) = again.inputs
    assert list(again.outputs) == list(model.outputs) == list(expected)
    for made, key in ((model, source), (again, name)):
        found = run_convdsl(made, {key: x})
        for output, array in expected.items():
            np.testing.assert_allclose(found[output], array, rtol=1e-4, atol=1e-5)
    return again


def said_weights(model: convdsl.Model) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    return load(exporting.translate(model)[1])


@pytest.mark.parametrize("seed", range(10))
def test_gathers(seed):
    """Turned round, shuffled, in strides, with repetitions and from the end."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([1, 2, 7, 16, 33]))
    picked = (
        np.arange(n)[::-1], rng.permutation(n), np.arange(0, n, 3), rng.integers(-n, n, 9),
        np.arange(n).reshape(-1, n).repeat(2, 0).T.reshape(-1),
    )[seed % 5]  # fmt: skip
    axis = int(rng.integers(1, 3))
    shape = [2, n, n, 3]
    nodes = [("Gather", "x i", "y", {"axis": axis})]
    proto = network(nodes, shape, ["y"], {"i": picked.astype("i8")})
    assert_text_says(proto, rng.standard_normal(shape, "f4"))


@pytest.mark.parametrize("shape", [[18], [6, 3], [3, 6, 1]])
def test_a_shuffle_of_few_axes(shape):
    """Taken apart, turned and put together: a shuffle of channels is of rank 3 or more."""
    nodes = [("Reshape", "x a", "p", {}), ("Transpose", "p", "t", {"perm": [0, 2, 1, 3]}),
             ("Reshape", "t b", "y", {})]  # fmt: skip
    sizes = {"a": np.int64([3, 3, 2, 1]), "b": np.int64(shape)}
    x = np.random.default_rng(0).standard_normal(shape, "f4")
    assert_text_says(network(nodes, shape, ["y"], sizes), x)


def test_a_turned_order_is_one_slice():
    nodes = [("Gather", "x i", "y", {"axis": 1})]
    proto = network(nodes, [1, 512, 2, 2], ["y"], {"i": np.arange(512)[::-1].astype("i8")})
    assert len(model_of(proto, "net.onnx", {}).graph.op_nodes()) == 1


@pytest.mark.parametrize("channels", [9, 512, 2048])
def test_a_permutation_of_many_channels_compiles(channels):
    """440 took 80 s, and 512 were too deep for Python; 2,048 take 0.3 s on a shared Zen 5 core."""
    order = np.random.default_rng(0).permutation(channels)
    nodes = [("Gather", "x i", "y", {"axis": 1})]
    proto = network(nodes, [1, channels, 2, 2], ["y"], {"i": order.astype("i8")})
    x = np.random.default_rng(1).standard_normal((1, channels, 2, 2), "f4")
    start = time.process_time()
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    assert time.process_time() - start < 5
    np.testing.assert_array_equal(executable(x), x[:, order])
    assert_text_says(proto, x)


@pytest.mark.parametrize("seed", range(8))
def test_gathers_by_data(seed):
    """Embeddings: indices that come with the call, of any rank, in 32 and 64 bits, from the end."""
    rng = np.random.default_rng(seed)
    rank, axis = int(rng.integers(1, 4)), 0
    shape = [int(rng.integers(1, 20)) for _ in range(rank)]
    axis = int(rng.integers(-rank, rank))
    indices = rng.integers(-shape[axis], shape[axis], [2, 3, 5][: seed % 4])
    indices = indices.astype(("i4", "i8")[seed % 2])
    table = rng.standard_normal(shape).astype("f4")
    element = {"i4": onnx.TensorProto.INT32, "i8": onnx.TensorProto.INT64}[indices.dtype.str[1:]]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["t", "i"], ["y"], axis=axis)],
        "net",
        [onnx.helper.make_tensor_value_info("i", element, indices.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(table, "t")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    network = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    assert not network.deciding
    np.testing.assert_array_equal(network(indices), run_onnxruntime(proto, {"i": indices})["y"])


@pytest.mark.parametrize("index", [3, -4])
def test_known_indices_outside_are_refused(index):
    nodes = [("Gather", "x i", "y", {"axis": 1})]
    proto = network(nodes, [1, 3, 2, 2], ["y"], {"i": np.int64([0, index])})
    with pytest.raises(convdsl.InputError, match=f"no index {index} in an axis of 3"):
        model_of(proto, "net.onnx", {})


@pytest.mark.parametrize("way", ["itself", "identity", "gemm", "matmul", "transposed"])
def test_shared_weights_count_once(way):
    w = np.random.default_rng(0).standard_normal((4, 4)).astype("f4")
    nodes = {
        "itself": [("Gemm", "x w", "a", {"transB": 1}), ("Gemm", "a w", "y", {"transB": 1})],
        "identity": [("Identity", "w", "v", {}), ("Gemm", "x w", "a", {"transB": 1}),
                     ("Gemm", "a v", "y", {"transB": 1})],
        "gemm": [("Gemm", "x w", "a", {}), ("Gemm", "a w", "y", {})],
        "matmul": [("MatMul", "x w", "a", {}), ("MatMul", "a w", "y", {})],
        "transposed": [("Transpose", "w", "v", {}), ("Gemm", "x v", "a", {"transB": 1}),
                       ("MatMul", "a w", "y", {})],
    }[way]  # fmt: skip
    proto = network(nodes, [2, 4], ["y"], {"w": w})
    model = model_of(proto, "net.onnx", {})
    assert convdsl.report(model).to_json()["total"]["params"] == 16
    x = np.ones((2, 4), "f4")
    expected = run_onnxruntime(proto, {"x": x})["y"]
    np.testing.assert_allclose(run_convdsl(model, {"x": x})["y"], expected, rtol=1e-4)


@pytest.mark.parametrize("word", ["model", "block", "conv", "input", "inf", "in", "out", "concat"])
def test_names_that_mean_something_else(word):
    weights = {"w": np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype("f4")}
    nodes = [("Conv", f"{word} w", "h", {}), ("Relu", "h", "y", {})]
    proto = network(nodes, [1, 2, 5, 5], ["y"], weights, word, source=word)
    x = np.random.default_rng(1).standard_normal((1, 2, 5, 5), "f4")
    assert_text_says(proto, x, word)


def test_slices_with_and_without_limits():
    starts = {f"s{i}{j}": np.int64([i, j]) for i in (0, 1) for j in (0, 1)}
    weights = {**starts, "e": np.int64([99, 99]), "a": np.int64([2, 3]), "t": np.int64([2, 2])}
    nodes = [("Slice", f"x {s} e a t", f"p{s}", {}) for s in starts]
    nodes.append(("Concat", " ".join(f"p{s}" for s in starts), "y", {"axis": 1}))
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), "f4")
    assert_text_says(network(nodes, [1, 3, 8, 8], ["y"], weights), x)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, -0.0, 1e-45])
def test_numbers_that_digits_do_not_write(value):
    weights = {"p": np.int64([0, 0, 1, 0, 0, 0, 0, 1]), "v": np.float32(value)}
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 3), "f4")
    proto = network([("Pad", "x p v", "y", {})], [1, 2, 3, 3], ["y"], weights)
    assert_text_says(proto, x)


def test_borders_of_open_sizes_and_limits_of_two_inputs(tmp_path):
    """What holds of a size is said at the input that brings it, once."""
    text = """convdsl 1

model m {
    input x: f32[N, 3, H, W] where H % 2 == 0 and W <= 12
    input y: f32[N, 2, H, K] where K >= 3
    input z: f32[N, K, H, W]
    x -> pad([[0, -x.height % 8], [0, 12 - x.width]]) -> output canvas
    y -> pad([[0, max(H, K) - H], [0, max(H, K) - K]]) -> output square
    z -> pad([[H // 4, H // 2], 0], replicate) -> output longer
}
"""
    model = convdsl.parse(text)
    convdsl.export(model, path=tmp_path / "m.onnx")
    again = convdsl.load(tmp_path / "m.onnx")
    from convdsl.interop import cnn_source

    written = cnn_source.source(again)[0]
    assert written.count("where") == 2, written
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape, "f4")
        for name, shape in {"x": (2, 3, 6, 5), "y": (2, 2, 6, 9), "z": (2, 9, 6, 5)}.items()
    }
    expected = convdsl.compile(model)(**arrays)
    for other in (again, convdsl.parse(written)):
        found = convdsl.compile(other)(**arrays)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_outputs_keep_their_order():
    nodes = [("Relu", "x", "b", {}), ("Neg", "b", "c", {}), ("Abs", "x", "a", {})]
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 3), "f4")
    for outputs in (["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]):
        assert_text_says(network(nodes, [1, 2, 3, 3], outputs), x)


def test_text_of_another_network_is_not_written(monkeypatch):
    """A writer that lost an attribute would be found out."""
    proto = network([("Transpose", "x", "y", {"perm": [0, 1, 3, 2]})], [1, 2, 3, 3], ["y"])
    model = model_of(proto, "net.onnx", {})
    from convdsl.interop import cnn_source

    right = cnn_source.source(model)[0]
    for wrong in (right.replace("0, 1, 3, 2", "0, 1, 2, 3"), right.replace("x ->", "q ->")):
        monkeypatch.setattr(cnn_source, "source", lambda *_, wrong=wrong: (wrong, {}))
        with pytest.raises(convdsl.InputError, match="cannot be said in .cnn text"):
            exporting.translate(model)
