"""Where models come from: files, the zoo, ONNX. Nothing that compiles is loaded for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from convdsl import zoo
from convdsl.calling import suggests
from convdsl.diagnostics import InputError, SourceFile, expect
from convdsl.elaborate import elaborate, load_file
from convdsl.elaborate.files import is_file
from convdsl.ir.model import Model
from convdsl.places import kind_of, nothing_at
from convdsl.spelling import nearest


@suggests
def load(source: str | Path, **parameters: Any) -> Model:
    """A model from a path, `path.cnn:model`, or a zoo name, tried in this order.

    `parameters` set the model's own parameters, or bind symbols of its inputs (N, H, ...); of an
    ONNX file `outputs` names the tensors wanted, where not all are. Raises InputError where there
    is no such source, CompileError where it is wrong.
    """
    expect("the model", source, str, Path)
    return _load_path(*found(str(source)), parameters)


def found(text: str) -> tuple[Path, str | None]:
    """The file of a source, and which of its models is meant. Raises InputError."""
    path = Path(text)
    if is_file(path):
        return path, None
    head, colon, name = text.rpartition(":")
    if colon and is_file(Path(head)):
        return Path(head), name
    entry = zoo.find(text)
    if entry is not None:
        return entry.path, entry.model
    raise InputError(_no_source(text))


@suggests
def parse(text: str, **parameters: Any) -> Model:
    """A model from source text. Imports are from the zoo only (`use "zoo:..."`)."""
    expect("the source text", text, str)
    if "\n" not in text and text.strip().lower().endswith(_TEXTS):
        raise InputError(f"{text.strip()} is the name of a file: convdsl.load reads files")
    return elaborate(SourceFile("<text>", text), parameters=parameters, zoo=zoo.folder())


def _load_path(path: Path, model: str | None, parameters: Mapping[str, Any]) -> Model:
    if path.suffix.lower() == ".onnx":
        if model is not None:
            raise InputError(f"{path} holds one model; leave out `:{model}`")
        return load_onnx(path, **parameters)
    refuse_others(path)
    return load_file(path, model=model, parameters=parameters, zoo=zoo.folder())


def load_onnx(path: str | Path, outputs: str | Sequence[str] = (), **parameters: Any) -> Model:
    """The model in an ONNX file, whatever the file's name; its outputs, or the tensors named.
    Raises InputError."""
    names = [outputs] if isinstance(outputs, str) else list(outputs)
    from convdsl.interop.trial import NoModel, Trial  # starting processes is slow to load

    try:
        with Trial(Path(path)) as trial:  # goes on while the package is loaded
            return interop("onnx_load").load(trial, parameters, names)
    except NoModel:
        refuse_others(Path(path))
        raise


_TEXTS = (".cnn", ".onnx")
_LONGEST = 40  # letters of text that is taken for a path
_SHOWN = 3  # files of a folder that are named

_WEIGHTS = {
    b"PK\x03\x04": "an archive of arrays or a checkpoint",
    b"\x93NUMPY": "an array",
    b"\x80\x02": "a checkpoint",
    b"\x89HDF": "an HDF5 archive of arrays",
}
"""How files begin that hold arrays."""

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
"""How images begin."""

_ARTIFACT = ".cdsl"

_OURS = re.compile(rb"^\s*(?:#|convdsl\s+\d|use\b|block\b|model\b|let\b|default\b)", re.MULTILINE)
"""How a line of the language begins, whatever its file is called."""


def refuse_others(path: Path) -> None:
    """InputError where something else than a text stands in the place of a model's: an artifact, a
    file of arrays, an image."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return  # told where it is read
    _refuse_artifact(path, head)
    kinds = [kind for start, kind in _WEIGHTS.items() if head.startswith(start)]
    if head[8:9] == b"{" and b"\0" in head[:8]:
        kinds.append("safetensors")
    if kinds:
        raise InputError(
            f"{path} is no source but {kinds[0]}: name the model, and it with --weights"
        )
    if head.startswith(_IMAGES) and b"\0" in head:
        raise InputError(
            f"{path} is no source but an image: name the model first, as in `convdsl classify"
            f" resnet50 {path.name}`"
        )
    if head.startswith(b"\x7fELF"):
        raise InputError(f"{path} is no source but machine code: programs in C link it")


def _refuse_artifact(path: Path, head: bytes) -> None:
    """InputError for an artifact, and for what only has its name."""
    if not head.startswith(b"\x89") and path.suffix.lower() != _ARTIFACT:
        return  # without loading what reads artifacts
    from convdsl.runtime.artifact import MAGIC

    if head.startswith(MAGIC):
        raise InputError(
            f"{path} is an artifact: it is compiled already, and its text is wanted here (.cnn, "
            ".onnx, a name of the zoo)\nhelp: run, classify, bench, serve, report, check and info "
            "take artifacts; in Python load_executable and Predictor do"
        )
    if path.suffix.lower() == _ARTIFACT and not _OURS.search(head):
        kind = kind_of(path)
        raise InputError(f"{path} is no artifact: it is {kind}; `convdsl compile` writes them")


def _no_source(text: str) -> str:
    if text == "-":
        return "the standard input has no name here: write /dev/stdin, or name a file"
    if text and (folder := folder_instead(text)) is not None:
        return folder
    if "\n" in text or "->" in text:
        first = next((line for line in text.splitlines() if line.strip()), "")[:_LONGEST].strip()
        return f"`{first} ...` is no file: convdsl.parse takes text"
    near = nearest(text, zoo.names())
    if whole := next((f"{text}{e}" for e in _TEXTS if is_file(Path(f"{text}{e}"))), None):
        near = whole  # the file, but for its ending
    if "/" in text or text.lower().endswith((*_TEXTS, _ARTIFACT)):
        path = Path(text)
        kinds = (_ARTIFACT,) if path.suffix.lower() == _ARTIFACT else _TEXTS
        said = nothing_at(text, *kinds)
        known = said.endswith("?") or near is None
        return said if known else f"there is no file {text}; did you mean {near}?"
    hint = f"did you mean {near}?" if near is not None else "`convdsl zoo` lists the shipped models"
    return f"{text} is neither a file nor a model of the zoo; {hint}"


def folder_instead(text: str) -> str | None:
    """What is said of a folder in a file's place, with the files in it that were likely meant."""
    try:
        if not Path(text).is_dir():
            return None
        found = sorted(str(path) for path in Path(text).iterdir() if path.suffix in _TEXTS)
    except (OSError, ValueError):
        return None
    few = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    return f"{text} is a folder; {f'name a file: {few}' if found else 'it holds no .cnn file'}"


def interop(module: str) -> Any:
    """A module that needs the `onnx` package, which is optional and slow to load."""
    try:
        return import_module(f"convdsl.interop.{module}")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise InputError("ONNX files need the package onnx: pip install 'convdsl[onnx]'") from None
