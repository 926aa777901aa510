"""Damaged and malicious ONNX files: an error that says so, whatever the bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import convdsl
from convdsl.interop.onnx_file import MOST_NODES, ExternalData, parse
from convdsl.interop.onnx_load import model_of
from interop.mutations import mutated, small_onnx
from interop.runtimes import run_onnxruntime

BYTES = small_onnx().SerializeToString()


def attempt(data: bytes) -> None:
    """Nothing but a result or an Error of ours."""
    try:
        model_of(parse(data, "net.onnx"), "net.onnx", {})
    except convdsl.Error:
        return


@pytest.mark.dear
@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_byte_mutations(kind):
    """Thousands, under limits of memory and time."""
    command = [sys.executable, "-W", "ignore", "-m", "interop.mutations", kind, "5000"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(convdsl.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"5000 mutations of {kind}")


@given(st.integers(0, 2**32))
def test_more_byte_mutations(seed):
    attempt(mutated(BYTES, seed))


def test_truncations():
    for end in range(len(BYTES)):
        attempt(BYTES[:end])


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_through_the_child(tmp_path, seed):
    path = tmp_path / "net.onnx"
    path.write_bytes(mutated(BYTES, seed))
    try:
        convdsl.load(path)
    except convdsl.Error as error:
        assert str(path) in str(error)  # noqa: PT017


def test_a_tensor_cannot_declare_more_than_it_holds():
    proto = small_onnx()
    proto.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(convdsl.InputError, match="declares"):
        parse(proto.SerializeToString(), "net.onnx")


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_small_files_that_ask_for_terabytes(kind):
    inputs = {
        "ConstantOfShape": [np.int64([1 << 20, 1 << 20])],
        "Expand": [np.float32([1]), np.int64([1 << 20, 1 << 20])],
        "Tile": [np.float32([1]), np.int64([1 << 40])],
        "Range": [np.int64(0), np.int64(1 << 40), np.int64(1)],
    }[kind]
    names = [f"i{n}" for n in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], "big")],
        "net",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for a, n in zip(inputs, names, strict=True)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(convdsl.InputError, match="big"):
        model_of(proto, "net.onnx", {})


# External data


def external(location: str, **more: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_external_data_inside_the_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"\0" * 8 + np.float32([1, 2, 3, 4]).tobytes())
    found = ExternalData(tmp_path).resolve(external("sub/w.bin", offset="8", length="16"))
    np.testing.assert_array_equal(numpy_helper.to_array(found), [1, 2, 3, 4])


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "sub/../../w.bin", "", "a\0b", "nowhere.bin", "."]
)
def test_external_data_elsewhere_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    with pytest.raises(convdsl.InputError, match="external data of w"):
        ExternalData(folder).resolve(external(location))


def test_external_data_through_links_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    (folder / "soft.bin").symlink_to(tmp_path / "w.bin")
    (folder / "inside").symlink_to(tmp_path)
    os.link(tmp_path / "w.bin", folder / "hard.bin")
    os.mkfifo(folder / "fifo.bin")
    for location in ("soft.bin", "inside/w.bin", "hard.bin", "fifo.bin"):
        with pytest.raises(convdsl.InputError, match="external data of w"):
            ExternalData(folder).resolve(external(location))


def cached(root: Path) -> tuple[Path, Path]:
    """Hugging Face's cache: a model of external data, links in a snapshot, files in the store."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "0a1b" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    made = root.parent / "made"
    made.mkdir()
    onnx.save(
        small_onnx(), made / "net.onnx",
        save_as_external_data=True, size_threshold=0, location="net.onnx_data",
    )  # fmt: skip
    for number, name in enumerate(("net.onnx", "net.onnx_data")):
        (made / name).rename(blobs / f"ff{number}")
        (snapshot / name).symlink_to(f"../../../blobs/ff{number}")
    return snapshot, blobs


