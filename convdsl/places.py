"""What stands at a path: what a file is, by how it begins; what was likely meant where there is
none; and names that promise another kind than would be written."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from convdsl.diagnostics import InputError
from convdsl.spelling import nearest

_READ = 512
_LISTED = 1_000
"""Bytes of a file, and names of a folder, that are looked at."""

_LFS = "a pointer of Git LFS: `git lfs pull` fetches the file itself"

_BEGINNINGS = (
    (b"version https://git-lfs", _LFS),
    (b"\x89CDSL", "an artifact of convdsl"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF", "an HDF5 archive"),
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"GIF8", "an image (GIF)"),
    (b"\x7fELF", "machine code"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"SQLite format 3", "a database"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_ONNX = re.compile(rb"\x08[\x01-\x20](?:[\x12\x1a\x22\x28\x32\x3a\x42]|\Z)")  # the IR's version
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|\?xml|head)", re.IGNORECASE)


def kind_of(path: Path) -> str:
    """What a path leads to, as a predicate: `empty`, `a text`, `an HTML page`."""
    try:
        if path.is_dir():
            return "a folder"
        if not path.is_file():
            return "no plain file" if path.exists() else "not there"
        with path.open("rb") as file:
            head = file.read(_READ)
    except (OSError, ValueError):
        return "a file that cannot be read"
    return _kind_of_bytes(head)


def _kind_of_bytes(head: bytes) -> str:
    if not head:
        return "empty"
    for start, kind in _BEGINNINGS:
        if head.startswith(start):
            return kind
    if head.startswith(b"PK"):
        return "an archive: an .npz, or a PyTorch checkpoint" if b".np" in head else "an archive"
    if head[8:9] == b"{" and b"\0" in head[:8]:
        return "a safetensors file"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if _PAGE.match(head):
        return "a web page, as a download that failed leaves it"
    if _PICKLE.match(head):
        return "a pickle"
    if _ONNX.match(head):
        return "an ONNX model"
    return _plain_kind(head)


def _plain_kind(head: bytes) -> str:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a letter may be cut by the end of what was read
            return "of no kind that is known here"
        text = head[: error.start].decode()
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return "of no kind that is known here"
    return "JSON" if text.lstrip()[:1] in ("{", "[") else "a text"


def nothing_at(path: str | Path, *endings: str, said: str | None = None) -> str:
    """What is said where nothing is at a path: the folder that is missing, or the file or folder
    beside it (ending so) that was likely meant."""
    place = Path(path)
    said = f"there is no file {path}" if said is None else said
    try:
        if not place.parent.is_dir():
            missing = next((p for p in reversed(place.parents) if not p.is_dir()), place.parent)
            return f"{said}: {missing} is {'no folder' if missing.exists() else 'not there'}"
        with os.scandir(place.parent) as found:
            names = [entry.name for entry in islice(found, _LISTED)]
    except (OSError, ValueError):
        return said
    chosen = [name for name in names if not endings or name.lower().endswith(endings)]
    same = [n for n in chosen if n.startswith(f"{place.name}.")]  # but for its ending
    near = same[0] if len(same) == 1 else nearest(place.name, chosen)
    return said if near is None else f"{said}; did you mean {place.with_name(near)}?"


# Names

_ENDS = {
    ".cnn": "a network",
    ".onnx": "an ONNX model",
    ".cdsl": "an artifact",
    ".safetensors": "weights",
    ".pt": "a checkpoint",
    ".pth": "a checkpoint",
    ".npy": "an array",
    ".npz": "arrays",
    ".tflite": "a model of LiteRT",
    ".pb": "a model of TensorFlow",
    ".h5": "a model of Keras",
    ".keras": "a model of Keras",
    ".mlmodel": "a model of Core ML",
    ".engine": "a model of TensorRT",
    ".plan": "a model of TensorRT",
}


_OTHER_ENDS = {
    ".txt": "a text",
    ".md": "a text",
    ".log": "a text",
    ".json": "JSON",
    ".csv": "a table",
    ".tsv": "a table",
    ".toml": "settings",
    ".yaml": "settings",
    ".yml": "settings",
    ".py": "a program",
    ".ipynb": "a notebook",
    ".html": "a page",
    ".pdf": "a document",
    ".svg": "an image",
    ".png": "an image",
    ".jpg": "an image",
    ".jpeg": "an image",
    ".zip": "an archive",
    ".tar": "an archive",
    ".gz": "an archive",
    ".so": "a library",
    ".dll": "a library of Windows",
    ".dylib": "a library of macOS",
}


def check_name(what: str, path: Path, *ends: str, is_said: bool = False) -> None:
    """InputError where a name says that something else is there, which would be lost: a network,
    weights, data; and, of what has an ending of its own, where it has that of another kind, unless
    the kind `is_said` beside the name."""
    end = path.suffix.lower()
    known = _ENDS | _OTHER_ENDS if ends and not is_said else _ENDS
    if end in known and end not in ends:
        other = f"; end it with {ends[0]}" if ends else ""
        raise InputError(f"{path} is called like {known[end]}, and {what} would be written{other}")
