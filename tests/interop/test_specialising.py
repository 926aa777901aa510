"""Inputs whose values decide shapes, and sizes that one graph cannot leave free."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.cli import main
from convdsl.interop.onnx_load import model_of
from convdsl.runtime.saved import load_executable
from interop.runtimes import run_onnxruntime

pytestmark = pytest.mark.drawn

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def network(nodes, inputs, weights=(), opset=17) -> onnx.ModelProto:
    """One output y, of whatever shape; an input is (element type, shape)."""
    graph = helper.make_graph(
        [helper.make_node(kind, ins.split(","), outs.split(), **more)
         for kind, ins, outs, more in nodes],
        "net",
        [helper.make_tensor_value_info(n, type, shape) for n, (type, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", F, [])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(weights).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


X = (F, ["N", 2, "H", 6])

CASES = {
    "reshape": (
        [("Reshape", "x,s", "y", {})], {"x": X, "s": (I64, ["r"])},
        [{"s": [0, 2, -1]}, {"s": [-1]}, {"s": [0, 2, -1]}],
    ),
    "computed sizes": (
        [("Shape", "x", "all", {"end": 2}), ("Add", "hw,hw", "double", {}),
         ("Concat", "all,double", "s", {"axis": 0}),
         ("Resize", "x,,,s", "y", {"mode": "linear"})],
        {"x": X, "hw": (I64, [2])}, [{"hw": [4, 6]}, {"hw": [3, 5]}],
    ),
    "scales": (
        [("Resize", "x,,s", "y", {})], {"x": X, "s": (F, [4])}, [{"s": [1, 1, 2, 1.5]}],
    ),
    "pad": (
        [("Pad", "x,p,v", "y", {})], {"x": X, "p": (I64, [8]), "v": (F, [])},
        [{"p": [0, 0, 1, 2, 0, 0, 3, 4], "v": 2.0}, {"p": [0, 0, 0, 0, 0, 0, 0, 0], "v": 0.0}],
    ),
    "slice": (
        [("Slice", "x,a,b,c,d", "y", {})],
        {"x": X, **{name: (I64, [2]) for name in "abcd"}},
        [{"a": [1, 0], "b": [3, 6], "c": [2, 3], "d": [1, 2]},
         {"a": [-1, 5], "b": [-9, 1], "c": [2, 3], "d": [-1, -2]}],
    ),
    "expand": (
        [("Expand", "x,s", "y", {})], {"x": (F, [2, 1]), "s": (I64, ["r"])},
        [{"s": [2, 3]}, {"s": [4, 1, 5]}],
    ),
    "top k": (
        [("TopK", "x,k", "y i", {"axis": 3})], {"x": X, "k": (I64, [1])}, [{"k": [2]}, {"k": [5]}],
    ),
    "axes": (
        [("ReduceSum", "x,a", "y", {})], {"x": X, "a": (I64, ["n"])},
        [{"a": [1]}, {"a": [2, 3]}, {"a": []}],
    ),
    "also data": (
        [("Cast", "s", "f", {"to": F}), ("Expand", "f,s", "y", {})], {"s": (I64, [2])},
        [{"s": [3, 2]}, {"s": [1, 2]}],
    ),
}  # fmt: skip


def arrays_of(proto, given):
    rng = np.random.default_rng(0)
    return {
        info.name: (
            np.asarray(given[info.name], "i8" if info.type.tensor_type.elem_type == I64 else "f4")
            if info.name in given
            else rng.standard_normal(
                [d.dim_value or 4 for d in info.type.tensor_type.shape.dim], "f4"
            )
        )
        for info in proto.graph.input
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("passes", [None, ()])
def test_values_are_bound_like_sizes(case, passes):
    nodes, inputs, calls = CASES[case]
    proto = network(nodes, inputs)
    how = {} if passes is None else {"passes": passes}
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, **how)
    assert list(executable.inputs) == list(inputs)
    assert set(executable.deciding) == set(inputs) - {"x"}
    for given in calls:
        arrays = arrays_of(proto, given)
        np.testing.assert_allclose(
            executable(**arrays),
            run_onnxruntime(proto, arrays)["y"],
            rtol=1e-5,
            atol=5e-6,  # a sum of 192 numbers that nearly cancel: 157 units of rounding are 9e-6
        )


def test_the_last_few_values_are_kept(monkeypatch):
    nodes, inputs, _ = CASES["reshape"]
    executable = convdsl.compile(model_of(network(nodes, inputs), "net.onnx", {}), threads=1)
    made = []
    specialise = executable._specialise
    monkeypatch.setattr(
        executable, "_specialise", lambda *key: made.append(key) or specialise(*key)
    )
    x = np.zeros((1, 2, 4, 6), "f4")
    for sizes in ([-1], [2, -1], [-1], [2, -1]):
        executable(x, np.int64(sizes))
    assert len(made) == 2


def test_values_that_do_not_fit_are_told():
    nodes, inputs, _ = CASES["reshape"]
    executable = convdsl.compile(model_of(network(nodes, inputs), "net.onnx", {}), threads=1)
    x = np.zeros((1, 2, 4, 6), "f4")
    with pytest.raises(convdsl.InputError, match=r"node 0 \(Reshape\)"):
        executable(x, np.int64([5, -1]))
    with pytest.raises(convdsl.InputError, match="`s` is int32"):
        executable(x, np.int32([-1]))


@pytest.mark.dear
def test_what_needs_a_graph_says_what_is_missing(tmp_path, capsys):
    path = tmp_path / "net.onnx"
    nodes, inputs, _ = CASES["reshape"]
    onnx.save(network(nodes, inputs), path)
    model = convdsl.load(path)
    for use in (convdsl.report, convdsl.export):
        with pytest.raises(convdsl.InputError, match="depend on the values of s"):
            use(model)
    assert main(["import", str(path), "-o", "-"]) == 2
    assert "depend on the values of s" in capsys.readouterr().err
    settled = convdsl.load(path, s=[0, -1], N=2)
    assert list(settled.inputs) == ["x"]
    assert convdsl.report(settled).to_json()["total"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"s": [1.5]}, "is no i64"), ({"s": [[1]]}, "is no i64"), ({"s": "a"}, "is no i64"),
        ({"N": 0}, "at least 1"), ({"N": True}, "at least 1"), ({"M": 2}, "called M; there are"),
    ],
)  # fmt: skip
def test_what_cannot_be_set(given, message):
    nodes, inputs, _ = CASES["reshape"]
    with pytest.raises(convdsl.InputError, match=message):
        model_of(network(nodes, inputs), "net.onnx", given)


def test_an_artifact_is_for_one_signature(tmp_path):
    nodes, inputs, _ = CASES["slice"]
    proto = network(nodes, inputs)
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)
    limits = {"a": [1, 0], "b": [3, 6], "c": [2, 3], "d": [1, 2]}
    path, copy = tmp_path / "net.cdsl", tmp_path / "copy.cdsl"
    with pytest.raises(convdsl.InputError, match="values of b"):
        executable.save(path, N=1, H=4, a=limits["a"])
    executable.save(path, N=1, H=4, **limits)
    arrays = arrays_of(proto, limits) | {"x": np.ones((1, 2, 4, 6), "f4")}
    expected = executable(**arrays)
    loaded = load_executable(path)
    loaded.save(copy, **limits)
    for one in (loaded, load_executable(copy)):
        assert list(one.inputs) == list(inputs)
        np.testing.assert_array_equal(one(**arrays), expected)
        with pytest.raises(convdsl.InputError, match=r"compiled for a = \[1, 0\], not \[0, 0\]"):
            one(**{**arrays, "a": np.int64([0, 0])})


# Sizes


def skip_through(stride: int) -> onnx.ModelProto:
    """x, and x halved and doubled again: equal where the size is even (or ONNX gives up)."""
    weights = {"w": np.full((2, 2, 3, 3), 0.1, "f4"), "s": np.float32([1, 1, stride, 1])}
    nodes = [
        ("Conv", "x,w", "h", {"pads": [1, 1, 1, 1], "strides": [stride, 1]}),
        ("Resize", "h,,s", "u", {}),
        ("Add", "x,u", "y", {}),
    ]
    return network(nodes, {"x": X}, weights)


def test_what_sizes_need_is_assumed_where_a_condition_says_it():
    model = model_of(skip_through(4), "net.onnx", {})
    (h,) = (s for s in model.symbols if s.name == "H")
    assert (h.divisor, h.remainder) == (4, 0)
    executable = convdsl.compile(model, threads=1)
    assert str(executable.inputs["x"]) == "f32[N, 2, H, 6]"
    for height in (8, 4):
        x = np.random.default_rng(0).standard_normal((1, 2, height, 6), "f4")
        expected = run_onnxruntime(skip_through(4), {"x": x})["y"]
        np.testing.assert_allclose(executable(x), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(convdsl.InputError, match="cannot add"):
        executable(np.zeros((1, 2, 6, 6), "f4"))


def only_one_height() -> onnx.ModelProto:
    """Right for H = 4 and 5 alone, which no condition of ours can say."""
    nodes = [("MaxPool", "x", "h", {"kernel_shape": [4, 1], "strides": [2, 1]}),
             ("Shape", "x", "n", {"end": 1}), ("Concat", "n,rest", "s", {"axis": 0}),
             ("Reshape", "h,s", "y", {})]  # fmt: skip
    return network(nodes, {"x": X}, {"rest": np.int64([12])})


def test_other_sizes_wait_for_the_first_call(tmp_path):
    proto = only_one_height()
    model = model_of(proto, "net.onnx", {})
    assert "bind sizes first (H, N)" in str(model.obstacle)
    executable = convdsl.compile(model, threads=1)
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6), "f4")
    np.testing.assert_array_equal(executable(x), run_onnxruntime(proto, {"x": x})["y"])
    with pytest.raises(convdsl.InputError, match="Reshape"):
        executable(np.zeros((3, 2, 8, 6), "f4"))
    executable.save(tmp_path / "net.cdsl", N=3, H=5)
    np.testing.assert_array_equal(load_executable(tmp_path / "net.cdsl")(x), executable(x))
    assert convdsl.report(model, inputs=(3, 2, 5, 6)).to_json()["total"]
    with pytest.raises(convdsl.InputError, match="bind sizes first"):
        convdsl.report(model)
    assert model_of(proto, "net.onnx", {"H": 4}).obstacle is None


@pytest.mark.dear
def test_import_takes_sizes_as_other_commands_do(tmp_path, capsys):
    """And so what its refusal asks for."""
    path, text = tmp_path / "net.onnx", tmp_path / "net.cnn"
    onnx.save(only_one_height(), path)
    words = ["import", str(path), "-o", str(text)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "help: for example --set H=... --batch 1" in said
    assert main([*words, "--set", "H=5", "--batch", "3"]) == 0
    assert "x: f32[3, 2, 5, 6]" in text.read_text()
    text.unlink()
    assert main([*words, "--input", "2x5x6"]) == 0
    assert "x: f32[1, 2, 5, 6]" in text.read_text()
    assert main([*words, "--input", "3x5x6"]) == 2


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "cubic"}, {"mode": "linear", "antialias": 1},
        {"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ],
)  # fmt: skip
def test_resampling_is_done_for_the_sizes_of_a_call(how):
    nodes = [("Resize", "x,,s", "y", how)]
    proto = network(nodes, {"x": X}, {"s": np.float32([1, 1, 0.6, 1.7])}, opset=19)
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)
    for height in (5, 10):
        x = np.random.default_rng(0).standard_normal((2, 2, height, 6), "f4")
        expected = run_onnxruntime(proto, {"x": x})["y"]
        np.testing.assert_allclose(executable(x), expected, rtol=1e-4, atol=1e-5)


def test_what_is_squeezed_waits_for_the_sizes():
    """Without axes, a size that is free may be 1, and is gone then."""
    graph = helper.make_graph(
        [helper.make_node("Squeeze", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C", 3])],
        [onnx.ValueInfoProto(name="y")],
    )
    opsets = [helper.make_opsetid("", 13)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    network = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1, cache=False)
    for shape in ((2, 4, 3), (1, 4, 3), (2, 1, 3), (1, 1, 3)):
        x = np.random.default_rng(0).standard_normal(shape).astype("f4")
        np.testing.assert_array_equal(network(x), np.squeeze(x))
