"""PyTorch checkpoint files, and hostile variants of them, made without PyTorch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

STORAGE = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 1 << 31 else _long(value)


def _long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


EMPTY = name("collections", "OrderedDict") + b")R"


def tensor(
    key: str,
    kind: str,
    elements: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    offset: int = 0,
    legacy: bool = False,
) -> bytes:
    """Opcodes of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, {})."""
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu")
    storage += number(elements) + (b"N" if legacy else b"") + b"tQ"
    arguments = storage + number(offset) + sizes(shape) + sizes(stride) + b"\x89" + EMPTY
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def mapping(items: Mapping[str, bytes]) -> bytes:
    return EMPTY + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickle(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def _strides(array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(step // array.itemsize for step in array.strides)


def state_dict(arrays: Mapping[str, np.ndarray[Any, Any]], legacy: bool = False) -> bytes:
    return mapping(
        {
            key: tensor(
                str(index), STORAGE[a.dtype.name], a.size, a.shape, _strides(a), legacy=legacy
            )
            for index, (key, a) in enumerate(arrays.items())
        }
    )


def archive(body: bytes, storages: Mapping[str, bytes], compress: bool = False) -> bytes:
    """The zip format around a pickle's body."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", pickle(body))
        file.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def zipped(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    storages = {str(i): a.tobytes(order="A") for i, a in enumerate(arrays.values())}
    return archive(state_dict(arrays), storages)


def legacy(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The format before 1.6: three header pickles, the state dict, the keys, the storages."""
    system = b"}" + text("little_endian") + b"\x88s"
    data = pickle(_long(0x1950A86A20F9469CFC6C)) + pickle(number(1001)) + pickle(system)
    data += pickle(state_dict(arrays, legacy=True))
    data += pickle(b"](" + b"".join(text(str(i)) for i in range(len(arrays))) + b"e")
    for array in arrays.values():
        data += struct.pack("<q", array.size) + array.tobytes(order="A")
    return data
