"""Find out what kind of weights something is, by content and never by name, and open it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convdsl.diagnostics import WeightError
from convdsl.weights.checkpoint import CheckpointFile, looks_like_legacy
from convdsl.weights.initialisers import RandomWeights
from convdsl.weights.npz_file import NpzFile
from convdsl.weights.safetensors_file import SafetensorsFile
from convdsl.weights.store import ArrayStore, WeightStore, regular_file

RANDOM = "random:"


def load(source: str | Path | Mapping[str, Any]) -> WeightStore | RandomWeights:
    """Open weights: a safetensors, .npz or PyTorch checkpoint file, `random:SEED`, or arrays.

    Nothing but names, shapes and types is read yet. Raises WeightError.
    """
    if isinstance(source, Mapping):
        return ArrayStore(source)
    if isinstance(source, str) and source.startswith(RANDOM):
        return RandomWeights(_seed(source))
    return _open(Path(source))


def _seed(spec: str) -> int:
    text = spec.removeprefix(RANDOM)
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise WeightError(f"{spec!r}: the seed must be a whole number from 0 to 2**64 - 1")
    return int(text)


def _open(path: Path) -> WeightStore:
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightError(f"cannot read the weights {path}: {error.strerror}") from None
    if head.startswith(b"PK"):
        return _open_archive(path)
    if looks_like_legacy(head):
        return CheckpointFile.legacy(path)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return SafetensorsFile(path)
    raise WeightError(
        f"{path} is in no known format; weights are read from safetensors, .npz and"
        " PyTorch checkpoint files"
    )


def _open_archive(path: Path) -> WeightStore:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightError(f"{path} is a damaged archive: {error}") from None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return CheckpointFile.archive(path)
    return NpzFile(path)
