"""PyTorch checkpoints: what is read, and what strangers may try."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import checkpoints as ck
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.diagnostics import WeightError
from convdsl.weights import load
from convdsl.weights.checkpoint import MAX_PICKLE_BYTES
from convdsl.weights.pickles import MAX_OPCODES
from convdsl.weights.store import MAX_ENTRIES

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.bias": np.array([1.5, -2.5], np.float64),
    "bn.scale": np.array([0.5, 3.0], np.float16),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "turned": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
}
FORMATS: dict[str, Callable[..., bytes]] = {"zip": ck.zipped, "legacy": ck.legacy}


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(FORMATS[request.param](ARRAYS))
    return path


def save(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return path


def read_all(path: Path) -> None:
    store = load(path)
    for name, entry in store.entries.items():
        assert store.read(name).shape == entry.shape


def refused(tmp_path: Path, data: bytes, match: str) -> None:
    path = save(tmp_path, data)
    with pytest.raises(WeightError, match=match) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


def test_reads_names_shapes_types_and_values(written: Path) -> None:
    store = load(written)
    assert list(store.entries) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert store.entries[name].shape == array.shape
        assert store.entries[name].dtype == array.dtype.name
        read = store.read(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
        assert not read.flags.writeable


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625, 3e38], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    body = ck.mapping({"w": ck.tensor("0", "BFloat16Storage", 4, (2, 2), (2, 1))})
    store = load(save(tmp_path, ck.archive(body, {"0": halves.tobytes()})))
    assert store.entries["w"].dtype == "bfloat16"
    expected = (halves.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
    np.testing.assert_array_equal(store.read("w"), expected)
    assert store.read("w").dtype == np.float32


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32)
    body = ck.mapping(
        {
            "all": ck.tensor("0", "FloatStorage", 6, (6,), (1,)),
            "tail": ck.tensor("0", "FloatStorage", 6, (2,), (1,), offset=4),
            "transposed": ck.tensor("0", "FloatStorage", 6, (3, 2), (1, 3)),
            "expanded": ck.tensor("0", "FloatStorage", 6, (2, 2), (0, 1)),
            "none": ck.tensor("0", "FloatStorage", 6, (0, 4), (4, 1)),
        }
    )
    store = load(save(tmp_path, ck.archive(body, {"0": data.tobytes()})))
    np.testing.assert_array_equal(store.read("tail"), data[4:])
    np.testing.assert_array_equal(store.read("transposed"), data.reshape(2, 3).T)
    np.testing.assert_array_equal(store.read("expanded"), [[0, 1], [0, 1]])
    assert store.read("none").shape == (0, 4)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_dict_may_be_under_a_usual_key(tmp_path: Path, key: str) -> None:
    body = b"}(" + ck.text("epoch") + ck.number(90)
    body += ck.text(key) + ck.state_dict({"w": ARRAYS["conv.bias"]}) + b"u"
    store = load(save(tmp_path, ck.archive(body, {"0": ARRAYS["conv.bias"].tobytes()})))
    assert list(store.entries) == ["w"]


# What training scripts save beside the weights, pickled by Python itself.


def training_checkpoint(protocol: int, **more: Any) -> bytes:
    """An archive of {model: {w}, model_ema: {w}, ema: {model: {w}}, ...} of three tensors."""
    plain = {
        "epoch": 3, "best": np.float64(0.75), "step": np.int64(7), "nothing": None,
        "args": argparse.Namespace(lr=0.1, path=Path("x"), nested=argparse.Namespace(a=[1, 2])),
        "curve": np.arange(5.0), "when": datetime.datetime(2026, 1, 2), "seen": {1, 2},
        **more,
    }  # fmt: skip
    data = io.BytesIO()
    pickle.Pickler(data, protocol).dump(plain)
    body = data.getvalue()[2:-1]  # without PROTO and STOP
    if protocol == 4 and body[:1] == b"\x95":
        body = body[9:]
    states = [
        ck.mapping({"w": ck.tensor(str(n), "FloatStorage", 2, (2,), (1,)), "note": b"N"})
        for n in range(3)
    ]
    inner = b"}" + ck.text("model") + states[2] + b"s"
    body += b"(" + ck.text("model") + states[0] + ck.text("model_ema") + states[1]
    body += ck.text("ema") + inner + b"u"
    storages = {str(n): np.float32([n, -n]).tobytes() for n in range(3)}
    return ck.archive(body, storages)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(("key", "number"), [(None, 0), ("model_ema", 1), ("ema.model", 2)])
def test_the_key_is_chosen(tmp_path: Path, protocol: int, key: str | None, number: int) -> None:
    path = save(tmp_path, training_checkpoint(protocol))
    store = load(path, key)
    assert list(store.entries) == ["w"]
    np.testing.assert_array_equal(store.read("w"), [number, -number])


@pytest.mark.parametrize("key", ["emma", "ema", "epoch", "model.w", "", "ema.model.w", "\x1b[2J"])
def test_keys_without_a_state_dict_are_told_with_those_that_have_one(
    tmp_path: Path, key: str
) -> None:
    path = save(tmp_path, training_checkpoint(2))
    with pytest.raises(WeightError, match=r"at the keys model, model_ema, ema\.model") as caught:
        load(path, key)
    assert "\x1b" not in str(caught.value)


def test_only_checkpoints_have_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.zeros(2))
    for source in (tmp_path / "w.npz", "random:0", {"w": np.zeros(2)}):
        with pytest.raises(WeightError, match="key"):
            load(source, "model")


def test_other_classes_are_still_refused(tmp_path: Path) -> None:
    refused(tmp_path, training_checkpoint(2, odd=Fraction(1, 2)), match=r"fractions\.Fraction")


def test_attributes_of_an_ordered_dict_are_passed_over(tmp_path: Path) -> None:
    body = ck.state_dict({"w": ARRAYS["conv.bias"]}) + b"}" + ck.text("_metadata") + b"}sb"
    store = load(save(tmp_path, ck.archive(body, {"0": ARRAYS["conv.bias"].tobytes()})))
    assert list(store.entries) == ["w"]


def test_python_2_wrote_ordered_dicts_as_pairs(tmp_path: Path) -> None:
    pair = b"(" + ck.text("w") + ck.tensor("0", "FloatStorage", 1, (1,), (1,)) + b"l"
    body = ck.name("collections", "OrderedDict") + b"((" + pair + b"ltR"
    store = load(save(tmp_path, ck.archive(body, {"0": bytes(4)})))
    assert list(store.entries) == ["w"]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read_and_refused_alike(tmp_path: Path, protocol: int) -> None:
    body = pickle.dumps({"a": [1, 2.5, None, True, "x", b"y", (1, 2, 3, 4)]}, protocol)
    data = ck.archive(b"", {})
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.namelist():
            new.writestr(member, body if member.endswith("data.pkl") else old.read(member))
    refused(tmp_path, buffer.getvalue(), "no state dict; its keys begin a")


# What strangers may try


class Evil:
    """Creates the file `path` when unpickled by the real thing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_calls_are_refused_by_name_and_not_made(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    data = pickle.dumps({"w": Evil(trap)}, protocol)
    pickle.loads(data)["w"].close()
    assert trap.exists()
    trap.unlink()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", data)
    refused(tmp_path, buffer.getvalue(), r"it asks for (_?io|__builtin__|builtins)\.open")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (ck.name("os", "system") + b"(" + ck.text("true") + b"tR", "it asks for os.system"),
        (b"(" + ck.text("true") + b"ios\nsystem\n", "INST"),
        (b"(" + ck.name("os", "system") + ck.text("true") + b"o", "OBJ"),
        (ck.name("builtins", "eval") + b")\x81", "it asks for builtins.eval"),
        (b"\x82\x01", "EXT1"),
        (b"P0\n", "PERSID"),
        (b"\x97", "NEXT_BUFFER"),
        (ck.name("torch", "FloatStorage") + b")R", "it asks for torch.FloatStorage"),
        (ck.name("torch", "FloatStorage") + b"}b", "damaged"),
        (ck.name("collections", "OrderedDict") + b"}b", "damaged"),
        (ck.text("x") + b")R", "damaged"),
        (b"}" + b"((lttsq\x00", "damaged"),
        (b"R", "damaged"),
        (b"t", "damaged"),
        (b"\x85", "damaged"),
        (b"h\x05", "damaged"),
        (b"}(" + ck.text("a") + b"u", "damaged"),
        (b"})Ns", "damaged"),  # a tuple as a key: hashing could recurse
        (b"N", "no state dict"),
        (b"}", "no state dict"),
        (b"(" + ck.text("x") + b"tQ", "storage in an unknown way"),
        (ck.tensor("0", "ComplexFloatStorage", 1, (1,), (1,)), "ComplexFloatStorage"),
        (ck.tensor("0", "FloatStorage", -1, (1,), (1,)), "storage in an unknown way"),
        (ck.tensor("0", "FloatStorage", 4, (-1,), (1,)), "described in an unknown way"),
        (ck.tensor("0", "FloatStorage", 4, (2,), (-1,)), "described in an unknown way"),
        (ck.tensor("0", "FloatStorage", 4, (2, 2), (1,)), "described in an unknown way"),
        (ck.tensor("0", "FloatStorage", 4, (1,) * 33, (1,) * 33), "described in an unknown way"),
        (ck.tensor("0", "FloatStorage", 4, (4,), (1,), offset=1), "beyond the end of its storage"),
        (ck.tensor("0", "FloatStorage", 4, (0,), (1,), offset=5), "beyond the end of its storage"),
        (ck.tensor("0", "FloatStorage", 4, (1 << 40,), (1,)), "beyond the end of its storage"),
    ],
)
def test_foul_pickles_are_refused(tmp_path: Path, body: bytes, match: str) -> None:
    refused(tmp_path, ck.archive(body, {"0": bytes(16)}), match)


