"""safetensors files, read by the official library: mapped, and tensor by tensor.

It is loaded with the first such file: a machine without it reads no such files, and does all else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import WeightError
from convdsl.tensor.conversion import widen_bf16
from convdsl.weights.store import BFLOAT16, MAX_ENTRIES, Entry, WeightStore
from convdsl.weights.trained import TRAINED, Trained

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": BFLOAT16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


LABELS = "convdsl.labels"
"""What names of classes are called in a file's metadata: a JSON list."""


class SafetensorsFile(WeightStore):
    """A safetensors file. The library checks the header: offsets in bounds, without holes."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        super().__init__(str(path))
        self._path = path
        try:
            self._file = safe_open(str(path), framework="np")
            names = self._file.keys()
            if len(names) > MAX_ENTRIES:
                raise WeightError(f"{path} holds {len(names)} tensors, at most {MAX_ENTRIES}")
            self._entries = {name: self._entry(name) for name in names}
        except (SafetensorError, OSError) as error:
            why = "it is cut short" if "not fully covered" in str(error) else error
            raise WeightError(f"{path} is not a sound safetensors file: {why}") from None

    def _entry(self, name: str) -> Entry:
        header = self._file.get_slice(name)
        code: str = header.get_dtype()
        return Entry(tuple(header.get_shape()), DTYPES.get(code, code))

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def read(self, name: str) -> NDArray[Any]:
        from safetensors import SafetensorError

        entry = self._entries[name]
        if entry.dtype == BFLOAT16:
            return self._read_bfloat16(name, entry.shape)
        if entry.dtype not in DTYPES.values():
            raise WeightError(f"{name} in {self.source} holds {entry.dtype}, which is unsupported")
        try:
            return self._file.get_tensor(name)
        except SafetensorError as error:
            raise WeightError(f"cannot read {name} from {self.source}: {error}") from None

    def _read_bfloat16(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        # The library hands bfloat16 to NumPy only with ml_dtypes; the checked header says where.
        with self._path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            start, end = json.loads(file.read(length))[name]["data_offsets"]
            file.seek(8 + length + start)
            raw = np.frombuffer(file.read(end - start), dtype="<u2")
        return widen_bf16(raw).reshape(shape)

    @property
    def labels(self) -> tuple[str, ...] | None:
        try:
            found: object = json.loads(self.metadata[LABELS])
        except (KeyError, ValueError):
            return None
        items = cast("list[object]", found) if isinstance(found, list) else []
        return tuple(str(item) for item in items) or None

    @property
    def trained(self) -> Trained:
        return Trained.from_text(self.metadata.get(TRAINED))

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says besides its tensors."""
        return self._file.metadata() or {}
