"""safetensors and .npz files, and telling formats apart."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import checkpoints as ck
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from convdsl.diagnostics import WeightError
from convdsl.weights import ArrayStore, RandomWeights, load
from convdsl.weights import npz_file as npz
from convdsl.weights.store import MAX_ENTRIES

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.array([1.5, 2.5], np.float64),
    "half": np.array([0.5], np.float16),
    "count": np.array(3, np.int64),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}
FORMATS = ["safetensors", "npz", "npz-compressed"]


def write(path: Path, format: str, arrays: dict[str, Any] = ARRAYS) -> None:
    if format == "safetensors":
        save_file(arrays, str(path))
    else:
        with path.open("wb") as file:
            (np.savez if format == "npz" else np.savez_compressed)(file, **arrays)


def safetensors(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("format", FORMATS)
def test_reads_names_shapes_types_and_values(tmp_path: Path, format: str) -> None:
    write(path := tmp_path / "weights.bin", format)  # told apart by content, not by name
    store = load(path)
    assert set(store.entries) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert store.entries[name].shape == array.shape
        assert store.entries[name].dtype == array.dtype.name
        np.testing.assert_array_equal(store.read(name), array)
        assert store.read(name).dtype == array.dtype


def test_bfloat16_in_safetensors(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {
        "pad": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "w": {"dtype": "BF16", "shape": [3, 1], "data_offsets": [4, 10]},
    }
    (path := tmp_path / "w.safetensors").write_bytes(safetensors(header, bytes(4) + raw))
    store = load(path)
    assert store.entries["w"].dtype == "bfloat16"
    np.testing.assert_array_equal(store.read("w"), values.reshape(3, 1))


def test_types_that_numpy_lacks_are_named(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    (path := tmp_path / "w.safetensors").write_bytes(safetensors(header, bytes(4)))
    with pytest.raises(WeightError, match="w in .* holds F8_E4M3, which is unsupported"):
        load(path).read("w")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"w": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"w": 3},
        b"{",
        b'{"w":' * 10_000,
    ],
)
def test_unsound_safetensors_are_refused(tmp_path: Path, header: Any) -> None:
    (path := tmp_path / "w.safetensors").write_bytes(safetensors(header, bytes(4)))
    with pytest.raises(WeightError, match="not a sound safetensors file"):
        load(path)


# .npz


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def npz_of(member: bytes, name: str = "w.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(name, member)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (npy(header("(2,)"), bytes(4)), "declares 8 bytes and brings 4"),
        (npy(header("(1,)"), bytes(8)), "declares 4 bytes and brings 8"),
        (npy(header("(1099511627776,)")), "declares 4398046511104 bytes and brings 0"),
        (npy(header("(-1,)")), "no plain array"),
        (npy(header("(1,)", "'|O'"), b"\x80\x04N."), "no plain array of numbers"),
        (npy(header("(1,)", "'<U4'"), bytes(16)), "no plain array of numbers"),
        (npy(header("(1,)", "'<c8'"), bytes(8)), "no plain array of numbers"),
        (npy("{" * 3000), "no plain array"),
        (npy("__import__('os').system('true')"), "no plain array"),
        (npy(header("(1,)"), bytes(4), b"\x09\x00"), "a member is no array"),
        (b"hello", "a member is no array"),
        (npy(header("(1,)").ljust(12_000)), "header has 12001 bytes, at most 10000"),
        (b"", "a member is no array"),
    ],
)
def test_unsound_npz_members_are_refused(tmp_path: Path, member: bytes, match: str) -> None:
    (path := tmp_path / "w.npz").write_bytes(npz_of(member))
    with pytest.raises(WeightError, match=match):
        load(path)


def test_npz_members_that_are_no_arrays(tmp_path: Path) -> None:
    (path := tmp_path / "w.npz").write_bytes(npz_of(b"x = 1", "code.py"))
    with pytest.raises(WeightError, match=r"holds 'code.py', which is no array"):
        load(path)


def test_npz_compression_is_zip_stored_or_deflated(tmp_path: Path) -> None:
    data = npz_of(npy(header("(1,)"), bytes(4)), method=zipfile.ZIP_LZMA)
    (path := tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(WeightError, match="compressed in a way"):
        load(path)


def test_npz_declared_size_is_bounded_by_what_deflate_can_do(tmp_path: Path) -> None:
    """A bomb's honest ratio passes the arithmetic check, one past it does not."""
    data = bytearray(npz_of(npy(header("(1,)"), bytes(4)), method=zipfile.ZIP_DEFLATED))
    central = bytes(data).index(b"PK\x01\x02")
    (compressed,) = struct.unpack_from("<I", data, central + 20)
    struct.pack_into("<I", data, central + 24, compressed * npz.MAX_DEFLATE_RATIO + 1)
    (path := tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(WeightError, match="declares more bytes than its compressed data can hold"):
        load(path)


def test_npz_arrays_have_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path := tmp_path / "w.npz", "npz", {"w": np.zeros(4, np.float32)})
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 16)
    assert load(path).read("w").nbytes == 16
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 15)
    with pytest.raises(WeightError, match="declares 16 bytes, at most 15"):
        load(path)


