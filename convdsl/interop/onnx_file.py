"""ONNX files from strangers: sizes are checked, parsing is tried out in a child process first,
which runs this module.

External data as ONNX's security page demands: files inside the model's own folder, reached by
no link, offsets and lengths within them.
"""

from __future__ import annotations

import resource
import stat
import sys
from pathlib import Path
from typing import Any, cast

import onnx
from onnx import TensorProto, helper

from convdsl.diagnostics import InputError, reason
from convdsl.interop.onnx_nodes import all_nodes, tensors
from convdsl.interop.trial import SECONDS, Trial

MAX_TENSOR = 1 << 34
"""Bytes that one tensor may declare."""

MOST_NODES = 50_000
"""Nodes of a file, those of branches among them."""

MEMORY_FACTOR, MEMORY_SPARE = 8, 2 << 30
"""The child may allocate so many times the file's size, and so much besides."""

LISTS_NO_MORE = 4
"""The first version of the format in which initialisers need not be inputs."""


def read(trial: Trial) -> tuple[onnx.ModelProto, ExternalData]:
    """A file that is a well-formed model of sane sizes, as its trial says. Raises InputError."""
    trial.wait()
    path = trial.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from None
    return parse(data, str(path)), ExternalData(path.parent)


def parse(data: bytes, source: str) -> onnx.ModelProto:
    """Bytes as a model, its declared sizes checked against what is there."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # noqa: BLE001  protobuf's own errors share no base
        raise InputError(f"{source} is no ONNX model: {error}") from None
    count = sum(1 for _ in all_nodes(proto.graph))
    if count > MOST_NODES:
        raise InputError(f"{source} has {count:,} nodes; at most {MOST_NODES:,} are read")
    for tensor in tensors(proto):
        _check_tensor(tensor, source)
    return proto


def _check_tensor(tensor: onnx.TensorProto, source: str) -> None:
    """A tensor declares no more elements than it holds."""
    total = elements(tensor, source)
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    if tensor.HasField("raw_data"):
        width = _width(tensor.data_type)
        if width and total * width != len(tensor.raw_data):
            raise InputError(
                f"{source}: tensor {tensor.name} declares {total * width} bytes and holds "
                f"{len(tensor.raw_data)}"
            )
        return
    held = max(
        len(tensor.float_data),
        len(tensor.int32_data),
        len(tensor.int64_data),
        len(tensor.double_data),
        len(tensor.uint64_data),
        len(tensor.string_data),
    )
    if tensor.data_type and total > 2 * held:
        raise InputError(f"{source}: tensor {tensor.name} declares {total} elements, holds {held}")


def unlisted(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Initialisers that are no inputs in a file so old that they had to be (before IR 4)."""
    listed = {info.name for info in proto.graph.input}
    old = proto.ir_version < LISTS_NO_MORE
    return [tensor for tensor in proto.graph.initializer if old and tensor.name not in listed]


def elements(tensor: onnx.TensorProto, source: str) -> int:
    """How many elements a stored tensor declares. Raises InputError for a negative axis."""
    total = 1
    for size in tensor.dims:
        if size < 0:
            raise InputError(f"{source}: tensor {tensor.name} has an axis of size {size}")
        total *= size
    if total > MAX_TENSOR:
        raise InputError(f"{source}: tensor {tensor.name} declares {total} elements, too many")
    return total


def _width(data_type: int) -> int:
    """Bytes of an element; 0 for types that are packed or no numbers."""
    numeric = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
    return numeric.get(data_type, 0)


class ExternalData:
    """Tensors whose bytes lie in files beside the model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.blobs = _blobs(self.folder)

    def resolve(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """The tensor with its data inside. Raises InputError."""
        facts = {entry.key: entry.value for entry in tensor.external_data}
        location = facts.get("location", "")
        name = f"the external data of {tensor.name}"
        path = self._contained(location, name)
        try:
            offset, length = int(facts.get("offset") or 0), int(facts.get("length") or -1)
        except ValueError:
            raise InputError(f"{name}: offset and length are no numbers") from None
        declared = elements(tensor, location) * _width(tensor.data_type)
        length = declared if length < 0 else length
        size = path.stat().st_size
        if length != declared or offset < 0 or offset + length > size:
            raise InputError(
                f"{name} should be {declared} bytes at {offset} of {location}, which has {size}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(length)
        return helper.make_tensor(tensor.name, tensor.data_type, list(tensor.dims), raw, raw=True)

    def _contained(self, location: str, name: str) -> Path:
        """A plain file in the model's folder that no link leads to, but for those of a cache."""
        if not location or "\0" in location or Path(location).is_absolute():
            raise InputError(f"{name}: {location!r} is no relative path")
        path = self.folder
        for part in Path(location).parts:
            if part == "..":
                raise InputError(f"{name}: {location} leads out of the model's folder")
            path = path / part
            if path.is_symlink():
                path = self._blob(path, f"{name}: {location} is a link")
        if not path.exists():
            raise InputError(f"{name}: there is no file {location} in the model's folder")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise InputError(f"{name}: {location} is no plain file of its own")
        return path

    def _blob(self, link: Path, objection: str) -> Path:
        """The file in the cache's own store that a link of a snapshot leads to."""
        try:
            path = link.resolve(strict=True)
        except (OSError, RuntimeError):
            raise InputError(objection) from None
        if self.blobs is None or path.parent != self.blobs:
            raise InputError(objection)
        return path


def _blobs(folder: Path) -> Path | None:
    """Hugging Face's cache has `snapshots/REVISION/..` full of links to `blobs/HASH` beside."""
    for place in folder.parents:
        if place.name == "snapshots" and (place.parent / "blobs").is_dir():
            return place.parent / "blobs"
    return None


# The child process


def main(arguments: list[str]) -> int:
    """The child: parse and check one file under limits; 1 and a reason if it is malformed."""
    path, size = Path(arguments[0]), int(arguments[1])
    memory = MEMORY_FACTOR * size + MEMORY_SPARE
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        proto = parse(path.read_bytes(), path.name)
        for tensor in tensors(proto):
            if tensor.data_location == TensorProto.EXTERNAL:  # checked when it is read
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                tensor.ClearField("dims")
                tensor.dims.append(0)
        for tensor in unlisted(proto):  # harmless, and onnxruntime runs them
            proto.graph.input.add().CopyFrom(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        _without_pedantry(proto)
        cast(Any, onnx.checker).check_model(proto, full_check=False)
    except Exception as error:  # noqa: BLE001  whatever it is, it is the file's fault
        sys.stdout.write(str(error).strip()[:2000])
        return 1
    return 0


def _without_pedantry(proto: onnx.ModelProto) -> None:
    """Sets right what the checker refuses and onnxruntime runs, or what is refused by name later:
    ports whose shape is not said, and the first GroupNormalization, deprecated from its birth."""
    for info in (*proto.graph.input, *proto.graph.output):
        if info.type.WhichOneof("value") in (None, "tensor_type"):
            type = info.type.tensor_type
            type.elem_type = type.elem_type or TensorProto.FLOAT
            type.shape.SetInParent()
    deprecated = [n for n in all_nodes(proto.graph) if n.op_type == "GroupNormalization"]
    for node in deprecated:
        node.domain = _UNCHECKED
    if deprecated:
        proto.opset_import.add(domain=_UNCHECKED, version=1)


_UNCHECKED = "convdsl.unchecked"
"""A domain of which the checker knows no kinds."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
