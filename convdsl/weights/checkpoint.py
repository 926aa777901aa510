"""PyTorch checkpoints without PyTorch: the state dict, and nothing that runs.

Both formats of `torch.save`: the zip archive (since 1.6), whose member `data.pkl` refers to
storages in `data/KEY`, and the older one, a row of pickles followed by the storages. The
file is mapped; tensors are views of it.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from convdsl.diagnostics import WeightError
from convdsl.tensor.conversion import widen_bf16
from convdsl.weights import pickles
from convdsl.weights.pickles import Inert, Name
from convdsl.weights.store import (
    BFLOAT16,
    MAX_ENTRIES,
    Entry,
    WeightStore,
    shown,
)

MAX_PICKLE_BYTES = 16 << 20
"""Largest `data.pkl`, or run of pickles at the head of the older format."""

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict when they save more than it."""

_NUMPY = ("core.multiarray.scalar", "core.multiarray._reconstruct", "dtype", "ndarray")

PASSED_OVER = frozenset(
    {
        *("argparse.Namespace", "types.SimpleNamespace", "_codecs.encode", "torch.device"),
        *("collections.defaultdict", "collections.Counter", "datetime.datetime"),
        *("pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath"),
        *("builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset"),
        *(f"numpy.{name}" for name in _NUMPY),
        *(f"numpy._{name}" for name in _NUMPY[:2]),
    }
)
"""What training scripts save beside the state dict: nothing is built of it."""

MAX_RANK = 32
"""Dimensions of a tensor."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEAD = b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little") + b"."


def looks_like_legacy(head: bytes) -> bool:
    """Whether a file begins as PyTorch's did before its zip files."""
    return head[:1] == b"\x80" and head[2 : 2 + len(_LEGACY_HEAD)] == _LEGACY_HEAD


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat run of elements, by key."""

    key: str
    dtype: str
    elements: int

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided window of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class CheckpointFile(WeightStore):
    """The tensors of a checkpoint."""

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        locate: Callable[[Storage], memoryview],
    ) -> None:
        super().__init__(str(path))
        self._tensors = tensors
        self._locate = locate

    @classmethod
    def archive(cls, path: Path, key: str | None = None) -> CheckpointFile:
        """Open the zip format; `key` is where the state dict is."""
        with _Blame(path):
            mapped = _map(path)
            members, prefix = _archive_members(path)
            member = members[f"{prefix}data.pkl"]
            if member.file_size > MAX_PICKLE_BYTES:
                raise WeightError(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
            loaded = _Builder().load(BytesIO(_stored(mapped, member)))
            order = members.get(f"{prefix}byteorder")
            if order is not None and bytes(_stored(mapped, order)) != b"little":
                raise WeightError("it was written on a big-endian machine")

            def locate(storage: Storage) -> memoryview:
                found = members.get(f"{prefix}data/{storage.key}")
                if found is None:
                    raise WeightError(f"the storage {shown(storage.key)} is missing")
                data = _stored(mapped, found)
                if len(data) != storage.bytes:
                    raise WeightError(
                        f"the storage {shown(storage.key)} declares {storage.bytes} bytes"
                        f" and brings {len(data)}"
                    )
                return data

            return cls(path, _state_dict(loaded, key), locate)

    @classmethod
    def legacy(cls, path: Path, key: str | None = None) -> CheckpointFile:
        """Open the format of `torch.save` before 1.6."""
        with _Blame(path):
            mapped = _map(path)
            head = BytesIO(mapped[:MAX_PICKLE_BYTES])
            builder = _Builder()
            magic, version, system = (builder.load(head) for _ in range(3))
            if magic != _LEGACY_MAGIC or version != 1001 or not isinstance(system, dict):
                raise WeightError("its header is damaged")
            if cast("dict[Any, Any]", system).get("little_endian") is not True:
                raise WeightError("it was written on a big-endian machine")
            tensors = _state_dict(builder.load(head), key)
            keys = builder.load(head)
            places = _legacy_places(mapped, head.tell(), keys, builder.storages)

            def locate(storage: Storage) -> memoryview:
                return places[storage.key]

            return cls(path, tensors, locate)

    @property
    def entries(self) -> Mapping[str, Entry]:
        return {name: Entry(t.shape, t.storage.dtype) for name, t in self._tensors.items()}

    def read(self, name: str) -> NDArray[Any]:
        tensor = self._tensors[name]
        storage = tensor.storage
        with _Blame(Path(self.source)):
            data = self._locate(storage)
        flat: NDArray[Any] = np.frombuffer(
            data, "<u2" if storage.dtype == BFLOAT16 else np.dtype(storage.dtype)
        )
        strides = tuple(step * flat.itemsize for step in tensor.stride)
        view = as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return widen_bf16(view) if storage.dtype == BFLOAT16 else view


class _Blame:
    """Adds the file's name to what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WeightError):
            raise WeightError(f"cannot read the checkpoint {self._path}: {error}") from None
        if isinstance(error, OSError | zipfile.BadZipFile | NotImplementedError | ValueError):
            raise WeightError(f"the checkpoint {self._path} is damaged: {error}") from None


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