def test_the_limits_of_a_tensor_are_its_storage(tmp_path: Path) -> None:
    body = ck.mapping({"w": ck.tensor("0", "FloatStorage", 5, (4,), (1,), offset=1)})
    store = load(save(tmp_path, ck.archive(body, {"0": bytes(20)})))
    assert store.read("w").shape == (4,)
    rank = ck.mapping({"w": ck.tensor("0", "FloatStorage", 1, (1,) * 32, (1,) * 32)})
    store = load(save(tmp_path, ck.archive(rank, {"0": bytes(4)})))
    assert store.read("w").ndim == 32


@pytest.mark.parametrize(("declared", "brought"), [(4, 15), (4, 17), (1 << 30, 16)])
def test_storages_must_be_as_large_as_declared(tmp_path: Path, declared: int, brought: int) -> None:
    body = ck.mapping({"w": ck.tensor("0", "FloatStorage", declared, (1,), (1,))})
    refused(tmp_path, ck.archive(body, {"0": bytes(brought)}), "declares .* bytes and brings")


def test_a_missing_storage_is_named(tmp_path: Path) -> None:
    body = ck.mapping({"w": ck.tensor("../../etc/passwd", "FloatStorage", 4, (4,), (1,))})
    refused(tmp_path, ck.archive(body, {"0": bytes(16)}), r"storage ../../etc/passwd is missing")


