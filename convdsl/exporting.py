"""Networks for other software, and other software's as text."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from convdsl import __version__
from convdsl.bound import bind_weights_of
from convdsl.calling import suggests
from convdsl.diagnostics import CompileError, InputError, expect
from convdsl.ir.alike import outputs_differ
from convdsl.ir.model import Model
from convdsl.loading import interop, load, load_onnx, parse
from convdsl.places import check_name
from convdsl.runtime.whole_files import write_whole

EXPORTS = ("onnx", "pytorch")
_ENDS = {"onnx": ".onnx", "pytorch": ".py"}
"""What `export` can write."""


@suggests
def export(
    model: Model | str | Path,
    weights: Any = None,
    path: str | Path | None = None,
    *,
    to: str = "onnx",
    **parameters: Any,
) -> bytes:
    """The network for other software, written to `path` (whole or not at all) and returned.

    to: `onnx`, an ONNX model with its weights; `pytorch`, the source of an nn.Module, whose
    state dict has the model's own keys (and which needs no weights). Raises convdsl.Error.
    """
    if to not in EXPORTS:
        raise InputError(f"nothing is exported to {to}; there are {', '.join(EXPORTS)}")
    expect("the path", path, str, Path, NoneType)
    if path is None and str(weights).lower().endswith(tuple(_ENDS.values())):
        raise InputError(
            f"{weights} is called like what is written: export(model, weights, path), weights first"
        )
    if path is not None:
        check_name("a model for other software", Path(path), _ENDS[to], is_said=True)
    model = model if isinstance(model, Model) else load(model, **parameters)
    model = _unchanging(model.settled({}))
    if to == "onnx":
        arrays = bind_weights_of(model, weights)
        proto = interop("onnx_export").export(model, arrays, __version__)
        data: bytes = proto.SerializeToString(deterministic=True)
    else:
        data = import_module("convdsl.interop.pytorch_source").source(model).encode()
    if path is not None:
        try:
            write_whole(Path(path), [data])
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            reason = error.strerror if isinstance(error, OSError) else None
            raise InputError(f"cannot write {path}: {reason or error}") from None
    return data


def _unchanging(model: Model) -> Model:
    """The model, if all its states stay as they are: InputError otherwise."""
    for key in model.graph.updates:
        raise InputError(f"{model.name} replaces its state {key} with every call: only convdsl can")
    return model


class Translation(NamedTuple):
    """A network as `.cnn` text, its weights as a safetensors file, and what the text loads as."""

    text: str
    weights: bytes
    model: Model


def translate(
    model: Model | str | Path, labels: str | None = None, **parameters: Any
) -> tuple[str, bytes]:
    """An ONNX file as `.cnn` text, and its weights as a safetensors file. `labels` names the file,
    beside the text, that will hold the class names. Raises InputError."""
    made = translation(model, labels, **parameters)
    return made.text, made.weights


def translation(
    model: Model | str | Path, labels: str | None = None, **parameters: Any
) -> Translation:
    """See `translate`."""
    model = model if isinstance(model, Model) else load_onnx(model, **parameters)
    writer = import_module("convdsl.interop.cnn_source")
    model = _unchanging(model.settled({}))
    text, weights = writer.source(model, labels)
    again = _read_back(writer.said(model), writer.source(model)[0] if labels else text)
    return Translation(text, import_module("safetensors.numpy").save(weights), again)


def _read_back(model: Model, text: str) -> Model:
    """What the text says, which is the network: InputError where it does not load, or loads as
    another one."""
    try:
        again = parse(text)
    except CompileError as error:
        raise InputError(f"{model.name} cannot be said in .cnn text: {error}") from None
    difference = outputs_differ(model.graph, again.graph)
    if difference is not None:
        raise InputError(f"{model.name} cannot be said in .cnn text: {difference}")
    return again