@pytest.mark.dear
def test_links_of_a_cache(tmp_path):
    snapshot, blobs = cached(tmp_path / "models--a--b")
    model = convdsl.load(snapshot / "net.onnx")
    assert model.weights is not None
    data, elsewhere = snapshot / "net.onnx_data", tmp_path / "ff1"
    elsewhere.write_bytes((blobs / "ff1").read_bytes())
    (blobs / "inner").mkdir()
    (blobs / "inner" / "ff1").write_bytes((blobs / "ff1").read_bytes())
    (blobs / "onwards").symlink_to(elsewhere)
    os.link(elsewhere, blobs / "hard")
    for target in (
        elsewhere, "../../../../ff1", "../../../blobs/inner/ff1", "../../../blobs/onwards",
        "../../../blobs/hard", "../../../blobs/nothing", "net.onnx_data",
    ):  # fmt: skip
        data.unlink()
        data.symlink_to(target)
        with pytest.raises(convdsl.InputError, match="external data of w"):
            convdsl.load(snapshot / "net.onnx")


@pytest.mark.dear(share=4)
def test_capitals_in_the_suffix(tmp_path):
    (tmp_path / "NET.ONNX").write_bytes(BYTES)
    assert convdsl.load(tmp_path / "NET.ONNX").weights is not None


@pytest.mark.parametrize(("offset", "length"), [("1", "16"), ("-1", "16"), ("0", "15"), ("x", "1")])
def test_external_data_beyond_the_file_is_refused(tmp_path, offset, length):
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    with pytest.raises(convdsl.InputError, match=r"w\b"):
        ExternalData(tmp_path).resolve(external("w.bin", offset=offset, length=length))


@pytest.mark.dear
def test_a_model_with_external_data_is_loaded(tmp_path):
    proto = small_onnx()
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3), np.float32)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)
    model = convdsl.load(tmp_path / "net.onnx")
    np.testing.assert_array_equal(model.weights["conv.weight"], weight)
    (data,) = (path for path in tmp_path.iterdir() if path.name != "net.onnx")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(convdsl.InputError, match="should be"):
        convdsl.load(tmp_path / "net.onnx")


@pytest.mark.dear(share=4)
def test_initialisers_of_an_old_file_that_are_no_inputs(tmp_path):
    """IR 3 wants them listed; onnxruntime runs the file all the same."""
    proto = onnx.load_from_string(BYTES)
    proto.ir_version = 3
    onnx.save(proto, tmp_path / "net.onnx")
    model = convdsl.load(tmp_path / "net.onnx")
    (note,) = model.notes
    assert "initialisers are no inputs, against IR 3" in note
    executable = convdsl.compile(model, threads=1)
    assert note in executable.notes
    ((name, type),) = model.inputs.items()
    x = np.ones([d if isinstance(d, int) else 2 for d in type.shape], "f4")
    expected = run_onnxruntime(onnx.load_from_string(BYTES), {name: x})
    found = executable(x)
    for key, array in expected.items():
        got = found[key] if isinstance(found, dict) else found
        np.testing.assert_allclose(got, array, rtol=1e-4, atol=1e-5)


def chain(count: int) -> bytes:
    """A file of so many nodes, one after the other."""
    kinds = ("Neg", "Relu")
    nodes = [helper.make_node(kinds[i % 2], [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    ends = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, [4]) for i in (0, count)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


@pytest.mark.dear
def test_nodes_of_a_file():
    """At the limit and one past it; 50,000 are read in 3 s of a shared Zen 5 core."""
    start = time.process_time()
    model = model_of(parse(chain(MOST_NODES), "net.onnx"), "net.onnx", {})
    assert time.process_time() - start < 15
    assert len(model.graph.op_nodes()) == MOST_NODES
    start = time.process_time()
    with pytest.raises(convdsl.InputError, match="50,001 nodes; at most 50,000"):
        parse(chain(MOST_NODES + 1), "net.onnx")