# The zip format


def _archive_members(path: Path) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The archive's members by name, and the folder that they are in."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    pickle = min((name for name in members if name.endswith("data.pkl")), key=len)
    prefix = pickle.removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise WeightError("it is a TorchScript program; save the state dict of the module")
    return members, prefix


def _stored(mapped: memoryview, member: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed member, its checksum verified."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise WeightError(f"{shown(member.filename)} is compressed, which PyTorch does not do")
    start = member.header_offset
    header = bytes(mapped[start : start + 30])
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise WeightError(f"{shown(member.filename)} has no header where one should be")
    name_length, extra_length = struct.unpack("<HH", header[26:])
    start += 30 + name_length + extra_length
    data = mapped[start : start + member.file_size]
    if len(data) != member.file_size:
        raise WeightError(f"{shown(member.filename)} reaches beyond the end of the file")
    if zlib.crc32(data) != member.CRC:
        raise WeightError(f"the checksum of {shown(member.filename)} does not match: it is damaged")
    return data


# The older format


def _legacy_places(
    mapped: memoryview, start: int, keys: Any, storages: Mapping[str, Storage]
) -> dict[str, memoryview]:
    """Where each storage's elements lie: an element count, then the elements, key by key."""
    if not isinstance(keys, list):
        raise WeightError("its list of storages is damaged")
    places: dict[str, memoryview] = {}
    for key in cast("list[Any]", keys):
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places:
            raise WeightError("its list of storages does not fit its tensors")
        count = int.from_bytes(mapped[start : start + 8], "little", signed=True)
        data = mapped[start + 8 : start + 8 + storage.bytes]
        if count != storage.elements or len(data) != storage.bytes:
            raise WeightError(f"the storage {shown(key)} is cut short")
        places[key] = data
        start += 8 + storage.bytes
    if len(places) != len(storages):
        raise WeightError("its list of storages does not fit its tensors")
    if start != len(mapped):
        raise WeightError(f"{len(mapped) - start} bytes follow the last storage")
    return places


# The pickles


class _Builder:
    """The few calls that a state dict makes. Keeps the storages that it met."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._pairs = 0

    def load(self, file: BytesIO) -> Any:
        return pickles.load(file, self.reduce, self.persistent)

    def reduce(self, callee: Name, arguments: tuple[Any, ...]) -> Any:
        """Stands in for calling `callee`. Long argument lists are refused before they are read."""
        if len(arguments) <= 8:
            match f"{callee.module}.{callee.name}", arguments:
                case "collections.OrderedDict", ():
                    return cast("dict[Any, Any]", {})
                case "collections.OrderedDict", (list(),):
                    return self.ordered_dict(cast("list[Any]", arguments[0]))
                case "torch._utils._rebuild_tensor_v2", (storage, offset, shape, stride, *_):
                    return _rebuild_tensor(storage, offset, shape, stride)
                case "torch._utils._rebuild_parameter", (Tensor() as tensor, *_):
                    return tensor
                case "torch.Size", (tuple(),):
                    return cast("tuple[Any, ...]", arguments[0])
                case _:
                    pass
        if str(callee) in PASSED_OVER:
            return Inert()
        raise _refused(callee)

    def ordered_dict(self, pairs: list[Any]) -> dict[Any, Any]:
        """OrderedDict([[key, value], ...]), as Python 2 pickled it. Pairs are counted, as one
        list may be used again and again."""
        self._pairs += len(pairs)
        if self._pairs > MAX_ENTRIES:
            raise WeightError(f"it holds more than {MAX_ENTRIES} pairs")
        return pickles.paired([item for pair in pairs for item in _pair(pair)])

    def persistent(self, identity: tuple[Any, ...]) -> Storage:
        """("storage", class, key, device, elements), in the older format with a view or None."""
        match identity[:7]:
            case ("storage", Name("torch", kind), str(key), str(), count) | (
                "storage",
                Name("torch", kind),
                str(key),
                str(),
                count,
                None,
            ) if type(count) is int and count >= 0:
                if kind not in STORAGES:
                    raise WeightError(f"it holds a torch.{shown(kind)}, which is unsupported")
                storage = Storage(key, STORAGES[kind], count)
                if self.storages.setdefault(key, storage) != storage:
                    raise WeightError(f"it describes the storage {shown(key)} in two ways")
                return storage
            case ("module", Name() as module, *_):
                raise _refused(module)
            case _:
                raise WeightError("it refers to a storage in an unknown way")


def _refused(name: Name) -> WeightError:
    return WeightError(
        f"it asks for {name}, which is not built here; save the state dict alone:"
        " torch.save(model.state_dict(), path)"
    )


def _pair(value: Any) -> tuple[Any, ...] | list[Any]:
    if not isinstance(value, tuple | list):
        raise WeightError("its pickle is damaged (pairs expected)")
    pair = cast("tuple[Any, ...] | list[Any]", value)
    if len(pair) != 2:
        raise WeightError("its pickle is damaged (pairs expected)")
    return pair


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Tensor:
    if not (
        isinstance(storage, Storage)
        and _is_sizes((offset,))
        and _is_sizes(shape)
        and _is_sizes(stride)
        and len(shape) == len(stride)
    ):
        raise WeightError("a tensor is described in an unknown way")
    if 0 not in shape:
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if last >= storage.elements:
            raise WeightError("a tensor reaches beyond the end of its storage")
    elif offset > storage.elements:
        raise WeightError("a tensor begins beyond the end of its storage")
    return Tensor(storage, offset, shape, stride)


def _is_sizes(value: Any) -> TypeGuard[tuple[int, ...]]:
    if not isinstance(value, tuple):
        return False
    sizes = cast("tuple[Any, ...]", value)
    return len(sizes) <= MAX_RANK and all(type(n) is int and 0 <= n < 1 << 48 for n in sizes)


def _state_dict(loaded: Any, key: str | None) -> dict[str, Tensor]:
    """The state dict in what was loaded: at the key given, or the whole, or under a usual key."""
    if not isinstance(loaded, dict):
        raise WeightError("it holds no state dict")
    outer = cast("dict[Any, Any]", loaded)
    if key is not None:
        tensors = _tensors(_at(outer, key))
        if not tensors:
            raise WeightError(f"there is no state dict at {shown(key)}{_choice(outer)}")
        return tensors
    for candidate in (outer, *(outer.get(key) for key in STATE_KEYS)):
        tensors = _tensors(candidate)
        if tensors:
            return tensors
    keys = ", ".join(shown(str(key)) for key in list(outer)[:8])
    raise WeightError(f"it holds no state dict; its keys begin {keys}{_choice(outer)}")


def _tensors(candidate: Any) -> dict[str, Tensor]:
    """The tensors of a state dict; what is plain data beside them is passed over. Nothing if it
    holds anything else."""
    if not isinstance(candidate, dict):
        return {}
    entries = cast("dict[Any, Any]", candidate)
    tensors = {k: v for k, v in entries.items() if isinstance(v, Tensor)}
    others = (v for v in entries.values() if not isinstance(v, Tensor))
    if not all(type(k) is str for k in tensors) or any(isinstance(v, dict | list) for v in others):
        return {}
    if len(tensors) > MAX_ENTRIES:
        raise WeightError(f"it holds {len(tensors)} tensors, at most {MAX_ENTRIES}")
    return tensors


def _at(outer: dict[Any, Any], key: str) -> Any:
    """What lies at a key, or at keys joined by dots."""
    if key in outer:
        return outer[key]
    found: Any = outer
    for part in key.split("."):
        found = cast("dict[Any, Any]", found).get(part) if isinstance(found, dict) else None
    return found


def _choice(outer: dict[Any, Any]) -> str:
    """The keys that state dicts are at."""
    keys = [k for k, v in outer.items() if isinstance(k, str) and _tensors(v)]
    inner = [
        f"{k}.{deeper}"
        for k, v in outer.items()
        if isinstance(k, str) and isinstance(v, dict)
        for deeper, value in cast("dict[Any, Any]", v).items()
        if isinstance(deeper, str) and _tensors(value)
    ]
    found = ", ".join(map(shown, (keys + inner)[:8]))
    return f"; state dicts are at the keys {found}" if found else ""