def test_a_storage_has_one_description(tmp_path: Path) -> None:
    two = {
        "a": ck.tensor("0", "FloatStorage", 4, (4,), (1,)),
        "b": ck.tensor("0", "DoubleStorage", 4, (4,), (1,)),
    }
    refused(tmp_path, ck.archive(ck.mapping(two), {"0": bytes(16)}), "in two ways")


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    body = ck.state_dict({"w": np.zeros(100, np.float32)})
    refused(tmp_path, ck.archive(body, {"0": bytes(400)}, compress=True), "is compressed")


@pytest.mark.dear
def test_pickles_are_limited_in_bytes_and_opcodes(tmp_path: Path) -> None:
    refused(tmp_path, ck.archive(bytes(MAX_PICKLE_BYTES), {}), "larger than")
    refused(tmp_path, ck.archive(b"(" * (MAX_OPCODES + 1), {}), "more than 2000000 opcodes")


@pytest.mark.dear(share=4)
def test_pickles_cannot_make_work_out_of_little(tmp_path: Path) -> None:
    """One long list used over and over: each use would cost its length."""
    long_list = b"](" + b"N" * (MAX_ENTRIES // 2 + 1) + b"e" + b"q\x00"
    many = long_list + (ck.name("collections", "OrderedDict") + b"(h\x00tR0") * 3
    pairs = long_list.replace(
        b"N" * (MAX_ENTRIES // 2 + 1), b"" + b"]NaNa" * (MAX_ENTRIES // 2 + 1)
    )
    again = pairs + (ck.name("collections", "OrderedDict") + b"(h\x00tR0") * 3
    refused(tmp_path, ck.archive(many, {}), "pairs")
    refused(tmp_path, ck.archive(again, {}), "more than 100000 pairs")
    long_tuple = b"(" + b"K\x01" * 500_000 + b"tq\x00"
    uses = (ck.name("torch", "Size") + b"h\x00R0") * 100_000
    refused(tmp_path, ck.archive(long_tuple + uses, {}), "it asks for torch.Size")


@pytest.mark.dear(share=4)
def test_more_tensors_than_allowed(tmp_path: Path) -> None:
    one = ck.tensor("0", "FloatStorage", 1, (1,), (1,)) + b"q\x00"
    body = b"}(" + ck.text("t") + one
    body += b"".join(ck.text(str(i)) + b"h\x00" for i in range(MAX_ENTRIES)) + b"u"
    refused(tmp_path, ck.archive(body, {"0": bytes(4)}), "100001 tensors, at most 100000")


@pytest.mark.dear
def test_deep_nesting_neither_recurses_nor_crashes(tmp_path: Path) -> None:
    refused(tmp_path, ck.archive(b"N" + b"\x85" * 1_000_000, {}), "no state dict")
    refused(tmp_path, ck.archive(b"]" * 500_000 + b"a" * 499_999, {}), "no state dict")


def test_torchscript_programs_are_told_apart(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("net/data.pkl", b"\x80\x02}.")
        file.writestr("net/constants.pkl", b"\x80\x02).")
    refused(tmp_path, buffer.getvalue(), "TorchScript")


def test_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    body = ck.name("torch", "\x1b[2J" * 100) + b")R"
    path = save(tmp_path, ck.archive(body, {}))
    with pytest.raises(WeightError) as caught:
        load(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_flipped_weight_is_noticed(tmp_path: Path) -> None:
    data = bytearray(ck.zipped({"w": np.full(64, 1.25, np.float32)}))
    at = bytes(data).index(struct.pack("<f", 1.25))
    data[at] ^= 1
    refused(tmp_path, bytes(data), "checksum")


@pytest.mark.dear
@pytest.mark.parametrize("format", FORMATS)
def test_cut_short_anywhere(tmp_path: Path, format: str) -> None:
    data = FORMATS[format](ARRAYS)
    path = tmp_path / "weights.pth"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(WeightError):
            load(path)


@pytest.mark.dear(share=4)
@given(data=st.data(), format=st.sampled_from(sorted(FORMATS)))
def test_damage_is_a_weight_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, format: str
) -> None:
    content = bytearray(FORMATS[format](ARRAYS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "weights.pth"
    path.write_bytes(content)
    with contextlib.suppress(WeightError):
        read_all(path)
