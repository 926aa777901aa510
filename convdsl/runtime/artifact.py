"""One file that holds a compiled network: a manifest and named sections, all checksummed.

    0    magic, format version, zero, manifest bytes, file bytes, SHA-256 of the manifest
    64   manifest: JSON {"manifest": ..., "sections": [{"name", "offset", "bytes", "sha256"}]}
    ...  sections, each at a multiple of 64 after the first; zeros between

Section offsets count from the first multiple of 64 behind the manifest. A section's "sha256" is
the SHA-256 of the SHA-256s of its pieces of 4 MiB, so that several threads can work on it. Every
byte of the file is covered: the header by its fixed fields and the hash, the rest by hashes,
padding by being zero. A hash notices damage; it is no signature and says nothing about who wrote
it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import stat
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from convdsl.diagnostics import ArtifactError, reason
from convdsl.places import kind_of, nothing_at
from convdsl.runtime.cpu.team import available_threads
from convdsl.runtime.whole_files import write_whole

MAGIC = b"\x89CDSL\r\n\x1a"
VERSION = 2
"""Raised when the layout of the file or the meaning of its sections changes."""

ALIGNMENT = 64
MAX_MANIFEST_BYTES = 64 << 20
PIECE_BYTES = 4 << 20

_MOST_READERS = 8
_HEADER = struct.Struct("<8sIIQQ32s")
_TABLE_ROW = {"name": str, "offset": int, "bytes": int, "sha256": str}


class Artifact(NamedTuple):
    """What an artifact holds. Sections are read-only views of the mapped file."""

    manifest: dict[str, Any]
    sections: dict[str, memoryview]


def write(
    path: Path,
    sections: Mapping[str, bytes | memoryview],
    manifest: Mapping[str, Any],
    *,
    durable: bool = True,
    private: bool = False,
) -> None:
    """Write the file whole or not at all. Raises ArtifactError."""
    views = {name: memoryview(data).cast("B") for name, data in sections.items()}
    try:
        write_whole(path, _chunks(views, manifest), durable=durable, private=private)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path, folder: int | None = None) -> Artifact:
    """Map the file and verify all of it. With `folder`, the descriptor of a directory, only the
    user's own file of that name in it is taken, that others cannot write. Raises ArtifactError."""
    try:
        return _read(path, folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ArtifactError(f"cannot read the artifact {path}: {reason(error)}") from None


def _chunks(views: Mapping[str, memoryview], manifest: Mapping[str, Any]) -> Iterator[Any]:
    table: list[dict[str, Any]] = []
    end = 0
    for name, view in views.items():
        start = _aligned(end)
        end = start + view.nbytes
        row = {"name": name, "offset": start, "bytes": view.nbytes, "sha256": digest_of(view)}
        table.append(row)
    content = {"manifest": dict(manifest), "sections": table}
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"the manifest has {len(text)} bytes, at most {MAX_MANIFEST_BYTES}")
    data = _aligned(_HEADER.size + len(text))
    total = data + end if views else _HEADER.size + len(text)
    digest = hashlib.sha256(text).digest()
    yield _HEADER.pack(MAGIC, VERSION, 0, len(text), total, digest)
    yield text
    position = _HEADER.size + len(text)
    for row, view in zip(table, views.values(), strict=True):
        yield bytes(data + row["offset"] - position)
        yield view
        position = data + row["offset"] + view.nbytes


def digest_of(view: memoryview) -> str:
    """The checksum of a section. Large ones are read by all processors at once."""
    pieces = [view[at : at + PIECE_BYTES] for at in range(0, view.nbytes, PIECE_BYTES)]
    digests = [b""] * len(pieces)
    todo = deque(range(len(pieces)))

    def work() -> None:
        with contextlib.suppress(IndexError):  # nothing left to do
            while True:
                number = todo.popleft()
                digests[number] = hashlib.sha256(pieces[number]).digest()

    helpers = [
        threading.Thread(target=work, name="convdsl-checksum", daemon=True)
        for _ in range(min(available_threads(), _MOST_READERS, len(pieces)) - 1)
    ]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    assert all(digests), "a thread has died at its work"
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _read(path: Path, folder: int | None) -> Artifact:
    """What is checked and what is read are one file: it is opened once, and asked itself."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO without a writer does not wait
    try:
        if folder is None:
            handle = os.open(path, flags)
        else:
            handle = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        said = f"there is no artifact {path}"  # in a cache a matter of course
        told = nothing_at(path, ".cdsl", said=said) if folder is None else said
        raise ArtifactError(told) from None
    with _opened(handle, path) as file:
        status = os.fstat(handle)
        size = status.st_size
        if folder is not None and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
            raise ArtifactError(f"{path} is another user's, or others can write it")
        if file.read(len(MAGIC)) != MAGIC:
            raise ArtifactError(
                f"{path} is no artifact: it is {kind_of(path)}; `convdsl compile` writes them"
            )
        if size < _HEADER.size:
            raise ArtifactError(f"{path} is damaged: it breaks off after {size} bytes")
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _verify(mapped, path)


def _opened(handle: int, path: Path) -> BinaryIO:
    """The file behind a descriptor, if it is a plain one."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArtifactError(f"the artifact {path} is no regular file")
    return os.fdopen(handle, "rb")


def _verify(mapped: memoryview, path: Path) -> Artifact:
    _, version, zero, length, total, digest = _HEADER.unpack_from(mapped)
    if version != VERSION:
        raise ArtifactError(
            f"{path} has format {version}, this convdsl reads {VERSION}\n"
            "help: compile it anew from its text and weights, or use the convdsl that it is of"
        )
    if total != len(mapped):
        raise ArtifactError(f"{path} is damaged: {len(mapped)} bytes long instead of {total}")
    text = mapped[_HEADER.size : _HEADER.size + length]
    if zero or length > MAX_MANIFEST_BYTES or hashlib.sha256(text).digest() != digest:
        raise ArtifactError(f"{path} is damaged: the manifest's checksum does not match")
    content = _parse(text, path)
    sections: dict[str, memoryview] = {}
    position = _HEADER.size + length
    data = _aligned(position)
    for row in content["sections"]:
        start, name = data + row["offset"], row["name"]
        end = start + row["bytes"]
        if start != _aligned(position) or end > total or end < start or name in sections:
            raise ArtifactError(f"{path} is damaged: its table of sections is inconsistent")
        if any(mapped[position:start]):
            raise ArtifactError(f"{path} is damaged: there is something between its sections")
        if digest_of(mapped[start:end]) != row["sha256"]:
            raise ArtifactError(f"{path} is damaged: the checksum of `{name}` does not match")
        sections[name] = mapped[start:end]
        position = end
    if position != total:
        raise ArtifactError(f"{path} is damaged: something follows its last section")
    return Artifact(content["manifest"], sections)


def _parse(text: memoryview, path: Path) -> dict[str, Any]:
    """The manifest and the table, of the right types: the hash is no proof of a good writer."""
    try:
        content = json.loads(bytes(text))
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} is damaged: its manifest is no JSON") from None
    if isinstance(content, dict):
        parts = cast("dict[str, Any]", content)
        rows = parts.get("sections")
        if isinstance(parts.get("manifest"), dict) and isinstance(rows, list):
            table = cast("list[Any]", rows)
            if all(_is_row(row) for row in table):
                return parts
    raise ArtifactError(f"{path} is damaged: its manifest lacks what it must hold")


def _is_row(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    row = cast("dict[str, Any]", value)
    return row.keys() == _TABLE_ROW.keys() and all(
        type(row[key]) is kind for key, kind in _TABLE_ROW.items()
    )
