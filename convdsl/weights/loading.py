"""Find out what kind of weights something is, by content and never by name, and open it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from convdsl.calling import suggests
from convdsl.diagnostics import WeightError
from convdsl.places import kind_of
from convdsl.weights.checkpoint import CheckpointFile, looks_like_legacy
from convdsl.weights.initialisers import RandomWeights
from convdsl.weights.npz_file import NpzFile
from convdsl.weights.safetensors_file import SafetensorsFile
from convdsl.weights.store import ArrayStore, WeightStore, regular_file, shown

RANDOM = "random:"


class UnknownFormat(WeightError):
    """A file of which nothing here knows the format."""


@suggests
def load(source: Any, key: str | None = None) -> WeightStore | RandomWeights:
    """Open weights: a safetensors, .npz or PyTorch checkpoint file, `random:SEED`, arrays by name,
    or what is open already. `key` says where in a checkpoint the state dict is, by keys joined by
    dots.

    Nothing but names, shapes and types is read yet. Raises WeightError.
    """
    is_file = isinstance(source, Path) or (isinstance(source, str) and source[:7] != RANDOM)
    if key is not None and not is_file:
        raise WeightError(f"only checkpoints have keys; there is no {shown(str(key))} here")
    if isinstance(source, WeightStore | RandomWeights):
        return source
    if isinstance(source, Mapping):
        return ArrayStore(cast("Mapping[str, Any]", source))
    if isinstance(source, str | Path):
        return _open(Path(source), key) if is_file else RandomWeights(_seed(str(source)))
    raise WeightError(
        f"weights are a file, random:SEED or arrays by name, not a {type(source).__name__}"  # pyright: ignore[reportUnknownArgumentType]
    )


def _seed(spec: str) -> int:
    text = spec.removeprefix(RANDOM)
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise WeightError(
            f"{spec!r}: the seed must be a whole number from 0 to 2**64 - 1\nhelp: write random:0, "
            "or any other number: the same one gives the same weights"
        )
    return int(text)


def _open(path: Path, key: str | None) -> WeightStore:
    store = _by_content(path, key)
    if key is not None and not isinstance(store, CheckpointFile):
        raise WeightError(f"{path} is no checkpoint: it has no keys to choose {shown(key)} from")
    return store


def _by_content(path: Path, key: str | None) -> WeightStore:
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightError(f"cannot read the weights {path}: {error.strerror}") from None
    if head.startswith(b"PK"):
        return _open_archive(path, key)
    if looks_like_legacy(head):
        return CheckpointFile.legacy(path, key)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return SafetensorsFile(path)
    if not size:
        raise WeightError(f"{path} is empty")
    kind = kind_of(path)
    read = "read are safetensors, .npz and PyTorch checkpoint files"
    text = f"{path} holds no weights: it is {kind}; {read}"
    if head.startswith(b"\x89CDSL"):
        text = f"{path} is an artifact: its weights are in its code, laid out for one processor"
        text += "\nhelp: give the weights that it was compiled with"
    if head.startswith(b"\x93NUMPY"):
        text += "\nhelp: weights have names: np.savez(file, **{'layer.weight': array, ...})"
    if path.suffix == ".cnn":
        text += "\nhelp: a model stands first, weights behind `--weights`: FILE, or random:SEED"
    if path.suffix == ".onnx":
        text += f"\nhelp: `convdsl import {path.name}` writes its text, and its weights beside it"
    raise UnknownFormat(text)


def _open_archive(path: Path, key: str | None) -> WeightStore:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        cut = "it is cut short" if "not a zip file" in str(error) else error
        raise WeightError(f"{path} is a damaged archive: {cut}") from None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return CheckpointFile.archive(path, key)
    return NpzFile(path)
