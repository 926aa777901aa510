"""Requests and answers, without a server: what is understood, and what is said to all else."""

from __future__ import annotations

import base64
import gc
import json
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from convdsl.serving import protocol
from convdsl.serving.limits import Limits, Refusal
from convdsl.serving.protocol import DATATYPES
from convdsl.tensor import HOST_DTYPES, DType, TensorType, symbol
from convdsl.tensor.conversion import narrow_bf16, widen_bf16


@dataclass
class Model:
    """What requests are held against."""

    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType] = field(default_factory=dict)
    image_input: str | None = None
    labels: tuple[str, ...] | None = None


def one(dtype: DType, *shape: Any) -> Model:
    type = TensorType(dtype, shape)
    return Model({"x": type}, {"y": type})


IMAGES = Model(
    {"image": TensorType(DType.F32, (symbol("N"), 3, 8, 8))},
    {"logits": TensorType(DType.F32, (symbol("N"), 3))},
    image_input="image",
    labels=("cat", "dog", "bird"),
)


def parse(said: Any, model: Model, rest: bytes = b"", **limits: Any) -> protocol.Request:
    head = said if isinstance(said, bytes) else json.dumps(said).encode()
    length = str(len(head)) if rest else None
    return protocol.parse(head + rest, length, model, Limits(**limits))


def drawn(dtype: DType) -> st.SearchStrategy[Any]:
    """Arrays of up to three axes, with every value of the type."""
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return npst.arrays(np.dtype(dtype.numpy), shapes)


