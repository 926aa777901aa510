"""Artifacts: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.diagnostics import ArtifactError
from convdsl.runtime import artifact, whole_files

SECTIONS = {
    "code": b"\x7fELF" + bytes(range(100)),
    "weights": bytes(64),
    "empty": b"",
    "last": b"x",
}
MANIFEST: dict[str, Any] = {"model": "lenet5", "binding": {"N": 1}, "classes": ["ä", "b"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "net.cdsl", SECTIONS, MANIFEST)
    return tmp_path / "net.cdsl"


def test_what_is_written_is_read(path: Path) -> None:
    manifest, sections = artifact.read(path)
    assert manifest == MANIFEST
    assert {name: bytes(view) for name, view in sections.items()} == SECTIONS
    assert list(sections) == list(SECTIONS)
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208


def test_sections_are_aligned_read_only_views_of_any_buffer(tmp_path: Path) -> None:
    weights = np.arange(100, dtype=np.float32).reshape(10, 10)
    artifact.write(tmp_path / "a", {"x": b"1", "weights": memoryview(weights)}, {})
    view = artifact.read(tmp_path / "a").sections["weights"]
    array = np.frombuffer(view, np.float32)
    assert array.ctypes.data % artifact.ALIGNMENT == 0
    np.testing.assert_array_equal(array.reshape(10, 10), weights)
    assert view.readonly


def test_an_artifact_may_have_no_sections(tmp_path: Path) -> None:
    artifact.write(tmp_path / "a", {}, {"k": 1})
    assert artifact.read(tmp_path / "a") == ({"k": 1}, {})


@pytest.mark.dear
@given(st.dictionaries(st.text(), st.binary(max_size=200), max_size=5))
def test_any_names_and_contents(
    tmp_path_factory: pytest.TempPathFactory, sections: dict[str, bytes]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a"
    artifact.write(path, sections, {})
    assert {k: bytes(v) for k, v in artifact.read(path).sections.items()} == sections


@pytest.mark.dear
def test_every_flipped_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for position in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError):
                artifact.read(path)


@pytest.mark.parametrize("threads", [1, 3, 50])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 640, 1000])
def test_checksums_of_pieces(length: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/formats.md says, whoever computes it."""
    monkeypatch.setattr(artifact, "PIECE_BYTES", 64)
    monkeypatch.setattr(artifact, "available_threads", lambda: threads)
    data = np.random.default_rng(0).bytes(length)
    pieces = [data[at : at + 64] for at in range(0, length, 64)]
    expected = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces))
    assert artifact.digest_of(memoryview(data)) == expected.hexdigest()
    for position in range(0, length, 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        assert artifact.digest_of(memoryview(damaged)) != expected.hexdigest()


@pytest.mark.dear(share=4)
def test_every_shorter_and_any_longer_file_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            artifact.read(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ArtifactError, match="bytes long instead of"):
        artifact.read(path)


def forged(content: object, data: bytes = b"") -> bytes:
    """A file whose header and hashes are right, whatever its manifest says."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    start = -(-(64 + len(text)) // 64) * 64
    body = text + bytes(start - 64 - len(text)) + data if data else text
    digest = hashlib.sha256(text).digest()
    return struct.pack("<8sIIQQ32s", artifact.MAGIC, 2, 0, len(text), 64 + len(body), digest) + body


def row(**changes: object) -> dict[str, object]:
    data = b"0123456789"
    digest = hashlib.sha256(hashlib.sha256(data).digest()).hexdigest()
    row = {"name": "a", "offset": 0, "bytes": 10, "sha256": digest}
    return row | changes


def test_forging_works_when_it_forges_nothing(path: Path) -> None:
    path.write_bytes(forged({"manifest": {}, "sections": [row()]}, b"0123456789"))
    assert bytes(artifact.read(path).sections["a"]) == b"0123456789"


@pytest.mark.parametrize(
    "table",
    [
        [row(bytes=11)],
        [row(bytes=9)],
        [row(bytes=-10)],
        [row(bytes=1 << 70)],
        [row(offset=64)],
        [row(offset=-64)],
        [row(offset=1)],
        [row(), row()],
        [row(), row(name="b")],
        [row(offset="0")],
        [row(offset=True)],
        [row(bytes=10.0)],
        [row(name=3)],
        [row(sha256="0" * 64)],
        [row(more=1)],
        [{"name": "a"}],
        [3],
        {},
        None,
        [],
    ],
)
def test_inconsistent_tables_are_refused(path: Path, table: object) -> None:
    path.write_bytes(forged({"manifest": {}, "sections": table}, b"0123456789"))
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"manifest": 3, "sections": []}', b"{}"],
)
def test_manifests_that_are_none(path: Path, content: bytes) -> None:
    path.write_bytes(forged(content))
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.read(path)


def test_other_formats_are_named(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 8, 3)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="has format 3, this convdsl reads 2"):
        artifact.read(path)


def test_what_is_not_an_artifact(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (text := tmp_path / "model.cnn").write_text("convdsl 1\n" * 20)
    for path, match in [
        (tmp_path / "missing", "there is no artifact"),
        (tmp_path, "no regular file"),
        (fifo, "no regular file"),
        (text, "is no artifact: it is"),
        (Path("nul\0byte"), "cannot read|there is no"),
    ]:
        with pytest.raises(ArtifactError, match=match):
            artifact.read(path)


# Writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        artifact.write(path, {"code": b"new"}, {})
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_file_and_directory_are_synced_around_the_rename(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def logged_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    def logged_fsync(handle: int) -> None:
        events.append("directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    monkeypatch.setattr(Path, "replace", logged_replace)
    monkeypatch.setattr(whole_files.os, "fsync", logged_fsync)
    artifact.write(path, {"code": b"new"}, {})
    assert events == ["file", "rename", "directory"]


def test_permissions_are_ordinary_or_those_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.cdsl"
    mask = os.umask(0o027)
    try:
        artifact.write(path, {}, {})
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    artifact.write(path, {}, {})
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("target", ["/dev/null", "."])
def test_devices_and_directories_are_not_replaced(target: str) -> None:
    with pytest.raises(ArtifactError, match="is not a plain file"):
        artifact.write(Path(target), {}, {})
    assert Path("/dev/null").is_char_device()


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no is not there"):
        artifact.write(tmp_path / "no" / "net.cdsl", {}, {})


def test_manifests_are_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    length = struct.unpack_from("<Q", path.read_bytes(), 16)[0]
    monkeypatch.setattr(artifact, "MAX_MANIFEST_BYTES", length)
    artifact.write(path, SECTIONS, MANIFEST)
    assert artifact.read(path).manifest == MANIFEST
    monkeypatch.setattr(artifact, "MAX_MANIFEST_BYTES", length - 1)
    with pytest.raises(ArtifactError, match="the manifest"):
        artifact.read(path)
    with pytest.raises(ArtifactError, match=f"has {length} bytes"):
        artifact.write(path, SECTIONS, MANIFEST)


def test_readers_see_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    artifact.write(path, {"x": b"old"}, {})
    view = artifact.read(path).sections["x"]
    artifact.write(path, {"x": b"new"}, {})
    assert bytes(view) == b"old"
    assert bytes(artifact.read(path).sections["x"]) == b"new"