def test_npz_checksums_are_verified(tmp_path: Path) -> None:
    write(path := tmp_path / "w.npz", "npz", {"w": np.full(1000, 1.25, np.float32)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    store = load(path)
    with pytest.raises(WeightError, match="CRC"):
        store.read("w")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path := tmp_path / "w.npz", "npz")
    monkeypatch.setattr(npz, "MAX_ENTRIES", len(ARRAYS) - 1)
    with pytest.raises(WeightError, match=f"holds {len(ARRAYS)} arrays, at most"):
        load(path)
    assert len(ARRAYS) < MAX_ENTRIES


# Telling formats apart


def test_a_file_of_no_known_format(tmp_path: Path) -> None:
    for content in (
        b"",
        b"hello world, these are no weights",
        bytes(100),
        b"PK\x03\x04" + bytes(50),
    ):
        (path := tmp_path / "w.bin").write_bytes(content)
        with pytest.raises(WeightError, match="it is (a text|of no kind)|damaged|is empty"):
            load(path)


def test_what_is_not_a_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, match in [
        (tmp_path / "missing", "there is no weight file"),
        (tmp_path, "a directory"),
        (fifo, "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (Path("nul\0byte"), "cannot read|there is no"),
    ]:
        with pytest.raises(WeightError, match=match):
            load(path)


def test_arrays_are_a_store() -> None:
    store = load({"w": [[1.0, 2.0]], "b": np.float32(3)})
    assert isinstance(store, ArrayStore)
    assert store.entries["w"].shape == (1, 2)
    np.testing.assert_array_equal(store.read("w"), [[1.0, 2.0]])
    for value in ("text", object(), [[1], [1, 2]], np.array(["x"])):
        with pytest.raises(WeightError, match="the weight w"):
            load({"w": value})


def test_random_seeds() -> None:
    store = load("random:7")
    assert isinstance(store, RandomWeights)
    assert (store.seed, store.source) == (7, "random:7")
    assert load(f"random:{2**64 - 1}").source == f"random:{2**64 - 1}"
    for spec in ("random:", "random:-1", "random:1.5", "random:x", f"random:{2**64}", "random:²"):
        with pytest.raises(WeightError, match="seed must be a whole number"):
            load(spec)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("format", FORMATS)
def test_cut_short_anywhere(tmp_path: Path, format: str) -> None:
    write(path := tmp_path / "weights", format, {"w": ARRAYS["a.weight"], "b": ARRAYS["a.bias"]})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(WeightError):
            load(path)


@pytest.mark.dear(share=4)
@given(data=st.data(), format=st.sampled_from(FORMATS))
def test_damage_is_a_weight_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, format: str
) -> None:
    write(path := tmp_path_factory.mktemp("damage") / "weights", format)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(WeightError):
        store = load(path)
        for name, entry in store.entries.items():
            assert store.read(name).shape == entry.shape


@given(
    content=st.binary(max_size=300),
    prefix=st.sampled_from([b"", b"PK\x03\x04", ck.legacy({})[:15]]),
)
def test_noise_is_a_weight_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "weights"
    path.write_bytes(prefix + content)
    with pytest.raises(WeightError):
        load(path)


def test_texts_are_no_weights(tmp_path: Path) -> None:
    """Data sets may hold names, weights never do."""
    np.savez(tmp_path / "w.npz", a=np.zeros(2), b=np.array(["x", "y"]))
    with pytest.raises(WeightError, match="b: an array of texts is no plain array"):
        load(tmp_path / "w.npz")