def same(a: Any, b: Any, dtype: DType) -> None:
    """Equal, NaN as NaN."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    if dtype is DType.BF16:
        a, b = widen_bf16(a), widen_bf16(b)
    np.testing.assert_array_equal(a, b)


def test_every_type_of_ours_has_a_name() -> None:
    assert set(DATATYPES) == set(HOST_DTYPES)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("dtype", HOST_DTYPES, ids=str)
@pytest.mark.parametrize("form", ["nested", "flat", "binary"])
def test_tensors_come_as_they_were(dtype: DType, form: str) -> None:
    @settings(max_examples=25)
    @given(drawn(dtype))
    def check(x: Any) -> None:
        model = one(dtype, *x.shape)
        wide = widen_bf16(x) if dtype is DType.BF16 else x
        said: dict[str, Any] = {"name": "x", "datatype": DATATYPES[dtype], "shape": [*x.shape]}
        rest = b""
        if form == "binary":
            rest = x.astype(x.dtype.newbyteorder("<")).tobytes()
            said["parameters"] = {"binary_data_size": len(rest)}
        else:
            said["data"] = wide.tolist() if form == "nested" and x.ndim else wide.ravel().tolist()
        head = json.dumps({"inputs": [said]}).encode()  # NaN without quotes, as Python writes it
        length = str(len(head)) if form == "binary" else None
        found = protocol.parse(head + rest, length, model, Limits()).arrays["x"]
        same(found, x, dtype)
        assert found.flags.aligned

    check()


@pytest.mark.dear
@pytest.mark.parametrize("dtype", HOST_DTYPES, ids=str)
@pytest.mark.parametrize("binary", [False, True])
def test_answers_are_what_was_computed(dtype: DType, binary: bool) -> None:
    @settings(max_examples=25)
    @given(drawn(dtype))
    def check(y: Any) -> None:
        model = one(dtype, *y.shape)
        asked = protocol.Request("17", {}, (), (protocol.Wanted("y", binary),))
        parts, headers = protocol.answer({"model_name": "m"}, asked, {"y": y}, model)
        said = json.loads(parts[0], parse_constant=pytest.fail)  # strict JSON
        assert (said["model_name"], said["id"]) == ("m", "17")
        (row,) = said["outputs"]
        assert (row["name"], row["datatype"]) == ("y", DATATYPES[dtype])
        assert row["shape"] == [*y.shape]
        if binary:
            assert headers["inference-header-content-length"] == str(len(parts[0]))
            assert row["parameters"]["binary_data_size"] == len(parts[1]) == y.nbytes
            found = np.frombuffer(parts[1], y.dtype.newbyteorder("<")).reshape(y.shape)
            assert found.tobytes() == y.tobytes()
        elif dtype is DType.BF16:
            same(narrow_bf16(np.array(row["data"], "f4")).reshape(y.shape), y, dtype)
        else:
            same(np.array(row["data"], y.dtype).reshape(y.shape), y, dtype)

    check()


def test_words_stand_for_numbers_that_json_has_none_of() -> None:
    model = one(DType.F32, 6)
    data = ["NaN", "Infinity", "-Infinity", 1e300, -1e300, 1]
    said = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [6], "data": data}]}
    x = parse(said, model).arrays["x"]
    np.testing.assert_array_equal(x, np.float32([np.nan, np.inf, -np.inf, np.inf, -np.inf, 1]))
    asked = protocol.Request(None, {}, (), (protocol.Wanted("y"),))
    (text,), _ = protocol.answer({}, asked, {"y": x}, model)
    expected = ["NaN", "Infinity", "-Infinity", "Infinity", "-Infinity", 1.0]
    assert json.loads(text)["outputs"][0]["data"] == expected


def test_several_tensors_in_both_forms() -> None:
    model = Model({name: TensorType(DType.I32, (2,)) for name in "abc"})
    model.outputs = {"y": TensorType(DType.I32, (2,)), "z": TensorType(DType.I32, (2,))}
    said = {
        "inputs": [
            {"name": "c", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "a", "datatype": "INT32", "shape": [2], "data": [1, 2]},
            {"name": "b", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
        ],
        "outputs": [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}],
        "parameters": {"binary_data_output": True, "sequence_id": 3},
    }
    found = parse(said, model, struct.pack("<4i", 5, 6, 3, 4))
    assert {name: a.tolist() for name, a in found.arrays.items()} == {
        "a": [1, 2], "b": [3, 4], "c": [5, 6],
    }  # fmt: skip
    assert found.outputs == (protocol.Wanted("z", False), protocol.Wanted("y", True))


def test_outputs_that_nothing_is_said_of_are_all() -> None:
    model = Model({"x": TensorType(DType.I64, ())}, dict.fromkeys("zy", TensorType(DType.I64, ())))
    for more in ({}, {"outputs": []}):
        said = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [], "data": [7]}], **more}
        found = parse(said, model)
        assert [wanted.name for wanted in found.outputs] == ["z", "y"]
        assert found.arrays["x"].shape == ()


@pytest.mark.parametrize("form", ["base64", "binary"])
def test_images(form: str) -> None:
    files = (b"first", b"", b"the third")
    said: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [3]}
    rest = b"".join(struct.pack("<I", len(file)) + file for file in files)
    if form == "binary":
        said["parameters"] = {"binary_data_size": len(rest)}
        assert parse({"inputs": [said]}, IMAGES, rest).images == files
    else:
        said["data"] = [base64.b64encode(file).decode() for file in files]
        assert parse({"inputs": [said]}, IMAGES).images == files


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("labels", [None, ("cat", "dog", "bird"), ("one", "two")])
def test_classes(binary: bool, labels: Any) -> None:
    model = Model(IMAGES.inputs, IMAGES.outputs, labels=labels)
    asked = protocol.Request(None, {}, (), (protocol.Wanted("logits", binary, 2),))
    scores = np.float32([[0.5, 2, -1], [3, -np.inf, 3]])
    parts, _ = protocol.answer({}, asked, {"logits": scores}, model)
    (row,) = json.loads(parts[0])["outputs"]
    assert (row["datatype"], row["shape"]) == ("BYTES", [2, 2])
    expected = ["2.000000:1:dog", "0.500000:0:cat", "3.000000:0:cat", "3.000000:2:bird"]
    if labels != ("cat", "dog", "bird"):
        expected = [text.rpartition(":")[0] for text in expected]
    if binary:
        coded = b"".join(struct.pack("<I", len(text)) + text.encode() for text in expected)
        assert parts[1] == coded
    else:
        assert row["data"] == expected


# Mistakes

GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
F32 = one(DType.F32, symbol("N"), 2)


def changed(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{k: v for k, v in {**GOOD, **changes}.items() if v is not ...}]}


MISTAKES: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "the body is no JSON: Expecting value at line 1, column 1"),
    "half": (b'{"inputs": [', "the body is no JSON"),
    "no text": (b"\xff\xfe", "the body is no UTF-8 at byte 0"),
    "deep": (b"[" * 100_000, "the body is nested too deep"),
    "long": (b"[" + b"9" * 10_000 + b"]", "the body has a number that is too long"),
    "a list": ([], "the body is a list, not an object"),
    "no inputs": ({}, "`inputs` is missing, not a list"),
    "empty": ({"inputs": []}, "`inputs` is empty"),
    "many": ({"inputs": [GOOD] * 65}, "65 inputs, at most 64"),
    "id": ({"id": 3, "inputs": [GOOD]}, "`id` is no string"),
    "parameters": ({"parameters": 3, "inputs": [GOOD]}, "`parameters` is a number, not an object"),
    "flag": (
        {"parameters": {"binary_data_output": 1}, "inputs": [GOOD]},
        "parameter `binary_data_output` is a number, not true or false",
    ),
    "a number": ({"inputs": [3]}, "`inputs[0]` is a number, not an object"),
    "no name": (changed(name=...), "`inputs[0].name` is missing, not a string"),
    "a name": (changed(name="z"), "no input `z`; there is only x"),
    "long name": (changed(name="z" * 999), f"no input `{'z' * 80}...`; there is only x"),
    "twice": ({"inputs": [GOOD, GOOD]}, "input `x` is given twice"),
    "no type": (changed(datatype=...), "the datatype of input `x` is missing, the model takes"),
    "a type": (changed(datatype="FP64"), "datatype of input `x` is FP64, the model takes FP32"),
    "list type": (changed(datatype=[]), "the datatype of input `x` is [], the model takes FP32"),
    "bytes": (
        changed(datatype="BYTES"),
        "BYTES, the model takes FP32: the model does not say how images become inputs",
    ),
    "no shape": (changed(shape=...), "the shape of input `x` is missing, not a list"),
    "half a size": (changed(shape=[1, 2.0]), "the shape of input `x` is [1, 2.0]: sizes are"),
    "true": (changed(shape=[True, 2]), "the shape of input `x` is [True, 2]: sizes are"),
    "negative": (changed(shape=[-1, 2]), "the shape of input `x` is [-1, 2]: sizes are"),
    "huge": (changed(shape=[10**30, 2]), "sizes are whole numbers"),
    "axes": (changed(shape=[1] * 33), "input `x` has 33 axes, at most 32"),
    "rank": (changed(shape=[2]), "input `x` has shape [2], expected f32[N, 2]"),
    "sizes": (changed(shape=[1, 3]), "input `x` has shape [1, 3], expected f32[N, 2]"),
    "no data": (changed(data=...), "the data of input `x` is missing, not a list"),
    "text": (changed(data="1,2"), "the data of input `x` is a string, not a list"),
    "few": (changed(data=[1]), "input `x` has 1 elements for shape [1, 2], which has 2"),
    "ragged": (changed(data=[[1]]), "a list on axis 1 has 1 elements, 2 in the shape [1, 2]"),
    "rows": (changed(data=[[1, 2], [3, 4]]), "2 in the data, 1 in the shape [1, 2]"),
    "flat in nested": (changed(shape=[2, 2], data=[[1, 2], 3]), "a list on axis 1 has none"),
    "null": (changed(data=[1, None]), "element 1 of input `x` is None, not a number"),
    "truth": (changed(data=[1, True]), "element 1 of input `x` is True, not a number"),
    "deeper": (changed(data=[[[1], [2]]]), "element 0 of input `x` is [1], not a number"),
    "string": (changed(data=[1, "2"]), "input `x` holds the string '2'; only NaN, Infinity"),
    "integer": (changed(data=[1, 10**400]), "a number of input `x` is out of the range of f32"),
    "bytes left": (
        changed(parameters={"binary_data_size": 8}, data=...),
        "input `x` has binary_data_size 8, but 0 bytes follow",
    ),
    "a size": (
        changed(parameters={"binary_data_size": -1}, data=...),
        "binary_data_size of input `x` is no number of bytes",
    ),
    "shared": (
        changed(parameters={"shared_memory_region": "a"}),
        "input `x` lies in shared memory, which is not offered",
    ),
    "outputs": ({"inputs": [GOOD], "outputs": {}}, "`outputs` is an object, not a list"),
    "an output": ({"inputs": [GOOD], "outputs": [{"name": "x"}]}, "no output `x`"),
    "output twice": (
        {"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]},
        "output `y` is asked for twice",
    ),
    "classes": (
        {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        "classification of `y` is no number of classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    said, expected = MISTAKES[name]
    with pytest.raises(Refusal) as refusal:
        parse(said, F32)
    assert expected in refusal.value.message
    assert refusal.value.status == 400
    assert len(refusal.value.message) < 400


def test_missing_inputs_are_named() -> None:
    model = Model(dict.fromkeys("xyz", F32.inputs["x"]), F32.outputs)
    with pytest.raises(Refusal, match="inputs not given: y, z"):
        parse({"inputs": [GOOD]}, model)


@pytest.mark.parametrize(
    ("dtype", "data", "said"),
    [
        (DType.BOOL, [1], "element 0 of input `x` is 1, not true or false"),
        (DType.I8, [128], "out of the range of i8"),
        (DType.U8, [-1], "out of the range of u8"),
        (DType.I64, [2**63], "out of the range of i64"),
        (DType.I32, [1.0], "element 0 of input `x` is 1.0, not a whole number"),
        (DType.I32, ["NaN"], "element 0 of input `x` is 'NaN', not a whole number"),
        (DType.I32, [True], "element 0 of input `x` is True, not a whole number"),
    ],
)
def test_values_that_a_type_has_not(dtype: DType, data: Any, said: str) -> None:
    entry = {"name": "x", "datatype": DATATYPES[dtype], "shape": [1], "data": data}
    with pytest.raises(Refusal, match=said):
        parse({"inputs": [entry]}, one(dtype, 1))


@pytest.mark.parametrize(
    ("length", "said"),
    [
        ("abc", "Inference-Header-Content-Length is abc, no number of bytes"),
        ("-1", "no number of bytes"),
        ("9" * 40, "no number of bytes"),
        ("1_0", "no number of bytes"),
        ("999", "Inference-Header-Content-Length is 999, but the body has"),
        ("0", "the body is no JSON"),
    ],
)
def test_lengths_of_headers(length: str, said: str) -> None:
    body = json.dumps({"inputs": [GOOD]}).encode()
    with pytest.raises(Refusal, match=said):
        protocol.parse(body, length, F32, Limits())


@pytest.mark.parametrize(
    ("rest", "dtype", "said"),
    [
        (b"\0" * 7, DType.F32, "has 7 bytes, but \\[1, 2\\] of f32 has 8"),
        (b"\0\2", DType.BOOL, "has a byte that is neither 0 nor 1"),
    ],
)
def test_bytes_that_are_no_tensor(rest: bytes, dtype: DType, said: str) -> None:
    entry = changed(data=..., parameters={"binary_data_size": len(rest)}, datatype=DATATYPES[dtype])
    with pytest.raises(Refusal, match=said):
        parse(entry, one(dtype, 1, 2), rest)
    with pytest.raises(Refusal, match="follow the last tensor"):
        parse({"inputs": [GOOD]}, F32, rest)


@pytest.mark.parametrize(
    ("changes", "rest", "said"),
    [
        ({"data": ["a"]}, b"", "no base64"),
        ({"data": [3]}, b"", "is no string"),
        ({"data": ["AAAA", "AAAA"]}, b"", "has 2 images, 1 in its shape"),
        ({"shape": [1, 2], "data": ["AAAA"]}, b"", "expected \\[N\\] of images"),
        ({"shape": [0], "data": []}, b"", "expected \\[N\\] of images"),
        ({"shape": [65], "data": []}, b"", "65 images, at most 64"),
        ({}, b"\0\0", "ends within the length"),
        ({}, b"\2\0\0\0a", "ends within an image"),
    ],
)
def test_images_that_are_none(changes: Any, rest: bytes, said: str) -> None:
    entry = {"name": "image", "datatype": "BYTES", "shape": [1], **changes}
    if rest:
        entry["parameters"] = {"binary_data_size": len(rest)}
    with pytest.raises(Refusal, match=said):
        parse({"inputs": [entry]}, IMAGES, rest)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4)
    | st.sampled_from(["x", "FP32", "BYTES", "y", 1, 2, 8]),
    lambda inside: st.lists(inside, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size",
                         "inputs", "outputs", "classification", "id"]),
        inside, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.dear
@given(
    st.dictionaries(st.sampled_from(["id", "inputs", "outputs", "parameters"]), JSON),
    st.dictionaries(st.sampled_from([*GOOD, "parameters"]), JSON),
    st.binary(max_size=24),
    st.booleans(),
)
def test_whatever_comes_is_read_or_refused(outer: Any, inner: Any, rest: bytes, keep: bool) -> None:
    said = {"inputs": [{**GOOD, **inner}], **(outer if keep else {})}
    for model in (F32, IMAGES):
        with suppress(Refusal):
            parse(said, model, rest)


@pytest.mark.dear(share=4)
def test_millions_of_lists_are_refused_in_a_moment() -> None:
    """And the collector of cycles is as it was."""
    bomb = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": ['
    bomb += b"[]," * 1_000_000 + b"[]]}]}"
    begin = time.process_time()
    with pytest.raises(Refusal, match="1000001 in the data, 1 in the shape"):
        protocol.parse(bomb, None, F32, Limits())
    assert time.process_time() - begin < 2
    assert gc.isenabled()
    with pytest.raises(Refusal):
        parse(b"{", F32)
    assert gc.isenabled()


@given(st.binary(max_size=64), st.none() | st.text("0123456789", max_size=3))
def test_bytes_are_read_or_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(Refusal):
        protocol.parse(body, length, F32, Limits())
